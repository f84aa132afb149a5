"""The classes that are painted: names, colours, keys, and every change undoable.

Nothing here knows Qt or napari, so all of it is tested as plain values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_CLASSES = 8

# Okabe and Ito's palette (distinct to colour-blind eyes), its black replaced. Background is first;
# yellow comes next, since it is seen on stained tissue as well as on grey images.
PALETTE = (
    "#56b4e9",
    "#f0e442",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#d55e00",
    "#0072b2",
    "#a6761d",
)
# What a class's map is shown in: not the colour of its strokes, or they could not be told apart.
MAP_COLORS = dict(
    zip(
        PALETTE,
        (
            "#a9daf5",
            "#ff5fd2",
            "#35d0e0",
            "#a98bff",
            "#ff8a5c",
            "#ff5c5c",
            "#6f8cff",
            "#d9bd8a",
        ),
        strict=True,
    )
)
ENHANCED_COLOR = "#2dff8f"
"""What the enhanced map is shown in, whatever class it is of."""
# Letters of the left hand that napari leaves free in a Labels layer (a test compares).
CLASS_KEYS = ("Q", "W", "R", "T", "A", "S", "D", "G")


@dataclass(frozen=True)
class PaintClass:
    """One class; its place in the list is its index k, its stroke id is k + 1."""

    name: str
    color: str
    """Hexadecimal, such as ``#e69f00``."""
    key: str
    """The key that selects it for painting, such as ``W``."""

    @property
    def map_color(self) -> str:
        """What its map is shown in: a partner from the palette, or a lighter shade."""
        known = MAP_COLORS.get(self.color.lower())
        return known or lighter(self.color)


def lighter(color: str) -> str:
    """Return a hexadecimal colour half way to white."""
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{(part + 255) // 2:02x}" for part in parts)


@dataclass(frozen=True)
class ClassList:
    """An immutable list of 2 to 8 classes, background first.

    Every change returns a new list, so that undoing is taking an old one back.
    """

    items: tuple[PaintClass, ...] = (
        PaintClass("background", PALETTE[0], CLASS_KEYS[0]),
        PaintClass("foreground", PALETTE[1], CLASS_KEYS[1]),
    )

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[PaintClass]:
        return iter(self.items)

    def __getitem__(self, index: int) -> PaintClass:
        return self.items[index]

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of their ids."""
        return tuple(item.name for item in self.items)

    @property
    def colors(self) -> tuple[str, ...]:
        """Colours in the order of their ids."""
        return tuple(item.color for item in self.items)

    def add(self, name: str | None = None) -> ClassList:
        """Return the list with one more class, in a free colour and with a free key.

        Raises
        ------
        UserError
            If there are 8 already, or the name is taken.
        """
        if len(self) >= MAX_CLASSES:
            raise UserError(f"There are {len(self)} classes already; at most {MAX_CLASSES} work.")
        name = self._checked_name(name or self._free_name(), except_index=None)
        color = next((c for c in PALETTE if c not in self.colors), PALETTE[-1])
        used = {item.key for item in self.items}
        key = next(k for k in CLASS_KEYS if k not in used)
        return ClassList((*self.items, PaintClass(name, color, key)))

    def remove(self, index: int) -> ClassList:
        """Return the list without class `index`; those after it move up by one.

        Raises
        ------
        UserError
            If it is the background, or only two are left.
        """
        if index == 0:
            raise UserError("The background class cannot be removed; rename it if you like.")
        if len(self) <= 2:
            raise UserError("Two classes are needed at least, so this one cannot be removed.")
        return ClassList(self.items[:index] + self.items[index + 1 :])

    def rename(self, index: int, name: str) -> ClassList:
        """Return the list with class `index` called `name`."""
        return self._replaced(index, name=self._checked_name(name, except_index=index))

    def recolor(self, index: int, color: str) -> ClassList:
        """Return the list with class `index` in `color` (hexadecimal)."""
        return self._replaced(index, color=color)

    def _replaced(self, index: int, **changes: str) -> ClassList:
        items = list(self.items)
        items[index] = replace(items[index], **changes)
        return ClassList(tuple(items))

    def _free_name(self) -> str:
        number = len(self)
        while f"class {number}" in self.names:
            number += 1
        return f"class {number}"

    def _checked_name(self, name: str, except_index: int | None) -> str:
        name = name.strip()
        others = [n for i, n in enumerate(self.names) if i != except_index]
        if not name:
            raise UserError("A class needs a name.")
        if name in others:
            raise UserError(f"There is a class called {name!r} already; choose another name.")
        return name


def class_list(
    names: Sequence[str], colors: Sequence[str] | None = None, keys: Sequence[str] | None = None
) -> ClassList:
    """Make a class list from names (background first), e.g. those of a saved project.

    Parameters
    ----------
    names : sequence of str
        2 to 8 distinct names.
    colors : sequence of str, optional
        Hexadecimal colours, as many as names; None takes the palette.
    keys : sequence of str, optional
        Out of `CLASS_KEYS`, as many as names and all different; anything else takes the first.

    Raises
    ------
    UserError
        If there are too few, too many, or two of the same name.
    """
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(f"{len(names)} classes were given; 2 to {MAX_CLASSES} are expected.")
    if len(set(names)) != len(names):
        raise UserError(f"The class names {', '.join(names)} are not all different.")
    chosen = PALETTE if colors is None else colors
    keys = tuple(keys or ())
    if len(set(keys)) != len(names) or not set(keys) <= set(CLASS_KEYS):
        keys = CLASS_KEYS
    return ClassList(
        tuple(PaintClass(n, c, k) for n, c, k in zip(names, chosen, keys, strict=False))
    )

"""What the numbers of a truth are: classes, objects, or plain foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.core.compare.reading import (
    Scheme,
    n_planes,
    numbers_in,
    open_planes,
    read_truth,
)
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_cellda.core.compare.reading import Kind, ReferenceType
    from napari_cellda.core.events import Task
    from napari_cellda.core.images import Image

MANY_CLASSES = 20
"""A truth with more numbers holds objects."""


def find_scheme(
    truths: Sequence[Path],
    kind: Kind,
    reference_type: ReferenceType | None = None,
    ignore: int | None = None,
) -> Task[Scheme]:
    """Look at the truth's numbers and decide what they are; see `evaluate`.

    Raises
    ------
    UserError
        If a number is negative, or 255 stands beside classes and is not named as ignored.
    """
    if reference_type is not None and (kind, reference_type) != ("semantic", "classes"):
        return Scheme(kind, reference_type, ignore)
    yield Stage("Looking at the truth", len(truths))
    numbers: set[int] = set()
    binary = True
    for step, path in enumerate(truths, 1):
        of_file = _numbers(open_planes(path), ignore)
        binary = binary and of_file in (set(), {1}, {255})
        numbers |= {1} if of_file == {255} else of_file
        yield Step(step)
        if kind != "semantic" and not binary:
            break  # so they are objects
    found = reference_type or _guess(kind, numbers, binary)
    if found == "classes":
        _refuse_ignored(numbers, truths)
    if reference_type is None and kind != "boundary" and found != _usual(kind, binary):
        yield Note(_say(found, numbers))
    if found != "classes":
        return Scheme(kind, found, ignore)
    return Scheme(kind, found, ignore, tuple(sorted(numbers)) or (1,))


def _guess(kind: Kind, numbers: set[int], binary: bool) -> ReferenceType:
    if binary:
        return "binary"
    return "instances" if kind != "semantic" or len(numbers) > MANY_CLASSES else "classes"


def _usual(kind: Kind, binary: bool) -> ReferenceType | None:
    """Return what needs no note."""
    if kind == "instances":
        return "instances"
    return "binary" if binary else None


def _say(reference_type: ReferenceType, numbers: set[int]) -> str:
    if reference_type == "binary":
        return "The truth has no numbered objects, so its 4-connected parts are taken."
    if reference_type == "classes":
        return (
            f"The truth is taken for classes ({', '.join(map(str, sorted(numbers)))}); if the "
            "numbers are objects, say --reference-type instances."
        )
    return (
        f"The truth holds {len(numbers)} numbers and is taken for objects; "
        "if they are classes, say --reference-type classes."
    )


def marks_ignored(numbers: set[int]) -> list[int]:
    """Return the classes beside 255, if 255 looks like what many programs ignore; else [].

    It does when the others are counted from 1.
    """
    others = sorted(numbers - {255})
    return others if 255 in numbers and others == list(range(1, len(others) + 1)) else []


def _refuse_ignored(numbers: set[int], truths: Sequence[Path]) -> None:
    others = marks_ignored(numbers)
    if others:
        raise UserError(
            f"The truth in '{truths[0].parent}' holds 255 beside the classes "
            f"{', '.join(map(str, others))}; if it marks pixels that do not count, say "
            "--ignore 255."
        )


def _numbers(truth: Image, ignore: int | None) -> set[int]:
    """Return the numbers in an image other than 0."""
    planes = (read_truth(truth, index, ignore)[0] for index in range(n_planes(truth)))
    return set().union(*map(numbers_in, planes))

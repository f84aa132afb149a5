"""Keys for painting that leave napari's own alone (a test compares them with napari's)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cellda.ui.classes import CLASS_KEYS
from napari_cellda.ui.results import layers_of, show_next
from napari_cellda.ui.uncertain import jump_in_stack, jump_in_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.ui.state import Session

STROKES_KEY, FOREST_KEY, ENHANCED_KEY = "H", "J", "K"
UNCERTAIN_KEY, STACK_KEY = "U", "Shift-U"


def bind_keys(session: Session) -> None:
    """Bind all keys in the session's viewer; they work wherever the canvas has the focus."""
    actions: dict[str, Callable[[], Any]] = {
        STROKES_KEY: lambda: toggle(session, "strokes"),
        FOREST_KEY: lambda: toggle(session, "forest"),
        ENHANCED_KEY: lambda: toggle(session, "enhanced"),
        UNCERTAIN_KEY: lambda: jump_in_view(session),
        STACK_KEY: lambda: jump_in_stack(session),
    }
    for key in CLASS_KEYS:
        actions[key] = lambda key=key: select_key(session, key)  # type: ignore[misc]
    for key, action in actions.items():
        session.viewer.bind_key(key, _reporting(session, action), overwrite=True)


def _reporting(session: Session, action: Callable[[], Any]) -> Callable[[Any], None]:
    def run(viewer: Any) -> None:
        try:
            action()
        except Exception as error:
            session.report(error)

    return run


def select_key(session: Session, key: str) -> None:
    """Paint with the class that has this key; nothing happens if there is none."""
    for k, item in enumerate(session.classes):
        if item.key == key:
            select_class(session, k)


def select_class(session: Session, k: int) -> None:
    """Make the strokes layer active, with the brush of class `k`."""
    painted = session.current
    if painted is None or painted.strokes is None:
        return
    layer = painted.strokes
    layer.visible = True
    session.viewer.layers.selection = {layer}
    layer.selected_label = k + 1
    layer.mode = "paint"


def shown_layers(session: Session, what: str) -> list[Any]:
    """Return the layers of the current image that belong together for showing and hiding.

    Parameters
    ----------
    session : Session
    what : {"strokes", "forest", "enhanced", "mask", "uncertainty", "difference"}
        The forest's map of the background is not among "forest".
    """
    painted = session.current
    if painted is None:
        return []
    if what == "strokes":
        return [painted.strokes] if painted.strokes is not None else []
    background = painted.results.get("forest:0")
    return [layer for layer in layers_of(painted, [what]) if layer is not background]


def toggle(session: Session, what: str) -> None:
    """Show the layers of one kind (see `shown_layers`), or hide them if any is visible.

    Layers that the user deleted are made again.
    """
    painted = session.current
    if painted is None:
        return
    deleted = {role for role in painted.unwanted if role.split(":")[0] == what}
    if deleted and not shown_layers(session, what):
        painted.unwanted -= deleted
        while show_next(session, painted):
            pass
        for layer in shown_layers(session, what):
            layer.visible = True
        return
    layers = shown_layers(session, what)
    show = not any(layer.visible for layer in layers)
    for layer in layers:
        layer.visible = show

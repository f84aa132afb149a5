"""What panels want to find again when a project is reopened: their boxes and folders."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari_cellda.ui.connect import when_deleted

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QObject

    from napari_cellda.ui.state import Session

    State = dict[str, Any]


class PanelStates:
    """Asks the open panels of a session for their state, and hands it back to them.

    A panel that is opened later gets its part of the project then.
    """

    def __init__(self) -> None:
        self._panels: dict[str, tuple[Callable[[], State], Callable[[State], None]]] = {}
        self._kept: dict[str, State] = {}

    @classmethod
    def of(cls, session: Session) -> PanelStates:
        """Return the session's, made on the first call."""
        return session.part("panel_states", lambda _: cls())

    def join(
        self,
        owner: QObject,
        name: str,
        state: Callable[[], State],
        restore: Callable[[State], None],
    ) -> None:
        """Let a panel take part while it lives.

        Parameters
        ----------
        owner : QObject
            The panel.
        name : str
            Its place in the project, such as "export".
        state : callable
            Returns plain values: what JSON holds.
        restore : callable
            Takes such values back; what is missing or odd in them it must bear.
        """
        mine = self._panels[name] = state, restore
        if name in self._kept:
            restore(self._kept[name])

        when_deleted(owner, self._leave, name, mine)

    def _leave(self, name: str, mine: Any) -> None:
        if self._panels.get(name) is mine:
            del self._panels[name]

    def collect(self) -> dict[str, State]:
        """Return the state of every panel; of those closed meanwhile, what they had been given."""
        return {**self._kept, **{name: state() for name, (state, _) in self._panels.items()}}

    def hand_out(self, states: dict[str, Any]) -> None:
        """Give panels their state, those that are opened later too."""
        self._kept = {name: state for name, state in states.items() if isinstance(state, dict)}
        for name, (_, restore) in list(self._panels.items()):
            if name in self._kept:
                with suppress(KeyError, TypeError, ValueError):  # written by another version
                    restore(self._kept[name])

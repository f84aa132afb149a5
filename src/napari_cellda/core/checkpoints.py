"""Reading what a checkpoint holds into the parts of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.memory import ran_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cellda.core.loop import Stateful


def load_parts(state: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Load parts of a checkpoint, each by its name.

    Raises
    ------
    UserError
        If they are not those of this training.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        if ran_out_of_memory(error):
            raise
        raise UserError(
            f"The checkpoint of step {state['step']} is of another training: its '{name}' does not "
            "fit. Put the run's own checkpoints back, or begin a new run."
        ) from error

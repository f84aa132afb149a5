"""The words of a command line, from what a form holds or a run was begun with."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_cellda.core.params import BaseParams


ENHANCER = "enhancer train"
"""The method of runs that train an enhancer; all others are adaptations."""


def check_resumed_by(method: str, command: str, folder: Path) -> None:
    """Raise a UserError that names the right command if another one shall resume a run.

    Parameters
    ----------
    method : str
        The run's.
    command : {"adapt", "enhancer train"}
        That was given.
    folder : Path
        The run's.
    """
    right = ENHANCER if method == ENHANCER else "adapt"
    if command != right:
        line = shlex.join(["napari-cellda", *right.split(), "--resume", "-o", str(folder)])
        raise UserError(f"The run in '{folder}' is of '{method}'; resume it with: {line}")


def command_words(
    command: Sequence[str], options: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[str]:
    """Return the command with its options and settings.

    Parameters
    ----------
    command : sequence of str
        Such as ``("adapt", "culpico")``.
    options : mapping
        By their names as in Python; None and False are left out, True is a flag, a tuple becomes
        a list with commas.
    settings : mapping
        For ``--set``.
    """
    words = list(command)
    for name, value in options.items():
        if value is None or value is False or value == ():
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            is_list = isinstance(value, tuple)
            words.append(",".join(map(str, value)) if is_list else str(value))
    for name, value in settings.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return words


def typed_again(
    command: Sequence[str], options: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """Return the line that begins a run again; its folder is left to choose.

    Parameters
    ----------
    command, options, settings
        See `command_words`.
    """
    return shlex.join(["napari-cellda", *command_words(command, options, settings), "-o", "RUN"])


def changed_settings(value: BaseParams, preset: BaseParams) -> dict[str, Any]:
    """Return the settings that differ from those of a preset, as JSON has them."""
    before = preset.model_dump(mode="json")
    return {k: v for k, v in value.model_dump(mode="json").items() if v != before[k]}

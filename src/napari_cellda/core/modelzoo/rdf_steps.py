"""The steps of an RDF's preprocessing: read from both formats alike, and checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

Step = dict[str, Any]
"""{"name": ..., "kwargs": {...}}, called as in format 0.5, with axes that are called as in 0.4."""


@dataclass(frozen=True)
class _Number:
    """A finite number that a step takes."""

    default: float | None
    """None: it may not be left out."""
    fits: Callable[[float], bool] = math.isfinite
    range: str = ""
    """How the message goes on after "finite number"."""
    per_channel: bool = False


_EPS = _Number(1e-6, lambda value: value >= 0, " of at least 0")
_NUMBERS = {
    "scale_range": {
        "min_percentile": _Number(0.0, lambda value: 0 <= value < 100, " from 0 to below 100"),
        # The formats, too, take 0.998 for a mistaken 99.8.
        "max_percentile": _Number(100.0, lambda value: 1 < value <= 100, " above 1, up to 100"),
        "eps": _EPS,
    },
    "zero_mean_unit_variance": {"eps": _EPS},
    "fixed_zero_mean_unit_variance": {
        "mean": _Number(None, per_channel=True),
        "std": _Number(None, lambda value: value > 0, " above 0", per_channel=True),
        "eps": _EPS,
    },
    "scale_linear": {
        "gain": _Number(1.0, lambda value: value != 0, " other than 0", per_channel=True),
        "offset": _Number(0.0, per_channel=True),
    },
}
"""What the steps take that are known here."""
_NO_NUMBERS = {"axes", "axis", "mode", "reference_tensor"}


def steps_04(steps: Any) -> tuple[Step, ...]:
    """Read steps as format 0.4 writes them, where fixed numbers are a mode, and the usual one."""
    return tuple(_step_04(str(step["name"]), _arguments(step)) for step in steps or ())


def _step_04(name: str, kwargs: dict[str, Any]) -> Step:
    if name == "zero_mean_unit_variance" and kwargs.get("mode", "fixed") == "fixed":
        name = f"fixed_{name}"
    return {"name": name, "kwargs": kwargs}


def steps_05(steps: Any, channel_id: str = "channel") -> tuple[Step, ...]:
    """Read steps as format 0.5 writes them.

    Parameters
    ----------
    steps : list of dict, or None
    channel_id : str
        What the tensor calls its channel axis.
    """
    letters = {"batch": "b", channel_id: "c"}
    return tuple(_step_05(str(step["id"]), _arguments(step), letters) for step in steps or ())


def _step_05(name: str, kwargs: dict[str, Any], letters: dict[str, str]) -> Step:
    if isinstance(axes := kwargs.get("axes"), list):
        kwargs = {**kwargs, "axes": [letters.get(str(axis), axis) for axis in axes]}
    return {"name": name, "kwargs": kwargs}


def _arguments(step: Step) -> dict[str, Any]:
    """Return what a step is given; what is written as null is left out."""
    return {k: value for k, value in dict(step.get("kwargs") or {}).items() if value is not None}


def checked_step(step: Step, model: str, axes: str, n_channels: int) -> Step:
    """Check what a step of the input is given, and fill in what was left out.

    Parameters
    ----------
    step : dict
        From `steps_04` or `steps_05`.
    model : str
        Its name, for messages.
    axes : str
        Of the input, such as "bcyx".
    n_channels : int
        Of the input.

    Returns
    -------
    dict
        Axes as str; numbers as float, or as a tuple of one or `n_channels` where channels may
        differ. A step that is not known here stays as it is: nobody may ask for it.

    Raises
    ------
    UserError
        If a number is missing, is none, is out of range or there are too many or too few of them,
        or if an argument or an axis is not known.
    """
    name, kwargs = step["name"], step["kwargs"]
    if name not in _NUMBERS:
        return step
    asks, numbers = f"{model} asks for {name} with", _NUMBERS[name]
    if unknown := sorted(map(str, kwargs.keys() - numbers.keys() - _NO_NUMBERS)):
        known = ", ".join([*numbers, *sorted(_NO_NUMBERS)])
        raise UserError(f"{asks} {shortened(unknown[0])}; {known} are expected.")
    found = {
        key: _checked_number(asks, key, kwargs.get(key, number.default), number, n_channels)
        for key, number in numbers.items()
    }
    if name == "scale_range" and found["min_percentile"] >= found["max_percentile"]:
        low, high = found["min_percentile"], found["max_percentile"]
        raise UserError(
            f"{asks} min_percentile {low:g} and max_percentile {high:g}; less is expected of the "
            "first."
        )
    # Left out, they are all: as in bioimageio.core.
    found["axes"] = _checked_axes(asks, kwargs.get("axes", axes), axes)
    return {"name": name, "kwargs": {**kwargs, **found}}


def _checked_number(asks: str, key: str, value: Any, number: _Number, n_channels: int) -> Any:
    """Return a float, or a tuple of them where channels may differ."""
    lengths = {1, n_channels} if number.per_channel else {1}
    listed = value if isinstance(value, list) else [value]
    try:
        # Also of text: 1e-6 is a number in YAML 1.2 only, and PyYAML reads 1.1.
        read = tuple(math.nan if isinstance(entry, bool) else float(entry) for entry in listed)
    except (TypeError, ValueError, OverflowError):
        read = ()  # of no length that fits
    if len(read) not in lengths or not all(math.isfinite(v) and number.fits(v) for v in read):
        written = "left out" if value is None else shortened(value)
        several = f" or {n_channels} of them" if max(lengths) > 1 else ""
        raise UserError(
            f"{asks} {key} {written}; one finite number{number.range}{several} is expected."
        )
    return read if number.per_channel else read[0]


def _checked_axes(asks: str, value: Any, axes: str) -> str:
    """Return the letters of a step's axes."""
    letters = [str(axis) for axis in value] if isinstance(value, str | list) else [str(value)]
    if not set(letters) <= set(axes):
        raise UserError(f"{asks} the axes {shortened(value)}; axes out of {axes} are expected.")
    return "".join(letters)

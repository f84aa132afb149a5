"""What an RDF says about its input and output: axes, sizes, halo and processing."""

from __future__ import annotations

import math
from typing import Any

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.rdf_steps import checked_step, steps_04, steps_05

_AXES = {"bcyx", "bczyx"}
MAX_CHANNELS = 64
MAX_BLOCK = 2**27
"""Pixels; no network needs as many at once, and they fit into memory."""
_LONG_AXES = {"batch": "b", "channel": "c"}


def read_tensors(rdf: dict[str, Any], version: str) -> dict[str, Any]:
    """Read the one input and the one output of a model description.

    Parameters
    ----------
    rdf : dict
    version : str
        Its format, ``"0.4..."`` or ``"0.5..."``.

    Returns
    -------
    dict
        The fields of `ModelCard` that they decide, and ``channel_names`` (tuple of str, or None).

    Raises
    ------
    UserError
        If there are more inputs or outputs, the axes are not ``bcyx`` or ``bczyx``, or the
        preprocessing makes no sense.
    """
    read = _tensors_04 if version.startswith("0.4") else _tensors_05
    tensors = read(*_one_input_one_output(rdf))
    _check_sizes(tensors)
    size = tensors["input_axes"], tensors["n_inputs"]
    steps = (checked_step(step, str(rdf["name"]), *size) for step in tensors["preprocessing"])
    return {**tensors, "preprocessing": tuple(steps)}


def _check_sizes(tensors: dict[str, Any]) -> None:
    for what in ("n_inputs", "n_outputs"):
        if not 1 <= tensors[what] <= MAX_CHANNELS:
            raise UserError(
                f"The model has {tensors[what]} {what[2:].replace('puts', 'put')} channels; "
                f"from 1 to {MAX_CHANNELS} are expected."
            )
    sizes = {what: tensors[what] for what in ("min_shape", "step", "halo")}
    fits = min(sizes["min_shape"]) > 0 and min(*sizes["step"], *sizes["halo"]) >= 0
    n_axes = len(tensors["input_axes"]) - 2
    fits = fits and all(len(size) == n_axes for size in sizes.values())
    blocks = (n + step + 2 * halo for n, step, halo in zip(*sizes.values(), strict=False))
    if not fits or math.prod(blocks) > MAX_BLOCK:
        raise UserError(f"The model's sizes make no sense: {sizes}.")


def _one_input_one_output(rdf: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    for side in ("inputs", "outputs"):
        if len(rdf[side]) != 1:
            raise UserError(
                f"{rdf['name']} has {len(rdf[side])} {side}; one input and one output are expected."
            )
    return rdf["inputs"][0], rdf["outputs"][0]


def _tensors_04(given: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    axes = "".join(given["axes"])
    _check_axes(axes, "".join(result["axes"]))
    shape = given["shape"]
    least = list(shape["min"] if isinstance(shape, dict) else shape)
    step = list(shape["step"]) if isinstance(shape, dict) else [0] * len(axes)
    return {
        "input_axes": axes,
        "n_inputs": int(least[1]),
        "n_outputs": _n_outputs_04(result["shape"], int(least[1])),
        "channel_names": None,
        "min_shape": tuple(int(n) for n in least[2:]),
        "step": tuple(int(n) for n in step[2:]),
        "halo": tuple(int(n) for n in (result.get("halo") or [0] * len(axes))[2:]),
        "preprocessing": steps_04(given.get("preprocessing")),
        "sigmoid_outside": _has_sigmoid(steps_04(result.get("postprocessing"))),
    }


def _n_outputs_04(shape: Any, n_inputs: int) -> int:
    """Return the output's channels: written out, or as input * scale + 2 * offset."""
    if not isinstance(shape, dict):
        return int(shape[1])
    scale = shape["scale"][1]
    scaled = 0.0 if scale is None else n_inputs * float(scale)
    return round(scaled + 2 * float(shape["offset"][1]))


def _tensors_05(given: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    axes = _short_axes(given["axes"])
    _check_axes(axes, _short_axes(result["axes"]))
    channel_id = str(given["axes"][1].get("id", "channel"))
    spatial = [axis["size"] for axis in given["axes"][2:]]
    parametrised = [isinstance(size, dict) for size in spatial]
    pairs = list(zip(spatial, parametrised, strict=True))
    return {
        "input_axes": axes,
        "n_inputs": len(given["axes"][1]["channel_names"]),
        "n_outputs": len(result["axes"][1]["channel_names"]),
        "channel_names": tuple(str(n) for n in result["axes"][1]["channel_names"]),
        "min_shape": tuple(int(size["min"] if is_range else size) for size, is_range in pairs),
        "step": tuple(int(size["step"]) if is_range else 0 for size, is_range in pairs),
        "halo": tuple(int(axis.get("halo") or 0) for axis in result["axes"][2:]),
        "preprocessing": steps_05(given.get("preprocessing"), channel_id),
        "sigmoid_outside": _has_sigmoid(steps_05(result.get("postprocessing"))),
    }


def _short_axes(axes: list[dict[str, Any]]) -> str:
    return "".join(_LONG_AXES.get(axis["type"], str(axis.get("id", "x"))) for axis in axes)


def _check_axes(given: str, result: str) -> None:
    if given not in _AXES or result != given:
        raise UserError(
            f"The model's axes are {given} to {result}; bcyx to bcyx or bczyx to bczyx can be used."
        )


def _has_sigmoid(steps: tuple[dict[str, Any], ...]) -> bool:
    return any(step["name"] == "sigmoid" for step in steps)

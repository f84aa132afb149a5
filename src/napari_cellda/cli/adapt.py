"""Adapting a network to target images by one of the methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_cellda.cli import adapt_options as given
from napari_cellda.cli.options import GreyChannels, Trust
from napari_cellda.cli.stopping import stop_on_signal
from napari_cellda.cli.support import (
    check_resume,
    follow,
    one_of,
    parse_channels,
    parse_hashes,
    parse_settings,
)
from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_cellda.core.adaptation.inputs import AdaptInputs
    from napari_cellda.core.jobs import Run

app = typer.Typer()


@app.command()
def adapt(
    context: typer.Context,
    output: given.RunFolder,
    method: given.MethodName = None,
    target_images: given.TargetImages = None,
    source_images: given.SourceImages = None,
    source_masks: given.SourceMasks = None,
    target_masks: given.TargetMasks = None,
    target_strokes: given.TargetStrokes = None,
    validation_masks: given.ValidationMasks = None,
    points: given.Points = None,
    nuclei_images: given.NucleiImages = None,
    nuclei_channel: given.NucleiChannel = None,
    diameter: given.Diameter = None,
    image_labels: given.ImageLabels = None,
    pseudo_labels: given.PseudoLabels = None,
    project: given.Project = None,
    pretrained: given.Pretrained = None,
    channels: GreyChannels = None,
    source_channels: given.SourceChannels = None,
    classes: given.Classes = None,
    preset: given.PresetName = "cpu",
    settings: given.Settings = None,
    seed: given.Seed = 0,
    device: given.Device = "auto",
    bundle: given.Bundle = False,
    resume: given.Resume = False,
    inputs: given.Inputs = None,
    trust: Trust = None,
) -> None:
    """Adapt a network to your images; RUN/model is the package.

    Ctrl-C once, or a file called `stop` in RUN, ends it with what it has learned so far.
    """
    from napari_cellda.core.adaptation.run import resume_adaptation, run_adaptation
    from napari_cellda.methods import find_method

    check_resume(context, ("inputs", "device", "trust"))
    if inputs is not None and not resume:
        raise UserError("--inputs says where the inputs of a run lie now; add --resume.")
    run = resume_adaptation(output, inputs) if resume else _begin(context.params)
    trusted = parse_hashes(trust)
    with stop_on_signal() as stop:
        task = run_adaptation(run, find_method, device=device, trusted=trusted, stop=stop)
        package = follow(task)
        if package is not None:
            typer.echo(f"The adapted network is in {package}.")


def _begin(words: Mapping[str, Any]) -> Run:
    """Check the command's words, by the names of `adapt`'s parameters, and begin its run."""
    from napari_cellda.core.adaptation.method import PRESETS
    from napari_cellda.core.adaptation.run import begin_adaptation
    from napari_cellda.methods import find_method

    if words["method"] is None or words["target_images"] is None:
        raise UserError("adapt needs a method and --target-images; see: napari-cellda methods.")
    return begin_adaptation(
        Path(words["output"]),
        find_method(words["method"]),
        _read_inputs(words),
        preset=one_of("--preset", words["preset"], PRESETS),
        overrides=parse_settings(words["settings"] or []),
        seed=words["seed"],
        device=words["device"],
        bundle=words["bundle"],
        trusted=parse_hashes(words["trust"]),
    )


def _read_inputs(words: Mapping[str, Any]) -> AdaptInputs:
    from napari_cellda.core.adaptation.inputs import AdaptInputs

    names = (words["classes"] or "").split(",")
    return AdaptInputs(
        **{name: words[name] for name in AdaptInputs.model_fields if name in words}
        | {
            "channels": parse_channels(words["channels"]) or "grey",
            "source_channels": parse_channels(words["source_channels"]),
            "classes": tuple(name.strip() for name in names if name.strip()),
        },
    )

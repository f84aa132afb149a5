"""Adapting a network to target images by one of the methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_cellda.cli.stopping import stop_on_signal
from napari_cellda.cli.support import follow, one_of, parse_channels, parse_settings
from napari_cellda.core.errors import UserError

app = typer.Typer()

Folder = Path | None


@app.command()
def adapt(
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")],
    method: Annotated[
        str | None, typer.Argument(help="Its name; see `napari-cellda methods`.")
    ] = None,
    target_images: Annotated[Folder, typer.Option(help="Images to adapt to.")] = None,
    source_images: Annotated[Folder, typer.Option(help="Annotated images of another kind.")] = None,
    source_masks: Annotated[Folder, typer.Option(help="Their masks, paired by name.")] = None,
    target_masks: Annotated[
        Folder, typer.Option(help="Masks of some target images, to train on.")
    ] = None,
    target_strokes: Annotated[
        Folder, typer.Option(help="Brushstrokes on some target images, to train on.")
    ] = None,
    validation_masks: Annotated[
        Folder, typer.Option(help="Masks of some target images that may choose the checkpoint.")
    ] = None,
    points: Annotated[
        Folder, typer.Option(help="CSV tables with row,col: one point per cell.")
    ] = None,
    nuclei_images: Annotated[
        Folder, typer.Option(help="Images of the nuclei, in which the points are found.")
    ] = None,
    diameter: Annotated[
        float | None, typer.Option(help="Diameter of a typical cell in pixels.")
    ] = None,
    image_labels: Annotated[
        Folder, typer.Option(help="CSV: which classes are in which image.")
    ] = None,
    pseudo_labels: Annotated[
        Folder, typer.Option(help="Probability maps of the target images.")
    ] = None,
    project: Annotated[Folder, typer.Option(help="X.cellda, whose maps are taken.")] = None,
    pretrained: Annotated[Folder, typer.Option(help="A run or package to begin with.")] = None,
    channels: Annotated[str | None, typer.Option(help="`grey`, `all` or indices.")] = None,
    source_channels: Annotated[
        str | None, typer.Option(help="Of the source images, if they differ.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the foreground classes, with commas.")
    ] = None,
    preset: Annotated[str, typer.Option(help="`cpu`, `gpu` or `published`.")] = "cpu",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of a setting of the preset.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of crops and networks.")] = 0,
    device: Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`.")] = "auto",
    bundle: Annotated[bool, typer.Option("--bundle", help="Copy the inputs into the run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this run.")] = False,
    inputs: Annotated[Folder, typer.Option(help="With --resume: where the inputs lie now.")] = None,
) -> None:
    """Adapt a network to your images; RUN/model is the package.

    Ctrl-C once, or a file called `stop` in RUN, ends it with what it has learned so far.
    """
    from napari_cellda.core.adaptation.inputs import AdaptInputs
    from napari_cellda.core.adaptation.method import PRESETS
    from napari_cellda.core.adaptation.run import (
        begin_adaptation,
        resume_adaptation,
        run_adaptation,
    )
    from napari_cellda.methods import find_method

    if resume:
        run = resume_adaptation(output, inputs)
    elif method is None or target_images is None:
        raise UserError("adapt needs a method and --target-images; see: napari-cellda methods.")
    else:
        run = begin_adaptation(
            output,
            find_method(method),
            AdaptInputs(
                target_images=target_images,
                source_images=source_images,
                source_masks=source_masks,
                target_masks=target_masks,
                target_strokes=target_strokes,
                validation_masks=validation_masks,
                points=points,
                nuclei_images=nuclei_images,
                diameter=diameter,
                image_labels=image_labels,
                pseudo_labels=pseudo_labels,
                project=project,
                pretrained=pretrained,
                channels=parse_channels(channels) or "grey",
                source_channels=parse_channels(source_channels),
                classes=tuple(name.strip() for name in classes.split(",")) if classes else (),
            ),
            preset=one_of("--preset", preset, PRESETS),
            overrides=parse_settings(settings or []),
            seed=seed,
            bundle=bundle,
        )
    with stop_on_signal() as stop:
        package = follow(run_adaptation(run, find_method, device=device, stop=stop))
        if package is not None:
            typer.echo(f"The adapted network is in {package}.")

"""Training an enhancer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_cellda.cli.options import GreyChannels
from napari_cellda.cli.stopping import stop_on_signal
from napari_cellda.cli.support import check_resume, follow, one_of, parse_channels, parse_settings

app = typer.Typer(help="Train an enhancer of your own.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `train` a word of its own, though it is the only command here."""


@app.command("train")
def enhancer_train(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")],
    images: Annotated[Path | None, typer.Option(help="Folder of annotated images.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of their masks, paired by name.")
    ] = None,
    masks_are: Annotated[
        str, typer.Option(help="`instances`, `foreground` or `boundary`.")
    ] = "instances",
    structure: Annotated[
        str | None, typer.Option(help="What to learn: `foreground`, `boundary` or `both`.")
    ] = None,
    channels: GreyChannels = None,
    preset: Annotated[str, typer.Option(help="`cpu`, `gpu` or `published`.")] = "cpu",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of a setting of the preset.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of forests, crops and network.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this run.")] = False,
) -> None:
    """Train a Prediction Enhancer on annotated images; RUN/model is the package.

    Ctrl-C once, or a file called `stop` in RUN, ends it with what it has learned so far.
    """
    from napari_cellda.core.enhancer_training.run import run_enhancer_training

    check_resume(context, ())
    with stop_on_signal() as stop:
        package = follow(
            run_enhancer_training(
                output,
                images,
                masks,
                masks_are=one_of("--masks-are", masks_are, ("instances", "foreground", "boundary")),
                structure=None
                if structure is None
                else one_of("--structure", structure, ("foreground", "boundary", "both")),
                channels=parse_channels(channels) or "grey",
                preset=one_of("--preset", preset, ("cpu", "gpu", "published")),
                overrides=parse_settings(settings or []),
                seed=seed,
                resume=resume,
                stop=stop,
            )
        )
        if package is not None:
            typer.echo(f"The enhancer is in {package}.")

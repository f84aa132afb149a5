"""The command line: the same calls as the panels, without napari.

Exit codes: 0 done, 2 a user's mistake (one plain sentence, no traceback), 1 a fault of ours, 130
interrupted. Heavy libraries are imported inside the commands, so that help is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from napari_cellda import __version__
from napari_cellda.cli_support import (
    expand_lists,
    follow,
    one_of,
    parse_channels,
    parse_settings,
    print_json,
    print_table,
)
from napari_cellda.core.errors import UserError

app = typer.Typer(
    name="napari-cellda",
    help="Interactive domain adaptation of cell and organelle segmentation, without the window.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
models_app = typer.Typer(help="Bundled and imported enhancers.", no_args_is_help=True)
app.add_typer(models_app, name="models")
enhancer_app = typer.Typer(help="Train an enhancer of your own.", no_args_is_help=True)
app.add_typer(enhancer_app, name="enhancer")

Images = Annotated[
    list[Path], typer.Argument(help="Images: TIFF, PNG, JPEG, OME-TIFF, OME-Zarr, or folders.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Channels = Annotated[
    str | None,
    typer.Option(
        help="`grey`, `all`, or channel indices such as `0,2`. A forest takes all unless told."
    ),
]
Instances = Annotated[bool, typer.Option("--instances", help="Also separate objects.")]
FORMATS = ("tif", "ome-zarr")
Format = Annotated[str, typer.Option("--format", help="`tif` or `ome-zarr`.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-cellda {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    """Give every command the same root options."""


@app.command()
def demo(
    output: Output = Path("demo_output"),
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
) -> None:
    """Run the main job on a real, bundled image with a bundled enhancer."""
    if headless:
        from napari_cellda.core.demo import demo_without_window

        scores = follow(demo_without_window(output))
        print_table(scores)
        typer.echo(f"Wrote the maps, masks and scores to {output}.")
        return
    try:
        from napari_cellda.ui.demo import run_demo
    except ImportError as error:
        raise UserError(
            f"The window needs napari and Qt ({error.name} is missing): install "
            "'napari-cellda[all]', or add --headless."
        ) from error
    run_demo(output, show=True)


@app.command()
def classify(
    images: Images,
    output: Output,
    strokes: Annotated[
        list[Path],
        typer.Option(
            "--strokes",
            help="Label images: 0 = not annotated, 1 = background, 2... = classes. "
            "Paired with the images by name, or in order.",
        ),
    ],
    enhancer: Annotated[
        str | None, typer.Option(help="Enhancer: bundled id, bioimage.io id, file or folder.")
    ] = None,
    enhancer_class: Annotated[
        int, typer.Option(min=1, help="Class that the enhancer repairs; 1 = first foreground.")
    ] = 1,
    features: Annotated[
        str, typer.Option(help="Feature set: `ilastik`, `compact` or `s2d`.")
    ] = "ilastik",
    channels: Channels = None,
    instances: Instances = False,
    file_format: Format = "tif",
    save: Annotated[Path | None, typer.Option(help="Also save a project, X.cellda.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the forest.")] = 0,
) -> None:
    """Train a forest on strokes, predict every image, and repair the maps with an enhancer."""
    from napari_cellda.core.batch import ClassifyJob, classify_images

    job = ClassifyJob(
        features=features,
        channels=parse_channels(channels) or "all",
        enhancer=enhancer,
        enhanced_class=enhancer_class,
        instances=instances,
        file_format=one_of("--format", file_format, FORMATS),
        save=save,
        seed=seed,
    )
    follow(classify_images(images, strokes, output, job))


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A project X.cellda, or a bioimage.io package.")],
    images: Images,
    output: Output,
    instances: Instances = False,
    channels: Channels = None,
    file_format: Format = "tif",
) -> None:
    """Run a saved project or a model package on images."""
    from napari_cellda.core.batch import predict_images

    follow(
        predict_images(
            model,
            images,
            output,
            instances=instances,
            channels=parse_channels(channels),
            file_format=one_of("--format", file_format, FORMATS),
        )
    )


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's parameters.")] = None,
) -> None:
    """List the adaptation methods, or show one with its parameters."""
    from napari_cellda.methods import describe, discover

    if name is None:
        rows = [{"method": m.name, "title": m.title, "paper": m.paper} for m in discover()]
        print_table(rows, "There is no adaptation method in this version yet.")
    else:
        print_json(describe(name))


@enhancer_app.command("train")
def enhancer_train(
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
    channels: Channels = None,
    preset: Annotated[str, typer.Option(help="`cpu`, `gpu` or `published`.")] = "cpu",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of a setting of the preset.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of forests, crops and network.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this run.")] = False,
) -> None:
    """Train a Prediction Enhancer on annotated images; RUN/model is the package."""
    from napari_cellda.core.enhancer_run import run_enhancer_training

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
        )
    )
    if package is not None:
        typer.echo(f"The enhancer is in {package}.")


@models_app.command("list")
def models_list() -> None:
    """List the enhancers that are bundled or were imported."""
    from napari_cellda.core.modelzoo import list_models

    print_table(list_models(), "There is no model yet; import one with: models import PATH.")


@models_app.command("show")
def models_show(model: Annotated[str, typer.Argument(help="Id, file or folder.")]) -> None:
    """Show a model's card."""
    from napari_cellda.core.modelzoo import describe_model

    print_json(describe_model(model))


@models_app.command("check")
def models_check(path: Annotated[str, typer.Argument(help="Package to check.")]) -> None:
    """Validate a package and run its own test; nothing of it is executed as code."""
    from napari_cellda.core.modelzoo import check_model

    report = check_model(path)
    typer.echo(report)
    if not report.sound:
        raise UserError(f"'{path}' is not sound; see above.")


@models_app.command("import")
def models_import(path: Annotated[str, typer.Argument(help="Package to import.")]) -> None:
    """Copy a package into this user's models, so that its id finds it."""
    from napari_cellda.core.modelzoo import import_model

    typer.echo(f"Imported as '{import_model(path)}'.")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(expand_lists(given), prog_name="napari-cellda", standalone_mode=False)
    except UserError as error:
        return _complain(str(error))
    except typer.Abort:
        return 130
    except Exception as error:
        # Typer carries its own copy of click in some releases, so its usage errors are known by
        # what they can do and not by their class.
        if not hasattr(error, "format_message"):
            raise
        return _complain(error.format_message())
    return code if isinstance(code, int) else 0


def _complain(sentence: str) -> int:
    if sentence:  # asking for help without a word is no error to explain
        typer.echo(f"Error: {sentence}", err=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())

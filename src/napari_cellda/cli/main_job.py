"""The main job: demo, classify, predict, methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_cellda.cli.options import (
    FORMATS,
    Channels,
    Format,
    Images,
    Instances,
    LeastScore,
    ModelChannels,
    Output,
    Trust,
)
from napari_cellda.cli.stopping import stop_on_signal
from napari_cellda.cli.support import (
    follow,
    one_of,
    parse_channels,
    parse_hashes,
    print_json,
    print_table,
)
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Stop, Task

if TYPE_CHECKING:
    from napari_cellda.core.batch import BatchReport

app = typer.Typer()

Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes, each for one image at a time; as many as pay unless told."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a dask.distributed scheduler that computes the tiles."),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Do again what was done before with the same settings; replace what is in the way.",
    ),
]


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
    workers: Workers = None,
    scheduler: Scheduler = None,
    overwrite: Overwrite = False,
    trust: Trust = None,
) -> None:
    """Train a forest on strokes, predict every image, and repair the maps with an enhancer."""
    from napari_cellda.core.batch import BatchOptions, ClassifyJob, classify_batch

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
    options = BatchOptions(workers, scheduler, overwrite, parse_hashes(trust))
    _run(
        lambda stop: classify_batch(images, strokes, output, job, options=options, stop=stop),
        output,
    )


@app.command()
def predict(
    model: Annotated[
        str,
        typer.Argument(help="A project X.cellda, the folder of a run, or a bioimage.io package."),
    ],
    images: Images,
    output: Output,
    instances: Instances = False,
    least_score: LeastScore = None,
    channels: ModelChannels = None,
    file_format: Format = "tif",
    workers: Workers = None,
    scheduler: Scheduler = None,
    overwrite: Overwrite = False,
    trust: Trust = None,
) -> None:
    """Run a saved project, a run's network or a model package on images."""
    from napari_cellda.core.batch import BatchOptions, predict_batch

    _run(
        lambda stop: predict_batch(
            model,
            images,
            output,
            instances=instances,
            least_score=least_score,
            channels=parse_channels(channels),
            file_format=one_of("--format", file_format, FORMATS),
            options=BatchOptions(workers, scheduler, overwrite, parse_hashes(trust)),
            stop=stop,
        ),
        output,
    )


def _run(start: Callable[[Stop], Task[BatchReport]], output: Path) -> None:
    """Follow a batch to its end, or to Ctrl-C, and tell where its results are."""
    from napari_cellda.core.batch import insist

    with stop_on_signal() as stop:
        report = follow(insist(start(stop)))
        before = len(report.kept)
        total = len(report.done) + before
        if total:
            images = "1 image" if total == 1 else f"{total} images"
            earlier = f", {before} of them from before" if 0 < before < total else ""
            typer.echo(f"The results of {images} are in {output}{earlier}.")


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

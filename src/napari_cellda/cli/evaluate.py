"""Scoring predictions against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_cellda.cli.support import follow, one_of, print_json

app = typer.Typer()


@app.command()
def evaluate(
    prediction: Annotated[
        list[str],
        typer.Option(
            "--prediction",
            help="Folder of predictions, as DIR or NAME=DIR; several are compared.",
        ),
    ],
    reference: Annotated[Path, typer.Option(help="Folder of the truth, paired by name.")],
    kind: Annotated[
        str, typer.Option(help="What to compare: `semantic`, `instances` or `boundary`.")
    ] = "semantic",
    reference_type: Annotated[
        str | None,
        typer.Option(help="What the truth holds: `classes`, `instances` or `binary`."),
    ] = None,
    ignore: Annotated[
        int | None, typer.Option(help="Number in the truth that marks pixels not to be scored.")
    ] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for pictures of right and wrong.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Report with plots and pictures, FILE.html.")
    ] = None,
    upper_bound: Annotated[
        str | None,
        typer.Option(help="Model that performance efficiency is measured against, in the report."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Table, FILE.csv or FILE.json.")
    ] = None,
) -> None:
    """Compare predictions with the truth and print the figures as one JSON object."""
    from napari_cellda.core.compare.evaluate import evaluate as compare
    from napari_cellda.core.compare.pairing import name_predictions
    from napari_cellda.core.compare.report import check_report, write_report
    from napari_cellda.core.compare.tables import check_table_path, write_table

    predictions = name_predictions(prediction)
    if output is not None:
        check_table_path(output)
    check_report(report, upper_bound, predictions)
    result = follow(
        compare(
            predictions,
            reference,
            one_of("--kind", kind, ("semantic", "instances", "boundary")),
            None
            if reference_type is None
            else one_of("--reference-type", reference_type, ("classes", "instances", "binary")),
            ignore=ignore,
            overlays=overlays,
            pictures=report is not None,
        )
    )
    if result is None:
        return
    if output is not None:
        write_table(output, result)
    if report is not None:
        write_report(report, result, upper_bound=upper_bound)
    print_json(result.as_json())

"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[
    list[Path], typer.Argument(help="Images: TIFF, PNG, JPEG, OME-TIFF, OME-Zarr, or folders.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Channels = Annotated[
    str | None,
    typer.Option(help="`grey`, `all` (unless told), or channel indices such as `0,2`."),
]
GreyChannels = Annotated[
    str | None,
    typer.Option(help="`grey` (unless told), `all`, or channel indices such as `0,2`."),
]
ModelChannels = Annotated[
    str | None,
    typer.Option(
        help="`grey`, `all`, or channel indices such as `0,2`; those that the model was trained on "
        "unless told."
    ),
]
Instances = Annotated[bool, typer.Option("--instances", help="Also separate objects.")]
LeastScore = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=0.99,
        help="Of models that find objects themselves (CKS): weaker ones are dropped; what the "
        "training chose unless told.",
    ),
]
FORMATS = ("tif", "ome-zarr")
Format = Annotated[str, typer.Option("--format", help="`tif` or `ome-zarr`.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        help="Run a model though it is a program (TorchScript): the SHA-256 of its file, which the "
        "command names when it refuses."
    ),
]

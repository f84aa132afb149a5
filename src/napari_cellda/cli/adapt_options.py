"""The options of `adapt`, by the names of the inputs that they give."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")]
MethodName = Annotated[
    str | None, typer.Argument(help="Its name; see `napari-cellda methods`.", metavar="METHOD")
]
TargetImages = Annotated[Path | None, typer.Option(help="Images to adapt to.")]
SourceImages = Annotated[Path | None, typer.Option(help="Annotated images of another kind.")]
SourceMasks = Annotated[Path | None, typer.Option(help="Their masks, paired by name.")]
TargetMasks = Annotated[Path | None, typer.Option(help="Masks of some target images, to train on.")]
TargetStrokes = Annotated[
    Path | None, typer.Option(help="Brushstrokes on some target images, to train on.")
]
ValidationMasks = Annotated[
    Path | None, typer.Option(help="Masks of some target images that may choose the checkpoint.")
]
Points = Annotated[Path | None, typer.Option(help="CSV tables with row,col: one point per cell.")]
NucleiImages = Annotated[
    Path | None, typer.Option(help="Images of the nuclei, in which the points are found.")
]
NucleiChannel = Annotated[
    int | None, typer.Option(min=0, help="Which channel of them shows the nuclei, from 0.")
]
Diameter = Annotated[float | None, typer.Option(help="Diameter of a typical cell in pixels.")]
ImageLabels = Annotated[Path | None, typer.Option(help="CSV: which classes are in which image.")]
PseudoLabels = Annotated[Path | None, typer.Option(help="Probability maps of the target images.")]
Project = Annotated[Path | None, typer.Option(help="X.cellda, whose maps are taken.")]
Pretrained = Annotated[Path | None, typer.Option(help="A run or package to begin with.")]
SourceChannels = Annotated[str | None, typer.Option(help="Of the source images, if they differ.")]
Classes = Annotated[str | None, typer.Option(help="Names of the foreground classes, with commas.")]
PresetName = Annotated[str, typer.Option("--preset", help="`cpu`, `gpu` or `published`.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE of a setting of the preset.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of crops and networks.")]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`.")]
Bundle = Annotated[bool, typer.Option("--bundle", help="Copy the inputs into the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with this run.")]
Inputs = Annotated[Path | None, typer.Option(help="With --resume: where the inputs lie now.")]

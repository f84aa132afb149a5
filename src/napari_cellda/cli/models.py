"""Bundled and imported models."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_cellda.cli.support import print_json, print_table
from napari_cellda.core.errors import UserError

app = typer.Typer(help="Bundled and imported enhancers.", no_args_is_help=True)


@app.command("list")
def models_list() -> None:
    """List the enhancers that are bundled or were imported."""
    from napari_cellda.core.modelzoo import list_models

    print_table(list_models(), "There is no model yet; import one with: models import PATH.")


@app.command("show")
def models_show(model: Annotated[str, typer.Argument(help="Id, file or folder.")]) -> None:
    """Show a model's card."""
    from napari_cellda.core.modelzoo import describe_model

    print_json(describe_model(model))


@app.command("check")
def models_check(path: Annotated[str, typer.Argument(help="Package to check.")]) -> None:
    """Validate a package and run its own test; nothing of it is executed as code."""
    from napari_cellda.core.modelzoo import check_model

    report = check_model(path)
    typer.echo(report)
    if not report.sound:
        raise UserError(f"'{path}' is not sound; see above.")


@app.command("import")
def models_import(path: Annotated[str, typer.Argument(help="Package to import.")]) -> None:
    """Copy a package into this user's models, so that its id finds it."""
    from napari_cellda.core.modelzoo import import_model

    typer.echo(f"Imported as '{import_model(path)}'.")

"""The command line: the same calls as the panels, without napari.

Exit codes: 0 done, 2 a user's mistake (one plain sentence, no traceback), 1 a fault of ours, 130
interrupted. One module a group of commands. Heavy libraries are imported inside the commands, so
that help is quick.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from napari_cellda import __version__
from napari_cellda.cli import adapt, enhancer, evaluate, main_job, models
from napari_cellda.cli.stopping import INTERRUPTED
from napari_cellda.cli.support import expand_lists
from napari_cellda.core.errors import ProgramRefused, UserError

app = typer.Typer(
    name="napari-cellda",
    help="Interactive domain adaptation of cell and organelle segmentation, without the window.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(main_job.app)
app.add_typer(adapt.app)
app.add_typer(evaluate.app)
app.add_typer(enhancer.app, name="enhancer")
app.add_typer(models.app, name="models")


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    # What Apple's graphics cards cannot compute, the processor does; torch asks when it is loaded.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    _print_any_letter()
    given = sys.argv[1:] if arguments is None else arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(expand_lists(given), prog_name="napari-cellda", standalone_mode=False)
    except ProgramRefused as refused:
        return _complain(
            f"{refused} If you trust whoever made '{refused.path}', add --trust {refused.sha256}."
        )
    except UserError as error:
        return _complain(str(error))
    except typer.Abort:
        typer.echo("Ended at once.", err=True)
        return INTERRUPTED
    except Exception as error:
        # Typer carries its own copy of click in some releases, so its usage errors are known by
        # what they can do and not by their class.
        if not hasattr(error, "format_message"):
            raise
        return _complain(_plain_words(error))
    return code if isinstance(code, int) else 0


def _print_any_letter() -> None:
    """Escape letters that the output cannot write, such as a file's with a narrow code page."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook's is not, nor is there one in pythonw
            stream.reconfigure(errors="backslashreplace")


def _plain_words(error: Any) -> str:
    """Return what a usage error says, with the value that some releases of typer leave out."""
    from pydantic import ValidationError

    from napari_cellda.core.params import refusal

    cause, option = error.__cause__, getattr(error, "param", None)
    if isinstance(cause, ValidationError) and option is not None:
        return f"{option.opts[0]} {refusal(cause.errors()[0])}"
    return str(error.format_message())


def _complain(sentence: str) -> int:
    if sentence:  # asking for help without a word is no error to explain
        typer.echo(f"Error: {sentence}", err=True)
    return 2

"""The exceptions that a user is meant to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one plain sentence that names the file or layer, the value found and what is
    expected. The panels show it as it is; the command line prints it and exits with code 2.
    """


class ProgramRefused(UserError):
    """A model is a program, and nobody has agreed to run this very file.

    Attributes
    ----------
    model : str
        Its name.
    path : Path
        The program.
    sha256 : str
        Of that file: who agrees passes it on as trusted, and opens the model again.
    """

    def __init__(self, model: str, path: Path, sha256: str) -> None:
        super().__init__(model, path, sha256)  # so that it crosses to other processes
        self.model, self.path, self.sha256 = model, path, sha256

    def __str__(self) -> str:
        return (
            f"{self.model} was not opened: it comes as TorchScript, which is a program and could "
            "do harm, and nobody agreed to run it."
        )

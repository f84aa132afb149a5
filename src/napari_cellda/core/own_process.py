"""Modules of this package run as processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import napari_cellda


def python_module(name: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package; needs `own_environment`.

    The present folder stays out of it: a ``numpy.py`` among somebody's images would run.
    """
    return (sys.executable, "-P", "-m", name)


def own_environment(**more: str) -> dict[str, str]:
    """Return the environment in which a process finds this very package, from a source tree too.

    All that it reads and prints is UTF-8, as we write and read it, whatever this machine's own
    encoding is: on Windows that is a code page, in which other folders come out of their names.

    Parameters
    ----------
    **more : str
        Variables to add to those of this process.
    """
    home = str(Path(napari_cellda.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",  # that of somebody else would win over the mode
    }
    return {**os.environ, **ours, **more}

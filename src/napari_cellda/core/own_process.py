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

    Parameters
    ----------
    **more : str
        Variables to add to those of this process.
    """
    home = str(Path(napari_cellda.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}

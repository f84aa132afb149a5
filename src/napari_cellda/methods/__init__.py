"""Adaptation systems, one file each, discovered and not registered."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from napari_cellda.core.adaptation.method import INPUTS, PRESETS, Method, alternatives
from napari_cellda.core.errors import UserError

__all__ = ["Method", "describe", "discover", "find_method"]


def discover() -> tuple[Method, ...]:
    """Return the `METHODS` of every module here whose name has no leading underscore."""
    found: list[Method] = []
    for module in iter_modules(__path__):
        if not module.name.startswith("_"):
            found += import_module(f"{__name__}.{module.name}").METHODS
    return tuple(sorted(found, key=lambda method: method.name))


def find_method(name: str) -> Method:
    """Return the method of this name.

    Raises
    ------
    UserError
        If there is none.
    """
    methods = {method.name: method for method in discover()}
    if name not in methods:
        raise UserError(f"There is no method '{name}'; the methods are: {', '.join(methods)}.")
    return methods[name]


def describe(name: str) -> dict[str, Any]:
    """Describe one method: title, paper, what it needs, and each parameter with its help.

    Raises
    ------
    UserError
        If no method has this name.
    """
    method = find_method(name)
    presets = {preset: method.settings(preset) for preset in PRESETS}
    return {
        "method": method.name,
        "title": method.title,
        "paper": method.paper,
        "needs": [" or ".join(map(_words, alternatives(need))) for need in method.needs],
        "takes": [_words(name) for name in method.takes],
        "parameters": {
            key: {
                "help": field.description,
                **{preset: getattr(settings, key) for preset, settings in presets.items()},
            }
            for key, field in method.params.model_fields.items()
        },
    }


def _words(name: str) -> str:
    return f"--{name.replace('_', '-')} ({INPUTS[name]})"

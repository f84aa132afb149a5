"""Adaptation systems, one file each, discovered and not registered."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from napari_cellda.core.errors import UserError
from napari_cellda.methods._base import Method

__all__ = ["Method", "describe", "discover"]


def discover() -> tuple[Method, ...]:
    """Return the `METHODS` of every module here whose name has no leading underscore."""
    found: list[Method] = []
    for module in iter_modules(__path__):
        if not module.name.startswith("_"):
            found += import_module(f"{__name__}.{module.name}").METHODS
    return tuple(sorted(found, key=lambda method: method.name))


def describe(name: str) -> dict[str, Any]:
    """Describe one method: title, paper, what it needs, and each parameter with its help.

    Raises
    ------
    UserError
        If no method has this name.
    """
    methods = {method.name: method for method in discover()}
    if name not in methods:
        known = ", ".join(methods) or "none is installed yet"
        raise UserError(f"There is no method '{name}'; the methods are: {known}.")
    method = methods[name]
    return {
        "method": method.name,
        "title": method.title,
        "paper": method.paper,
        "needs": list(method.needs),
        "parameters": {
            key: {"default": field.get_default(), "help": field.description}
            for key, field in method.params.model_fields.items()
        },
    }

"""Reading, running and writing bioimage.io model packages.

Names are looked up on first use, so that listing the bundled models imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cellda.core.modelzoo.bundled import list_bundled
    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.modelzoo.check import check_model
    from napari_cellda.core.modelzoo.model import Model, open_model
    from napari_cellda.core.modelzoo.package import PackageInfo, write_package
    from napari_cellda.core.modelzoo.rdf import read_card
    from napari_cellda.core.modelzoo.shelf import describe_model, import_model, list_models

__all__ = [
    "Model",
    "ModelCard",
    "PackageInfo",
    "check_model",
    "describe_model",
    "import_model",
    "list_bundled",
    "list_models",
    "open_model",
    "read_card",
    "write_package",
]

_HOMES = {
    "Model": "model",
    "ModelCard": "card",
    "PackageInfo": "package",
    "check_model": "check",
    "describe_model": "shelf",
    "import_model": "shelf",
    "list_bundled": "bundled",
    "list_models": "shelf",
    "open_model": "model",
    "read_card": "rdf",
    "write_package": "package",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

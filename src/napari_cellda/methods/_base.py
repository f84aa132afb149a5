"""What every adaptation method declares about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cellda.core.events import Task
    from napari_cellda.core.params import BaseParams


@dataclass(frozen=True)
class Method:
    """One adaptation method; the form, the command line and the docs follow from it."""

    name: str
    """As typed on the command line, with ``-`` between words."""
    title: str
    """One sentence for the method's card."""
    params: type[BaseParams]
    adapt: Callable[..., Task[Any]]
    paper: str
    """DOI or arXiv number."""
    needs: tuple[str, ...] = ()
    """Inputs without which it refuses to start, such as "source_images"."""

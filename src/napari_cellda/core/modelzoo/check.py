"""Checking a package: bioimage.io's verdict, and whether it runs here and gives what it says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.model import open_model
from napari_cellda.core.modelzoo.preprocessing import preprocess
from napari_cellda.core.modelzoo.rdf import find_rdf, load_rdf, read_card
from napari_cellda.core.modelzoo.source import find_package

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cellda.core.modelzoo.card import ModelCard
    from napari_cellda.core.modelzoo.model import Model

MAX_TEST_BYTES = 2**30
MAX_DIFFERENCE = 0.01
"""A test output that differs by more is not reproduced."""


@dataclass(frozen=True)
class PackageReport:
    """What was found out about a package."""

    card: ModelCard
    valid: bool
    """Whether bioimageio.spec finds nothing wrong."""
    summary: str
    """bioimageio.spec's validation summary, as text."""
    runs: str
    """How it runs here, or why not; one sentence."""
    works: bool
    """Whether it could be opened and run here."""
    difference: float | None
    """Largest difference to the package's own test output; None when it has none."""

    @property
    def sound(self) -> bool:
        """Whether it is valid, runs, and gives what it says."""
        same = self.difference is None or self.difference <= MAX_DIFFERENCE
        return self.valid and self.works and same

    def __str__(self) -> str:
        verdict = "valid" if self.valid else "not valid"
        lines = [f"{self.card.name}: {verdict} by bioimageio.spec. {self.runs}"]
        if self.difference is not None:
            lines.append(f"Its test output is reproduced within {self.difference:.2g}.")
        lines += [f"Note: {warning}" for warning in self.card.warnings]
        return "\n".join([*lines, "", self.summary])


def check_model(source: str | Path) -> PackageReport:
    """Validate a package and run its own test; no program in it is run.

    Parameters
    ----------
    source : str or Path
        Whatever `open_model` opens.

    Returns
    -------
    PackageReport
        ``str()`` of it is for reading.

    Raises
    ------
    UserError
        If the package cannot be found or its description cannot be read.
    """
    folder = find_package(source)
    card = read_card(folder)
    valid, summary = validation_summary(folder)
    try:
        model = open_model(folder)
    except UserError as error:
        return PackageReport(card, valid, summary, str(error), False, None)
    runs = f"It runs with its {model.card.weight_format} weights ({model.runner.name})."
    return PackageReport(model.card, valid, summary, runs, True, _difference(model, folder))


def validation_summary(folder: Path) -> tuple[bool, str]:
    """Return bioimageio.spec's verdict on an unpacked package, without network access.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    valid : bool
    summary : str
        Markdown, as bioimageio.spec writes it.
    """
    from bioimageio.spec import ValidationContext, build_description

    # Given the text, bioimageio.spec opens no files (its own reader leaves them open).
    rdf = find_rdf(folder)
    context = ValidationContext(
        file_name=rdf.name, root=folder, perform_io_checks=False, log_warnings=False
    )
    summary = build_description(load_rdf(rdf), context=context).validation_summary
    return summary.status != "failed", summary.format_md()


def _difference(model: Model, folder: Path) -> float | None:
    """Run the package's test input as its RDF asks for; None when it has no usable test."""
    rdf = load_rdf(find_rdf(folder))
    given, expected = (
        _array(folder, _test_file(rdf, "input")),
        _array(folder, _test_file(rdf, "output")),
    )
    if given is None or expected is None or given.ndim != model.card.ndim + 2:
        return None
    found = model.runner(preprocessed(given.astype(np.float32), model.card))
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else None


def preprocessed(batch: np.ndarray, card: ModelCard) -> np.ndarray:
    """Apply what the RDF asks for to a whole test input; of maps only ``scale_range``."""
    if card.kind == "enhancer":
        steps = tuple(step for step in card.preprocessing if step["name"] == "scale_range")
        card = replace(card, preprocessing=steps, kind="network")
    return preprocess(batch, card)


def _test_file(rdf: dict[str, object], side: str) -> str | None:
    """Return the file name of the test input or output, in either format."""
    listed = rdf.get(f"test_{side}s")
    if isinstance(listed, list) and listed:
        return _source(listed[0])
    tensors = rdf.get(f"{side}s")
    return _source(tensors[0].get("test_tensor")) if isinstance(tensors, list) else None


def _source(file: object) -> str | None:
    name = file.get("source") if isinstance(file, dict) else file
    return name if isinstance(name, str) else None


def _array(folder: Path, name: str | None) -> np.ndarray | None:
    if name is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    if path.stat().st_size > MAX_TEST_BYTES:
        return None
    try:
        # A header may promise more than the file holds: mapping it fails instead of allocating.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, EOFError):
        return None

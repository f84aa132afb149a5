"""How many trained parameters made a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def count_parameters(folder: Path) -> int | None:
    """Count the parameters of the model package in, or of the run around, a prediction's folder.

    Returns
    -------
    int or None
        As the training recorded it, or else counted in the weights. None when there is no
        package of an architecture that is built in.
    """
    places = [folder / "model", folder]
    if (folder.parent / "run.yaml").is_file():
        places.append(folder.parent / "model")
    package = next((place for place in places if (place / "rdf.yaml").is_file()), None)
    if package is None:
        return None
    from napari_cellda.core.modelzoo.rdf import read_card
    from napari_cellda.core.modelzoo.weights import is_known, load_network, weights_path

    try:
        card = read_card(package)
        recorded = card.training.get("parameters")
        if type(recorded) is int and recorded > 0:
            return recorded
        entry = next((entry for entry in card.weights if is_known(entry)), None)
        if entry is None:
            return None
        network = load_network(card, entry, weights_path(card, entry))
    except UserError:  # scores do not depend on it
        return None
    return sum(parameter.numel() for parameter in network.parameters())

"""The structures that published enhancers were made for, known by the words people use."""

from __future__ import annotations

STRUCTURES = {
    "nuclei": ("nucle", "dapi", "hoechst"),
    "mitochondria": ("mito",),
    "boundaries": ("membrane", "boundar", "border", "cell wall", "edge"),
}
"""Word stems that name a structure."""


def known_structure(words: str) -> str:
    """Return which structure a name or sentence speaks of; "" for none that is known.

    Examples
    --------
    >>> known_structure("EnhancerMitochondriaEM2D")
    'mitochondria'
    """
    lower = words.lower()
    found = (name for name, stems in STRUCTURES.items() if any(stem in lower for stem in stems))
    return next(found, "")

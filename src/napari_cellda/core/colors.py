"""The colours of models and curves, in panels and reports alike."""

from __future__ import annotations

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#f0e442")
"""Okabe and Ito's, which colour-blind people tell apart; the first are seen on black and white."""


def color_of(number: int) -> str:
    """Return the colour of the model or curve with this number, counted from 0."""
    return COLORS[number % len(COLORS)]

"""Small charts as SVG, to stand in a page without any library or network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda.core.colors import color_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

WIDTH, HEIGHT = 300, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 34, 30
MAX_LINES = 300
"""Images whose values are joined between models; more would be a blot."""


def strip_chart(title: str, values: Mapping[str, NDArray[np.float64]]) -> str:
    """Draw a dot for every image and a bar at the mean of every model, images joined by lines.

    Parameters
    ----------
    title : str
    values : mapping of model to (N,) ndarray
        One value per image, in one order for all models; nan is left out.
    """
    table = np.stack(list(values.values()))
    finite = table[np.isfinite(table)]
    y, ticks = _scale(finite, HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(table)
    centres = LEFT + step * (np.arange(len(table)) + 0.5)
    parts = [_axis(ticks, y)]
    if len(table) > 1 and table.shape[1] <= MAX_LINES:
        parts += [_joined(centres, column, y) for column in table.T]
    for i, (name, row) in enumerate(values.items()):
        spread = np.linspace(-0.15, 0.15, len(row)) * step
        dots = zip(centres[i] + spread * (len(table) == 1), row, strict=True)
        parts += [_dot(x, y(v), color_of(i)) for x, v in dots if np.isfinite(v)]
        parts.append(_text(centres[i], HEIGHT - 12, _shorten(name, int(step / 6)), name))
        if np.isfinite(row).any():
            mean = y(float(np.nanmean(row)))
            ends = (centres[i] - 0.3 * step, mean, centres[i] + 0.3 * step, mean)
            parts.append(_line(*ends, color_of(i), 2.5))
    return _svg(title, parts)


def histogram_chart(
    title: str, edges: Sequence[float], predicted: Sequence[int], truth: Sequence[int], unit: str
) -> str:
    """Draw how many objects of each size were predicted and are true, side by side."""
    y, ticks = _scale(np.array([0, *predicted, *truth], np.float64), HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / max(len(predicted), 1)
    parts = [_axis(ticks, y)]
    for i, pair in enumerate(zip(predicted, truth, strict=True)):
        for j, count in enumerate(pair):
            left = LEFT + step * (i + 0.1 + 0.4 * j)
            box = (left, y(count), 0.38 * step, y(0) - y(count))
            parts.append(_bar(*box, color_of(j)))
    for i in range(0, len(edges), -(-len(edges) // 6)):
        parts.append(_text(LEFT + step * i, HEIGHT - 14, f"{edges[i]:g}"))
    parts.append(_text(WIDTH - 60, TOP + 8, "prediction", color=color_of(0)))
    parts.append(_text(WIDTH - 60, TOP + 20, "truth", color=color_of(1)))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 2, f"size in {unit}"))
    return _svg(title, parts)


def size_chart(title: str, points: Mapping[str, tuple[int, float]], order: Sequence[str]) -> str:
    """Draw each model's score over its number of parameters.

    Parameters
    ----------
    title : str
    points : mapping of model to (parameters, score)
    order : sequence of str
        All models of the report, for their colours.
    """
    # Three digits: networks that differ by less are of one size.
    sizes = {name: float(f"{n_parameters / 1e6:.3g}") for name, (n_parameters, _) in points.items()}
    x, x_ticks = _scale(np.array(list(sizes.values())), LEFT + 15, WIDTH - RIGHT - 15)
    y, y_ticks = _scale(np.array([s for _, s in points.values()]), HEIGHT - BOTTOM, TOP)
    parts = [_axis(y_ticks, y)]
    parts += [_text(x(t), HEIGHT - 16, f"{t:g}") for t in x_ticks]
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 2, "million parameters"))
    for name, (_, score) in points.items():
        color = color_of(list(order).index(name))
        parts.append(_dot(x(sizes[name]), y(score), color, 5))
        place = (x(sizes[name]) - LEFT) / (WIDTH - LEFT - RIGHT)
        anchor = "start" if place < 0.15 else "end" if place > 0.85 else "middle"
        at = (x(sizes[name]), y(score) - 8)
        parts.append(_text(*at, _shorten(name, 14), name, anchor=anchor, color=color))
    return _svg(title, parts)


def _scale(
    values: NDArray[np.float64], start: float, end: float
) -> tuple[Callable[[float], float], list[float]]:
    """Map the range of values to pixels, with about four round ticks."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999))
    low, high = step * np.floor(low / step), step * np.ceil(high / step)
    ticks = [round(float(t), 10) for t in np.arange(low, high + step / 2, step)]
    return lambda value: start + (value - low) / (high - low) * (end - start), ticks


def _axis(ticks: Sequence[float], y: Callable[[float], float]) -> str:
    lines = [_line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "#dddddd") for tick in ticks]
    names = [_text(LEFT - 4, y(t) + 3, f"{t:g}", anchor="end") for t in ticks]
    return "".join(lines + names)


def _joined(
    centres: NDArray[np.floating], values: NDArray[np.floating], y: Callable[[float], float]
) -> str:
    points = [(x, y(v)) for x, v in zip(centres, values, strict=True) if np.isfinite(v)]
    where = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline points="{where}" fill="none" stroke="#999999" stroke-opacity="0.35"/>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width:g}"/>'
    )


def _dot(x: float, y: float, color: str, radius: float = 2.5) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{color}" fill-opacity="0.6"/>'


def _bar(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    full: str = "",
    *,
    anchor: str = "middle",
    color: str = "#444444",
) -> str:
    tip = f"<title>{escape(full)}</title>" if full else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">'
        f"{escape(text)}{tip}</text>"
    )


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= max(length, 4) else name[: max(length, 4) - 1] + "…"


def _svg(title: str, parts: Sequence[str]) -> str:
    heading = f'<text x="4" y="14" class="title">{escape(title)}</text>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f"<title>{escape(title)}</title>{heading}{''.join(parts)}</svg>"
    )

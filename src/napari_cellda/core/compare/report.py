"""One HTML page about an evaluation: tables, plots and pictures inside it, no network needed."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from napari_cellda import __version__
from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.compare.charts import histogram_chart, size_chart, strip_chart
from napari_cellda.core.compare.efficiency import standings
from napari_cellda.core.compare.overlays import OBJECT_NAMES, OVERLAY_COLORS, PIXEL_NAMES
from napari_cellda.core.compare.scoring import KEYS, LOWER_IS_BETTER
from napari_cellda.core.compare.summary import contents, paired_differences, size_histogram
from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_cellda.core.compare.efficiency import Standing
    from napari_cellda.core.compare.evaluate import Evaluation
    from napari_cellda.core.compare.scoring import Figures
    from napari_cellda.core.compare.summary import Difference, ModelResult

TITLES = {
    "iou": "IoU",
    "dice": "Dice (F1)",
    "precision": "Precision",
    "recall": "Recall",
    "hd95": "HD95",
    "asd": "ASD",
    "ap50": "AP50",
    "ap75": "AP75",
    "map": "mAP",
    "instance_dice": "Instance Dice",
    "f1_50": "F1 at IoU 0.5",
    "vi_split": "VI split",
    "vi_merge": "VI merge",
}
N_EXTREMES = 4
"""Best and worst images that are shown."""
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; margin: .6em 0; font-size: 13px; display: block;
  overflow-x: auto; }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.best { font-weight: 700; } .quiet { color: #777; font-size: 13px; }
.row { display: flex; flex-wrap: wrap; gap: 12px; }
.group { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 12px; }
figure { margin: 0; } figcaption { font-size: 12px; max-width: 220px; overflow-wrap: anywhere; }
figure img { max-width: 220px; background: #000; display: block; }
svg { border: 1px solid #eee; } svg text { font: 10px system-ui, sans-serif; }
svg text.title { font-weight: 700; font-size: 12px; }
.swatch { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 1em;
  vertical-align: -.1em; }
"""


def check_report(path: Path | None, upper_bound: str | None, models: Iterable[str]) -> None:
    """Raise a UserError if a report cannot be written so."""
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"'{path}' has the ending '{path.suffix}'; expected .html.")
    if upper_bound is not None and upper_bound not in models:
        raise UserError(
            f"--upper-bound is '{upper_bound}'; expected one of the predictions: "
            f"{', '.join(models)}."
        )


def write_report(path: Path, evaluation: Evaluation, *, upper_bound: str | None = None) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        Ends in .html.
    evaluation : Evaluation
        With pictures, if images are to be shown.
    upper_bound : str, optional
        The model that performance efficiency is measured against. None: for each figure the model
        that is best in it.

    Raises
    ------
    UserError
        If the ending is another one, a name unknown, or the file cannot be written.
    """
    check_report(path, upper_bound, evaluation.models)
    with write_atomically(path) as aside:
        aside.write_text(report_html(evaluation, upper_bound=upper_bound), encoding="utf-8")


def report_html(evaluation: Evaluation, *, upper_bound: str | None = None) -> str:
    """Return the page; see `write_report`."""
    models = evaluation.models
    keys = [key for key in KEYS if any(np.isfinite(m.values(key)).any() for m in models.values())]
    parts = [
        _introduction(evaluation),
        _scores(models, keys),
        _differences(models, keys),
        _efficiency(models, keys, upper_bound),
        _classes(evaluation),
        _extremes(evaluation),
        _all_images(models, keys),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Evaluation</title><style>{STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>\n"
    )


def _introduction(evaluation: Evaluation) -> str:
    first = next(iter(evaluation.models.values()))
    scheme, unit = evaluation.scheme, first.images[0].unit
    ignored = "" if scheme.ignore is None else f", pixels of value {scheme.ignore} left out"
    return (
        f"<h1>Evaluation of {escape(', '.join(evaluation.models))}</h1>"
        f"<p>{len(first.images)} images, compared by {scheme.kind}; truth: "
        f"{scheme.reference_type}{ignored}. Distances are in {escape(unit)}. "
        f"napari-cellda {escape(__version__)}.</p>"
    )


def _scores(models: Mapping[str, ModelResult], keys: Sequence[str]) -> str:
    means = {name: model.mean for name, model in models.items()}
    std = {name: model.std for name, model in models.items()}
    undefined = {name: model.undefined for name, model in models.items()}
    rows = [
        [
            _heading(key),
            *(
                _score_cell(
                    means[name][key],
                    std[name][key],
                    undefined[name][key],
                    best=_is_best(means, name, key),
                )
                for name in models
            ),
        ]
        for key in keys
    ]
    charts = [
        strip_chart(TITLES[key], {name: model.values(key) for name, model in models.items()})
        for key in keys
    ]
    return (
        f"<h2>Scores</h2>{_table(['', *map(escape, models)], rows)}"
        '<p class="quiet">Mean ± standard deviation over the images; AP and instance Dice of all '
        "images pooled. Arrows show where better is. In brackets: images in which a figure is "
        "undefined; they are left out of its mean. Below, each dot is an image and each bar the "
        f'mean of the images.</p><div class="row">{"".join(charts)}</div>'
    )


def _is_best(means: Mapping[str, Figures], name: str, key: str) -> bool:
    sign = -1 if key in LOWER_IS_BETTER else 1
    values = {n: sign * m[key] for n, m in means.items() if np.isfinite(m[key])}
    return len(means) > 1 and name in values and values[name] == max(values.values())


def _score_cell(mean: float, std: float, undefined: int, *, best: bool) -> str:
    if not np.isfinite(mean):
        return f"– ({undefined})"
    lacking = f" ({undefined})" if undefined else ""
    text = f"{mean:.3f} ± {std:.3f}{lacking}"
    return f'<span class="best">{text}</span>' if best else text


def _differences(models: Mapping[str, ModelResult], keys: Sequence[str]) -> str:
    """Compare every model with the first, image by image."""
    if len(models) < 2:
        return ""
    first, *others = models.values()
    found = {other.name: paired_differences(other, first) for other in others}
    rows = [
        [_heading(key), *(_difference_cell(d.get(key)) for d in found.values())] for key in keys
    ]
    header = ["", *(f"{escape(other.name)} − {escape(first.name)}" for other in others)]
    return f"<h2>Paired differences</h2>{_table(header, rows)}"


def _difference_cell(found: Difference | None) -> str:
    if found is None:
        return "–"
    return (
        f"{found.mean:+.3f} ± {found.std:.3f} "
        f'<span class="quiet">({found.better} better, {found.worse} worse)</span>'
    )


def _efficiency(
    models: Mapping[str, ModelResult], keys: Sequence[str], upper_bound: str | None
) -> str:
    found = {key: standings(models, key, upper_bound) for key in keys}
    found = {key: of_key for key, of_key in found.items() if of_key}
    if not found:
        return ""
    charts = []
    for key, of_key in found.items():
        points = {name: (one.n_parameters, one.score) for name, one in of_key.items()}
        charts.append(size_chart(TITLES[key], points, list(models)))
    rows = [
        [
            escape(name),
            f"{model.n_parameters / 1e6:.2f} M",
            *(_efficiency_cell(of_key.get(name)) for of_key in found.values()),
        ]
        for name, model in models.items()
        if model.n_parameters is not None
    ]
    against = f"the upper bound {upper_bound}" if upper_bound else "the best model of each figure"
    return (
        "<h2>Performance efficiency</h2>"
        f"{_table(['model', 'parameters', *(TITLES[key] for key in found)], rows)}"
        f'<p class="quiet">1 = like {escape(against)} in score and size, 0 = farthest from it. '
        "It depends on which models take part: never compare it between reports.</p>"
        f'<div class="row">{"".join(charts)}</div>'
    )


def _efficiency_cell(found: Standing | None) -> str:
    return "–" if found is None or np.isnan(found.efficiency) else f"{found.efficiency:.3f}"


def _classes(evaluation: Evaluation) -> str:
    rows, charts = [], []
    for name, model in evaluation.models.items():
        for index in evaluation.scheme.classes:
            results = [image.classes[index] for image in model.images]
            found, histogram = contents(results), size_histogram(results)
            area, objects = found["area_fraction"], found["objects"]
            rows.append(
                [
                    escape(name),
                    str(index),
                    f"{area['prediction']:.2%}",
                    f"{area['truth']:.2%}",
                    str(objects["prediction"]),
                    str(objects["truth"]),
                ]
            )
            if histogram["edges"]:
                sides = (histogram["prediction"], histogram["truth"])
                title = f"{name}, class {index}: object sizes"
                unit = model.images[0].size_unit
                charts.append(histogram_chart(title, histogram["edges"], *sides, unit))
    header = ["model", "class", "area", "true area", "objects", "true objects"]
    return f'<h2>Classes</h2>{_table(header, rows)}<div class="row">{"".join(charts)}</div>'


def rank(evaluation: Evaluation) -> list[str]:
    """Order the images from worst to best: by Dice, instance Dice or, for boundaries, by VI.

    The mean over the models counts; images where it is undefined come first.
    """

    def goodness(figures: Figures) -> float:
        if evaluation.scheme.kind == "boundary":
            return -figures["vi_split"] - figures["vi_merge"]
        return figures["dice" if evaluation.scheme.kind == "semantic" else "instance_dice"]

    names = [image.name for image in next(iter(evaluation.models.values())).images]
    table = np.array([[goodness(i.figures) for i in m.images] for m in evaluation.models.values()])
    order = np.nan_to_num(table.mean(axis=0), nan=-np.inf).argsort(kind="stable")
    return [names[i] for i in order]


def _extremes(evaluation: Evaluation) -> str:
    if not evaluation.pictures:
        return ""
    order = rank(evaluation)
    half = min(N_EXTREMES, (len(order) + 1) // 2)
    worst, best = order[:half], order[half:][::-1][:half]
    of_objects = evaluation.scheme.kind == "instances"
    legend = OBJECT_NAMES if of_objects else PIXEL_NAMES
    outlines = "; black lines are true outlines" if of_objects else ""
    swatches = "".join(
        f'<span class="swatch" style="background:{OVERLAY_COLORS[name]}"></span>{name}'
        for name in legend
    )
    shown = f'<h2>Worst images</h2><p class="quiet">{swatches}{outlines}</p>'
    shown += _pictures(evaluation, worst)
    return shown + (f"<h2>Best images</h2>{_pictures(evaluation, best)}" if best else "")


def _pictures(evaluation: Evaluation, names: Sequence[str]) -> str:
    """Show images in a row, the models of one image side by side."""
    groups = []
    for image in names:
        shown = ""
        for model in evaluation.models:
            data = b64encode(evaluation.pictures[model, image]).decode()
            text = escape(f"{image} ({model})" if len(evaluation.models) > 1 else image)
            shown += (
                f'<figure><img src="data:image/png;base64,{data}" alt="{text}">'
                f"<figcaption>{text}</figcaption></figure>"
            )
        groups.append(f'<div class="group">{shown}</div>')
    return f'<div class="row">{"".join(groups)}</div>'


def _all_images(models: Mapping[str, ModelResult], keys: Sequence[str]) -> str:
    rows = [
        [escape(image.name), escape(model.name)]
        + [f"{v:.3f}" if np.isfinite(v := image.figures[key]) else "–" for key in keys]
        for model in models.values()
        for image in model.images
    ]
    header = ["image", "model", *(_heading(key) for key in keys)]
    return f"<h2>All images</h2><details><summary>Show</summary>{_table(header, rows)}</details>"


def _heading(key: str) -> str:
    return TITLES[key] + (" ↓" if key in LOWER_IS_BETTER else " ↑")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

"""An adapted network as a bioimage.io package, with a card that says how it came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_cellda.core.paths import package_id

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.job import Adapted
    from napari_cellda.core.adaptation.method import Method, MethodParams
    from napari_cellda.core.adaptation.prepare import Prepared
    from napari_cellda.core.images import Image
    from napari_cellda.core.jobs import Run
    from napari_cellda.core.nets.packable import Packable

TEST_SIDE = 256
"""Side of the package's test input in pixels."""
MOST_SIDE = 512
"""Of what is kept of an image for it; networks with a larger one are unheard of."""


def write_adapted(
    run: Run,
    method: Method,
    settings: MethodParams,
    prepared: Prepared,
    adapted: Adapted,
    middle: NDArray[np.float32],
) -> Path:
    """Write ``<run>/model``; `middle` is what `middle_of` gave before the training.

    Returns
    -------
    Path
        The package: bioimage.io 0.5, with weights as a state dict and, where it can be exported,
        as ONNX.
    """
    from napari_cellda.core.modelzoo.package import PackageInfo, write_package

    network = cast("Packable", adapted.network)
    info = PackageInfo(
        id=package_id(run.folder.resolve().name, method.name),
        name=f"{method.name} adapted network",
        description=(
            f"{method.title}. Adapted to {len(prepared.target)} target plane(s); "
            f"classes: {', '.join(prepared.classes)}."
        )[:1024],
        citations=((f"{method.name}: {method.title}"[:200], method.reference),)
        if method.reference
        else (),
        documentation=_documentation(run, method, adapted, prepared),
        tags=("domain-adaptation", method.name, "2d"),
        kind="network",
        output_kind=adapted.kind,
        output_names=adapted.output_names,
        input_name="channel",
        channels=run.record.options.get("channels"),
        input_range=(None, None),
        scaling=settings.normalisation,
        normalisation=prepared.normalisation,
        structure=prepared.classes[1] if len(prepared.classes) == 2 else "",
        instance_step=adapted.extra,
        training={
            "method": method.name,
            "command": run.record.command,
            "selection": adapted.selection,
            "scores": adapted.scores,
            "steps": adapted.progress.steps,
            "stopped": adapted.progress.stopped,
            "parameters": adapted.progress.n_parameters
            or sum(p.numel() for p in adapted.network.parameters()),
            "classes": list(prepared.classes),
        },
    )
    example = _example(middle, network)
    return write_package(network, info, example, run.model_folder, cover=_cover(example))


def _documentation(run: Run, method: Method, adapted: Adapted, prepared: Prepared) -> str:
    scores = "\n".join(f"| {name} | {value:.4g} |" for name, value in adapted.scores.items())
    table = f"\n\n| measured while training | value |\n|---|---|\n{scores}" if scores else ""
    source = f" and {len(prepared.source)} source plane(s)" if prepared.source else ""
    stopped = "It was stopped before its end." if adapted.progress.stopped else ""
    return f"""{method.title}.

**Trained on** {len(prepared.target)} target plane(s){source}, {adapted.progress.steps} steps.
{stopped}

**Command.** `{run.record.command}`

**Choice of the checkpoint.** {adapted.selection}{table}

**Limits.** It was made for images like those it was adapted to; on others it may be wrong without a
sign. Check it on a few of yours."""


def middle_of(image: Image) -> NDArray[np.float32]:
    """Return the middle of an image, in its own grey values, as (C, Y, X); at most MOST_SIDE.

    To be read before a training: its end may be hours away, and the image's drive with it.
    """
    from napari_cellda.core.tiles import Region, middle_slice

    z = image.limits[0] // 2
    rows, columns = (middle_slice(size, MOST_SIDE) for size in image.limits[1:])
    block = image.read(Region(0, slice(z, z + 1), rows, columns))[:, 0]
    return np.asarray(np.nan_to_num(block, posinf=0, neginf=0), np.float32)


def _example(middle: NDArray[np.float32], network: Packable) -> NDArray[np.float32]:
    """Return the middle as (C, S, S), with a side that suits the network."""
    from napari_cellda.core.tiles import middle_slice, reflect_pad

    side = max(TEST_SIDE, 4 * network.multiple) // network.multiple * network.multiple
    rows, columns = (middle_slice(size, side) for size in middle.shape[1:])
    block = middle[:, rows, columns]
    missing = [side - n for n in block.shape[1:]]
    return np.asarray(reflect_pad(block, (0, 0), missing), np.float32)


def _cover(example: NDArray[np.float32]) -> NDArray[Any]:
    """Return the first channels as a picture."""
    low, high = (float(np.percentile(example, q)) for q in (1, 99.8))
    scaled = np.clip((example - low) / max(high - low, 1e-9), 0, 1)
    picture: NDArray[np.uint8] = (255 * scaled).round().astype(np.uint8)
    return np.moveaxis(picture[:3], 0, -1) if len(picture) >= 3 else picture[0]

"""An adapted network as a bioimage.io package, with a card that says how it came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.adaptation.inputs import Opened
    from napari_cellda.core.adaptation.job import Adapted
    from napari_cellda.core.adaptation.method import Method, MethodParams
    from napari_cellda.core.adaptation.prepare import Prepared
    from napari_cellda.core.images import Image
    from napari_cellda.core.jobs import Run
    from napari_cellda.core.nets.packable import Packable

TEST_SIDE = 256
"""Side of the package's test input in pixels."""


def write_adapted(
    run: Run,
    method: Method,
    settings: MethodParams,
    prepared: Prepared,
    adapted: Adapted,
    opened: Opened,
) -> Path:
    """Write ``<run>/model``.

    Returns
    -------
    Path
        The package: bioimage.io 0.5, with weights as a state dict and, where it can be exported,
        as ONNX.
    """
    from napari_cellda.core.modelzoo.package import PackageInfo, write_package

    network = cast("Packable", adapted.network)
    info = PackageInfo(
        id=run.folder.resolve().name.lower().replace(" ", "-") or method.name,
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
            "parameters": sum(p.numel() for p in adapted.network.parameters()),
            "classes": list(prepared.classes),
        },
    )
    example = _example(opened.target[0].image, network)
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


def _example(image: Image, network: Packable) -> NDArray[np.float32]:
    """Return the middle of the first target image, in its own grey values, as (C, S, S)."""
    from napari_cellda.core.tiles import Region, reflect_pad

    side = max(TEST_SIDE, 4 * network.multiple) // network.multiple * network.multiple
    parts = []
    for size in image.limits[1:]:
        start = max(0, (size - side) // 2)
        parts.append(slice(start, min(size, start + side)))
    z = image.limits[0] // 2
    block = image.read(Region(0, slice(z, z + 1), *parts))[:, 0]
    missing = [side - n for n in block.shape[1:]]
    finite = np.nan_to_num(block, posinf=0, neginf=0)
    return np.asarray(reflect_pad(finite, (0, 0), missing), np.float32)


def _cover(example: NDArray[np.float32]) -> NDArray[Any]:
    """Return the first channels as a picture."""
    low, high = (float(np.percentile(example, q)) for q in (1, 99.8))
    scaled = np.clip((example - low) / max(high - low, 1e-9), 0, 1)
    picture: NDArray[np.uint8] = (255 * scaled).round().astype(np.uint8)
    return np.moveaxis(picture[:3], 0, -1) if len(picture) >= 3 else picture[0]

"""Enhancer training as a run: folders in, a run folder with a bioimage.io package out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cellda.core.atomic import remove
from napari_cellda.core.enhancer_training.begin import origin
from napari_cellda.core.enhancer_training.params import EnhancerParams, enhancer_params
from napari_cellda.core.enhancer_training.source import (
    MasksAre,
    Structure,
    object_diameter,
    open_source,
)
from napari_cellda.core.enhancer_training.train import TrainedEnhancer, train_enhancer
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Stage, Task, never
from napari_cellda.core.jobs import Run
from napari_cellda.core.params import checked
from napari_cellda.core.runs.commands import ENHANCER, check_resumed_by, typed_again
from napari_cellda.core.runs.folder import has_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_cellda.core.enhancer_training.source import SourcePlane
    from napari_cellda.core.events import Stop
    from napari_cellda.core.images import Channels
    from napari_cellda.core.nets.unet import UNet
    from napari_cellda.core.params import Preset

TEST_SIDE = 256
"""Side of the package's test input in pixels."""


def run_enhancer_training(
    run_folder: Path,
    images: Path | None = None,
    masks: Path | None = None,
    *,
    masks_are: MasksAre = "instances",
    structure: Structure | None = None,
    channels: Channels = "grey",
    preset: Preset = "cpu",
    overrides: dict[str, Any] | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    stop: Stop = never,
) -> Task[Path | None]:
    """Train an enhancer in a run folder, or go on with one.

    Parameters
    ----------
    run_folder : Path
        New or empty; with `resume`, a run that was begun here.
    images, masks : Path
        Folders of annotated images and their masks, paired by name. Not needed with `resume`.
    masks_are, structure, channels
        See `open_source`.
    preset : {"cpu", "gpu", "published"}
    overrides : dict, optional
        Settings of `EnhancerParams` that differ from the preset.
    seed : int
    resume : bool
        Take everything from ``run.yaml``; inputs that have changed are refused. A run that is done
        is left as it is.
    device, threads, stop
        See `train_enhancer`.

    Yields
    ------
    Stage, Step, Score, Preview, Note
        Also written to the run's log.

    Returns
    -------
    Path or None
        The package ``<run>/model``; None when it was stopped before a network was trained.

    Raises
    ------
    UserError
        For bad inputs, and when the run cannot be made or gone on with.
    """
    if resume:
        run = Run(run_folder)
        check_resumed_by(run.record.method, ENHANCER, run_folder)
        if run.state == "done" and has_model(run.folder):
            yield Note("The run is done; its model is what it came to.")
            return run.model_folder
        run.check_inputs()
    else:
        if images is None or masks is None:
            raise UserError("Training an enhancer needs a folder of images and one of masks.")
        inputs = {"images": images, "masks": masks}
        options = {"masks_are": masks_are, "structure": structure, "channels": channels}
        typed = {**inputs, **options, "preset": preset, "seed": seed}
        run = Run.create(
            run_folder,
            ENHANCER,
            enhancer_params(preset, overrides),
            inputs,
            seed=seed,
            options=options,
            command=typed_again(ENHANCER.split(), typed, overrides or {}),
        )
    return (yield from run.drive(_work(run, device, threads, run.stopper(stop))))


def _work(run: Run, device: str, threads: int | None, stop: Stop) -> Task[Path | None]:
    options = run.record.options
    channels = options["channels"]
    params = checked(EnhancerParams, run.record.params, "Enhancer training")
    yield Stage("Open the annotated images")
    planes = open_source(
        run.input_path("images"),
        run.input_path("masks"),
        options["masks_are"],
        options["structure"],
        channels if isinstance(channels, str) else tuple(channels),
    )
    diameter = object_diameter(planes)
    trained = yield from train_enhancer(
        planes,
        params,
        run.folder / "maps",
        run,
        seed=run.record.seed,
        device=device,
        stop=stop,
        threads=threads,
    )
    if not trained.progress.steps:
        yield Note("Stopped before the first step, so there is no enhancer.")
        return None
    yield Stage("Write the model")
    package = _write(run, params, planes, trained, diameter)
    if not trained.progress.stopped:  # hundreds of megabytes, which only a resume would read
        remove(run.folder / "maps")
    return package


def _write(
    run: Run,
    params: EnhancerParams,
    planes: list[SourcePlane],
    trained: TrainedEnhancer,
    diameter: float | None,
) -> Path:
    from napari_cellda.core.modelzoo.package import PackageInfo, write_package

    outputs, begun_from = planes[0].outputs, origin(params)
    image, forest_map = _example(params.shows)
    info = PackageInfo(
        id=params.id,
        name=f"Prediction Enhancer for {params.shows}",
        description=(
            "Repairs the probability map of a pixel classifier that was trained on brushstrokes "
            f"of {params.shows}. It sees only that map, never the image."
        ),
        licence=params.licence,
        citations=(
            ("From shallow to deep: Matskevych et al., 2022", "10.3389/fcomp.2022.805166"),
            *(((params.attribution or "Source data", params.doi),) if params.doi else ()),
        ),
        documentation=_documentation(run, params, planes, trained, diameter, begun_from),
        tags=("prediction-enhancer", "shallow2deep", "2d", *params.shows.split()),
        output_names=outputs,
        structure=params.shows,
        object_diameter=diameter,
        feature_sets=("ilastik", "compact", "s2d"),
        training={
            "command": run.record.command,
            "scores": trained.scores,
            "map_histogram": list(trained.histogram),
            "thresholds_before_calibration": trained.thresholds,
            "steps": trained.progress.steps,
            "best_step": trained.progress.best_step,
            **({"begun_from": begun_from} if begun_from else {}),
            "attribution": params.attribution,
        },
    )
    cover = _cover(trained.network, image, forest_map)
    return write_package(trained.network, info, forest_map[None], run.model_folder, cover=cover)


def _documentation(
    run: Run,
    params: EnhancerParams,
    planes: list[SourcePlane],
    trained: TrainedEnhancer,
    diameter: float | None,
    begun_from: dict[str, Any],
) -> str:
    """Write the card's text: provenance, scores, limits."""
    size = f"The objects were about {diameter:.0f} pixels across. " if diameter else ""
    scores = "\n".join(f"| {name} | {value:.3f} |" for name, value in trained.scores.items())
    before = " and ".join(f"{t:.2f} ({name})" for name, t in trained.thresholds.items())
    earlier = _earlier(begun_from)
    return f"""A U-Net that turns the forest's probability map of {params.shows} into a better one.

**Source.** {len(planes)} annotated planes. {params.attribution}

**Command.** `{run.record.command}`
{earlier}
**Choice of the checkpoint.** The highest mean Dice on planes and forests that training never saw
(step {trained.progress.best_step} of {trained.progress.steps}). Validation Dice:

| map | Dice |
|---|---|
{scores}

**Calibration.** On the same maps the threshold nearest to 0.5 that could not be told from the best
one was {before}. It is 0.5 now, by the bias of the last layer.

**Limits.** {size}It draws {params.shows} and nothing else: on another structure, or on objects of a
very different size in pixels, it invents what it knows. Compare with the forest's own map.
"""


def _earlier(begun_from: dict[str, Any]) -> str:
    """Say what the training began from, if it did not begin at random."""
    if not begun_from:
        return ""
    weights = begun_from["weights_sha256"][:12]
    return (
        f"\nIt began from the weights of an earlier `{begun_from['id']}` (sha256 {weights}), which "
        f"came from `{begun_from['command'] or 'an unknown command'}`\n"
    )


def _example(shows: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Make a picture and a forest's map of it, from generated samples: for cover and test."""
    from napari_cellda.core.annotator import random_strokes
    from napari_cellda.core.features import FeatureSpec, compute_features
    from napari_cellda.core.forest import ForestParams, fit_forest

    def features(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        grey = picture.reshape(*picture.shape[:2], -1).mean(axis=-1, dtype=np.float32)
        return compute_features((grey / 255)[None], FeatureSpec())

    painted, truth = _example_field(shows, 2, 2 * TEST_SIDE)
    strokes = random_strokes(truth.astype(np.int8), 8, rng=0)
    labels = strokes[strokes > 0].astype(np.intp) - 1
    forest = fit_forest(features(painted)[:, strokes > 0].T, labels, 2, ForestParams())
    image, _ = _example_field(shows, 1, TEST_SIDE)
    return image, forest.predict(features(image))[1]


def _example_field(shows: str, seed: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Generate the sample that looks most like the structure, and its truth."""
    from scipy import ndimage

    from napari_cellda.core.samples import nuclei_field, organelles_field

    if "nucle" in shows:
        sample = nuclei_field((side, side), seed, "b")
        assert sample.labels is not None
        return sample.image, sample.labels > 0
    if "membrane" in shows:
        sample = organelles_field((side, side), seed)
        assert sample.boundary_mask is not None
        return sample.image, sample.boundary_mask
    # At twice the size: real mitochondria are larger in sections than those of the sample.
    sample = organelles_field((side // 2, side // 2), seed)
    assert sample.labels is not None
    image = ndimage.zoom(sample.image, 2, order=1)
    return image, (sample.labels > 0).repeat(2, axis=0).repeat(2, axis=1)


def _cover(
    network: UNet, image: NDArray[np.uint8], forest_map: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return the image, the forest's map and the enhanced map side by side; (Y, 3 X, 3) uint8."""
    import torch

    with torch.inference_mode():
        enhanced = network(torch.from_numpy(forest_map)[None, None]).sigmoid()[0, 0].numpy()
    maps = [np.round(np.clip(m, 0, 1) * 255).astype(np.uint8) for m in (forest_map, enhanced)]
    pictures = [image, *maps]
    return np.hstack([p if p.ndim == 3 else np.repeat(p[..., None], 3, -1) for p in pictures])

"""Walk stacks, time series, many channels and volumes through a real window, with pictures.

python docs/any_image.py -o docs/images
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from qtpy.QtTest import QTest
from scipy import ndimage
from screenshots import IMAGES, Walk

from napari_cellda.core.modelzoo.package import PackageInfo, write_package
from napari_cellda.core.nets.unet import UNet
from napari_cellda.ui.autosave import FOLDER_VARIABLE
from napari_cellda.ui.demo import wait_until

STEPS = 40
"""Of training the small 3D enhancer: enough for blobs."""


def blobs(shape: tuple[int, ...], n: int, radius: float, seed: int = 0) -> np.ndarray:
    """Draw balls of one radius at random; 1 inside, soft at the rim."""
    rng = np.random.default_rng(seed)
    middles = (rng.random((n, len(shape))) * np.array(shape)).astype(int)
    away = np.ones(shape, bool)
    away[tuple(middles.T)] = False
    distance = ndimage.distance_transform_edt(away)
    return np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)


def microscope(clean: np.ndarray, seed: int = 1) -> np.ndarray:
    """Blur, shade and sprinkle with noise, as 8 bit."""
    rng = np.random.default_rng(seed)
    shade = np.linspace(0.6, 1, clean.shape[-1])
    seen = ndimage.gaussian_filter(clean, [0.8] * clean.ndim) * shade + 0.2
    return np.clip(150 * seen + rng.normal(0, 22, clean.shape), 0, 255).astype(np.uint8)


def lines(plane: np.ndarray, *, inside: bool, n: int, seed: int) -> list[np.ndarray]:
    """Find short horizontal lines inside (or outside) the objects of a (Y, X) plane."""
    rng, length, margin = np.random.default_rng(seed), 9, 8
    found: list[np.ndarray] = []
    while len(found) < n:
        y, x = (int(rng.integers(margin, size - margin - length)) for size in plane.shape)
        part = plane[y - 2 : y + 3, x : x + length]
        if (part > 0.9).all() if inside else (part < 0.1).all():
            found.append(np.array([[y, x + step] for step in range(0, length, 2)]))
    return found


def paint_plane(one: Walk, truth: np.ndarray, index: int, n: int = 3) -> None:
    """Go to a plane and paint both classes on it."""
    one.viewer.dims.set_current_step(0, index)
    QTest.qWait(200)
    for label, inside in ((1, False), (2, True)):
        for path in lines(truth, inside=inside, n=n, seed=index):
            one.stroke(path, label)


def begin(folder: Path, pixels: np.ndarray, name: str) -> Walk:
    """Open a window with an image and a small brush."""
    one = Walk(folder)
    one.viewer.add_image(pixels, name=name)
    one.rest()
    one.viewer.reset_view()
    one.session.current.strokes.brush_size = 4
    return one


def stack(folder: Path, model: Path) -> None:
    """Paint two planes of a z-stack, look at a third, then use volume filters and enhancer."""
    truth = blobs((16, 112, 112), 24, 8)
    one = begin(folder, microscope(truth), "stack")
    for z in (4, 11):
        paint_plane(one, truth[z], z)
    one.viewer.dims.set_current_step(0, 8)
    one.picture("stack")
    features = one.panels["Paint"].features
    features.ndim.setCurrentIndex(1)
    features.ndim.activated.emit(1)
    one.rest()
    assert one.session.spec.ndim == 3, "the filters reach along z"
    one.raise_panel("Enhance")
    one.panels["Enhance"].picker.pick(str(model))
    wait_until(lambda: one.session.enhancer is not None, "the enhancer")
    one.rest()
    assert "enhanced" in one.session.current.arrays, "the volume was enhanced"
    one.picture("volume")
    one.viewer.close()


def time_series(folder: Path) -> None:
    """Paint the first and the last image of a series with one forest."""
    first = blobs((200, 200), 40, 10)
    truth = np.stack([np.roll(first, 6 * t, axis=1) for t in range(8)])
    one = begin(folder, microscope(truth), "series")
    picker = one.panels["Paint"].picker
    picker.axes.setCurrentIndex(picker.axes.findData("tyx"))
    picker.axes.activated.emit(picker.axes.currentIndex())
    one.rest()
    one.session.current.strokes.brush_size = 4
    for t in (0, 7):
        paint_plane(one, truth[t], t)
    one.viewer.dims.set_current_step(0, 4)
    assert one.session.current.image.n_times == 8, "the axis is time"
    one.picture("series")
    one.viewer.close()


def channels(folder: Path) -> None:
    """Paint on an image of three channels, of which two count."""
    nuclei = blobs((220, 220), 36, 7)
    cells = blobs((220, 220), 36, 13)
    noise = np.random.default_rng(3).random((220, 220), dtype=np.float32)
    pixels = np.stack([microscope(nuclei), microscope(cells, 2), (noise * 255).astype(np.uint8)])
    one = begin(folder, pixels, "channels")
    picker = one.panels["Paint"].picker
    picker.channels.menu().actions()[2].trigger()
    one.rest()
    assert one.session.current.choice.channels == (0, 1), "the noise is left out"
    one.session.current.strokes.brush_size = 4
    for label, inside in ((1, False), (2, True)):
        for path in lines(nuclei, inside=inside, n=4, seed=label):
            one.stroke(path, label)
    one.picture("channels")
    one.viewer.close()


def make_enhancer(folder: Path) -> Path:
    """Train a small 3D enhancer on balls, so that there is one to show."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # such small tiles gain nothing from more
    network = UNet(ndim=3, in_channels=1, out_channels=1, width=4, depth=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(STEPS):
        clean = blobs((16, 32, 32), 4, 8, seed=100 + step)
        spots = np.random.default_rng(step).random(clean.shape, dtype=np.float32)
        noisy = np.clip(0.75 * ndimage.gaussian_filter(clean, 1) + 0.5 * (spots - 0.4), 0, 1)
        answer = network.train()(torch.from_numpy(noisy[None, None].astype(np.float32)))
        target = torch.from_numpy(clean[None, None])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(answer, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    info = PackageInfo(
        id="balls-3d",
        name="Balls (3D example)",
        description="A small example: repairs maps of balls in stacks.",
        structure="nuclei",
        object_diameter=16,
        feature_sets=("ilastik",),
    )
    test = blobs((16, 32, 32), 3, 8)[np.newaxis]
    return write_package(network.eval(), info, test, folder / "balls-3d", onnx=False)


def walk_all(folder: Path) -> None:
    """Take all pictures of this page."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[FOLDER_VARIABLE] = scratch
        time_series(folder)
        channels(folder)
        stack(folder, make_enhancer(Path(scratch)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=IMAGES)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    walk_all(output)

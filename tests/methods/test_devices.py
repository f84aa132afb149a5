"""Every method trains, stops, goes on and predicts elsewhere than on the processor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from test_contract import drive, job_for, small

from napari_cellda.core.loop import MemoryStore
from napari_cellda.core.modelzoo.network import TorchRunner
from napari_cellda.methods import discover, find_method
from outcomes import train_into
from pretended_device import DEVICE, IS_KNOWN, pretend

pytestmark = pytest.mark.skipif(not IS_KNOWN, reason="this torch cannot pretend a device")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn"), pretend) as pool:
        yield pool


def mix() -> None:
    torch.ones(2, device=DEVICE) + torch.ones(2)


def test_tensors_of_two_devices_are_refused(elsewhere):
    with pytest.raises(RuntimeError, match="two devices"):
        elsewhere.submit(mix).result()


def learn(name: str, folder: Path) -> tuple[int, int]:
    """Train, stop, go on and predict; return the steps of both parts."""
    method, store, steps = find_method(name), MemoryStore(), []
    job = job_for(method, folder, store=store, stop=lambda: len(steps) >= 2)
    stopped = train_into(steps, method.adapt(job, small(method))).progress.steps
    _, adapted = drive(method, job_for(method, folder, store=store), small(method))
    assert {parameter.device.type for parameter in adapted.network.parameters()} == {"cpu"}
    x = np.random.default_rng(0).random((1, 1, 64, 64), np.float32)
    here, there = (TorchRunner(adapted.network, sigmoid=False, device=d) for d in ("cpu", DEVICE))
    np.testing.assert_allclose(there(x), here(x), atol=1e-5)
    return stopped, adapted.progress.steps


@pytest.mark.parametrize("name", [method.name for method in discover()])
def test_it_trains_on_another_device(elsewhere, name, tmp_path):
    stopped, done = elsewhere.submit(learn, name, tmp_path).result()
    assert 0 < stopped < done

"""Forests trained in a helper process: the same ones, and nothing is left behind."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from napari_cellda.core.errors import UserError
from napari_cellda.core.forest import ForestParams, fit_forest
from napari_cellda.core.live import trainer as module
from napari_cellda.core.live.trainer import Trainer, TrainerLost, read_message, serve, write_message

PARAMS = ForestParams(trees=25, jobs=1)
NAMES = tuple(f"feature {i}" for i in range(6))


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    one = Trainer()
    yield one
    one.close()


def samples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.random((300, 6), dtype=np.float32)
    return features, (features[:, 0] + 0.3 * features[:, 1] > 0.6).astype(np.int64)


def test_helper_trains_the_same_forest(trainer: Trainer) -> None:
    features, labels = samples()
    expected = fit_forest(features, labels, 3, PARAMS, feature_names=NAMES)
    grown = list(trainer.grow(features, labels, 3, PARAMS, feature_names=NAMES))
    assert [forest.n_trees for forest in grown] == [20, 25]
    found = trainer.fit(features, labels, 3, PARAMS, feature_names=NAMES)
    for forest in (grown[-1], found):
        assert forest is not None
        assert forest.feature_names == NAMES
        for name in ("feature", "threshold", "children", "leaves", "importances"):
            np.testing.assert_array_equal(getattr(forest, name), getattr(expected, name))


def test_job_given_up_halfway_does_not_disturb_the_next(trainer: Trainer) -> None:
    features, labels = samples()
    first = next(iter(trainer.grow(features, labels, 2, PARAMS)))
    assert first.n_trees == 20
    again = trainer.fit(features, labels, 2, ForestParams(trees=7, jobs=1))
    assert again is not None
    assert again.n_trees == 7


def test_errors_of_the_helper_reach_the_caller(trainer: Trainer) -> None:
    features, labels = samples()
    with pytest.raises(UserError, match="Only one class is painted"):
        trainer.fit(features, labels * 0, 2, PARAMS)
    with pytest.raises(RuntimeError, match="Error"):
        trainer.fit(features[:, 0], labels, 2, PARAMS)
    assert trainer.fit(features, labels, 2, PARAMS) is not None


def test_killed_helper_is_reported_and_started_again() -> None:
    features, labels = samples()
    trainer = Trainer()
    trainer.start()
    assert trainer._process is not None
    trainer._process.kill()
    trainer._process.wait()
    assert trainer.fit(features, labels, 2, PARAMS) is not None  # found dead before the job
    trainer._process.kill()
    trainer._process.wait()
    trainer._process.poll = lambda: None  # type: ignore[method-assign]  # dies during the job
    with pytest.raises(TrainerLost, match="ended unexpectedly"):
        trainer.fit(features, labels, 2, PARAMS)
    assert trainer.fit(features, labels, 2, PARAMS) is not None
    trainer.close()


def test_close_ends_the_process_and_later_jobs_give_nothing() -> None:
    features, labels = samples()
    trainer = Trainer()
    jobs = trainer.grow(features, labels, 2, PARAMS)
    assert next(jobs).n_trees == 20
    process = trainer._process
    assert process is not None
    trainer.close()
    assert list(jobs) == []
    assert process.wait(10) != 0


def test_trains_here_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(module, "_spawn", refuse)
    features, labels = samples()
    trainer = Trainer()
    assert trainer.fit(features, labels, 2, PARAMS).n_trees == 25  # type: ignore[union-attr]
    assert [f.n_trees for f in trainer.grow(features, labels, 2, PARAMS)] == [20, 25]


def test_helper_ends_with_a_parent_that_is_killed() -> None:
    code = """
        import time
        from napari_cellda.core.live.trainer import Trainer
        trainer = Trainer()
        trainer.start()
        print(trainer._process.pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        helper = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    end = time.monotonic() + 60
    while helper.is_running() and helper.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_messages_come_back_as_they_were() -> None:
    pipe = io.BytesIO()
    arrays = [np.arange(6, dtype=">i4").reshape(2, 3), np.zeros((0, 3), np.float32)]
    write_message(pipe, {"do": "x"}, *arrays)
    pipe.seek(0)
    header, found = read_message(pipe)
    assert header == {"do": "x"}
    for a, b in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    with pytest.raises(EOFError):
        read_message(pipe)
    pipe.seek(0)
    with pytest.raises(EOFError):
        read_message(io.BytesIO(pipe.read()[:-3]))


def test_server_ends_when_the_parent_has_gone() -> None:
    features, labels = samples()
    requests, replies = io.BytesIO(), io.BytesIO()
    job = {"do": "fit", "classes": 2, "params": PARAMS.model_dump(), "names": []}
    write_message(requests, job, features, labels)
    requests.seek(0)
    serve(requests, replies)
    replies.seek(0)
    header, arrays = read_message(replies)
    assert set(header["fields"]["arrays"]) >= {"feature", "leaves"}
    assert len(arrays) == len(header["fields"]["arrays"])

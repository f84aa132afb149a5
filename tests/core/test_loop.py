import math

import numpy as np
import pytest
import torch

from napari_cellda.core import batches, loop
from napari_cellda.core.batches import halved, made_ahead, smaller_side
from napari_cellda.core.devices import prepare
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Score, Step, drive, run_quietly
from napari_cellda.core.loop import (
    MemoryStore,
    cosine_rate,
    count_trained,
    set_learning_rate,
    train,
)


class Tiny:
    """A network, its optimiser and dropout: everything that a resume must bring back."""

    def __init__(self, steps=20):
        torch.manual_seed(0)
        self.steps = steps
        self.network = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3),
            torch.nn.Linear(8, 1),
        )  # fmt: skip
        self.optimiser = torch.optim.Adam(self.network.parameters())
        self.seen = []

    @property
    def parts(self):
        return {"network": self.network, "optimiser": self.optimiser}

    def batch(self, index):
        rng = np.random.default_rng([7, index])
        return torch.from_numpy(rng.normal(size=(6, 3)).astype(np.float32))

    def step(self, index, batch):
        self.seen.append(index)
        set_learning_rate(self.optimiser, cosine_rate(index, self.steps, 0.05))
        loss = (self.network(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.item()}

    def run(self, store=None, stop=lambda: False, **more):
        return train(
            self.step, self.batch, steps=self.steps, parts=self.parts,
            store=store or MemoryStore(), stop=stop, **more,
        )  # fmt: skip


def losses(events):
    return {e.index: e.losses["loss"] for e in events if isinstance(e, Step)}


def test_every_step_is_done_once_and_reported():
    tiny = Tiny()
    events = list(tiny.run())
    assert tiny.seen == list(range(20))
    assert list(losses(events)) == list(range(1, 21))


@pytest.mark.parametrize("cut", [1, 9, 19])
def test_a_resumed_run_joins_the_uninterrupted_curve_exactly(cut):
    whole = losses(Tiny().run())
    store, count = MemoryStore(), iter(range(100))
    first = Tiny()
    begun = losses(first.run(store, stop=lambda: next(count) >= cut))
    assert len(begun) == cut
    torch.manual_seed(999)
    events = list(Tiny().run(store))
    assert isinstance(events[0], Note)
    assert begun | losses(events) == whole


def test_stop_returns_what_there_is():
    progress = run_quietly(Tiny().run(stop=lambda: True))
    assert progress.steps == 0
    assert progress.stopped
    assert not run_quietly(Tiny().run()).stopped


def test_the_best_checkpoint_is_of_the_highest_score():
    tiny, store = Tiny(), MemoryStore()
    found = {5: 0.2, 10: 0.9, 15: 0.4, 20: 0.9}
    weights = {}

    def validate(index):
        weights[index + 1] = tiny.network[0].weight.detach().clone()
        yield Score("quality", found[index + 1], index + 1)
        yield Score("another", 99.0, index + 1)

    task = tiny.run(store, validate=validate, validate_every=5, select="quality")
    events: list = []
    progress = drive(task, events.append)
    assert (progress.best_score, progress.best_step) == (0.9, 10)
    scores = [event for event in events if isinstance(event, Score)]
    assert {event.name for event in scores if event.selects} == {"quality"}
    assert {event.name for event in scores if not event.selects} == {"another"}
    best = store.load("best")["parts"]["network"]["0.weight"]
    assert torch.equal(best, weights[10])
    assert not torch.equal(best, weights[20])


def test_a_score_that_is_no_number_chooses_nothing():
    found = iter([math.nan, 0.3, math.inf, 0.9])

    def validate(index):
        yield Score("quality", next(found), index + 1)

    progress = run_quietly(Tiny().run(validate=validate, validate_every=5, select="quality"))
    assert (progress.best_score, progress.best_step) == (0.9, 20)


def test_early_checkpoints_may_be_left_out_of_the_choice():
    def validate(index):
        yield Score("quality", 1 / (index + 1), index + 1)  # worse and worse

    settings = {"validate": validate, "validate_every": 5, "select": "quality"}
    assert run_quietly(Tiny().run(**settings)).best_step == 5
    assert run_quietly(Tiny().run(**settings, select_from=11)).best_step == 15


def test_a_kill_before_the_next_checkpoint_finds_the_same_best(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1e9)
    store = MemoryStore()

    def run():
        tiny = Tiny()

        def validate(index):
            yield Score("quality", tiny.network[0].weight.sum().item(), index + 1)

        return tiny.run(store, validate=validate, validate_every=3, select="quality")

    killed = run()
    for _ in range(12):
        next(killed)
    killed.close()
    assert store.states == {}
    progress = run_quietly(run())
    again = run_quietly(Tiny().run(MemoryStore()))
    assert progress.steps == again.steps == 20
    assert store.load("last")["best_score"] == progress.best_score


def test_checkpoints_are_neither_too_frequent_nor_forgotten(monkeypatch):
    saved = []

    class Watch(MemoryStore):
        def save(self, name, state):
            saved.append((name, state["step"]))

    run_quietly(Tiny().run(Watch()))
    assert saved == [("last", 20)]
    saved.clear()
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 0.25)
    run_quietly(Tiny().run(Watch()))
    assert saved == [("last", 5), ("last", 10), ("last", 15), ("last", 20)]


def test_a_loss_that_is_not_finite_ends_with_a_sentence():
    tiny = Tiny()
    task = train(
        lambda index, batch: {"dice": 0.5, "bce": math.nan if index == 3 else 1.0},
        tiny.batch, steps=9, parts=tiny.parts, store=MemoryStore(), stop=lambda: False,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"step 4 \(dice = 0.5, bce = nan\).* no checkpoint yet"):
        list(task)


def test_a_training_that_breaks_down_keeps_the_best_and_says_what_there_is():
    tiny, store = Tiny(), MemoryStore()

    def step(index, batch):
        return {"loss": math.nan if index == 11 else 1.0}

    def validate(index):
        yield Score("quality", float(index), index + 1)

    task = train(
        step, tiny.batch, steps=20, parts=tiny.parts, store=store, stop=lambda: False,
        validate=validate, validate_every=4, select="quality",
    )  # fmt: skip
    with pytest.raises(UserError, match="The best checkpoint, of step 8, is kept"):
        list(task)
    assert store.load("best")["step"] == 8


def test_a_training_that_breaks_down_names_its_last_good_checkpoint(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    tiny, store = Tiny(), MemoryStore()
    task = train(
        lambda index, batch: {"loss": math.inf if index == 7 else 1.0}, tiny.batch, steps=100,
        parts=tiny.parts, store=store, stop=lambda: False,
    )  # fmt: skip
    with pytest.raises(UserError, match="The last good checkpoint, of step 6, is kept"):
        list(task)
    assert store.load("last")["step"] == 6


def test_an_error_while_making_a_batch_is_not_lost():
    tiny = Tiny()

    def batch(index):
        raise UserError("The folder is gone.")

    task = train(
        tiny.step, batch, steps=3, parts=tiny.parts, store=MemoryStore(), stop=lambda: False
    )
    with pytest.raises(UserError, match="gone"):
        list(task)


def test_cosine_rate_rises_then_falls():
    rates = [cosine_rate(i, 1000, 1.0) for i in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[100] == pytest.approx(1.0)
    assert rates[550] == pytest.approx(0.505, abs=0.01)
    assert 0.01 <= rates[-1] < 0.011
    assert cosine_rate(0, 1, 2.0) == 2.0


def test_prepared_networks_learn_in_both_precisions():
    for precision in ("32-true", "bf16-mixed"):
        tiny = Tiny()
        fabric, model, optimiser = prepare(tiny.network, tiny.optimiser, "cpu", precision)
        x = fabric.to_device(tiny.batch(0))
        before = tiny.network[0].weight.detach().clone()
        loss = model(x).float().square().mean()
        fabric.backward(loss)
        optimiser.step()
        assert not torch.equal(before, tiny.network[0].weight)


def test_memory_that_runs_out_halves_the_batches_and_goes_on():
    seen = []

    def batch(index):
        return torch.zeros(8, 1, 32, 32), torch.zeros(8, 1, 32, 32)

    def step(index, crops):
        seen.append(len(crops[0]))
        if len(crops[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"loss": 1.0}

    store = loop.MemoryStore()
    events = []
    for event in loop.train(step, batch, steps=3, parts={}, store=store, stop=lambda: False):
        events.append(event)
    assert seen == [8, 4, 2, 2, 2]
    assert [e.index for e in events if isinstance(e, Step)] == [1, 2, 3]
    notes = [e.text for e in events if isinstance(e, Note)]
    assert len(notes) == 2
    assert "2 x 1 x 32 x 32" in notes[1]
    # a resumed run knows at once what fits
    seen.clear()
    list(loop.train(step, batch, steps=5, parts={}, store=store, stop=lambda: False))
    assert seen == [2, 2]


def test_memory_that_runs_out_for_a_single_small_crop_is_said():
    def step(index, crops):
        raise torch.OutOfMemoryError("CUDA out of memory")

    task = loop.train(
        step,
        lambda index: (torch.zeros(1, 1, 64, 64),),
        steps=1,
        parts={},
        store=loop.MemoryStore(),
        stop=lambda: False,
    )
    with pytest.raises(UserError, match="not enough memory"):
        list(task)


class Hungry:
    """Steps that take 150 bytes per crop while they last, of 1000 that are free."""

    def __init__(self, monkeypatch):
        self.network, self.taken, self.seen = torch.nn.Conv2d(1, 1, 3), 0, []
        monkeypatch.setattr(batches, "available_memory", lambda: 1000 - self.taken)

    def step(self, index, crops):
        self.seen.append(tuple(crops[0].shape))
        self.taken = 150 * len(crops[0])
        try:
            self.network(crops[0]).square().mean().backward()
        finally:
            self.taken = 0
        return {"loss": 1.0}

    def run(self, crops, steps=3):
        return list(
            loop.train(
                self.step, lambda index: (crops,), steps=steps, parts={}, store=MemoryStore(),
                stop=lambda: False,
            )
        )  # fmt: skip


def test_batches_that_free_memory_cannot_hold_are_halved_before_it_is_full(monkeypatch):
    hungry = Hungry(monkeypatch)
    events = hungry.run(torch.zeros(8, 1, 64, 64))
    assert [shape[0] for shape in hungry.seen] == [8, 4, 4, 4]
    notes = [e.text for e in events if isinstance(e, Note)]
    assert len(notes) == 1
    assert "4 x 1 x 64 x 64" in notes[0]


def test_a_batch_that_cannot_shrink_is_tried_however_little_is_free(monkeypatch):
    hungry = Hungry(monkeypatch)
    monkeypatch.setattr(batches, "MOST_OF_FREE", 0.1)
    events = hungry.run(torch.zeros(2, 1, 64, 64))
    assert hungry.seen == [(2, 1, 64, 64), *[(1, 1, 64, 64)] * 3]
    assert [e.index for e in events if isinstance(e, Step)] == [1, 2, 3]


def test_a_fault_in_a_step_is_not_taken_for_lack_of_memory():
    def step(index, crops):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    task = loop.train(
        step, lambda index: (), steps=1, parts={}, store=loop.MemoryStore(), stop=lambda: False
    )
    with pytest.raises(RuntimeError, match="shapes"):
        list(task)


def test_large_single_crops_are_cut_smaller():
    small = halved((torch.zeros(1, 1, 256, 256), "points"), 1)
    assert small[0].shape == (1, 1, 128, 128)
    assert small[1] == "points"
    assert halved((torch.zeros(1, 1, 64, 64),), 3)[0].shape == (1, 1, 64, 64)


def test_trained_parameters_are_counted_once_and_frozen_ones_not():
    first, second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
    both = torch.nn.Sequential(first, second)
    frozen = torch.nn.Linear(5, 5).requires_grad_(False)
    adam = torch.optim.Adam(both.parameters())
    assert count_trained([first, both, frozen, adam]) == 3 * 4 + 4 + 4 * 2 + 2
    assert run_quietly(Tiny(steps=1).run()).n_parameters == 3 * 8 + 8 + 2 * 8 + 8 + 1


def test_memory_that_runs_out_in_a_validation_is_said():
    def validate(index):
        yield Score("quality", 1.0, index + 1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="after step 5"):
        list(Tiny().run(validate=validate, validate_every=5))


def test_smaller_crops_keep_sides_that_networks_take():
    sides = [smaller_side(side) for side in (544, 272, 160, 96, 65, 64, 40)]
    assert sides == [256, 128, 64, 64, 64, 64, 40]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU leaves all cores to the batches")
def test_batches_are_made_on_one_core_and_training_keeps_the_others():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []

        def batch(index):
            torch.rand(64, 64) @ torch.rand(64, 64)
            return torch.get_num_threads()

        for _, threads in made_ahead(batch, 0, 3):
            torch.rand(64, 64) @ torch.rand(64, 64)
            seen.append((threads, torch.get_num_threads()))
        assert seen == [(1, 3)] * 3
    finally:
        torch.set_num_threads(before)

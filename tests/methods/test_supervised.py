"""Supervised training: by which planes it chooses, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from adapt_jobs import make_job, nuclei_domain, unlabelled

from napari_cellda.core.adaptation.domain import Domain
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import run_quietly
from napari_cellda.methods import find_method
from napari_cellda.methods.supervised import Params, _split, adapt

TINY = Params(steps=4, crop=32, batch=2, width=4, depth=2, validate_every=2, preview_every=0)


def test_a_loss_of_nothing_is_refused():
    with pytest.raises(UserError, match="bce and dice are both 0"):
        find_method("supervised").settings("cpu", {"bce": 0.0, "dice": 0.0})


def blank(domain: Domain, *numbers: int) -> Domain:
    """The same planes, some of which show annotated background alone."""
    return Domain(
        tuple(
            replace(p, labels=np.zeros_like(p.labels)) if i in numbers else p
            for i, p in enumerate(domain.planes)
        )
    )


def test_a_plane_of_background_is_never_kept_aside(tmp_path):
    target = blank(nuclei_domain("b", first=10).foreground(), 0)
    for seed in range(20):
        job = make_job(tmp_path, source=None, target=target, seed=seed)
        (training,), held_out, words = _split(job, 0.15)
        assert len(held_out) == 1
        assert held_out.planes[0].shows_something
        assert len(training) == 2
        assert any(plane.shows_something for plane in training.planes)
        assert words == "annotated planes kept aside"


def test_the_only_plane_with_something_on_it_is_trained_on_and_chosen_by(tmp_path):
    target = blank(nuclei_domain("b", first=10).foreground(), 0, 2)
    job = make_job(tmp_path, source=None, target=target)
    (training,), held_out, words = _split(job, 0.15)
    assert training is target or training.planes == target.planes
    assert held_out.planes == (target.planes[1],)
    assert words == "annotated planes that training saw too"


def test_fine_tuning_is_chosen_by_the_target(tmp_path):
    target = nuclei_domain("b", first=10).foreground()
    job = make_job(tmp_path, target=target)
    (source, training), held_out, _ = _split(job, 0.15)
    assert len(source) == len(job.source)
    assert {plane.name for plane in held_out.planes} < {plane.name for plane in target.planes}
    assert len(training) == len(target) - 1


def test_without_anything_to_choose_by_the_last_step_is_kept(tmp_path):
    target = nuclei_domain("b", first=10).foreground()
    empty = blank(target, 0, 1, 2)
    job = make_job(tmp_path, source=None, target=target, validation=empty)
    adapted = run_quietly(adapt(job, TINY))
    assert adapted.selection == "The last step, 4: there was no score to choose by."


def test_the_card_says_when_validation_saw_what_training_saw(tmp_path):
    target = nuclei_domain("b", first=10).foreground()
    both = make_job(tmp_path, source=None, target=target, validation=target)
    other = make_job(tmp_path, target=unlabelled(target), validation=target)
    told = "some of which were annotated for the training, too"
    assert told in run_quietly(adapt(both, TINY)).selection
    assert told not in run_quietly(adapt(other, TINY)).selection

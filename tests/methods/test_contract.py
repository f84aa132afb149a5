"""What every method promises, whatever it does: one test for all of them."""

from __future__ import annotations

import math
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from adapt_jobs import make_job, nuclei_domain, unlabelled
from lightning_fabric import Fabric

from napari_cellda.cli.support import parse_settings
from napari_cellda.core.adaptation import training
from napari_cellda.core.adaptation.domain import Domain
from napari_cellda.core.errors import UserError
from napari_cellda.core.events import Note, Preview, Step
from napari_cellda.core.loop import MemoryStore
from napari_cellda.core.nets.packable import Packable
from napari_cellda.methods import describe, discover, find_method
from outcomes import outcome, train_into

METHODS = discover()
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-method.md"
"""What newcomers copy has to keep the same promises."""
SMALL = {
    "steps": 6,
    "crop": 32,
    "batch": 2,
    "preview_every": 3,
    "width": 4,
    "decoder_width": 4,
    "discriminator_width": 4,
    "depth": 2,
    "warmup": 1,
    "validate_every": 3,
}
"""Tiny versions of the settings that a method may have."""
PRINCIPAL = {
    "widths": (8, 8, 8, 8),
    "depths": (1, 1, 1, 1),
    "pyramid": 8,
    "drawing": 8,
    "head_start": 2,
}
STYLE = {"style_crop": 32, "style_width": 4, "style_blocks": 1, "patches": 8}
EXTRA: dict[str, dict[str, object]] = {
    "cks": PRINCIPAL,
    "cks-masks": PRINCIPAL,
    "stylefilter": STYLE,
}
"""Tiny versions of settings that only one method has."""


@pytest.fixture(
    params=[*METHODS, EXAMPLE], ids=lambda method: getattr(method, "name", ""), scope="module"
)
def method(request, tmp_path_factory):
    if request.param == EXAMPLE:
        return documented_method(tmp_path_factory.mktemp("example") / "my_method.py")
    return request.param


def documented_method(file):
    """Write the example of the documentation into a file, and return its method."""
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", EXAMPLE.read_text())
    file.write_text(code)
    spec = spec_from_file_location(file.stem, file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.METHODS[0]


@pytest.fixture(scope="module")
def whole(method, tmp_path_factory):
    """The events and the result of a run that nothing interrupted."""
    return drive(method, job_for(method, tmp_path_factory.mktemp("whole")), small(method))


def small(method, **changes):
    wanted = {**SMALL, **EXTRA.get(method.name, {}), **changes}
    return method.settings(
        "cpu", {k: v for k, v in wanted.items() if k in method.params.model_fields}
    )


def job_for(method, folder, **changes):
    given = {}
    if "target_masks" in method.needs or "target_masks|target_strokes" in method.needs:
        given["target"] = nuclei_domain("b", first=10).foreground()
    return make_job(folder, instances=method.instances, **{**given, **changes})


def drive(method, job, params):
    return outcome(method.adapt(job, params))


def weights(adapted):
    return {key: value.clone() for key, value in adapted.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_losses_are_finite_and_the_network_gives_probabilities(whole):
    events, adapted = whole
    steps = [event for event in events if isinstance(event, Step)]
    assert steps
    assert all(math.isfinite(v) for step in steps for v in step.losses.values())
    assert any(step.losses for step in steps)
    assert adapted.progress.steps == steps[-1].index
    assert any(isinstance(event, Preview) for event in events)
    assert adapted.selection.endswith(".")
    network = adapted.network
    assert isinstance(network, Packable)
    assert not network.training
    with torch.inference_mode():
        maps = network(torch.rand(1, 1, 70, 45))
    assert maps.shape == (1, network.out_channels, 70, 45)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert len(adapted.output_names) == network.out_channels
    if adapted.kind == "classes":
        assert torch.allclose(maps.sum(dim=1), torch.ones(()), atol=1e-4)


def test_it_is_rebuilt_from_its_configuration(whole):
    _, adapted = whole
    twin = type(adapted.network)(**adapted.network.config)
    twin.load_state_dict(adapted.network.state_dict())
    x = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(twin.eval()(x), adapted.network(x), atol=1e-4)


def test_the_same_seed_gives_the_same_network(method, whole, tmp_path):
    _, again = drive(method, job_for(method, tmp_path), small(method))
    assert same(weights(again), weights(whole[1]))


def test_no_pictures_are_taken_where_none_are_wanted(method, tmp_path):
    settings = small(method, steps=3, preview_every=0)
    events, _ = drive(method, job_for(method, tmp_path), settings)
    assert not [event for event in events if isinstance(event, Preview)]


def test_it_stops_within_one_step(method, tmp_path):
    seen = []
    job = job_for(method, tmp_path, stop=lambda: len(seen) >= 2)
    adapted = train_into(seen, method.adapt(job, small(method, steps=50)))
    assert len(seen) <= 3
    assert adapted.progress.stopped


@pytest.mark.parametrize(
    "name", ["cellseguda", "cks", "culpico", "pseudo-label", "stylefilter", "supervised"]
)
def test_a_run_stopped_before_anything_was_chosen_says_so(name, tmp_path):
    method, asked = find_method(name), iter([False, True])
    job = job_for(method, tmp_path, stop=lambda: next(asked))
    _, adapted = drive(method, job, small(method))
    assert adapted.selection.startswith("The last step, 1: ")


@pytest.mark.parametrize("after", [1, 4])
def test_a_resume_joins_exactly(method, whole, tmp_path, after):
    straight, expected = whole
    store, taken = MemoryStore(), []
    job = job_for(method, tmp_path, store=store, stop=lambda: len(taken) >= after)
    train_into(taken, method.adapt(job, small(method)))
    again, adapted = drive(method, job_for(method, tmp_path, store=store), small(method))
    rest = [event for event in again if isinstance(event, Step) and event.losses]
    assert [*taken, *rest] == [e for e in straight if isinstance(e, Step) and e.losses]
    assert same(weights(adapted), weights(expected))


@pytest.mark.parametrize(("at", "times"), [(0, 2), (3, 1), (5, 1)])
def test_it_goes_on_with_less_when_memory_runs_out(method, tmp_path, monkeypatch, at, times):
    real, failures = training.train, []

    def short_of_memory(step, batch, **more):
        def starved(index, crops):
            if index == at and len(failures) < times:
                failures.append(index)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step(index, crops)

        return real(starved, batch, **more)

    monkeypatch.setattr(training, "train", short_of_memory)
    params = small(method, crop=96, style_crop=96, style_batch=2)
    events, adapted = drive(method, job_for(method, tmp_path), params)
    assert adapted.progress.steps == 6
    notes = [e.text for e in events if isinstance(e, Note) and "Memory ran out" in e.text]
    assert len(notes) == times
    assert f"1 x 1 x {64 if times == 2 else 96}" in notes[-1]


def test_a_step_that_breaks_off_in_its_middle_is_taken_again(method, tmp_path, monkeypatch):
    real, calls = Fabric.backward, []

    def backward(self, loss, *args, **more):
        calls.append(loss)
        if len(calls) == 2:  # after the discriminator's, where there is one
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, loss, *args, **more)

    monkeypatch.setattr(Fabric, "backward", backward)
    params = small(method, steps=3, style_batch=2)
    events, adapted = drive(method, job_for(method, tmp_path), params)
    assert adapted.progress.steps == 3
    assert any(isinstance(e, Note) and "Memory ran out" in e.text for e in events)
    frozen = [n for n, p in adapted.network.named_parameters() if not p.requires_grad]
    assert not frozen or method.name == "pseudo-label"


def test_what_is_missing_is_said_in_a_sentence(method, tmp_path):
    nothing = unlabelled(nuclei_domain("b"))
    bare = Domain(tuple(type(p)(p.name, p.pixels, p.normalisation) for p in nothing.planes))
    job = make_job(tmp_path, source=None, target=bare, diameter=None)
    with pytest.raises(UserError) as error:
        drive(method, job, small(method))
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("name", [method.name for method in METHODS])
def test_every_setting_has_help_and_every_preset_is_valid(name):
    described = describe(name)
    assert all(field["help"] for field in described["parameters"].values())
    assert all({"cpu", "gpu", "published"} <= set(f) for f in described["parameters"].values())


def test_settings_of_several_values_are_read_as_they_are_typed():
    cks = find_method("cks")
    typed = parse_settings(["widths=24, 48,96,192"])
    assert cks.settings("cpu", typed).widths == (24, 48, 96, 192)
    for text, said in {
        "widths=24,x,96,192": "'widths' of cks is 'x'; expected a whole number.",
        "widths=24,48": "'widths' of cks is ['24', '48']; expected more values, with commas",
        "widths=1,2,3,4,5": "expected at most 4 values.",
        "widths=": "'widths' of cks is ''; expected values with commas between them.",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)):
            cks.settings("cpu", parse_settings([text]))


def test_a_wrong_setting_is_named(method):
    with pytest.raises(UserError, match="no_such_setting"):
        method.settings("cpu", {"no_such_setting": 1})
    with pytest.raises(UserError, match="steps"):
        method.settings("cpu", {"steps": 0})

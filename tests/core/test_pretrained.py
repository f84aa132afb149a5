"""Beginning with a network that was trained before: what is taken of it, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_cellda.core.adaptation.pretrained import Trained, load_pretrained, read_trained
from napari_cellda.core.errors import UserError
from napari_cellda.core.nets.ensemble import TwinSegmenters
from napari_cellda.core.nets.segmenter import Segmenter
from napari_cellda.core.nets.styled import StyledSegmenter

SIZE = {"width": 4, "depth": 4}


def trained(network, **changes):
    given = {"architecture": type(network).__name__, "config": network.config, **changes}
    return Trained(Path("run"), network.state_dict(), **given)


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("theirs", "inner", "note"),
    [
        (Segmenter(**SIZE), "", ""),
        (Segmenter(**SIZE, up="transpose", growth=8), "", ""),
        (TwinSegmenters(**SIZE, growth=8), "m", "Of the two networks in 'run' the first one"),
        (StyledSegmenter(**SIZE, style_width=4, style_blocks=1), "segmenter", "without the change"),
    ],
)
def test_a_segmenter_goes_on_with_that_of_any_method(theirs, inner, note):
    network = Segmenter(**SIZE)
    begun = trained(theirs)
    load_pretrained(network, begun)
    assert same(network, theirs.get_submodule(inner))
    assert note in "".join(begun.notes)
    assert bool(begun.notes) == bool(note)
    x = torch.rand(1, 1, 32, 32)
    rebuilt = Segmenter(**network.config).eval()
    rebuilt.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(rebuilt(x), theirs.get_submodule(inner).eval()(x))


def test_a_network_of_another_size_is_refused_with_what_would_fit():
    with pytest.raises(UserError) as error:
        load_pretrained(Segmenter(width=8, depth=3), trained(Segmenter(width=4, depth=4)))
    assert "it has width 4, depth 4; the network here width 8, depth 3" in str(error.value)
    assert "set width=4 and depth=4" in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (Segmenter(width=4, depth=4), "it has width 4, depth 4; the network here width 4, depth 3"),
        (Segmenter(n_classes=3, width=4, depth=3), "width 4, depth 3, classes 3; the network here"),
    ],
)
def test_what_is_taken_in_part_is_told(theirs, words):
    begun = trained(theirs)
    load_pretrained(Segmenter(width=4, depth=3), begun)
    (note,) = begun.notes
    assert note.startswith("'run' is taken only in part (it has")
    assert words in note
    assert ("with depth=4 it would be whole" in note) == (theirs.config["depth"] == 4)


def test_two_networks_that_shall_differ_do_not_begin_with_one():
    with pytest.raises(UserError, match="holds one U-Net, and what is trained here is two U-Nets"):
        load_pretrained(TwinSegmenters(**SIZE), trained(Segmenter(**SIZE)))


def test_weights_alone_are_taken_by_their_shapes():
    theirs, network = Segmenter(**SIZE), Segmenter(**SIZE)
    load_pretrained(network, trained(theirs, architecture="", config={}))
    assert same(network, theirs)
    with pytest.raises(UserError, match="of the same method, width and depth"):
        load_pretrained(Segmenter(width=8, depth=4), trained(theirs, architecture="", config={}))


def test_a_runs_checkpoint_is_refused_and_its_folder_named(tmp_path):
    (tmp_path / "run.yaml").write_text("method: supervised\n")
    path = tmp_path / "checkpoints" / "best.pt"
    path.parent.mkdir()
    torch.save({"step": 1, "parts": {}}, path)
    with pytest.raises(UserError, match=r"best.pt' is to resume a run from; give the run's folder"):
        read_trained(path)

import pickle
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zoo_packages as zoo

from napari_cellda.core.errors import ProgramRefused, UserError
from napari_cellda.core.modelzoo import model as model_module
from napari_cellda.core.modelzoo import network as network_module
from napari_cellda.core.modelzoo.model import open_model
from napari_cellda.core.modelzoo.network import (
    OnnxRunner,
    TorchRunner,
    choose_runner,
    fold_batch_norms,
)
from napari_cellda.core.modelzoo.places import file_sha256
from napari_cellda.core.modelzoo.probe import made_up_map
from napari_cellda.core.modelzoo.rdf import read_card
from napari_cellda.core.nets.unet import UNet


def thin(nickname):
    """Arguments that keep a published architecture and make it narrow enough for a test."""
    return {"initial_features": 4 if "3D" in zoo.PUBLISHED[nickname].name else 8}


def a_map(card, seed=0):
    return made_up_map([max(32, 2 * step) for step in card.step], seed)[np.newaxis, np.newaxis]


@pytest.mark.parametrize("nickname", zoo.PUBLISHED)
def test_the_published_enhancers_load_from_their_state_dict(nickname, tmp_path):
    folder, network = zoo.make_published(tmp_path / "m", nickname, **thin(nickname))
    model = open_model(folder)
    card = model.card
    assert card.weight_format == "pytorch_state_dict"
    assert card.tiles_exactly is (nickname == "amiable-crocodile")
    assert model.sha256 == file_sha256(folder / "weights.pt")
    batch = a_map(card)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()  # the sigmoid is inside
    found = model.runner(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert expected.std() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("nickname", zoo.PUBLISHED)
def test_the_published_enhancers_load_at_full_width(nickname, tmp_path):
    folder, network = zoo.make_published(tmp_path / "m", nickname)
    model = open_model(folder)
    batch = a_map(model.card)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(model.runner(batch), expected, atol=0.01)


def test_the_receptive_field_is_measured_when_it_is_not_recorded(tmp_path):
    folder, _ = zoo.make_published(tmp_path / "m", "amiable-crocodile", initial_features=4)
    assert open_model(folder).card.receptive_field == (122, 122)


def test_a_package_of_ours_opens(tmp_path):
    network = zoo.random_unet(width=4, depth=2, out_channels=2)
    folder = zoo.make_own(tmp_path / "own-one", network)
    model = open_model(folder)
    assert isinstance(model.network, UNet)
    assert model.card.min_shape == model.card.step == (4, 4)
    batch = a_map(model.card)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).sigmoid().numpy()  # once, and only once
    np.testing.assert_allclose(model.runner(batch), expected, atol=0.01)


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_every_unet_of_ours_opens(norm, ndim, tmp_path):
    network = zoo.random_unet(width=4, depth=2, norm=norm, ndim=ndim)
    model = open_model(zoo.make_own(tmp_path / "own-one", network))
    assert model.card.ndim == ndim
    assert model.card.tiles_exactly is (norm in ("batch", "none"))
    batch = made_up_map(model.card.min_shape)[np.newaxis, np.newaxis]
    assert model.runner(batch).shape == (1, 1, *model.card.min_shape)


@pytest.mark.parametrize("how", ["zip", "rdf", "folder", "text"])
def test_every_way_of_naming_a_package(how, tmp_path):
    folder = zoo.make_own(tmp_path / "own-one")
    sources = {
        "zip": zoo.zip_folder(folder, tmp_path / "own.zip"),
        "rdf": folder / "rdf.yaml",
        "folder": folder,
        "text": str(folder),
    }
    assert open_model(sources[how]).card.id == "own-one"


def torchscript_of(folder):
    return folder / "weights-torchscript.pt"


def digest_of(folder):
    return file_sha256(torchscript_of(folder))


@pytest.fixture
def torchscript_only(tmp_path):
    folder, network = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    rdf = zoo.read_rdf(folder)
    del rdf["weights"]["pytorch_state_dict"]
    (folder / "weights.pt").unlink()
    zoo.write_rdf(folder, rdf)
    return folder, network


def test_torchscript_is_not_even_loaded_without_a_yes(torchscript_only, monkeypatch):
    folder, _ = torchscript_only
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    for trusted in ((), {"0" * 64}):
        with pytest.raises(ProgramRefused, match="a program") as caught:
            open_model(folder, trusted=trusted)
        assert caught.value.model == "EnhancerMitochondriaEM2D"
        assert caught.value.path == torchscript_of(folder)
        assert caught.value.sha256 == digest_of(folder)
        copy = pickle.loads(pickle.dumps(caught.value))  # as from a cluster's worker
        assert (str(copy), copy.sha256) == (str(caught.value), digest_of(folder))


def test_torchscript_runs_after_a_yes_to_this_very_file(torchscript_only):
    folder, network = torchscript_only
    model = open_model(folder, trusted={digest_of(folder)})
    assert model.sha256 == digest_of(folder)
    assert model.card.weight_format == "torchscript"
    assert model.network is None
    assert not model.card.tiles_exactly  # its instance norm reaches everywhere
    batch = made_up_map((64, 64))[np.newaxis, np.newaxis]
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(model.runner(batch), expected, atol=1e-4)


def test_torchscript_that_is_bundled_is_trusted(torchscript_only, monkeypatch):
    folder, _ = torchscript_only
    monkeypatch.setattr(model_module, "bundled_folder", lambda name: folder)
    assert open_model(folder).card.weight_format == "torchscript"


def test_a_state_dict_comes_before_torchscript(tmp_path):
    folder, _ = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    assert open_model(folder).card.weight_format == "pytorch_state_dict"


def test_a_damaged_state_dict_falls_back_to_torchscript_after_a_yes(tmp_path):
    folder, _ = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    (folder / "weights.pt").write_bytes(b"damaged")
    with pytest.raises(ProgramRefused):
        open_model(folder)
    assert open_model(folder, trusted={digest_of(folder)}).card.weight_format == "torchscript"


def test_a_torchscript_of_one_size_is_found_out(tmp_path):
    class OneSize(torch.nn.Module):
        def forward(self, x):
            return x.reshape(1, 1, 256 * 256).reshape(1, 1, 256, 256) * 0.5

    folder, _ = zoo.make_published(tmp_path / "m", "hiding-blowfish-v1", initial_features=4)
    rdf = zoo.read_rdf(folder)
    del rdf["weights"]["pytorch_state_dict"]
    rdf["outputs"][0]["shape"]["scale"][1] = 1.0
    zoo.save_torchscript(
        OneSize(), np.zeros((1, 1, 256, 256), np.float32), folder / "weights-torchscript.pt"
    )
    zoo.write_rdf(folder, rdf)
    card = open_model(folder, trusted={digest_of(folder)}).card
    assert (card.min_shape, card.step) == ((256, 256), (0, 0))


@pytest.fixture(scope="module")
def with_onnx(tmp_path_factory):
    """A package with both kinds of weights, made once: exporting takes a while."""
    pytest.importorskip("onnxscript")
    network = zoo.random_unet(width=4, depth=2)
    return zoo.make_own(tmp_path_factory.mktemp("m") / "own-one", network, onnx=True), network


@pytest.fixture
def onnx_only(with_onnx, tmp_path):
    original, network = with_onnx
    folder = shutil.copytree(original, tmp_path / "own-one")
    rdf = zoo.read_rdf(folder)
    del rdf["weights"]["pytorch_state_dict"]
    del rdf["config"]["cellda"]["receptive_field"]
    zoo.write_rdf(folder, rdf)
    return folder, network


def test_onnx_runs_without_a_question(onnx_only):
    folder, network = onnx_only
    model = open_model(folder)
    assert model.card.weight_format == "onnx"
    assert model.network is None
    reach = model.card.receptive_field
    assert model.card.tiles_exactly
    assert all(4 < side <= 23 for side in reach)  # found by running; 23 is the architecture's
    batch = made_up_map((64, 48))[np.newaxis, np.newaxis]
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).sigmoid().numpy()
    np.testing.assert_allclose(model.runner(batch), expected, atol=1e-4)


def test_a_damaged_onnx_is_refused(onnx_only):
    folder, _ = onnx_only
    rdf = zoo.read_rdf(folder)
    (folder / "weights.onnx").write_bytes(b"no model")
    zoo.write_rdf(folder, rdf)
    with pytest.raises(UserError, match="no ONNX file"):
        open_model(folder)


def refused(folder, match):
    with pytest.raises(UserError, match=match) as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.fixture
def crocodile(tmp_path):
    """A package with nothing but a state dict."""
    return zoo.make_published(tmp_path / "m", "amiable-crocodile", initial_features=4)[0]


def test_the_packages_python_file_never_runs(crocodile):
    assert (crocodile / "unet.py").read_text() == zoo.TRAP
    assert open_model(crocodile).network is not None


def test_an_unknown_architecture_is_refused(crocodile):
    rdf = zoo.read_rdf(crocodile)
    rdf["weights"]["pytorch_state_dict"]["architecture"] = "unet.py:SecretNet"
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, "SecretNet.*never run")


def test_a_wrong_checksum_is_refused(crocodile):
    weights = crocodile / "weights.pt"
    weights.write_bytes(weights.read_bytes() + b"x")
    refused(crocodile, r"weights\.pt.*sha256")


def test_missing_weights_are_refused(crocodile):
    (crocodile / "weights.pt").unlink()
    refused(crocodile, r"lacks its weights file weights\.pt")


@pytest.mark.parametrize("source", ["../weights.pt", "a\0b"])
def test_weights_that_are_no_file_of_the_package_are_refused(source, crocodile):
    (crocodile / "weights.pt").rename(crocodile.parent / "weights.pt")
    rdf = zoo.read_rdf(crocodile)
    rdf["weights"]["pytorch_state_dict"]["source"] = source
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, "inside its package")


def test_weights_behind_a_link_are_refused(crocodile):
    target = crocodile.parent / "elsewhere.pt"
    (crocodile / "weights.pt").rename(target)
    try:
        (crocodile / "weights.pt").symlink_to(target)
    except OSError:
        pytest.skip("links need a privilege here")
    refused(crocodile, "inside its package")


def test_weights_at_an_address_are_named(crocodile):
    rdf = zoo.read_rdf(crocodile)
    rdf["weights"]["pytorch_state_dict"]["source"] = "https://zenodo.org/weights.pt"
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, "https://zenodo.org/weights.pt.*id or address")


class Harm:
    ran = False

    def __reduce__(self):
        return (setattr, (Harm, "ran", True))


@pytest.mark.parametrize("new_zipfile", [True, False])
def test_a_pickle_is_refused_and_not_run(new_zipfile, crocodile):
    torch.save({"a": Harm()}, crocodile / "weights.pt", _use_new_zipfile_serialization=new_zipfile)
    zoo.write_rdf(crocodile, zoo.read_rdf(crocodile))
    refused(crocodile, re.escape(f"'{crocodile / 'weights.pt'}' is refused: it is a pickle"))
    assert not Harm.ran


def test_a_whole_model_instead_of_a_state_dict_is_refused(crocodile):
    torch.save(UNet(width=2, depth=1), crocodile / "weights.pt")
    zoo.write_rdf(crocodile, zoo.read_rdf(crocodile))
    refused(crocodile, "pickle")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"no weights at all", "damaged|pickle"),
        (b"", "damaged"),
        (["a", "list"], "something other"),
        ({"weight": 3}, "something other"),
        ({"weight": torch.zeros(3)}, "does not fit a UNet2d"),
        ({}, "does not fit a UNet2d"),
    ],
)
def test_other_contents_are_refused(content, match, crocodile):
    if isinstance(content, bytes):
        (crocodile / "weights.pt").write_bytes(content)
    else:
        torch.save(content, crocodile / "weights.pt")
    zoo.write_rdf(crocodile, zoo.read_rdf(crocodile))
    refused(crocodile, match)


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex", "repeated"])
def test_tensors_that_are_no_plain_numbers_are_refused(kind, crocodile):
    state = torch.load(crocodile / "weights.pt", weights_only=True)
    name, weight = max(state.items(), key=lambda item: item[1].numel())
    odd = {
        "sparse": weight.to_sparse(),
        "meta": weight.to("meta"),
        "complex": weight.to(torch.complex64),
        "repeated": torch.zeros(1, dtype=torch.float16).expand(weight.shape),
    }
    torch.save({**state, name: odd[kind]}, crocodile / "weights.pt")
    zoo.write_rdf(crocodile, zoo.read_rdf(crocodile))
    refused(crocodile, "something other than a state dict")


def test_many_names_for_the_same_numbers_are_refused(crocodile):
    state = torch.load(crocodile / "weights.pt", weights_only=True)
    name, weight = max(state.items(), key=lambda item: item[1].numel())
    state |= {f"{name} {i}": weight.view(-1) for i in range(99)}
    torch.save(state, crocodile / "weights.pt")
    zoo.write_rdf(crocodile, zoo.read_rdf(crocodile))
    refused(crocodile, "repeats what it holds")


@pytest.mark.parametrize("size", ["min", "step"])
def test_sizes_beyond_all_memory_are_refused(size, crocodile):
    rdf = zoo.read_rdf(crocodile)
    rdf["inputs"][0]["shape"][size][2:] = [10**9, 10**9]
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, "sizes make no sense")


def test_a_wrapped_state_dict_and_half_precision_are_read(crocodile):
    state = torch.load(crocodile / "weights.pt", weights_only=True)
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"model_state": half, "epoch": 3}, crocodile / "weights.pt")
    zoo.write_rdf(crocodile, zoo.read_rdf(crocodile))
    assert next(open_model(crocodile).network.parameters()).dtype == torch.float32


def test_safetensors_are_read(crocodile):
    from safetensors.torch import save_file

    state = torch.load(crocodile / "weights.pt", weights_only=True)
    save_file(state, crocodile / "weights.safetensors")
    rdf = zoo.read_rdf(crocodile)
    rdf["weights"]["pytorch_state_dict"]["source"] = "weights.safetensors"
    zoo.write_rdf(crocodile, rdf)
    assert open_model(crocodile).network is not None
    (crocodile / "weights.safetensors").write_bytes(b"damaged")
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, "damaged")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"unheard_of": 1},
        {"initial_features": 10**9},
        {"initial_features": "many"},
        {"depth": None},
        {"norm": ["BatchNorm"]},
        {"in_channels": 2.5},
    ],
)
def test_hostile_arguments_are_refused(kwargs, crocodile):
    rdf = zoo.read_rdf(crocodile)
    rdf["weights"]["pytorch_state_dict"]["kwargs"].update(kwargs)
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, ".")


def test_arguments_that_do_not_match_the_weights_cost_no_memory(crocodile):
    rdf = zoo.read_rdf(crocodile)
    rdf["weights"]["pytorch_state_dict"]["kwargs"].update(initial_features=256, depth=7)
    zoo.write_rdf(crocodile, rdf)  # 20 billion weights, were they made
    refused(crocodile, "does not fit")


def test_outputs_other_than_the_rdf_says_are_refused(crocodile):
    rdf = zoo.read_rdf(crocodile)
    rdf["outputs"][0]["shape"]["scale"][1] = 2.0
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, r"could not be run.*\(1, 2, ")


def test_inputs_other_than_the_rdf_says_are_refused(crocodile):
    rdf = zoo.read_rdf(crocodile)
    rdf["inputs"][0]["shape"]["min"][1] = 3
    rdf["outputs"][0]["shape"] = [1, 1, 64, 64]
    zoo.write_rdf(crocodile, rdf)
    refused(crocodile, "3 channels|could not be run")


def test_formats_that_are_not_loaded_are_named(crocodile):
    zoo.change_rdf(crocodile, weights={"keras_hdf5": {"source": "weights.h5"}})
    refused(crocodile, "keras_hdf5")
    zoo.change_rdf(crocodile, weights={})
    refused(crocodile, "none")


def test_runners_agree_and_say_how_they_run(with_onnx):
    folder, network = with_onnx
    batch = made_up_map((64, 64))[np.newaxis, np.newaxis]
    reference = TorchRunner(network, sigmoid=True, fast=False)(batch)
    for runner in (
        TorchRunner(network, sigmoid=True),
        OnnxRunner(folder / "weights.onnx", sigmoid=True),
    ):
        np.testing.assert_allclose(runner(batch), reference, atol=1e-4)
    assert OnnxRunner.name.startswith("onnxruntime")
    assert TorchRunner(network, sigmoid=True).name == "torch float32 on cpu"


def test_several_images_at_once_in_3d_and_in_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    network = zoo.random_unet(width=2, depth=1, ndim=3)
    folder = zoo.make_own(tmp_path / "own-one", network, onnx=True)
    batch = np.stack([made_up_map((8, 16, 12), seed)[np.newaxis] for seed in range(3)])
    runner = OnnxRunner(folder / "weights.onnx", sigmoid=True)
    expected = TorchRunner(network, sigmoid=True)(batch)
    np.testing.assert_allclose(runner(batch), expected, atol=1e-4)


def test_batch_norms_are_folded_without_touching_the_original():
    network = zoo.random_unet(width=4, depth=2)
    x = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        before = network(x)
        runner = TorchRunner(network, sigmoid=False)
        torch.testing.assert_close(network(x), before)
        torch.testing.assert_close(runner.network(x), before, atol=1e-4, rtol=1e-4)
    norms = [m for m in runner.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not norms
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def test_a_norm_before_its_convolution_is_not_folded():
    network = zoo.random_network(
        "UNet2d", {"in_channels": 1, "out_channels": 1, "initial_features": 4, "norm": "BatchNorm"}
    )
    x = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        before = network(x)
        after = fold_batch_norms(network)(x)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def chosen(network, monkeypatch, bfloat16, folder, with_onnx):
    """Choose a runner on a pretended processor."""
    monkeypatch.setattr(network_module, "has_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(network_module, "best_device", lambda: "cpu")
    onnx = folder / "weights.onnx" if with_onnx else None
    return choose_runner(network, read_card(folder), onnx)


def test_the_fastest_faithful_way_is_chosen(with_onnx, monkeypatch):
    folder, network = with_onnx
    monkeypatch.setattr(network_module, "TOLERANCE", 0.2)  # random weights round badly
    with_bfloat16 = chosen(network, monkeypatch, True, folder, with_onnx=False)
    assert with_bfloat16.name == "torch bfloat16 on cpu"
    assert chosen(network, monkeypatch, True, folder, with_onnx=True).name == OnnxRunner.name
    without = chosen(network, monkeypatch, False, folder, with_onnx=False)
    assert without.name == "torch float32 on cpu"


def test_a_way_that_is_not_faithful_is_not_chosen(with_onnx, monkeypatch):
    folder, network = with_onnx
    honest = TorchRunner.__call__

    def call(self, x):
        return honest(self, x) + (0.12 if self.dtype == torch.bfloat16 else 0)

    monkeypatch.setattr(network_module, "TOLERANCE", 0.2)
    monkeypatch.setattr(TorchRunner, "__call__", call)
    assert chosen(network, monkeypatch, True, folder, False).name == "torch float32 on cpu"
    monkeypatch.setattr(OnnxRunner, "__call__", lambda self, x: x + 1)
    assert chosen(network, monkeypatch, True, folder, True).name == "torch float32 on cpu"


def test_onnx_weights_of_another_network_are_not_used(with_onnx, tmp_path):
    original, _ = with_onnx
    folder = shutil.copytree(original, tmp_path / "own-one")
    other = zoo.random_unet(seed=5, width=4, depth=2)
    torch.save(other.state_dict(), folder / "weights.pt")
    zoo.write_rdf(folder, zoo.read_rdf(folder))
    assert open_model(folder).runner.name.startswith("torch")


def test_a_missing_onnx_beside_a_state_dict_does_no_harm(with_onnx, tmp_path):
    original, _ = with_onnx
    folder = shutil.copytree(original, tmp_path / "own-one")
    (folder / "weights.onnx").unlink()
    assert open_model(folder).runner.name.startswith("torch")
    (folder / "weights.onnx").write_bytes(b"damaged")
    assert open_model(folder).runner.name.startswith("torch")


def test_without_onnx_or_bfloat16_torch_runs_in_float32(tmp_path, monkeypatch):
    network = zoo.random_unet(width=4, depth=2)
    folder = zoo.make_own(tmp_path / "own-one", network)
    monkeypatch.setattr(network_module, "has_bfloat16", lambda: False)
    monkeypatch.setattr(network_module, "best_device", lambda: "cpu")
    assert open_model(folder).runner.name == "torch float32 on cpu"


def test_runners_may_be_called_from_several_threads():
    runner = TorchRunner(zoo.random_unet(width=4, depth=2), sigmoid=True)
    batches = [made_up_map((32, 32), seed)[np.newaxis, np.newaxis] for seed in range(6)]
    expected = [runner(batch) for batch in batches]
    names = set()

    def run(batch):
        names.add(threading.current_thread().name)
        return runner(batch)

    with ThreadPoolExecutor(3) as pool:
        for found, wanted in zip(pool.map(run, batches), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert threading.current_thread().name not in names

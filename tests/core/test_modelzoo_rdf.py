import copy

import pytest
import yaml
import zoo_packages as zoo

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.rdf import find_rdf, read_card


def write(folder, rdf, name="rdf.yaml"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(rdf, sort_keys=False))
    return folder


EXPECTED = {
    "hiding-blowfish": ("bcyx", 2, (256, 256), (16, 16), (32, 32), "mitochondria"),
    "hiding-blowfish-v1": ("bcyx", 2, (32, 32), (16, 16), (8, 8), "mitochondria"),
    "independent-shrimp": ("bczyx", 2, (16, 128, 128), (8, 16, 16), (4, 32, 32), "mitochondria"),
    "determined-chipmunk": ("bczyx", 1, (32, 128, 128), (16, 16, 16), (8, 8, 8), "boundaries"),
    "amiable-crocodile": ("bcyx", 1, (32, 32), (16, 16), (8, 8), "boundaries"),
}


@pytest.mark.parametrize("nickname", EXPECTED)
def test_the_published_cards_are_read(nickname, tmp_path):
    model = zoo.PUBLISHED[nickname]
    card = read_card(write(tmp_path / "m", zoo.published_rdf(model)))
    axes, n_outputs, least, step, halo, structure = EXPECTED[nickname]
    assert (card.input_axes, card.n_inputs, card.n_outputs) == (axes, 1, n_outputs)
    assert (card.min_shape, card.step, card.halo) == (least, step, halo)
    assert card.structure == structure
    assert card.id == nickname
    assert card.name == model.name
    assert card.licence == "CC-BY-4.0"
    assert card.authors == ("Some Body",)
    assert "10.3389/fcomp.2022.805166" in card.attribution
    assert [step["name"] for step in card.preprocessing] == ["scale_range"] * model.scale_range
    assert card.sigmoid_outside is False
    assert card.kind == "enhancer"
    assert not card.warnings
    state = card.weights[0]
    assert (state.format, state.architecture) == ("pytorch_state_dict", model.architecture)
    assert state.import_from == "unet.py"
    assert state.kwargs == model.kwargs
    assert [e.format for e in card.weights[1:]] == ["torchscript"] * model.torchscript


@pytest.mark.parametrize(
    ("written", "name", "origin"),
    [
        ("unet.py:UNet2d", "UNet2d", "unet.py"),
        ("./unet.py::UNet2d", "UNet2d", "./unet.py"),
        ("torch_em.model.UNet2d", "UNet2d", "torch_em.model"),
        ("UNet2d", "UNet2d", ""),
    ],
)
def test_every_spelling_of_an_architecture_is_read(written, name, origin, tmp_path):
    rdf = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])
    rdf["weights"]["pytorch_state_dict"]["architecture"] = written
    (entry,) = read_card(write(tmp_path / "m", rdf)).weights
    assert (entry.architecture, entry.import_from) == (name, origin)


def test_output_channels_written_out_or_offset(tmp_path):
    rdf = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])
    rdf["outputs"][0]["shape"] = [1, 2, 64, 64]
    assert read_card(write(tmp_path / "m", rdf)).n_outputs == 2
    rdf["outputs"][0]["shape"] = {
        "reference_tensor": "input0",
        "scale": [1, 0, 1, 1],
        "offset": [0, 1.5, 0, 0],
    }
    assert read_card(write(tmp_path / "m", rdf)).n_outputs == 3


def test_a_fixed_size_has_step_zero(tmp_path):
    rdf = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])
    rdf["inputs"][0]["shape"] = [1, 1, 256, 512]
    card = read_card(write(tmp_path / "m", rdf))
    assert (card.min_shape, card.step) == ((256, 512), (0, 0))


def test_format_05_is_read(tmp_path):
    folder = zoo.make_own(tmp_path / "own-one", zoo.random_unet(width=4, depth=2, out_channels=2))
    card = read_card(folder)
    assert card.format_version.startswith("0.5")
    assert card.id == "own-one"
    assert card.input_axes == "bcyx"
    assert card.output_names == ("foreground", "boundary")
    assert card.sigmoid_outside is True
    assert card.structure == "nuclei"
    assert card.object_diameter == 20.0
    assert card.feature_sets == ("ilastik",)
    assert card.training == {"steps": 3}
    assert card.receptive_field == (23, 23)
    assert card.cover.is_file()
    assert card.documentation.is_file()


def test_a_foreign_05_with_scale_range_and_a_fixed_axis(tmp_path):
    folder = zoo.make_own(tmp_path / "own-one")
    rdf = zoo.read_rdf(folder)
    del rdf["config"]
    rdf["inputs"][0]["axes"][2]["size"] = 16
    del rdf["inputs"][0]["axes"][3]["id"]  # the format's default is x
    rdf["inputs"][0]["preprocessing"] = [
        {"id": "scale_range", "kwargs": {"axes": ["channel", "y", "x"], "min_percentile": 1}}
    ]
    card = read_card(write(tmp_path / "m", rdf))
    assert card.step == (0, 4)
    assert card.preprocessing[0]["name"] == "scale_range"
    assert card.preprocessing[0]["kwargs"]["min_percentile"] == 1
    assert card.object_diameter is None
    assert not card.warnings  # its name says that it is an enhancer


def test_oddities_become_warnings(tmp_path):
    rdf = zoo.published_rdf(zoo.PUBLISHED["hiding-blowfish-v1"])
    rdf["name"], rdf["description"], rdf["tags"] = "Nuclei in tissue", "Finds nuclei.", []
    rdf["id"] = "10.5281/zenodo.6406756/6406757"
    step = {"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "yx"}}
    rdf["inputs"][0]["preprocessing"] = [step]
    first, second, third = read_card(write(tmp_path / "m", rdf)).warnings
    assert "does not call itself a prediction enhancer" in first
    assert "zero_mean_unit_variance" in second
    assert "maps of boundaries" in third


def rdf_04(name, kwargs):
    """Return the description of a network of three channels that asks for a step."""
    rdf = copy.deepcopy(zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"]))
    rdf["inputs"][0]["shape"]["min"][1] = 3
    rdf["inputs"][0]["preprocessing"] = [{"name": name, "kwargs": kwargs}]
    return rdf


def rdf_05(folder, name, kwargs, channel_id="channel"):
    rdf = zoo.read_rdf(zoo.make_own(folder, zoo.random_unet(width=4, depth=2, in_channels=3)))
    rdf["inputs"][0]["axes"][1]["id"] = channel_id
    rdf["inputs"][0]["preprocessing"] = [{"id": name, "kwargs": kwargs}]
    return rdf


@pytest.mark.parametrize(
    ("name", "kwargs", "read"),
    [
        ("scale_range", {"axes": "cyx", "eps": "1e-3"}, {"axes": "cyx", "eps": 0.001}),
        ("scale_range", {"max_percentile": 99}, {"max_percentile": 99.0, "min_percentile": 0.0}),
        ("scale_range", {"mode": "per_sample"}, {"axes": "bcyx"}),
        ("scale_linear", {"gain": [1, 2, 3]}, {"gain": (1.0, 2.0, 3.0), "offset": (0.0,)}),
    ],
)
def test_a_step_is_read_with_all_that_was_left_out(name, kwargs, read, tmp_path):
    (step,) = read_card(write(tmp_path / "m", rdf_04(name, kwargs))).preprocessing
    assert step["name"] == name
    assert step["kwargs"] == step["kwargs"] | read


@pytest.mark.parametrize("channel_id", ["channel", "colour"])
def test_axes_of_both_formats_are_read_as_letters(channel_id, tmp_path):
    kwargs = {"axes": ["batch", channel_id, "y", "x"], "eps": None}
    rdf = rdf_05(tmp_path / "own-one", "zero_mean_unit_variance", kwargs, channel_id)
    (step,) = read_card(write(tmp_path / "m", rdf)).preprocessing
    assert step["kwargs"] == {"axes": "bcyx", "eps": 1e-6}


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}, {"mode": "per_sample"}])
def test_fixed_numbers_are_the_usual_mode_of_format_04(mode, tmp_path):
    numbers = {} if mode.get("mode") == "per_sample" else {"mean": 3, "std": [1, 2, 4]}
    rdf = rdf_04("zero_mean_unit_variance", {**mode, **numbers, "axes": "yx"})
    (step,) = read_card(write(tmp_path / "m", rdf)).preprocessing
    assert step["name"].startswith("fixed_") is bool(numbers)


STEPS_THAT_MAKE_NO_SENSE = [
    ("scale_range", {"min_percentile": -1}, "min_percentile -1; one finite number from 0"),
    ("scale_range", {"max_percentile": 101}, "max_percentile 101; .* up to 100 is expected"),
    ("scale_range", {"max_percentile": 0.998}, "above 1"),
    ("scale_range", {"min_percentile": 60, "max_percentile": 40}, "60 and max_percentile 40"),
    ("scale_range", {"min_percentile": 50, "max_percentile": 50}, "less is expected"),
    ("scale_range", {"max_percentile": "most"}, "max_percentile 'most'"),
    ("scale_range", {"max_percentile": float("nan")}, "max_percentile nan"),
    ("scale_range", {"max_percentile": [99, 98, 97]}, r"max_percentile \[99, 98, 97\]; one"),
    ("scale_range", {"max_percentile": True}, "max_percentile True"),
    ("scale_range", {"max_percentil": 99}, "'max_percentil'; min_percentile, max_percentile, eps"),
    ("scale_range", {"eps": "small"}, "eps 'small'"),
    ("scale_range", {"eps": -1}, "eps -1; one finite number of at least 0"),
    ("scale_range", {"eps": float("inf")}, "eps inf"),
    ("scale_range", {"eps": {"a": 1}}, "eps {'a': 1}"),
    ("scale_range", {"axes": "cyq"}, "axes 'cyq'; axes out of bcyx"),
    ("scale_range", {"axes": 3}, "axes 3"),
    ("scale_range", {"axes": [["y"], "x"]}, "axes"),
    ("scale_linear", {"gain": 0}, "gain 0; one finite number other than 0 or 3 of them"),
    ("scale_linear", {"gain": [1, 2]}, r"gain \[1, 2\]; .* or 3 of them"),
    ("scale_linear", {"gain": []}, r"gain \[\]"),
    ("scale_linear", {"gain": [[1, 2, 3]]}, r"gain \[\[1, 2, 3\]\]"),
    ("scale_linear", {"offset": [1, 2, 3, 4]}, "offset"),
    ("scale_linear", {"offset": 10**400}, "offset 1000"),
]
FIXED_THAT_MAKE_NO_SENSE = [
    ({"mean": 1}, "std left out; one finite number above 0 or 3 of them"),
    ({"std": 1}, "mean left out; one finite number or 3 of them"),
    ({"mean": None, "std": None}, "mean left out"),
    ({"mean": 1, "std": 0}, "std 0"),
    ({"mean": 1, "std": [1, -1, 1]}, r"std \[1, -1, 1\]"),
    ({"mean": [1, 2], "std": [1, 2]}, r"mean \[1, 2\]"),
    ({"mean": [1, 2, float("inf")], "std": 1}, r"mean \[1, 2, inf\]"),
    ({"mean": list(range(10000)), "std": 1}, r"mean \[0, 1, 2, 3, 4, 5, \.\.\.\]"),
]


def refuses(rdf, named, folder):
    with pytest.raises(UserError, match=f"^{rdf['name']} asks for .*{named}") as caught:
        read_card(write(folder, rdf))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("name", "kwargs", "named"), STEPS_THAT_MAKE_NO_SENSE)
def test_steps_of_both_formats_that_make_no_sense_are_refused(name, kwargs, named, tmp_path):
    refuses(rdf_04(name, {"mode": "per_sample", **kwargs}), named, tmp_path / "m")
    refuses(rdf_05(tmp_path / "own-one", name, kwargs), named, tmp_path / "n")


@pytest.mark.parametrize(("kwargs", "named"), FIXED_THAT_MAKE_NO_SENSE)
def test_fixed_numbers_that_make_no_sense_are_refused(kwargs, named, tmp_path):
    name = "zero_mean_unit_variance"
    refuses(rdf_04(name, {"axes": "yx", **kwargs}), named, tmp_path / "m")
    refuses(rdf_05(tmp_path / "own-one", f"fixed_{name}", kwargs), named, tmp_path / "n")


def test_measuring_and_fixed_numbers_at_once_are_refused(tmp_path):
    kwargs = {"mode": "per_sample", "axes": "yx", "mean": 1, "std": 1}
    refuses(rdf_04("zero_mean_unit_variance", kwargs), "'mean'; eps", tmp_path / "m")


def test_uninformative_channel_names_are_replaced(tmp_path):
    rdf = zoo.read_rdf(zoo.make_own(tmp_path / "a", zoo.random_unet(width=4, depth=2)))
    del rdf["config"]
    rdf["outputs"][0]["axes"][1]["channel_names"] = ["channel0"]
    assert read_card(write(tmp_path / "m", rdf)).output_names == ("foreground",)


def test_a_plain_rdf_comes_before_others(tmp_path):
    rdf = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])
    write(tmp_path, {**rdf, "name": "other"}, "a.model.yaml")
    assert read_card(tmp_path).name == "other"
    write(tmp_path, rdf)
    assert find_rdf(tmp_path).name == "rdf.yaml"


def without(*path):
    def change(rdf):
        for key in path[:-1]:
            rdf = rdf[key]
        del rdf[path[-1]]

    return change


def put(value, *path):
    def change(rdf):
        for key in path[:-1]:
            rdf = rdf[key]
        rdf[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("0.3.2", "format_version"), r"0\.3\.2.*0\.4 and 0\.5"),
        (put("0.55", "format_version"), r"0\.55"),
        (without("format_version"), "none"),
        (put("dataset", "type"), "describes a dataset"),
        (without("weights"), "complete.*weights"),
        (without("inputs"), "complete.*inputs"),
        (put(None, "inputs", 0, "shape"), "complete"),
        (put("many", "inputs", 0, "shape", "min"), "complete"),
        (put([1, 1], "inputs", 0, "shape", "min"), "complete"),
        (put([1, 1, 64], "inputs", 0, "shape", "min"), "sizes"),
        (put("byxc", "inputs", 0, "axes"), "byxc to bcyx"),
        (put("bcx", "outputs", 0, "axes"), "bcyx to bcx"),
        (put([{}, {}], "outputs"), "2 outputs"),
        (put([], "inputs"), "0 inputs"),
        (put([0, 0, -16, 16], "inputs", 0, "shape", "step"), "sizes"),
        (put([1, 1, 0, 16], "inputs", 0, "shape", "min"), "sizes"),
        (put([0, 0, -8, 8], "outputs", 0, "halo"), "sizes"),
        (put([1, 10**9, 64, 64], "outputs", 0, "shape"), "1000000000"),
    ],
)
def test_an_odd_description_is_refused_in_one_sentence(change, named, tmp_path):
    rdf = copy.deepcopy(zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"]))
    change(rdf)
    with pytest.raises(UserError, match=named) as caught:
        read_card(write(tmp_path / "m", rdf))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"receptive_field": [5]}, r"receptive field of \[5\]; 2 numbers"),
        ({"receptive_field": [5, 5, 5]}, "receptive field"),
        ({"receptive_field": [5, -5]}, "receptive field"),
        ({"receptive_field": [5, float("inf")]}, "not a complete model"),
        ({"receptive_field": 5}, "not a complete model"),
        ({"object_diameter": -3}, "diameter of -3; pixels above 0"),
        ({"object_diameter": float("nan")}, "diameter of nan"),
        ({"object_diameter": float("inf")}, "diameter of inf"),
        ({"object_diameter": [3]}, "not a complete model"),
        ({"channels": []}, r"channels are \[\]"),
        ({"channels": [0, -1]}, "channels are"),
        ({"channels": [1, 1]}, "different numbers from 0"),
        ({"channels": "12"}, "channels are '12'"),
    ],
)
def test_sizes_of_ours_that_make_no_sense_are_refused(own, named, tmp_path):
    rdf = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])
    rdf["config"]["cellda"] = own
    with pytest.raises(UserError, match=named):
        read_card(write(tmp_path / "m", rdf))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_file_can_have_do_no_harm(name, tmp_path):
    rdf = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])
    rdf["covers"], rdf["documentation"] = [name], name
    card = read_card(write(tmp_path / "m", rdf))
    assert card.cover is None
    assert card.documentation is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{unclosed: [", "no valid YAML"),
        ("just words", "no named fields"),
        ("", "no named fields"),
        ("- a\n- b", "no named fields"),
        ("!!python/object/apply:os.system ['true']", "no valid YAML"),
        ("a: " + "[" * 5000, "no valid YAML"),
        ("a: 2001-99-99", r"rdf\.yaml is no valid YAML.*month"),
        ("a: !!int abc", "no valid YAML"),
        ("a: !!int ''", "no valid YAML"),
        ("a: !!timestamp x", "no valid YAML"),
        ("a: !!bool maybe", "no valid YAML.*maybe"),
        ("a: 0x_", "no valid YAML"),
        (f"format_version: 0x{'f' * 5000}", "not a complete model"),
    ],
)
def test_text_that_is_no_description_is_refused(text, named, tmp_path):
    (tmp_path / "rdf.yaml").write_text(text)
    with pytest.raises(UserError, match=named):
        read_card(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "rdf.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UserError, match="no valid YAML"):
        read_card(tmp_path)


def test_a_huge_description_is_not_read(tmp_path):
    (tmp_path / "rdf.yaml").write_text("a: 1\n" * 500_000)
    with pytest.raises(UserError, match="larger"):
        read_card(tmp_path)


def test_a_yaml_bomb_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "rdf.yaml").write_text("\n".join([*lines, "name: *a11"]))
    with pytest.raises(UserError):
        read_card(tmp_path)


def test_a_folder_without_description(tmp_path):
    with pytest.raises(UserError, match=r"holds no rdf\.yaml"):
        read_card(tmp_path)


def test_a_cover_outside_the_package_is_not_shown(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    rdf = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])
    rdf["covers"] = ["../secret.png"]
    assert read_card(write(tmp_path / "m", rdf)).cover is None


def test_a_link_to_itself_is_no_file_of_the_package(tmp_path):
    folder = zoo.make_own(tmp_path / "own-one", zoo.random_unet(width=4, depth=2))
    (folder / "README.md").unlink()
    try:
        (folder / "README.md").symlink_to("README.md")
    except OSError:
        pytest.skip("this system makes no links")
    assert read_card(folder).documentation is None

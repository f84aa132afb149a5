import functools
import http.server
import socket
import threading

import pytest
import zoo_packages as zoo

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo import bundled as bundled_module
from napari_cellda.core.modelzoo import source as source_module
from napari_cellda.core.modelzoo.bundled import bundled_folder, list_bundled
from napari_cellda.core.modelzoo.download import fetch, looks_remote
from napari_cellda.core.modelzoo.model import open_model
from napari_cellda.core.modelzoo.places import CACHE_VARIABLE
from napari_cellda.core.modelzoo.rdf import read_card
from napari_cellda.core.modelzoo.source import find_package


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise OSError("the network is not reachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def served(tmp_path):
    """A folder and its address on this machine."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def crocodile(folder):
    return zoo.make_published(folder, "amiable-crocodile", initial_features=2)[0]


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    root = tmp_path / "models"
    for name in ("nuclei-2d", "mito-2d"):
        zoo.make_own(root / name)
    (root / "README.md").write_text("provenance")
    monkeypatch.setattr(bundled_module, "bundled_root", lambda: root)
    return root


def test_bundled_models_are_listed_and_found(bundled):
    assert list_bundled() == ["mito-2d", "nuclei-2d"]
    assert bundled_folder("nuclei-2d") == bundled / "nuclei-2d"
    assert bundled_folder("nuclei") is None
    assert bundled_folder("..") is None
    assert find_package("nuclei-2d") == bundled / "nuclei-2d"
    assert open_model("nuclei-2d").card.id == "nuclei-2d"


def test_a_copy_without_models_has_none(monkeypatch):
    monkeypatch.setattr(bundled_module, "bundled_root", lambda: None)
    assert list_bundled() == []
    assert bundled_folder("nuclei-2d") is None


def test_the_models_of_this_copy_can_be_read():
    for name in list_bundled():
        card = read_card(bundled_folder(name))
        assert card.id == name
        assert card.licence
        assert card.object_diameter is None or card.object_diameter > 3


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hiding-blowfish", True),
        ("affable-shark/1.2", True),
        ("10.5281/zenodo.6406756", True),
        ("https://doi.org/10.5281/zenodo.6406756", True),
        ("https://example.org/rdf.yaml", True),
        ("huggingface/somebody/something", True),
        ("nuclei", False),
        ("../model.zip", False),
        ("C:\\models\\x.zip", False),
        ("my model", False),
    ],
)
def test_what_looks_like_an_id_or_address(source, expected):
    assert looks_remote(source) is expected


@pytest.mark.parametrize("source", ["", "  ", "nuclei", "missing/model.zip", "x" * 5000, "no such"])
def test_what_is_nowhere_is_named_in_one_sentence(source, bundled):
    with pytest.raises(UserError, match="expected") as caught:
        find_package(source)
    assert "\n" not in str(caught.value)


def test_the_sentence_names_the_bundled_models(bundled):
    with pytest.raises(UserError, match="mito-2d, nuclei-2d"):
        find_package("nuclei")


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "image.tif"
    path.write_bytes(b"II*\0")
    with pytest.raises(UserError, match=r"image\.tif is no model package"):
        find_package(path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no rdf\.yaml"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    "source", ["hiding-blowfish", "10.5281/zenodo.6406756", "https://example.org/rdf.yaml"]
)
def test_without_a_network_there_is_one_sentence_and_nothing_left(source, offline, cache, capfd):
    with pytest.raises(UserError, match="no connection") as caught:
        open_model(source)
    assert source in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert capfd.readouterr() == ("", "")


def test_local_packages_need_no_network(offline, tmp_path):
    assert open_model(crocodile(tmp_path / "m")).card.id == "amiable-crocodile"


def test_an_rdf_at_an_address_is_fetched_once_with_its_files(served, cache, capfd):
    www, address = served
    crocodile(www / "model")
    folder = fetch(f"{address}/model/rdf.yaml")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"rdf.yaml", "weights.pt", "test_input_0.npy", "cover.jpg", "documentation.md"}
    assert "unet.py" not in names
    (www / "model" / "rdf.yaml").unlink()
    card = open_model(f"{address}/model/rdf.yaml").card
    assert card.id == "amiable-crocodile"
    assert card.cover.is_file()
    assert not list(cache.rglob(".fetching-*"))
    assert capfd.readouterr() == ("", "")


def test_addresses_inside_an_rdf_are_followed(served):
    www, address = served
    folder = crocodile(www / "model")
    (www / "files").mkdir()
    (folder / "weights.pt").rename(www / "files" / "weights.pt")
    rdf = zoo.read_rdf(folder)
    rdf["weights"]["pytorch_state_dict"]["source"] = f"{address}/files/weights.pt?download=1"
    zoo.write_rdf(folder, rdf, checksums=False)
    assert open_model(f"{address}/model/rdf.yaml").network is not None


def test_a_package_of_ours_at_an_address(served):
    www, address = served
    zoo.make_own(www / "own-one")
    assert open_model(f"{address}/own-one/rdf.yaml").card.object_diameter == 20


def test_a_zip_at_an_address_is_fetched(served, cache):
    www, address = served
    zoo.zip_folder(crocodile(www / "model"), www / "model.zip")
    assert open_model(f"{address}/model.zip").card.id == "amiable-crocodile"
    assert not list(cache.rglob(".fetching-*"))


@pytest.mark.parametrize("missing", ["rdf.yaml", "weights.pt"])
def test_a_missing_file_at_an_address_leaves_nothing(missing, served, cache):
    www, address = served
    (crocodile(www / "model") / missing).unlink()
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(f"{address}/model/rdf.yaml")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_hostile_zip_at_an_address_leaves_nothing(served, cache):
    import zipfile

    www, address = served
    zoo.zip_folder(crocodile(www / "model"), www / "model.zip")
    with zipfile.ZipFile(www / "model.zip", "a") as archive:
        archive.writestr("../escaped", b"x")
    with pytest.raises(UserError, match="climbs out"):
        fetch(f"{address}/model.zip")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_fetched_rdf_cannot_write_outside(served, cache, tmp_path):
    www, address = served
    folder = crocodile(www / "model")
    rdf = zoo.read_rdf(folder)
    rdf["documentation"] = "../../escaped.md"
    (www / "escaped.md").write_text("x")
    zoo.write_rdf(folder, rdf)
    fetched = fetch(f"{address}/model/rdf.yaml")
    assert (fetched / "escaped.md").is_file()
    assert not (fetched.parent / "escaped.md").exists()


def test_a_file_on_disk_comes_before_a_zoo_id(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    crocodile(tmp_path / "hiding-blowfish")
    assert read_card(find_package("hiding-blowfish")).id == "amiable-crocodile"


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    crocodile(tmp_path / "m")
    assert find_package("~/m") == tmp_path / "m"


def test_an_imported_id_cannot_name_a_path(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "models_folder", lambda: tmp_path / "models")
    crocodile(tmp_path / "m")
    assert source_module.imported_folder("../m") is None
    assert source_module.imported_folder("..") is None

import stat
import struct
import zipfile

import pytest
import zoo_packages as zoo

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo import archive as archive_module
from napari_cellda.core.modelzoo.archive import unpack
from napari_cellda.core.modelzoo.places import CACHE_VARIABLE, cache_folder
from napari_cellda.core.modelzoo.rdf import read_card
from napari_cellda.core.modelzoo.source import find_package

RDF = zoo.published_rdf(zoo.PUBLISHED["amiable-crocodile"])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    zoo.write_rdf(folder, RDF)
    (folder / "weights.pt").write_bytes(b"weights")
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("notes")
    return folder


def left_in(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


def hostile(package, path, name, data=b"x", **info):
    """Zip a good package and one more member."""
    zoo.zip_folder(package, path)
    member = zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_DEFLATED
    for key, value in info.items():
        setattr(member, key, value)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
    return path


def test_a_zip_is_unpacked_once(package, tmp_path, cache):
    path = zoo.zip_folder(package, tmp_path / "model.zip")
    folder = unpack(path)
    assert folder.is_relative_to(cache)
    assert (folder / "weights.pt").read_bytes() == b"weights"
    assert (folder / "more" / "notes.txt").read_text() == "notes"
    (folder / "mark").touch()
    assert (unpack(path) / "mark").exists()
    assert not list(cache.rglob(".unpacking-*"))


def test_another_content_gets_another_folder(package, tmp_path):
    first = unpack(zoo.zip_folder(package, tmp_path / "model.zip"))
    (package / "weights.pt").write_bytes(b"other weights")
    second = unpack(zoo.zip_folder(package, tmp_path / "model.zip"))
    assert first != second
    assert (second / "weights.pt").read_bytes() == b"other weights"


def test_a_folder_inside_the_zip_is_found(package, tmp_path):
    path = zoo.zip_folder(package, tmp_path / "model.zip", inside="EnhancerX/")
    assert read_card(unpack(path)).name == RDF["name"]
    assert read_card(find_package(path)).name == RDF["name"]


def test_directory_members_are_fine(package, tmp_path):
    path = zoo.zip_folder(package, tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("empty")
    assert (unpack(path) / "empty").is_dir()


LINK = stat.S_IFLNK | 0o777
DEVICE = stat.S_IFCHR | 0o600


@pytest.mark.parametrize(
    ("name", "info", "named"),
    [
        ("/etc/passwd", {}, "absolute"),
        ("//server/share/x", {}, "absolute"),
        ("\\windows\\x", {}, "absolute"),
        ("C:/x", {}, "absolute"),
        ("c:x", {}, "absolute"),
        ("../escaped", {}, "climbs out"),
        ("more/../../escaped", {}, "climbs out"),
        ("..\\escaped", {}, "climbs out"),
        ("more\\x", {}, "backslash"),
        ("link", {"external_attr": LINK << 16}, "link"),
        ("device", {"external_attr": DEVICE << 16}, "link or a device"),
        ("model.pkl", {}, "pickle"),
        ("Model.PICKLE", {}, "pickle"),
        ("rf.joblib", {}, "pickle"),
        ("weights.pt/", {}, "twice"),
        ("RDF.yaml", {}, "twice"),
        ("more/notes.txt", {}, "twice"),
        (".", {}, "no proper name"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_hostile_member_is_refused_and_leaves_nothing(
    name, info, named, package, tmp_path, cache
):
    path = hostile(package, tmp_path / "model.zip", name, **info)
    with pytest.raises(UserError, match=named) as caught:
        unpack(path)
    assert "model.zip" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not left_in(cache)
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path.parent / "escaped").exists()


def test_a_name_with_a_nul_is_refused(package, tmp_path, cache):
    path = hostile(package, tmp_path / "model.zip", "weightsXpt.txt")
    path.write_bytes(path.read_bytes().replace(b"weightsXpt.txt", b"weights\0pt.txt"))
    with pytest.raises(UserError, match=r"no proper name|damaged"):
        unpack(path)
    assert not left_in(cache)


def test_an_encrypted_member_is_refused(package, tmp_path, cache):
    path = hostile(package, tmp_path / "model.zip", "secret.txt")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the last member's entry in the central directory
    struct.pack_into("<H", data, entry + 8, 0x1)
    path.write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        unpack(path)
    assert not left_in(cache)


def test_a_bomb_is_refused(package, tmp_path, cache):
    path = hostile(package, tmp_path / "model.zip", "zeros.npy", bytes(80 * 2**20))
    with pytest.raises(UserError, match="bomb"):
        unpack(path)
    assert not left_in(cache)


def test_a_bomb_in_many_parts_is_refused(package, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive_module, "HARMLESS_BYTES", 2**20)
    path = zoo.zip_folder(package, tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for i in range(20):
            archive.writestr(f"part{i}.npy", bytes(2**19))
    with pytest.raises(UserError, match="bomb"):
        unpack(path)
    assert not left_in(cache)


def test_arrays_of_zeros_in_honest_sizes_are_fine(package, tmp_path):
    path = hostile(package, tmp_path / "model.zip", "test_output.npy", bytes(2**21))
    assert (unpack(path) / "test_output.npy").stat().st_size == 2**21


def test_too_large_or_too_many_is_refused(package, tmp_path, cache, monkeypatch):
    path = zoo.zip_folder(package, tmp_path / "model.zip")
    monkeypatch.setattr(archive_module, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="limit"):
        unpack(path)
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 2)
    with pytest.raises(UserError, match="at most 2"):
        unpack(path)
    assert not left_in(cache)


def test_a_member_that_lies_about_its_size_is_refused(package, tmp_path, cache):
    path = hostile(package, tmp_path / "model.zip", "liar.bin", bytes(range(256)) * 64)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 100)  # the uncompressed size that is promised
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        unpack(path)
    assert not left_in(cache)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_zip_is_refused(damage, package, tmp_path, cache):
    (package / "weights.pt").write_bytes(bytes(range(256)) * 40)
    path = zoo.zip_folder(package, tmp_path / "model.zip")
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        with zipfile.ZipFile(path) as archive:
            offset = archive.getinfo("weights.pt").header_offset
        for i in range(60, 70):
            data[offset + i] ^= 0xFF
    made = {
        "truncated": data[: len(data) // 2],
        "flipped": data,
        "empty": b"",
        "text": b"<html>not found</html>",
    }
    path.write_bytes(made[damage])
    with pytest.raises(UserError, match="damaged"):
        find_package(path)
    assert not left_in(cache)


def test_a_zip_of_something_else_is_refused(tmp_path, cache):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.txt").write_text("x")
    path = zoo.zip_folder(tmp_path / "other", tmp_path / "other.zip")
    with pytest.raises(UserError, match=r"holds no rdf\.yaml"):
        unpack(path)
    assert not left_in(cache)


def test_a_full_disk_leaves_nothing(package, tmp_path, cache, monkeypatch):
    path = zoo.zip_folder(package, tmp_path / "model.zip")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive_module.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="No space left on device"):
        unpack(path)
    assert not left_in(cache)


def test_an_interruption_leaves_nothing(package, tmp_path, cache, monkeypatch):
    path = zoo.zip_folder(package, tmp_path / "model.zip")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(archive_module.shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack(path)
    assert not left_in(cache)


def test_two_at_once_agree(package, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = zoo.zip_folder(package, tmp_path / "model.zip")
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(unpack, [path] * 8))
    assert len(folders) == 1
    assert not list(cache_folder().rglob(".unpacking-*"))


def test_the_cache_lies_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().name == "napari-cellda"

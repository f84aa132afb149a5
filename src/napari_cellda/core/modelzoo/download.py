"""Fetching a package from bioimage.io, by id, nickname, DOI or address."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import yaml

from napari_cellda.core.errors import UserError
from napari_cellda.core.modelzoo.archive import MAX_BYTES, unpack
from napari_cellda.core.modelzoo.places import cache_folder
from napari_cellda.core.modelzoo.rdf_files import file_fields

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+(/[\w.]+)?")
_DOI = re.compile(r"(https?://(dx\.)?doi\.org/)?10\.\d{4,9}/\S+")
_HUGGING_FACE = re.compile(r"huggingface/[\w.-]+/[\w.-]+(/[\w.-]+)?")
_CHUNK = 1 << 20


def looks_remote(source: str) -> bool:
    """Whether a source is an address, a DOI or could be a bioimage.io id."""
    patterns = (_DOI, _HUGGING_FACE, _NAME)
    return "://" in source or any(pattern.fullmatch(source) for pattern in patterns)


def fetch(source: str) -> Path:
    """Download a package into the cache, once per source.

    Parameters
    ----------
    source : str
        A bioimage.io id or nickname (``"affable-shark"``), a DOI, or the address of an rdf.yaml
        or a zip file.

    Returns
    -------
    Path
        Folder of the package.

    Raises
    ------
    UserError
        If there is no connection, no such model, or a file of it cannot be fetched. Nothing is
        left on disk then.
    """
    target = cache_folder() / "downloads" / sha256(source.encode()).hexdigest()[:32]
    if target.exists():
        return _opened(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".fetching-"))
    try:
        _fetch_into(source, scratch)
        _opened(scratch)
        os.replace(scratch, target)
    except UserError:
        raise
    except Exception as error:  # network libraries raise anything
        raise UserError(
            f"'{source}' could not be fetched: there is no connection to it, or no such model."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _opened(target)


def _opened(folder: Path) -> Path:
    """Return the package's folder: this one, or that of the zip file that was fetched."""
    archive = folder / "package.zip"
    return unpack(archive) if archive.exists() else folder


def _fetch_into(source: str, folder: Path) -> None:
    # bioimageio.spec would check every address it meets, show progress and keep a second copy.
    from bioimageio.spec import ValidationContext

    with ValidationContext(perform_io_checks=False, progressbar=False, disable_cache=True):
        _fetch_quietly(source, folder)


def _fetch_quietly(source: str, folder: Path) -> None:
    from bioimageio.spec.utils import open_bioimageio_yaml

    address = source.strip()
    if _DOI.fullmatch(address) and "://" not in address:
        address = f"https://doi.org/{address}"
    if urlsplit(address).path.lower().endswith(".zip"):
        _save(address, folder / "package.zip")
        return
    opened = open_bioimageio_yaml(address)
    if not isinstance(opened.original_root, str) and hasattr(opened.original_root, "namelist"):
        _save(address, folder / "package.zip")
        return
    root = f"{str(opened.original_root).rstrip('/')}/"
    localise(opened.content, root, folder)


def localise(content: Any, root: str, folder: Path) -> None:
    """Fetch the files that a description names, and write it beside them with local names.

    Parameters
    ----------
    content : dict
        A model description; its file names are replaced.
    root : str
        Address that relative names belong to, ending in a slash.
    folder : Path
        Receives the files and ``rdf.yaml``.
    """
    taken: dict[str, str] = {}
    for holder, key in file_fields(content):
        address = urljoin(root, holder[key])
        if address not in taken:
            name = Path(unquote(urlsplit(address).path)).name or "file"
            name = name if name not in taken.values() else f"{len(taken)}-{name}"
            _save(address, folder / name)
            taken[address] = name
        holder[key] = taken[address]
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _save(address: str, path: Path) -> None:
    from bioimageio.spec.common import HttpUrl
    from bioimageio.spec.utils import get_reader

    reader = get_reader(HttpUrl(address))
    written = 0
    with path.open("xb") as file:
        while chunk := reader.read(_CHUNK):
            written += len(chunk)
            if written > MAX_BYTES:
                raise UserError(f"{address} is larger than {MAX_BYTES / 2**30:.0f} GB.")
            file.write(chunk)

"""`X.cellda`: everything that is needed to reopen a piece of work, in one zip file.

Images are referenced and never copied. The members, and nothing else, are

- ``project.json``: a `Project` (versioned, strict);
- ``strokes/<i>.npz``: the strokes of image i as ``shape``, ``indices`` and ``values`` of the
  painted pixels, so that an almost empty layer of any size stays small;
- ``forest.npz``: the trained forest (see `Forest.save`).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from napari_cellda.core.atomic import write_atomically
from napari_cellda.core.enhancer.options import EnhancerOptions
from napari_cellda.core.errors import UserError
from napari_cellda.core.features import FeatureSpec
from napari_cellda.core.forest import ForestParams
from napari_cellda.core.images.normalisation import Kind, Normalisation
from napari_cellda.core.instances import InstanceParams
from napari_cellda.core.modelzoo.archive import explodes
from napari_cellda.core.params import BaseParams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_cellda.core.forest import Forest
    from napari_cellda.core.images import Image

FORMAT: Literal[1] = 1
MAX_MEMBER_BYTES = 4 << 30


class ImageReference(BaseParams):
    """Where an image was, and how to know it again."""

    name: str
    """The file's stem, or the layer's name."""
    path: str | None = None
    """Relative to the project's folder when the image lies inside it; None for a layer that was
    never on disk."""
    axes: str
    """The image's own axes, such as "zyx" or "yxc"."""
    fingerprint: str
    """See `fingerprint`."""
    normalisation: Normalisation
    """As measured when the forest was trained, so that reopening gives the same maps."""
    channels: Literal["grey", "all"] | tuple[int, ...] | None = None
    """Which of its channels count; None: those that the project names."""
    others: tuple[str, ...] = ()
    """Paths of further images whose planes serve as the channels after its own."""
    reader: str | None = None
    """The napari plugin that opened it; None: the readers of this project."""


class ClassStyle(BaseParams):
    """One class, in the order of its stroke id."""

    name: str
    color: str = Field("#888888", pattern="^#[0-9a-fA-F]{6}$")
    """Hex colour of its strokes."""


class EnhancerReference(BaseParams):
    """Which enhancer repairs which class, and how."""

    source: str
    """A bundled or bioimage.io id, or a path."""
    sha256: str
    """Of the package's weights: another file under the same name is refused."""
    options: EnhancerOptions = EnhancerOptions()


class Project(BaseParams):
    """What a `.cellda` file says, arrays apart."""

    format: Literal[1] = FORMAT
    """Version of this format."""
    images: tuple[ImageReference, ...]
    classes: tuple[ClassStyle, ...] = Field(min_length=2, max_length=8)
    """Background first."""
    channels: Literal["grey", "all"] | tuple[int, ...] = "grey"
    features: FeatureSpec = FeatureSpec()
    normalisation: Kind = "percentile"
    training: ForestParams = ForestParams()
    """How the forest is trained when strokes are added."""
    enhancer: EnhancerReference | None = None
    instances: InstanceParams | None = None
    """None: no instances are made."""
    panel: dict[str, Any] = Field(default_factory=dict)
    """State of the panels; whatever a version does not know, it ignores."""


def fingerprint(image: Image) -> str:
    """Identify an image by its axes, shape, dtype and nine small blocks of its pixels.

    Reading nine blocks keeps this quick on images larger than memory; an edit elsewhere is not
    noticed.
    """
    data = image.data
    digest = hashlib.sha256(f"{image.axes} {data.shape} {data.dtype.newbyteorder('=')}".encode())
    for y in _thirds(data.shape[3]):
        for x in _thirds(data.shape[4]):
            t, z = data.shape[0] // 2, data.shape[2] // 2
            block = np.ascontiguousarray(np.asarray(data[t, :, z, y, x]))
            digest.update(block.astype(block.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _thirds(length: int, size: int = 64) -> list[slice]:
    starts = [0, max(0, (length - size) // 2), max(0, length - size)]
    return [slice(start, min(length, start + size)) for start in starts]


@dataclass(frozen=True, eq=False)
class PaintedPixels:
    """Strokes of one image by the pixels that are painted."""

    shape: tuple[int, ...]
    """The image's `label_shape`."""
    indices: np.ndarray
    """(N,) int64: positions in an array of that shape, in C order."""
    ids: np.ndarray
    """(N,) uint8: stroke ids."""


def save_project(
    path: Path,
    project: Project,
    strokes: Mapping[int, np.ndarray | PaintedPixels],
    forest: Forest | None,
) -> None:
    """Write a project to one file, aside and then renamed.

    Parameters
    ----------
    path : Path
        Ends in ``.cellda``.
    project : Project
    strokes : mapping of image index to int array or PaintedPixels
        Only images with strokes need an entry.
    forest : Forest or None
        None before anything was trained.
    """
    with write_atomically(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("project.json", project.model_dump_json(indent=1))
        for index, painted in strokes.items():
            file.writestr(f"strokes/{index}.npz", _pack_strokes(painted))
        if forest is not None:
            buffer = io.BytesIO()
            forest.save(buffer)
            file.writestr("forest.npz", buffer.getvalue())


def load_project(
    path: Path, zeros: Callable[..., Any] = np.zeros
) -> tuple[Project, dict[int, Any], Forest | None]:
    """Read a project.

    Parameters
    ----------
    path : Path
    zeros : callable of (shape, dtype)
        Makes the arrays of the strokes, such as `np.zeros`, or zarr arrays on disk.

    Returns
    -------
    project : Project
    strokes : dict of image index to int array
    forest : Forest or None

    Raises
    ------
    UserError
        If the file is missing, damaged, of another version, or not a project.
    """
    from napari_cellda.core.forest import Forest

    try:
        with zipfile.ZipFile(path) as file:
            members = _check_members(path, file)
            project = Project.model_validate(json.loads(file.read("project.json")))
            strokes = {
                int(name[8:-4]): _unpack_strokes(file.read(name), zeros)
                for name in members
                if name.startswith("strokes/")
            }
            forest = None
            if "forest.npz" in members:
                forest = Forest.load(io.BytesIO(file.read("forest.npz")))
    except FileNotFoundError:
        raise UserError(f"There is no project '{path}'.") from None
    except UserError:
        raise
    except Exception as error:
        # A damaged or foreign file fails in any way that zip, npz and json can.
        raise UserError(
            f"'{path.name}' is not a napari-cellda project of format {FORMAT}, or it is damaged "
            f"({_first_line(error)})."
        ) from error
    return project, strokes, forest


def _check_members(path: Path, file: zipfile.ZipFile) -> set[str]:
    names = {info.filename for info in file.infolist()}
    allowed = {"project.json", "forest.npz"}
    foreign = sorted(
        name
        for name in names - allowed
        if not (name.startswith("strokes/") and name.endswith(".npz") and name[8:-4].isdigit())
    )
    if "project.json" not in names or foreign:
        found = foreign[0] if foreign else "no project.json"
        raise UserError(f"'{path.name}' is not a napari-cellda project: it holds {found}.")
    if any(info.file_size > MAX_MEMBER_BYTES for info in file.infolist()):
        raise UserError(f"'{path.name}' holds a member larger than 4 GiB and was not opened.")
    if any(explodes(info.file_size, info.compress_size) for info in file.infolist()):
        raise UserError(f"'{path.name}' is a zip bomb and was not opened.")
    return names


def _pack_strokes(strokes: np.ndarray | PaintedPixels) -> bytes:
    if not isinstance(strokes, PaintedPixels):
        strokes = find_painted(strokes)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        shape=np.asarray(strokes.shape, np.int64),
        indices=strokes.indices.astype(np.int64),
        values=strokes.ids.astype(np.uint8),
    )
    return buffer.getvalue()


def find_painted(strokes: Any) -> PaintedPixels:
    """Collect the painted pixels; a zarr array is read plane by plane."""
    indices, ids = [], []
    plane = int(np.prod(strokes.shape[-2:]))
    for number, where in enumerate(np.ndindex(*strokes.shape[:-2])):
        flat = np.asarray(strokes[where]).ravel()
        found = np.flatnonzero(flat)
        indices.append(found + number * plane)
        ids.append(flat[found].astype(np.uint8))
    return PaintedPixels(tuple(strokes.shape), np.concatenate(indices), np.concatenate(ids))


def _unpack_strokes(content: bytes, zeros: Callable[..., Any]) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        if any(explodes(info.file_size, info.compress_size) for info in file.infolist()):
            raise ValueError("strokes that are a zip bomb")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        sizes, indices, values = (np.asarray(arrays[n]) for n in ("shape", "indices", "values"))
    if any(a.ndim != 1 or a.dtype.kind not in "iu" for a in (sizes, indices, values)):
        raise ValueError("the strokes are not lists of whole numbers")
    shape = tuple(sizes.tolist())
    size = math.prod(shape)
    good = 2 <= len(shape) <= 4 and min(shape) > 0 and indices.shape == values.shape
    if not good or (indices.size and (indices.min() < 0 or indices.max() >= size)):
        raise ValueError("the strokes do not fit their shape")
    strokes, plane = zeros(shape, np.uint8), shape[-2] * shape[-1]
    for number in np.unique(indices // plane):
        inside = indices // plane == number
        block = np.zeros(plane, np.uint8)
        block[indices[inside] - number * plane] = values[inside]
        where = np.unravel_index(int(number), shape[:-2]) if len(shape) > 2 else ()
        strokes[(*map(int, where), ...)] = block.reshape(shape[-2:])
    return strokes


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:120]


def relative_to_project(image_path: Path, project_path: Path) -> str:
    """Return how a project refers to an image: relative if it lies in the project's folder."""
    image_path, folder = image_path.resolve(), project_path.resolve().parent
    if image_path.is_relative_to(folder):
        return image_path.relative_to(folder).as_posix()
    return os.fspath(image_path)


def find_image(reference: ImageReference, project_path: Path) -> Path | None:
    """Return where a referenced image is now; None if it was moved or never was on disk."""
    if reference.path is None:
        return None
    path = project_path.resolve().parent / reference.path
    return path if path.exists() else None

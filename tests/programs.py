"""A model that is a program (TorchScript) from elsewhere, and a project that enhances with it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import tifffile
import torch
import yaml
from torch.nn.functional import avg_pool2d

from napari_cellda.cli import main
from napari_cellda.core.modelzoo.bundled import bundled_folder
from napari_cellda.core.modelzoo.places import file_sha256
from napari_cellda.core.samples import nuclei_field


class Blur(torch.nn.Module):
    """Logits of a foreground, blurred a little, and of a boundary that is nowhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([8 * avg_pool2d(x, 3, 1, 1) - 4, 0 * x - 4], 1)


def make_program(folder: Path) -> tuple[Path, str]:
    """Write a package whose only weights are a program; return it and the program's SHA-256."""
    bundled = bundled_folder("nuclei")
    assert bundled is not None
    shutil.copytree(bundled, folder, ignore=shutil.ignore_patterns("weights.*"))
    program = folder / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Blur(), torch.zeros(1, 1, 64, 64)).save(str(program))
    digest = file_sha256(program)
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    rdf["name"], rdf["id"] = "Elsewhere's enhancer", folder.name
    rdf["weights"] = {"torchscript": {"source": program.name, "sha256": digest}}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    return folder, digest


def make_project(root: Path) -> tuple[Path, str]:
    """Write a project with a program, and beside it two `images` with `truth`; the SHA-256, too."""
    program, digest = make_program(root / "elsewhere")
    for kind in ("images", "truth"):
        (root / kind).mkdir()
    for i in range(2):
        sample = nuclei_field((64, 72), i)
        labels = np.asarray(sample.labels).astype(np.uint16)
        tifffile.imwrite(root / "images" / f"f{i}.tif", sample.image)
        tifffile.imwrite(root / "truth" / f"f{i}.tif", labels)
        if i == 0:
            tifffile.imwrite(root / "f0.tif", np.where(labels > 0, 2, 1).astype(np.uint8))
    project = root / "theirs.cellda"
    words = ["classify", root / "images" / "f0.tif", "--strokes", root / "f0.tif"]
    words += ["--enhancer", program, "--trust", digest, "--save", project, "-o", root / "maps"]
    assert main([str(word) for word in words]) == 0
    return project, digest

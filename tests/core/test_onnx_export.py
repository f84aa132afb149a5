"""What is exported computes the same and says nothing of the machine that made it."""

import numpy as np
import pytest
import torch

from napari_cellda.core.modelzoo.bundled import bundled_folder, list_bundled
from napari_cellda.core.nets.unet import UNet

TRACES = (b"site-packages", b"napari_cellda/", b"Traceback", b"/home", b"\\Users")


def test_an_exported_network_is_the_same_and_holds_no_path(tmp_path):
    pytest.importorskip("onnxscript")
    import onnxruntime

    from napari_cellda.core.modelzoo.onnx_export import write_onnx

    torch.manual_seed(0)
    network = UNet(1, 2, width=4, depth=2).eval()
    path = tmp_path / "weights.onnx"
    write_onnx(path, network)
    written = path.read_bytes()
    assert not [trace for trace in TRACES if trace in written]
    maps = np.random.default_rng(0).random((1, 1, 24, 32), np.float32)
    (found,) = onnxruntime.InferenceSession(written).run(None, {"input": maps})
    expected = network(torch.from_numpy(maps)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", list_bundled())
def test_bundled_models_hold_no_path(name):
    for path in bundled_folder(name).iterdir():
        content = path.read_bytes()
        assert not [trace for trace in TRACES if trace in content], path.name

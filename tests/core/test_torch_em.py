import pytest
import torch
import zoo_packages as zoo
from torch.nn import functional as F

from napari_cellda.core.errors import UserError
from napari_cellda.core.nets.receptive_field import architecture_reach, reach_along
from napari_cellda.core.nets.torch_em import AnisotropicUNet, UNet2d, UNet3d

SMALL = {"in_channels": 1, "out_channels": 2, "initial_features": 4, "final_activation": "Sigmoid"}


def literal(state, x, factors, norm, padding=1):
    """The network as torch-em's source reads, straight from a state dict."""
    ndim = x.ndim - 2
    conv = F.conv2d if ndim == 2 else F.conv3d
    pool = F.max_pool2d if ndim == 2 else F.max_pool3d
    step = 0 if norm is None else 1

    def normalise(x, name):
        if norm == "InstanceNorm":
            return F.instance_norm(x)
        if norm == "GroupNorm":
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            return F.group_norm(x, min(32, x.shape[1]), weight, bias)
        if norm in ("BatchNorm", "InstanceNormTrackStats"):
            names = ("running_mean", "running_var", "weight", "bias")
            return F.batch_norm(x, *(state[f"{name}.{n}"] for n in names))
        return x

    def block(x, name):
        for norm_at, conv_at in ((0, step), (step + 2, 2 * step + 2)):
            x = normalise(x, f"{name}.block.{norm_at}")
            weight, bias = (
                state[f"{name}.block.{conv_at}.weight"],
                state[f"{name}.block.{conv_at}.bias"],
            )
            x = F.relu(conv(x, weight, bias, padding=tuple(k // 2 for k in weight.shape[2:])))
        return x

    skips = []
    for level, factor in enumerate(factors):
        x = block(x, f"encoder.blocks.{level}")
        skips.append(x)
        x = pool(x, tuple(factor))
    x = block(x, "base")
    for level, factor in enumerate(reversed(factors)):
        mode = "bilinear" if ndim == 2 else "trilinear"
        scale = [float(f) for f in factor]
        x = F.interpolate(x, scale_factor=scale, mode=mode, align_corners=False)
        name = f"decoder.samplers.{level}.conv"
        x = conv(x, state[f"{name}.weight"], state[f"{name}.bias"])
        x = block(torch.cat([x, skips.pop()], dim=1), f"decoder.blocks.{level}")
    return conv(x, state["out_conv.weight"], state["out_conv.bias"]).sigmoid()


@pytest.mark.parametrize(
    "norm", ["InstanceNorm", "InstanceNormTrackStats", "BatchNorm", "GroupNorm", None]
)
def test_2d_matches_a_literal_reading(norm):
    net = zoo.random_network("UNet2d", {**SMALL, "depth": 3, "norm": norm})
    x = torch.rand(2, 1, 32, 48)
    with torch.inference_mode():
        expected = literal(net.state_dict(), x, [(2, 2)] * 3, norm)
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 0.05


@pytest.mark.parametrize(
    ("architecture", "extra", "factors"),
    [
        ("UNet3d", {"depth": 2}, [(2, 2, 2)] * 2),
        ("AnisotropicUNet", {"scale_factors": [[1, 2, 2], [2, 2, 2]]}, [(1, 2, 2), (2, 2, 2)]),
        (
            "AnisotropicUNet",
            {"scale_factors": [[1, 2, 2], 2], "anisotropic_kernel": True},
            [(1, 2, 2), (2, 2, 2)],
        ),
    ],
)
def test_3d_matches_a_literal_reading(architecture, extra, factors):
    net = zoo.random_network(architecture, {**SMALL, **extra})
    x = torch.rand(1, 1, 8, 16, 24)
    with torch.inference_mode():
        expected = literal(net.state_dict(), x, factors, "InstanceNorm")
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)


def test_parameters_are_named_as_torch_em_names_them():
    keys = list(UNet2d(**SMALL, depth=2, norm="BatchNorm").state_dict())
    assert keys[:2] == ["encoder.blocks.0.block.0.weight", "encoder.blocks.0.block.0.bias"]
    assert "base.block.4.weight" in keys
    assert "decoder.blocks.1.block.4.bias" in keys
    assert "decoder.samplers.0.conv.weight" in keys
    assert keys[-2:] == ["out_conv.weight", "out_conv.bias"]
    assert "encoder.blocks.0.block.0.weight" in UNet2d(**SMALL, norm=None).state_dict()


def test_an_anisotropic_kernel_is_the_first_factors_for_all_levels():
    net = AnisotropicUNet(**SMALL, scale_factors=[[1, 2, 2], [2, 2, 2]], anisotropic_kernel=True)
    state = net.state_dict()
    assert state["encoder.blocks.1.block.1.weight"].shape[2:] == (1, 3, 3)
    assert state["decoder.blocks.0.block.1.weight"].shape[2:] == (1, 3, 3)
    assert state["base.block.1.weight"].shape[2:] == (3, 3, 3)


def test_multiples_and_reach_follow_the_scale_factors():
    net = AnisotropicUNet(**SMALL, scale_factors=zoo.ANISOTROPIC)
    assert net.multiples == (8, 16, 16)
    along_z, along_y, along_x = architecture_reach(net)
    assert along_z < along_y == along_x


@pytest.mark.parametrize("anisotropic_kernel", [True, False])
def test_the_reach_of_a_3d_network_is_that_of_its_slim_twins(anisotropic_kernel):
    factors = [[1, 2, 2], [2, 2, 2]]
    net = AnisotropicUNet(
        1, 1, factors, initial_features=1, norm=None, anisotropic_kernel=anisotropic_kernel
    )
    assert architecture_reach(net) == tuple(reach_along(net.eval(), axis) for axis in range(3))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"final_activation": "Softmax"}, "Softmax"),
        ({"norm": "OldNorm"}, "OldNorm"),
        ({"return_side_outputs": True}, "side outputs"),
        ({"postprocessing": "affinities_to_boundaries2d"}, "postprocessing"),
        ({"gain": 3}, "gain"),
        ({"initial_features": 10**6}, "initial_features"),
        ({"depth": 60}, "depth"),
        ({"out_channels": 0}, "out_channels"),
    ],
)
def test_options_that_are_not_known_are_refused(changes, named):
    with pytest.raises(UserError, match=named):
        UNet2d(**{**SMALL, **changes})


@pytest.mark.parametrize("factors", [[[5, 2, 2]], [[2]], [], [[0, 2, 2]]])
def test_scale_factors_that_cannot_be_are_refused(factors):
    with pytest.raises((UserError, ValueError)):
        AnisotropicUNet(**SMALL, scale_factors=factors)


def test_a_network_without_activation_returns_logits():
    net = zoo.random_network("UNet3d", {**SMALL, "depth": 1, "final_activation": None})
    assert isinstance(net, UNet3d)
    with torch.inference_mode():
        assert net(torch.randn(1, 1, 4, 4, 4)).min() < 0

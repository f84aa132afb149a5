import numpy as np
import pytest
import torch

from napari_cellda.core.errors import UserError
from napari_cellda.core.nets.receptive_field import architecture_reach, reach_along
from napari_cellda.core.nets.unet import UNet, pad_to_multiple

NORMS = ("batch", "group", "instance", "none")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("up", ["nearest", "bilinear", "transpose"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_every_kind_gives_logits_of_the_input_size(norm, up, ndim):
    net = UNet(2, 3, width=4, depth=2, norm=norm, up=up, ndim=ndim).eval()
    x = torch.randn(2, 2, *(9, 13, 8)[:ndim])
    with torch.inference_mode():
        y = net(100 * x)
    assert y.shape == (2, 3, *x.shape[2:])
    assert y.min() < 0  # no activation at the end


def test_the_same_config_makes_the_same_architecture():
    net = UNet(1, 2, width=4, depth=2, norm="group", up="transpose", growth=2)
    twin = UNet(**net.config)
    twin.load_state_dict(net.state_dict())
    x = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(twin(x), net(x))


def test_growth_caps_the_widths():
    deepest = UNet(width=4, depth=4, growth=8).down[-1][0]
    assert (deepest.in_channels, deepest.out_channels) == (32, 32)
    assert UNet(width=4, depth=4).down[-1][0].out_channels == 64


def test_gradients_reach_every_parameter():
    net = UNet(width=4, depth=2)
    net(torch.randn(2, 1, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_padding_reflects_as_numpy_does_even_beyond_the_size(size):
    x = torch.arange(float(size)).reshape(1, 1, 1, size).expand(1, 1, 8, size)
    padded = pad_to_multiple(x, 8)
    expected = np.pad(np.arange(float(size)), (0, 8 - size), mode="reflect")
    np.testing.assert_array_equal(padded[0, 0, 0], expected)
    assert padded.shape == (1, 1, 8, 8)


def test_a_multiple_is_not_padded():
    net = UNet(width=4, depth=2).eval()
    x = torch.randn(1, 1, 8, 12)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net.forward_exact(x))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("width", 0),
        ("width", 1.5),
        ("depth", 99),
        ("depth", "4"),
        ("norm", "layer"),
        ("up", "pixelshuffle"),
        ("ndim", 4),
        ("in_channels", -1),
        ("growth", 0),
    ],
)
def test_impossible_arguments_are_named(argument, value):
    with pytest.raises(UserError, match=rf"{argument}.*{value}"):
        UNet(**{argument: value})


def brute_force_halo(net, axis, size):
    """Change one pixel at a time, anywhere, and see how far any output moves."""
    net = net.double().eval()
    x = torch.randn(1, net.in_channels, *size, dtype=torch.double)
    reach = 0
    with torch.inference_mode():
        before = net(x)
        for place in range(size[axis]):
            changed = x.clone()
            changed.narrow(2 + axis, place, 1).add_(10)
            others = tuple(a for a in range(before.ndim) if a != 2 + axis)
            moved = (net(changed) - before).abs().amax(dim=others).nonzero()
            if moved.numel():
                reach = max(reach, int((moved - place).abs().max()))
    return reach


@pytest.mark.parametrize("up", ["nearest", "bilinear", "transpose"])
def test_the_reach_bounds_what_changing_pixels_shows(up):
    torch.manual_seed(1)
    net = UNet(width=6, depth=2, norm="none", up=up)
    halo = architecture_reach(net)
    found = brute_force_halo(net, 1, (8, 128))
    assert found <= halo[1] <= found + 8
    assert halo[0] == halo[1]
    assert tuple(reach_along(net.float(), axis) for axis in (0, 1)) == halo


def test_the_reach_of_known_depths():
    # Depth 1: two pixels by the convolutions before the pooling, one within the pooled pair, four
    # by those below it, two by those above.
    assert architecture_reach(UNet(depth=1, up="transpose")) == (9, 9)
    assert architecture_reach(UNet(depth=3, ndim=3, width=4)) == (51, 51, 51)


def test_the_deepest_network_that_settings_allow_has_a_reach():
    assert architecture_reach(UNet(depth=6, width=4)) == (443, 443)
    assert architecture_reach(UNet(depth=7, width=4)) is None


def test_a_3d_network_looks_as_far_as_its_slim_twins():
    net = UNet(width=1, depth=2, ndim=3, norm="none")
    assert architecture_reach(net) == (23, 23, 23)
    assert [reach_along(net.eval(), axis) for axis in range(3)] == [23, 23, 23]


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_over_the_image_has_no_reach(norm):
    net = UNet(width=4, depth=2, norm=norm)
    exact = norm in ("batch", "none")
    assert net.tiles_exactly is exact
    assert (reach_along(net.eval(), 0) is not None) is exact

import pytest
import torch

from napari_cellda.core.averaging import MovingAverage


def network(value):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def test_it_follows_by_the_equation():
    average, net = MovingAverage(network(0), 0.9), network(1)
    expected = 0.0
    for t in range(1, 31):
        average.follow(net)
        decay = min(0.9, 1 - 1 / (t + 1))
        expected = decay * expected + (1 - decay) * 1
        assert average.network[0].weight.item() == pytest.approx(expected)
    assert average.network[1].running_mean.item() == pytest.approx(expected)
    assert average.network[1].num_batches_tracked == 1


def test_of_a_frozen_network_it_keeps_a_power_of_the_decay():
    average, net = MovingAverage(network(0), 0.9), network(1)
    average.updates = 1000
    for _ in range(7):
        average.follow(net)
    assert 1 - average.network[0].weight.item() == pytest.approx(0.9**7)


def test_the_network_is_left_alone_and_gradients_stay_out():
    net = network(1)
    average = MovingAverage(net, 0.5)
    average.network[0].weight.fill_(7)
    assert net[0].weight.item() == 1
    assert not average.network[0].weight.requires_grad
    assert not average.network.training


def test_its_state_comes_back():
    average, net = MovingAverage(network(0), 0.9), network(1)
    average.follow(net)
    again = MovingAverage(network(5), 0.9)
    again.load_state_dict(average.state_dict())
    for one in (average, again):
        one.follow(net)
    assert torch.equal(again.network[0].weight, average.network[0].weight)
    assert again.updates == 2

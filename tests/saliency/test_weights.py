"""Gradient weights against plain loops, and what the controls keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.enhancement import enhancement as oracle
from torch import Tensor

from limbeck.networks.convnet import ConvNet
from limbeck.runtime.random import generator
from limbeck.saliency.maps import TorchCam
from limbeck.saliency.weights import Activation, Constant, NoWeighting, Shuffled, activation_weights


def some_maps(number: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(number, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("threshold", ["mean", 0.2, 0.8])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_activation_weights_are_the_formula(beta, threshold):
    maps = some_maps()
    weights = Activation(beta, threshold)(maps, generator(0))
    expected = oracle(maps.numpy(), beta, None if threshold == "mean" else threshold)
    assert weights.shape == (5, 1, 4, 6)
    torch.testing.assert_close(weights[:, 0], torch.from_numpy(expected), rtol=1e-14, atol=0)


def test_the_mean_is_that_of_each_image():
    """A faint map keeps its own discriminative half beside a strong one."""
    maps = torch.stack([some_maps(1)[0], some_maps(1)[0] / 1000])
    weights = Activation(2)(maps, generator(0))
    assert torch.equal(weights[0] > 1, weights[1] > 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.0])
def test_a_flat_map_is_not_below_its_mean(value):
    """In float32 the mean of many equal numbers can exceed them: that of 0.1 does."""
    maps = torch.full((2, 32, 32), value, dtype=torch.float32)
    weights = Activation(2)(maps, generator(0))
    assert torch.equal(weights, torch.full((2, 1, 32, 32), 2 + value, dtype=torch.float32))
    assert weights.dtype == torch.float32


def test_none_leaves_the_gradient_alone():
    assert torch.equal(NoWeighting()(some_maps(), generator(0)), torch.ones(5, 1, 4, 6).double())


@pytest.mark.parametrize("threshold", ["mean", 0.8])
def test_constant_weights_are_the_mean_of_each_images_weights(threshold):
    maps = some_maps()
    constant = Constant(2, threshold)(maps, generator(0))[:, 0]
    for row, weights in zip(constant, oracle(maps.numpy(), 2, None if threshold == "mean" else threshold), strict=True):
        torch.testing.assert_close(row, torch.full((4, 6), weights.mean(), dtype=torch.float64), rtol=1e-14, atol=0)


@settings(max_examples=30, deadline=None)
@given(number=st.integers(2, 12), seed=st.integers(0, 1000))
def test_shuffled_weights_are_each_used_once_and_never_for_their_own_image(number, seed):
    maps = some_maps(number)
    own = Activation(2)(maps, generator(0))
    shuffled = Shuffled(2)(maps, generator(seed))
    came_from = [next(j for j in range(number) if torch.equal(own[j], weights)) for weights in shuffled]
    assert sorted(came_from) == list(range(number))
    assert all(i != j for i, j in enumerate(came_from))


def test_a_threshold_holds_for_shuffled_weights_too():
    maps = some_maps(2)
    assert torch.equal(Shuffled(2, 0.8)(maps, generator(0)), Activation(2, 0.8)(maps, generator(0)).flip(0))


def test_shuffling_one_image_leaves_it():
    maps = some_maps(1)
    shuffled = Shuffled()(maps, generator(0))
    assert torch.equal(shuffled, Activation()(maps, generator(0)))


def test_shuffling_is_keyed_and_reaches_every_other_image():
    maps, shuffle = some_maps(4), Shuffled(2)
    assert torch.equal(shuffle(maps, generator(3)), shuffle(maps, generator(3)))
    own = Activation(2)(maps, generator(0))
    first = [shuffle(maps, generator(seed))[0] for seed in range(40)]
    assert all(any(torch.equal(weights, own[j]) for weights in first) for j in (1, 2, 3))


@pytest.mark.parametrize("draws", [None, 5])
def test_weights_of_a_loop_of_ones_own_are_the_weighting_of_the_maps_of_these_images_and_classes(draws):
    """What is random in both is drawn from one generator, the maps' noise first; seed 0 where none is given."""
    torch.manual_seed(0)
    module, classes = ConvNet(3, 16, 16, 10, depth=2, width=8).double(), torch.tensor([0, 4, 7])
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    cam, weighting, one = TorchCam("smooth_gradcam_pp"), Shuffled(2.5), torch.Generator().manual_seed(draws or 0)
    expected = weighting(cam(module, x, classes, one), one)
    own = None if draws is None else torch.Generator().manual_seed(draws)
    found = activation_weights(module, x, classes, weighting=weighting, cam=cam, generator=own)
    assert found.dtype == torch.float64 and torch.equal(found, expected)
    assert not torch.equal(found, activation_weights(module, x, classes.flip(0), weighting=weighting, cam=cam, generator=own))

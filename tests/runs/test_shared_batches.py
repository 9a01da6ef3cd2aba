"""The batches of one network, shared by the ranks of one run: equal up to rounding, which float64 shows."""

import numpy as np
import pytest
import torch
from runs.colours import images
from together import Team
from torch import Tensor

from limbeck.augmentation import Dsa
from limbeck.losses import cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.runtime.ranks import Ranks
from limbeck.training.gradient import Gradient, SharedGradient
from limbeck.training.images import TensorImages
from limbeck.training.optimisers import Sgd
from limbeck.training.train import Training, train

BATCHED = ("ConvNetD2-w4", "ConvNetD2-w4-batchnorm", "ResNet18-w4-batchnorm")


def gradient(name: str, count: int) -> tuple[Tensor, int]:
    here, draws = Ranks.here(), torch.Generator().manual_seed(5)
    network = flat_network(name, (3, 16, 16), 4)
    theta = network.initial(draws).double()
    x, y = torch.randn(count, 3, 16, 16, generator=draws).double(), torch.randn(count, 4, generator=draws).double().softmax(1)
    before = here.sent
    return SharedGradient(Gradient(network, cross_entropy), here)(theta, x, y), here.sent - before


@pytest.mark.parametrize("count", [1, 5, 8])
@pytest.mark.parametrize("name", BATCHED)
def test_the_gradient_of_a_shared_batch_is_that_of_the_whole(two: Team, name: str, count: int) -> None:
    check_gradient(two, name, count)


@pytest.mark.slow
@pytest.mark.parametrize("team", ["three", "four"])
@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("name", BATCHED)
def test_on_more_ranks_too(team: str, name: str, count: int, request: pytest.FixtureRequest) -> None:
    check_gradient(request.getfixturevalue(team), name, count)


def check_gradient(team: Team, name: str, count: int) -> None:
    expected = gradient(name, count)[0]
    found = team(gradient, name, count)
    for one, sent in found:
        assert (one - expected).norm() / expected.norm() < 1e-12
        assert torch.equal(one, found[0][0])
        if count >= team.count:
            least = 2 * one.nbytes * (team.count - 1) // team.count  # and what batch norms have in common
            assert sent == least if "batchnorm" not in name else sent > least


def trained(name: str) -> Tensor:
    data, network = images(), flat_network(name, (3, 8, 8), 3)
    how = Training(optimiser=Sgd(0.05, 0.9, 5e-4), loss=cross_entropy, epochs=3, batch_size=8, augment=Dsa("flip"))
    pixels = torch.from_numpy(np.asarray(data.train.storage)).double() / 255
    labels = torch.nn.functional.one_hot(torch.from_numpy(data.train.labels), 3).double()
    theta = network.initial(torch.Generator().manual_seed(0)).double()
    shared = SharedGradient(Gradient(network, cross_entropy), Ranks.here())
    return train(network, theta, TensorImages(pixels), labels, how, seed=0, key=("x",), gradient=shared)


@pytest.mark.parametrize("name", ["ConvNetD1-w4", "ConvNetD1-w4-batchnorm"])
def test_a_training_of_shared_batches_ends_where_that_of_whole_ones_does(two: Team, name: str) -> None:
    expected = trained(name)
    for found in two(trained, name):
        assert (found - expected).norm() / expected.norm() < 1e-10

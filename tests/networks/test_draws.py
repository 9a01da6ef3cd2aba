"""Networks that draw while f is computed: they are found, and torch's global generator is left as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.initial import global_draws
from limbeck.runtime.random import generator


@pytest.mark.parametrize(
    ("part", "drops"),
    [
        (nn.Dropout(0.5), True),
        (nn.Dropout2d(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.TransformerEncoderLayer(4, 2, 8), True),
        (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), False),
        (nn.GRU(4, 4, 2, dropout=0.2), True),
        (nn.ReLU(), False),
    ],
)
def test_dropout_is_found(part: nn.Module, drops: bool) -> None:
    assert FlatNetwork(nn.Sequential(nn.Linear(4, 4), part), "maybe").has_dropout is drops


class DropPath(nn.Module):
    """Stochastic depth as libraries have it: whole images are left out while training."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_empty(len(x), 1).bernoulli_(1 - self.share) if self.training and self.share else x


class Attention(nn.Module):
    """Its dropout is a function, and its share is called otherwise."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.attention_dropout = share

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.attention_dropout, self.training)


@pytest.mark.parametrize(
    ("part", "draws"),
    [(DropPath(0.5), True), (DropPath(0.0), False), (Attention(0.5), True), (Attention(0.0), False), (nn.RReLU(), True)],
)
def test_whatever_draws_is_found(part: nn.Module, draws: bool) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), part, nn.Linear(8, 4))
    for given in (module, lambda num_classes: copy.deepcopy(module)):
        network = flat_network(given, (3, 2, 2), 4)
        theta, x = network.initial(generator(0, "a")), torch.randn(50, 3, 2, 2, generator=generator(0, "x"))
        assert network.has_dropout is copy.deepcopy(network).has_dropout is draws
        assert torch.equal(network(theta, x), network(theta, x)) is not draws


def test_global_draws_leave_no_trace_and_need_no_accelerator() -> None:
    before = torch.get_rng_state()
    drawn = []
    for device in (torch.device("cpu"), torch.device("meta")):
        with global_draws(3, device):
            drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], torch.rand(4, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(*drawn) and torch.equal(torch.get_rng_state(), before)

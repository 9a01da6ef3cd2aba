"""A network is pickled as it is, even while f is computed with other parameters in it, as another thread may be doing."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from limbeck.networks.flat import FlatNetwork

MEANWHILE: list[Callable[[], None]] = []


class Interrupted(nn.Module):
    """Something else happens while it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for happens in MEANWHILE:
            happens()
        logits: Tensor = self.head(x.flatten(1))
        return logits


@pytest.mark.parametrize("sent", ["as it was made", "pickled before", "copied before"])
def test_pickled_while_computing(sent: str) -> None:
    made = FlatNetwork(Interrupted(), "interrupted")
    own = {name: value.clone() for name, value in made.module.state_dict().items()}
    ways = {"as it was made": made, "pickled before": pickle.loads(pickle.dumps(made)), "copied before": copy.deepcopy(made)}
    network = ways[sent]
    theta, x, pickled = torch.randn(network.num_parameters), torch.randn(2, 1, 2, 2), list[bytes]()
    MEANWHILE.append(lambda: pickled.append(pickle.dumps(network)))
    try:
        expected = network(theta, x)
    finally:
        MEANWHILE.clear()
    again = pickle.loads(pickled[0])
    assert {name: value.tolist() for name, value in again.module.state_dict().items()} == {
        name: value.tolist() for name, value in own.items()
    }
    assert all(isinstance(value, nn.Parameter) for value in again.module.parameters())
    assert torch.equal(again(theta, x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(again))(theta, x), expected)

"""What is compiled: by a count of steps in which large ones weigh more, so that equal trainings decide alike."""

import pytest
import torch

from limbeck.networks.flat import flat_network
from limbeck.networks.micro_batches import output_sizes
from limbeck.training.compute import Compute


@pytest.mark.parametrize(
    ("name", "side", "batch", "steps", "compiled"),
    [
        ("ConvNetD3-w32", 32, 256, 1100, True),  # 100 epochs of 2700 images
        ("ConvNetD3-w32", 32, 256, 110, False),  # 10 of them
        ("ConvNetD3-w16", 32, 256, 66, False),  # the experts of the recipes for scenes
        ("ConvNetD5-w128", 128, 256, 3600, True),  # published, ImageNet's subsets
        ("ConvNetD2-w8", 16, 64, 3999, False),  # small steps count as they are
        ("ConvNetD2-w8", 16, 64, 4000, True),
    ],
)
def test_large_steps_count_for_many(name: str, side: int, batch: int, steps: int, compiled: bool) -> None:
    compute = Compute(flat_network(name, (3, side, side), 10), torch.device("cpu"))
    assert compute.compiles(compute.weighed(steps, (3, side, side), batch)) == compiled


def test_weighed_steps_in_closed_form() -> None:
    network = flat_network("MLP-w8", (1, 2, 2), 10)
    numbers = sum(output_sizes(network, (1, 2, 2)))
    compute = Compute(network, torch.device("cpu"))
    batch = 10**6
    assert compute.weighed(7, (1, 2, 2), batch) == round(7 * batch * numbers * 1e-9 / 2.5e-3) > 7
    assert compute.weighed(7, (1, 2, 2), 1) == 7

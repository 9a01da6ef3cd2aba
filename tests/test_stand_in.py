"""Every path of a GPU on torch's `meta` device, which has shapes and no values, and refuses tensors of the CPU as a GPU does."""

import pytest
import torch

from limbeck.runtime.devices import STAND_IN
from tests.device_paths import PATHS, Path


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_on_the_stand_in(path: Path) -> None:
    path(STAND_IN)


@pytest.mark.parametrize(
    "name", ["way: exact, a step kept, θ on the host, staged, fp32, 3 at a time", "method: edf", "evaluation: kd"]
)
def test_on_the_cpu(name: str) -> None:
    PATHS[name](torch.device("cpu"))

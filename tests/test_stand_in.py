"""Every path of a GPU on torch's `meta` device, which has shapes and no values, and refuses tensors of the CPU as a GPU does."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path as File

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


def test_fake_cuda_says_in_one_line_what_it_needs() -> None:
    torch_found = find_spec("torch")
    assert torch_found is not None and torch_found.origin is not None
    if list((File(torch_found.origin).parent / "lib").glob("*torch_cuda*")):
        pytest.skip("this is the CUDA build")
    script = str(File(__file__).with_name("fake_cuda.py"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode == 1
    assert done.stdout + done.stderr == (
        "fake-cuda: needs torch's CUDA build (no GPU), or a C++ compiler (g++, clang++) beside the CPU build\n"
    )

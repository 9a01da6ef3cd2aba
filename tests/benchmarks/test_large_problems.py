"""The table of large problems: what is counted against closed forms, and that the page has what the script computes."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from limbeck.networks.flat import flat_network

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
large, plan_devices = importlib.import_module("large_problems"), importlib.import_module("plan_devices")
sys.path.remove(str(ROOT / "benchmarks"))
SMALL = large.Problem("small", 10, 1000, 100, 64, 2)


def test_operations_are_those_of_convolutions_and_the_head() -> None:
    """2 · 9 · C_in · C_out · pixels of each of four blocks, and 2 · 2048 · K."""
    convolutions = sum(18 * size * size * (3 if size == 64 else 128) * 128 for size in (64, 32, 16, 8))
    found = large.network_of(SMALL)
    assert found.flop == convolutions + 2 * 4 * 4 * 128 * 10
    assert found.parameters == 9 * 128 * (3 + 3 * 128) + 3 * 4 * 128 + (2048 + 1) * 10


def test_a_step_of_training_counts_thrice() -> None:
    """But for the first layer, which nobody asks for a gradient by its input."""
    network = flat_network("ConvNetD4", (3, 64, 64), 10)
    with FlopCounterMode(display=False) as counter:
        network.module(torch.zeros(1, 3, 64, 64, requires_grad=True)).sum().backward()
    assert counter.get_total_flops() == large.TRAINING * large.network_of(SMALL).flop


def test_bytes_and_times_of_a_small_problem() -> None:
    found = large.computed(SMALL, 4)
    n, p, parameters, flop = 20, 3 * 64 * 64, found.network.parameters, found.network.flop
    assert found.disk["decoded images"] == 1100 * p
    assert found.disk["distilled set"] == 4 * n * (p + 10)
    assert found.disk["one expert"] == pytest.approx(4 * 23 * parameters, rel=1e-3)
    assert found.disk["experts, half"] < 0.5 * found.disk["experts"]
    assert found.device["X with gradient, velocity, average"] == 4 * 4 * 5 * p
    assert found.device["θ_0 … θ_T"] == 4 * 23 * parameters
    assert found.flop["distillation"] == 10_000 * 20 * 2 * 11 * flop
    assert found.seconds["experts"] == pytest.approx(100 * 70 * 1000 * 3 * flop / (67e12 * 0.4) / 4)
    assert found.iteration >= 20 * 2 * 11 * flop / (67e12 * 0.4) / 4
    one = large.computed(SMALL, 1)
    assert one.iteration == pytest.approx(20 * 2 * 11 * flop / (67e12 * 0.4))
    assert one.sent == 0 < found.sent


def test_the_page_has_the_table_and_the_file_what_it_says() -> None:
    held = json.loads((ROOT / "benchmarks/results/large-problems.json").read_text(encoding="utf-8"))
    rows = [large.Computed.from_dict(one) for one in held["problems"]]
    page = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    assert "\n".join(large.table(rows)) in page
    assert large.computed(large.PROBLEMS[0], 8) == rows[0]


def test_sizes_for_people() -> None:
    assert [large.size(one) for one in (12, 999, 1000, 2.5e9, 8e14)] == ["12 B", "999 B", "1 kB", "2.5 GB", "800 TB"]
    assert [large.long(one) for one in (3.0, 7200, 86400 * 3)] == ["3.0 s", "2 h", "3 d"]


@pytest.mark.parametrize("devices", [2, 4])
def test_a_link_is_found_from_two_sums(devices: int) -> None:
    link = plan_devices.Link("wire", 2e9, 1e-4)
    small, big = (plan_devices.seconds_of_sum(4 * count, devices, link) for count in (plan_devices.SMALL, plan_devices.LARGE))
    found = plan_devices.fitted(devices, small, big)
    assert (found.bandwidth, found.latency) == pytest.approx((2e9, 1e-4), rel=1e-4)

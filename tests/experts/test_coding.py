"""How checkpoints are written: exactness, error bounds, sizes."""

from itertools import combinations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from limbeck.experts.coding import CODINGS, GROUP, LEVELS, MOST_ERROR, Half, displacement_error, encode

SCALES = st.sampled_from([0.0, 1e-45, 1e-38, 1e-30, 1e-9, 1e-3, 1.0, 1e4, 1e30, 3e38])


def trajectory(rows: int, size: int, scale: float, step: float, seed: int = 0) -> torch.Tensor:
    """A random walk, kept within single precision."""
    draws = torch.Generator().manual_seed(seed)
    start = torch.rand(size, generator=draws, dtype=torch.float64) * 2 - 1
    moves = torch.randn(rows, size, generator=draws, dtype=torch.float64).cumsum(0)
    return (start * scale + moves * step).clamp(-3.4e38, 3.4e38).float()


def decoded(name: str, tensors: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    return torch.stack([CODINGS[name].decode(lambda key, i: tensors[key][i], row, rows) for row in range(rows)])


@given(st.integers(1, 9), st.integers(1, 700), SCALES, SCALES, st.sampled_from(["fp32", "fp16", "half"]), st.integers(0, 99))
def test_whatever_is_finite_is_read_back(rows: int, size: int, scale: float, step: float, wanted: str, seed: int) -> None:
    """In fp32 to the bit; in half with every displacement within 1 %, in double precision; the last checkpoint always exact."""
    thetas = trajectory(rows, size, scale, step, seed)
    name, tensors, error = encode(thetas, wanted)
    read = decoded(name, tensors, rows)
    assert read.dtype == torch.float32
    assert torch.equal(read[-1], thetas[-1])
    assert bool(read.isfinite().all())
    if name == "fp32":
        assert torch.equal(read, thetas)
    if name == "half":
        for a, b in combinations(range(rows), 2):
            true = thetas[b].double() - thetas[a].double()
            lost = (read[b].double() - read[a].double() - true).norm()
            assert lost <= error * true.norm()
        assert error <= MOST_ERROR
    assert CODINGS[name].rank >= CODINGS[wanted].rank or wanted == "fp32"


@example([0.0, 5e-36])
@example([0.0, 1e-44])
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=60))
def test_the_error_of_half_is_at_most_half_a_level(values: list[float]) -> None:
    thetas = torch.tensor(values[: len(values) // 2 * 2]).view(2, -1)
    tensors = Half().encode(thetas)
    read = decoded("half", tensors, 2)[0].double()
    if not bool(read.isfinite().all()):
        return  # beyond single precision, which `encode` refuses
    distance = (thetas[0].double() - thetas[1].double()).abs().max()
    # Half a level; what rounding the scale, s q and the sum to single precision adds.
    bound = distance / LEVELS / 2 + 2e-7 * distance + 6e-8 * thetas[0].double().abs() + 1e-41
    assert bool(((read - thetas[0].double()).abs() <= bound + LEVELS * 1e-45).all())


@pytest.mark.parametrize("size", [1, GROUP - 1, GROUP, 2 * GROUP, 2 * GROUP + 1, 5 * GROUP + 7])
@pytest.mark.parametrize("name", ["fp32", "fp16", "half"])
def test_the_size_is_what_the_tensors_take(name: str, size: int) -> None:
    tensors = CODINGS[name].encode(trajectory(5, size, 1.0, 0.01))
    assert CODINGS[name].size(5, size) == sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert len(save(tensors)) < CODINGS[name].size(5, size) + 1000


def test_every_code_survives_the_packing() -> None:
    """Distances −2047 … 2047 are the levels themselves: each comes back exactly."""
    steps = torch.zeros(17 * (GROUP - 1))
    steps[: 2 * LEVELS + 1] = torch.arange(-LEVELS, LEVELS + 1)
    groups = torch.cat([torch.full((17, 1), float(LEVELS)), steps.view(17, -1)], 1)  # so that a level is 1 in every group
    thetas = torch.stack([groups.flatten(), torch.zeros(groups.numel())])
    assert torch.equal(decoded("half", Half().encode(thetas), 2)[0], groups.flatten())


def test_a_group_of_large_distances_costs_the_others_nothing() -> None:
    thetas = trajectory(2, 2 * GROUP, 1.0, 1e-4)
    thetas[0, :GROUP] += 100.0
    read = decoded("half", Half().encode(thetas), 2)[0]
    assert float((read - thetas[0])[GROUP:].abs().max()) < 1e-6
    assert 1e-4 < float((read - thetas[0])[:GROUP].abs().max()) < 100 / LEVELS


def test_half_moves_no_displacement_by_one_per_cent_where_fp16_does() -> None:
    """Steps of 0.6 % of θ's length, as experts of step size 0.01 make."""
    thetas = trajectory(8, 4000, 0.3, 0.001)
    errors = {}
    for name in ("fp16", "half"):
        read = decoded(name, CODINGS[name].encode(thetas), 8).double()
        exact = thetas.double()
        pairs = [(t, t + m) for m in (1, 2, 3) for t in range(8 - m)]
        errors[name] = max(float((read[b] - read[a] - exact[b] + exact[a]).norm() / (exact[b] - exact[a]).norm()) for a, b in pairs)
    assert errors["half"] < 0.004
    assert errors["fp16"] > 0.03


def test_steps_that_half_would_lose_are_kept_in_fp32() -> None:
    thetas = torch.zeros(3, 300)
    thetas[0] = torch.linspace(0, 1, 300)  # one epoch far away, the next ones a hair apart
    thetas[1] = 1e-6 * torch.linspace(1, 0, 300)
    thetas[1, 0] += 1
    assert encode(thetas, "half")[0] == "half"
    thetas[1] = thetas[0] + 1e-6
    name, tensors, error = encode(thetas, "half")
    assert (name, error) == ("fp32", 0.0)
    assert torch.equal(tensors["theta"], thetas)


def test_constant_trajectories_lose_nothing() -> None:
    thetas = torch.linspace(-1, 1, 300).expand(4, -1).clone()
    name, tensors, error = encode(thetas, "half")
    assert (name, error) == ("half", 0.0)
    assert torch.equal(decoded("half", tensors, 4), thetas)


def test_a_single_checkpoint_is_exact_in_every_coding() -> None:
    for name in CODINGS:
        taken, tensors, _ = encode(torch.randn(1, 10, generator=torch.Generator().manual_seed(0)), name)
        assert (taken, list(tensors)) == ("fp32", ["theta"])


def test_fp16_that_overflows_is_kept_in_fp32() -> None:
    assert encode(torch.tensor([[7e4, 0.0], [1.0, 1.0]]), "fp16")[0] == "fp32"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["fp32", "fp16", "half"])
def test_numbers_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    thetas = torch.zeros(3, 5)
    thetas[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        encode(thetas, name)


def test_the_error_against_a_plain_loop() -> None:
    draws = torch.Generator().manual_seed(1)
    thetas, noise = torch.randn(2, 5, 40, generator=draws, dtype=torch.float64).unbind()
    expected = 0.0
    for a, b in combinations(range(5), 2):
        way = (thetas[b] - thetas[a]).norm()
        for e in (a, b):
            expected = max(expected, float(2 * noise[e].norm() / way))
    assert displacement_error(thetas + noise, thetas) == pytest.approx(expected, rel=1e-12)


def oscillating(drift: float, period: int = 2, rows: int = 24) -> torch.Tensor:
    """Steps to and fro, or around, with a drift that is a small part of them."""
    draws = torch.Generator().manual_seed(2)
    start, along, *around = torch.randn(2 + period, 2000, generator=draws, dtype=torch.float64)
    return torch.stack([start + 0.01 * (around[t % period] + drift * t * along) for t in range(rows)]).float()


@pytest.mark.parametrize("period", [2, 3, 5])
def test_checkpoints_that_nearly_come_back_are_kept_in_fp32(period: int) -> None:
    """Every step keeps its length to 0.1 %, but what is left of `period` of them would be changed by several per cent."""
    block = oscillating(0.005, period)[:8]
    read, exact = decoded("half", Half().encode(block), 8).double(), block.double()

    def lost(m: int) -> float:
        shares = [(read[t + m] - read[t] - exact[t + m] + exact[t]).norm() / (exact[t + m] - exact[t]).norm() for t in range(8 - m)]
        return float(max(shares))

    assert lost(1) < 0.002 and lost(period) > 0.012
    assert encode(block, "half")[0] == "fp32"


@pytest.mark.parametrize("drift", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("period", [1, 2, 3, 5])
def test_displacements_between_blocks_change_by_half_a_per_cent_of_what_their_ends_are_apart_from_the_nearest(
    period: int, drift: float
) -> None:
    """Which is within 1 % of them where they are as long, as they are in all of these."""
    thetas = oscillating(drift, period)
    encoded = [encode(block, "half") for block in thetas.split(8)]
    read = torch.cat([decoded(name, tensors, 8) for name, tensors, _ in encoded]).double()
    exact, worst = thetas.double(), 0.0
    apart = torch.cat([torch.cdist(block, block).fill_diagonal_(torch.inf).amin(1) for block in exact.split(8)])
    for a, b in combinations(range(len(thetas)), 2):
        lost, way = (read[b] - read[a] - exact[b] + exact[a]).norm(), (exact[b] - exact[a]).norm()
        assert lost <= MOST_ERROR / 2 * (apart[a] + apart[b]) * (1 + 1e-9)
        worst = max(worst, float(lost / way))
    assert worst <= MOST_ERROR
    if drift >= 0.3:
        assert {name for name, _, _ in encoded} == {"half"} and worst > 0


def test_many_sizes_of_step_stay_in_half() -> None:
    """Trajectories as experts make them: straight, wandering, and with steps that fall to a tenth in the middle."""
    draws = torch.Generator().manual_seed(3)
    for straight in (0.0, 0.5, 2.0):
        for factors in (torch.ones(8), torch.tensor([1.0] * 4 + [0.1] * 4), 0.5 * (1 + torch.linspace(0, 3, 8).cos())):
            moves = torch.randn(8, 3000, generator=draws) + straight * torch.randn(3000, generator=draws)
            thetas = torch.randn(3000, generator=draws) * 0.1 + 0.001 * (factors[:, None] * moves).cumsum(0)
            name, _, error = encode(thetas, "half")
            assert name == "half" and error < 0.009, (straight, factors)

"""What the decoupled methods share: curriculum, stages, blend and resolutions by closed forms, a recovery against plain loops."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference.enhancement import enhancement as plain_weights
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck.data.preprocessing import Normalise
from limbeck.methods.crop_curriculum import least_share
from limbeck.methods.enhance import Enhancement
from limbeck.methods.norm_statistics import recovery_loss
from limbeck.methods.residual import Stages, blend, resized
from limbeck.methods.settings import CropCurriculum, Sre2lSettings
from limbeck.methods.statistics_matching import Recovery, State
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.random import generator
from limbeck.saliency.maps import Cam
from limbeck.saliency.weights import Activation, NoWeighting

CPU, SHAPE = torch.device("cpu"), (3, 8, 8)
NORMALISE = Normalise(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25]))
STILL: dict[str, Any] = {"crop_scale": (1.0, 1.0), "roll": 0}
FADRM: dict[str, Any] = {"start": "patches", "stages": 4, "residual": 0.5, "low_resolution": 0.75}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PATCHES = 0.5 * noise(6, *SHAPE, seed=9)


class Brightness(Cam):
    """Maps that change with the images."""

    def __call__(self, module: nn.Module, x: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
        return (x.mean(1) + 0.1 * classes[:, None, None]).sigmoid()


def teacher(pooling: bool = False) -> nn.Module:
    """A ConvNet, or a network with global pooling, which takes images of any size."""
    if pooling:
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
        )
        return made.double().eval()
    network = flat_network("ConvNetD2-w8-batchnorm", SHAPE, 3)
    made = network.with_parameters(network.initial(generator(0, "teacher")), lambda: noise(64, *SHAPE).float())
    return made.double().eval()


def recovery(module: nn.Module | None = None, enhancement: Enhancement | None = None, **changes: Any) -> Recovery:
    """Three classes of two images in batches of four and two."""
    chosen = Sre2lSettings(**{"iterations": 9, "batch_size": 4, **changes})
    parts = (NORMALISE, SHAPE, 3, 2, chosen)
    return Recovery(module or teacher(), *parts, 1, CPU, False, PATCHES if chosen.takes_patches else None, enhancement)


def enhancement(every: int = 1) -> Enhancement:
    return Enhancement(nn.Identity(), torch.empty(0, dtype=torch.int64), 0, Brightness(), Activation(beta=0.5), every)


@pytest.mark.parametrize(
    ("curriculum", "milestone", "wanted"),
    [
        # s(t) for t = 0, 3, 6, 9 of 12 iterations, between 0.1 and 0.9.
        ("none", 1.0, [0.1, 0.1, 0.1, 0.1]),
        ("step", 0.5, [0.9, 0.9, 0.1, 0.1]),
        ("linear", 1.0, [0.9, 0.7, 0.5, 0.3]),
        ("linear", 0.5, [0.9, 0.5, 0.1, 0.1]),
        ("cosine", 1.0, [0.9, 0.5 + 0.4 * math.sqrt(0.5), 0.5, 0.5 - 0.4 * math.sqrt(0.5)]),
        ("cosine", 0.5, [0.9, 0.5, 0.1, 0.1]),
    ],
)
def test_the_curriculum_in_closed_form(curriculum: CropCurriculum, milestone: float, wanted: list[float]) -> None:
    found = [least_share(curriculum, (0.1, 0.9), t, 12, milestone) for t in (0, 3, 6, 9)]
    assert found == pytest.approx(wanted, abs=1e-12)
    every = [least_share(curriculum, (0.1, 0.9), t, 12, milestone) for t in range(12)]
    assert every == sorted(every, reverse=True) and min(every) >= 0.1


@given(
    scale=st.tuples(st.integers(1, 100), st.integers(1, 100)).map(sorted),
    curriculum=st.sampled_from(("step", "linear", "cosine")),
    iteration=st.integers(0, 11),
)
@example(scale=[3, 29], curriculum="linear", iteration=0)  # 0.03 + (0.29 − 0.03) is above 0.29
def test_a_curriculum_stays_within_its_scale(scale: list[int], curriculum: CropCurriculum, iteration: int) -> None:
    low, high = (share / 100 for share in scale)
    assert low <= least_share(curriculum, (low, high), iteration, 12) <= high


def test_crops_go_from_whole_images_to_small_ones() -> None:
    job = recovery(iterations=40, crop_curriculum="cosine", crop_scale=(0.1, 1.0), same_view=False)
    areas = []
    for iteration in range(40):
        boxes = job._draw(0, iteration, 200).boxes
        assert boxes is not None
        areas.append(boxes[:, 2] * boxes[:, 3] / 64)
        assert (
            areas[-1].min() >= least_share("cosine", (0.1, 1.0), iteration, 40) - 1e-9 or iteration < 8
        )  # too long ones do not fit
    assert torch.equal(areas[0].unique(), torch.ones(1, dtype=torch.float64))
    assert areas[-1].min() < 0.2


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 9), more=st.integers(0, 60))
def test_stages_are_as_long_as_can_be_and_follow_each_other(count: int, more: int) -> None:
    stages = Stages(count + more, count)
    seen = [stages.of(t) for t in range(count + more)]
    assert seen == sorted(seen) and set(seen) == set(range(count))
    lengths = [seen.count(stage) for stage in range(count)]
    assert max(lengths) - min(lengths) <= 1
    assert [stages.place(t) for t in range(count + more)] == [(i, n) for n in lengths for i in range(n)]


def test_the_published_stages() -> None:
    stages = Stages(2000, 4, 200 / 224)
    assert [stages.first(stage) for stage in range(5)] == [0, 500, 1000, 1500, 2000]
    sizes = [stages.low_size(224, 224) if stages.is_low(stage) else (224, 224) for stage in range(4)]
    assert [size[0] for size in sizes] == [200, 224, 200, 224]
    assert not any(Stages(9, 3).is_low(stage) for stage in range(3))


@pytest.mark.parametrize("size", [(6, 5), (8, 8), (12, 16), (1, 1)])
def test_other_sizes_are_those_of_torch(size: tuple[int, int]) -> None:
    x = noise(2, *SHAPE).requires_grad_()
    found, wanted = resized(x, size), interpolate(x, size, mode="bilinear", antialias=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    seed = noise(*found.shape, seed=1)
    ours, theirs = (torch.autograd.grad(y, x, seed, retain_graph=True)[0] for y in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        resized(torch.ones(1, *SHAPE, dtype=torch.float64), size), torch.ones(1, 3, *size, dtype=torch.float64)
    )


def test_the_blend_is_its_equation() -> None:
    x, p = noise(2, *SHAPE), noise(2, *SHAPE, seed=1)
    assert torch.equal(blend(x, p, 1.0), x) and torch.equal(blend(x, p, 0.0), p)
    for place in ((0, 0, 0, 0), (1, 2, 7, 3)):
        assert blend(x, p, 0.3)[place].item() == pytest.approx(0.3 * x[place].item() + 0.7 * p[place].item(), rel=1e-14)


def plain(module: nn.Module, x: Tensor, patches: Tensor | None, classes: Tensor, job: Recovery, native: bool) -> Tensor:
    """X recovered in plain loops, in float64: torch's Adam and sizes, one batch, the same view of everything."""
    s, every = job.settings, job.enhancement.every if job.enhancement else 0
    low, high = ((level - NORMALISE.mean.double()) / NORMALISE.std.double() for level in (0.0, 1.0))
    starts = [j * s.iterations // s.stages for j in range(s.stages + 1)]
    sizes = [round(8 * s.low_resolution) if (s.stages - 1 - j) % 2 else 8 for j in range(s.stages)]
    for j, side in enumerate(sizes):
        if j:
            assert patches is not None
            x = clip(s.residual * x + (1 - s.residual) * patches, low, high)
        x = (interpolate(x, (side, side), mode="bilinear", antialias=True) if side < 8 else x).clone().requires_grad_()
        adam = torch.optim.Adam([x], betas=(0.5, 0.9))
        for t in range(starts[j], starts[j + 1]):
            if every and (t - starts[j]) % every == 0:
                whole = interpolate(x.detach(), (8, 8), mode="bilinear")
                maps = (whole.mean(1) + 0.1 * classes[:, None, None]).sigmoid().numpy()
                f = torch.from_numpy(plain_weights(maps, 0.5))[:, None]
                f = interpolate(f, (side, side), mode="bilinear", antialias=True) if side < 8 else f
            adam.param_groups[0]["lr"] = s.lr * (1 + math.cos(math.pi * t / s.iterations)) / 2
            adam.zero_grad()
            seen = x if side == 8 or native else interpolate(x, (8, 8), mode="bilinear")
            recovery_loss(module, seen, classes).backward()
            before = x.detach().clone()
            adam.step()
            with torch.no_grad():
                x.copy_(clip(before + f * (x - before) if every else x, low, high))
        x = interpolate(x.detach(), (8, 8), mode="bilinear") if side < 8 else x.detach()
    return x


def clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low.view(3, 1, 1)), high.view(3, 1, 1))


@pytest.mark.parametrize(
    ("changes", "pooling", "every"),
    [
        ({"start": "patches"}, False, 0),
        (FADRM, False, 0),
        (FADRM, True, 0),
        ({**FADRM, "stages": 3, "residual": 0.2}, True, 2),
        ({**FADRM, "low_resolution": 1.0}, False, 0),
        ({"start": "patches"}, False, 2),
    ],
)
def test_a_recovery_is_that_of_plain_loops(changes: dict[str, Any], pooling: bool, every: int) -> None:
    module = teacher(pooling)
    job = recovery(module, enhancement(every) if every else None, batch_size=6, lr=0.1, **STILL, **changes)
    state = job.run(job.start())
    classes = torch.tensor([0, 1, 2] * 2)
    wanted = plain(module, PATCHES, PATCHES, classes, job, native=pooling)
    assert (state["images"] - PATCHES).abs().max() > 0.05
    torch.testing.assert_close(state["images"], wanted, rtol=0, atol=1e-6)  # ε counts where Adam begins


@pytest.mark.parametrize(("iteration", "factor"), [(0, 1.0), (500, 0.8535533906), (1500, 0.1464466094), (1999, 6.1685e-07)])
def test_the_step_size_falls_along_one_cosine_over_all_stages(iteration: int, factor: float) -> None:
    """½ (1 + cos(π t / N)); the first step of fresh moments along a gradient of ones is the step size."""
    job = recovery(iterations=2000, lr=0.1, **FADRM)
    state = job.start()
    job._begin(state, 0, iteration)
    x = job._x(state, 0)
    x.zero_()
    job._take(state, 0, iteration, torch.ones_like(x))
    torch.testing.assert_close(x, torch.full_like(x, -0.1 * factor), rtol=1e-6, atol=0)


@pytest.mark.parametrize("killed_after", [1, 2, 4, 7, 9, 10, 13])
@pytest.mark.parametrize("every", [0, 2])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, killed_after: int, every: int) -> None:
    """In the middle of a stage, low or not, and between two."""
    job = recovery(None, enhancement(every) if every else None, crop_curriculum="linear", **FADRM)
    whole, file = job.run(job.start()), tmp_path / "recovery.safetensors"

    class Killed(Exception): ...

    def kill(state: State, loss: Tensor) -> None:
        if int(state["done"]) == killed_after:
            write_tensors(file, state)
            raise Killed

    with pytest.raises(Killed):
        job.run(job.start(), kill)
    held = read_tensors(file)[0]
    assert job.fits(held) and torch.equal(job.run(held)["images"], whole["images"])
    assert not whole.keys() & {"small"} and ("weights" in whole) == (every > 0)


@pytest.mark.parametrize("begun", [0, 5, 9, 14, 18])
def test_batches_that_are_recovered_apart_are_the_same_to_the_bit(begun: int) -> None:
    """Of what one process has begun, each goes on from its own."""
    job, states = recovery(None, enhancement(2), crop_curriculum="linear", **FADRM), list[State]()
    first = job.start()
    whole = job.run(job.start(), lambda state, loss: states.append({name: value.clone() for name, value in state.items()}))
    held, apart = (first, *states)[begun], list[State]()
    for number in reversed(range(job.batches)):
        alone = replace(job, only=number)
        state = job.of_batch(held, number)
        assert (state is None) == (begun <= 9 * number) and (state is None or alone.fits(state))
        apart.insert(0, alone.run(alone.start() if state is None else state))
    found = job.joined(apart)
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
    assert job.fits(found)


def test_a_state_of_another_stage_does_not_fit() -> None:
    job, states = recovery(**FADRM), list[State]()
    job.run(job.start(), lambda state, loss: states.append({**state, "done": state["done"].clone()}))
    assert all(job.fits(state) for state in states)
    assert "small" in states[0] and not job.fits({name: value for name, value in states[0].items() if name != "small"})
    assert not job.fits({**states[0], "small": states[0]["small"][:, :, 1:]})
    assert "small" not in states[2] and not job.fits({**states[2], "small": states[0]["small"]})


def test_without_any_of_it_the_bits_are_those_of_sre2l() -> None:
    """In one stage nothing is blended or made smaller, and what weights nothing changes no step."""
    single = teacher().float()
    usual = recovery(single)
    images = usual.run(usual.start())["images"]
    for one in (
        recovery(single, residual=0.5, low_resolution=0.5),
        recovery(single, replace(enhancement(), weighting=NoWeighting())),
    ):
        assert torch.equal(one.run(one.start())["images"], images)
    assert set(usual.start()) == {"images", "done", "lost", "mean", "square", "steps"}


def test_what_is_refused() -> None:
    for changes, message in (
        ({"iterations": 3, "stages": 4}, r"sre2l.stages: 4 is not at most sre2l.iterations \(3\)"),
        ({"residual": 1.5}, r"sre2l.residual: 1.5 is not in \[0, 1\]"),
        ({"low_resolution": 0.0}, r"sre2l.low_resolution: 0.0 is not in \(0, 1\]"),
        ({"crop_milestone": 0.0}, r"sre2l.crop_milestone: 0.0 is not in \(0, 1\]"),
        ({"crop_curriculum": "slow"}, "sre2l.crop_curriculum: 'slow' is not one of none, step, linear, cosine"),
        ({"start": "real"}, "sre2l.start: 'real' is not one of noise, patches"),
    ):
        with pytest.raises(UsageError, match=message):
            Sre2lSettings(**changes)  # type: ignore[arg-type]

"""SRe2L: its loss against plain sums, its steps against torch's Adam, and a killed run that goes on."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import recovery as oracle
from torch import Tensor, nn

from limbeck.data.preprocessing import Identity, Normalise, Preprocessing, Whiten
from limbeck.methods.norm_statistics import check_teacher, recovery_loss, statistics_distances
from limbeck.methods.recovered import with_batch_norm
from limbeck.methods.settings import Sre2lSettings
from limbeck.methods.statistics_matching import Recovery, State
from limbeck.networks.batch_norm import BatchNorm
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.interruption import stoppable
from limbeck.runtime.random import generator
from limbeck.training.optimisers import AdamW

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
NORMALISE = Normalise(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25]))
STILL: dict[str, Any] = {"crop_scale": (1.0, 1.0), "roll": 0}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_teacher(name: str = "ConvNetD2-w8-batchnorm", num_classes: int = 3) -> nn.Module:
    network = flat_network(name, SHAPE, num_classes)
    return network.with_parameters(network.initial(generator(0, "teacher")), lambda: noise(64, *SHAPE))


def recovery(teacher: nn.Module | None = None, preprocessing: Preprocessing = NORMALISE, ipc: int = 2, **changes: Any) -> Recovery:
    """Three classes of images in batches of four and two."""
    flip = changes.pop("flip", True)
    chosen = Sre2lSettings(**{"iterations": 6, "batch_size": 4, **changes})
    return Recovery(teacher or make_teacher(), preprocessing, SHAPE, 3, ipc, chosen, seed=1, device=CPU, flip=flip)


def test_the_loss_is_the_plain_sums() -> None:
    first, second = BatchNorm(4), BatchNorm(5)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), first, nn.ReLU(), nn.Conv2d(4, 5, 3), second, nn.Flatten(), nn.Linear(80, 3))
    teacher = teacher.double().eval()
    with torch.no_grad():
        for number, value in enumerate([*teacher.parameters(), *teacher.buffers()]):
            drawn = noise(*value.shape, seed=number)
            value.copy_(drawn.abs() if value.ndim == 1 else 0.3 * drawn)
    x, classes = noise(6, *SHAPE).double(), torch.tensor([0, 1, 2, 2, 1, 0])
    with torch.no_grad():
        inputs = [teacher[:1](x), teacher[:4](x)]
        distances = [
            oracle.statistics_distance(seen.numpy(), norm.mean.numpy(), norm.variance.numpy())
            for seen, norm in zip(inputs, (first, second), strict=True)
        ]
        entropy = oracle.cross_entropy(teacher(x).numpy(), classes.tolist())
    expected = entropy + 0.01 * (10 * distances[0] + distances[1])
    assert recovery_loss(teacher, x, classes).item() == pytest.approx(expected, rel=1e-12)
    other = recovery_loss(teacher, x, classes, bn_weight=0.3, first_multiplier=2.0).item()
    assert other == pytest.approx(entropy + 0.3 * (2 * distances[0] + distances[1]), rel=1e-12)


def test_the_distance_in_closed_form() -> None:
    # Values ±s around m in each channel have mean m and variance s².
    signs = torch.tensor([1.0, -1.0]).repeat(8).view(4, 1, 2, 2).expand(4, 3, 2, 2)
    m, s = torch.tensor([1.0, 2.0, -1.0]).view(3, 1, 1), torch.tensor([2.0, 1.0, 3.0]).view(3, 1, 1)
    norm = BatchNorm(3).eval()
    norm.mean, norm.variance = torch.tensor([1.0, -1.0, 3.0]), torch.tensor([4.0, 1.0, 1.0])
    with statistics_distances(norm) as distances:
        norm(m + s * signs)
    assert [d.item() for d in distances] == pytest.approx([5.0 + 8.0])  # ‖(0, 3, −4)‖ + ‖(0, 0, 8)‖
    norm(m)
    assert len(distances) == 1  # and the hooks are gone


def test_images_with_the_right_statistics_have_a_gradient() -> None:
    norm = BatchNorm(1).eval()
    norm.mean, norm.variance = torch.tensor([0.0]), torch.tensor([1.0])
    x = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).requires_grad_()
    with statistics_distances(norm) as distances:
        norm(x)
    assert distances[0].item() == 0
    assert torch.autograd.grad(distances[0], x)[0].tolist() == [[[[0.0]]], [[[0.0]]]]


def test_batch_norms_of_torch_count_too() -> None:
    ours, torchs = BatchNorm(3), nn.BatchNorm2d(3)
    ours.mean, ours.variance = torch.rand(3, generator=generator(0)), torch.rand(3, generator=generator(1))
    torchs.running_mean, torchs.running_var = ours.mean.clone(), ours.variance.clone()
    x, classes = noise(4, *SHAPE), torch.tensor([0, 1, 2, 0])
    head = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    both = [recovery_loss(nn.Sequential(norm, head).eval(), x, classes) for norm in (ours, torchs)]
    torch.testing.assert_close(*both)


def test_steps_are_those_of_adam_along_a_cosine() -> None:
    job = recovery(ipc=1, batch_size=3, iterations=5, lr=0.1, flip=False, **STILL)
    start = job.start()
    x = start["images"].clone().requires_grad_()
    adam = torch.optim.Adam([x], betas=(0.5, 0.9))
    low, high = ((torch.full((1, 3, 1, 1), level) - NORMALISE.mean.view(3, 1, 1)) / NORMALISE.std.view(3, 1, 1) for level in (0, 1))
    rates = [0.1, 0.0904508497, 0.0654508497, 0.0345491503, 0.0095491503]  # 0.1 · ½ (1 + cos(π t / 5))
    for rate in rates:
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        recovery_loss(job.teacher, x, torch.tensor([0, 1, 2])).backward()
        adam.step()
        with torch.no_grad():
            x.copy_(torch.minimum(torch.maximum(x, low), high))
    images, classes = job.result(job.run(start))
    torch.testing.assert_close(images, x.detach(), rtol=0, atol=1e-5)
    assert classes.tolist() == [0, 1, 2]


def test_weights_on_the_gradient_cancel_in_adam() -> None:
    """Why Discriminative Area Enhancement weights steps here: Adam divides a pixel's gradients by their own root mean square."""
    adam, x = AdamW(0.25, (0.5, 0.9), weight_decay=0.0), noise(50)
    weights = 1 + torch.rand(50, generator=generator(0, "weights"))
    plain, weighted = x.clone(), x.clone()
    states = [adam.state(plain), adam.state(weighted)]
    for step in range(10):
        gradient = noise(50, seed=step + 1)
        adam.step(plain, states[0], lambda at, g=gradient: g, 1.0)
        adam.step(weighted, states[1], lambda at, g=gradient: g * weights, 1.0)
    assert (plain - x).abs().mean() > 0.1
    torch.testing.assert_close(weighted, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ConvNetD3-w32", "ConvNetD3-w32-batchnorm"),
        ("ConvNetD3-groupnorm-w16-maxpool", "ConvNetD3-w16-maxpool-batchnorm"),
        ("ResNet18-instancenorm", "ResNet18-batchnorm"),
        ("AlexNet-nonorm", "AlexNet-batchnorm"),
    ],
)
def test_the_same_network_with_batch_norm(name: str, other: str) -> None:
    assert with_batch_norm(name) == other
    check_teacher(flat_network(other, (3, 32, 32), 2).module, other)


def test_the_loss_falls_and_the_teacher_knows_the_classes() -> None:
    losses: list[float] = []
    teacher = make_teacher()
    job = recovery(teacher, ipc=3, batch_size=6, iterations=40, flip=False, same_view=False, crop_scale=(0.5, 1.0))
    images, classes = job.result(job.run(job.start(), lambda state, loss: losses.append(loss.item())))
    assert len(losses) == 80 == job.iterations
    for batch in (losses[:40], losses[40:]):
        assert sum(batch[-5:]) < 0.7 * sum(batch[:5])
    assert teacher(images).argmax(1).tolist() == classes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("killed_after", [1, 4, 6, 7, 11])
@pytest.mark.parametrize("same_view", [True, False])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, killed_after: int, same_view: bool) -> None:
    job = recovery(same_view=same_view)
    whole = job.run(job.start())
    file = tmp_path / "recovery.safetensors"

    class Killed(Exception): ...

    def kill(state: State, loss: Tensor) -> None:
        if int(state["done"]) == killed_after:
            write_tensors(file, state)
            raise Killed

    with pytest.raises(Killed):
        job.run(job.start(), kill)
    resumed = recovery(same_view=same_view).run(read_tensors(file)[0])
    assert int(resumed["done"]) == 12
    assert torch.equal(resumed["images"], whole["images"])
    assert torch.equal(job.run(dict(whole))["images"], whole["images"])  # a finished one stays


def test_batches_do_not_depend_on_each_other() -> None:
    few, many = recovery(ipc=2, batch_size=3), recovery(ipc=3, batch_size=3)
    assert torch.equal(few.run(few.start())["images"], many.run(many.start())["images"][:6])


def test_the_result_is_class_by_class() -> None:
    job = recovery()
    state = job.start()
    state["images"] = torch.arange(6.0).view(6, 1, 1, 1).expand(6, *SHAPE)
    images, classes = job.result(state)
    assert images[:, 0, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert classes.tolist() == [0, 0, 1, 1, 2, 2]


def whitening() -> Whiten:
    size = 3 * 8 * 8
    root = noise(size, size, seed=5).double() * 0.02 + torch.eye(size, dtype=torch.float64)
    matrix = root @ root.T
    return Whiten(torch.full((size,), 0.5), matrix.float(), matrix.inverse().float())


@pytest.mark.parametrize("preprocessing", [Identity(), NORMALISE, whitening()], ids=lambda p: p.kind)
def test_pixels_stay_valid(preprocessing: Preprocessing) -> None:
    job = recovery(preprocessing=preprocessing, lr=2.0, iterations=4)
    seen: list[Tensor] = []
    job.run(job.start(), lambda state, loss: seen.append(preprocessing.inverse(state["images"][:4]).clone()))
    for pixels in seen[:4]:
        assert pixels.min() >= -1e-4 and pixels.max() <= 1 + 1e-4
        assert pixels.max() > 0.999  # and they do reach the ends


def test_views_are_shared_or_not() -> None:
    for same in (True, False):
        job = recovery(same_view=same, roll=2)
        drawn = job._draw(0, 0, 4)
        assert drawn.boxes is not None and drawn.shifts is not None and drawn.flipped is not None
        assert (len(drawn.boxes.unique(dim=0)) == 1) == same
        assert len(drawn.boxes) == len(drawn.shifts) == len(drawn.flipped) == 4
    assert recovery(flip=False)._draw(0, 0, 4).flipped is None


@pytest.mark.parametrize(("size", "roll"), [((224, 224), 32), ((128, 128), 18), ((64, 64), 9), ((32, 32), 5), ((32, 64), 5)])
def test_the_usual_roll(size: tuple[int, int], roll: int) -> None:
    assert Sre2lSettings().roll_for(*size) == roll
    assert Sre2lSettings(roll=3).roll_for(*size) == 3


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = make_teacher().train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    job = recovery(teacher, iterations=2)
    job.run(job.start())
    assert all(part.training for part in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(value.grad is None for value in teacher.parameters())
    assert not any(part._forward_pre_hooks for part in teacher.modules())


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="sre2l.teacher: 'ConvNet' is not a network with batch norm"):
        recovery(make_teacher("ConvNetD2-w8"))
    with pytest.raises(UsageError, match="sre2l.teacher: 'ConvNetD2' is not a network with batch norm"):
        Recovery(make_teacher("ConvNetD2-w8"), NORMALISE, SHAPE, 3, 1, Sre2lSettings(teacher="ConvNetD2"), 0, CPU)
    for changes, message in (
        ({"iterations": 0}, "sre2l.iterations: 0"),
        ({"lr": 0.0}, "sre2l.lr: 0.0"),
        ({"betas": (0.5, 1.0)}, "sre2l.betas"),
        ({"bn_weight": -1.0}, "sre2l.bn_weight"),
        ({"crop_scale": (0.0, 1.0)}, "sre2l.crop_scale"),
        ({"roll": -1}, "sre2l.roll"),
    ):
        with pytest.raises(UsageError, match=message):
            Sre2lSettings(**changes)  # type: ignore[arg-type]
    broken = make_teacher()
    broken.get_submodule("classifier").weight.data.fill_(torch.nan)
    job = recovery(broken)
    with pytest.raises(Failure, match="not finite in 6 of 6 iterations of batch 0, from the first on: the teacher"):
        job.run(job.start())


@pytest.mark.parametrize("at", [0, 5, 11])
def test_control_c_waits_for_the_iteration_which_is_kept(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    job = recovery()
    whole, kept, step = job.run(job.start()), list[State](), Recovery._step

    def pressed(self: Recovery, state: State, number: int, iteration: int) -> Tensor:
        if int(state["done"]) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, state, number, iteration)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), stoppable():
        patch.setattr(Recovery, "_step", pressed)
        job.run(job.start(), stopped=lambda state: kept.append({name: value.clone() for name, value in state.items()}))
    assert [int(state["done"]) for state in kept] == [at + 1]
    assert torch.equal(recovery().run(kept[0])["images"], whole["images"])

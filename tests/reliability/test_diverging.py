"""Trainings and recoveries that diverge: epochs begun again with smaller steps, early ends, and what is said of them."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck.accuracy import Accuracies, Accuracy
from limbeck.augmentation import Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.preprocessing import Identity, Normalise, fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.data.split import whole
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.results import Evaluation, SetResult
from limbeck.evaluation.settings import EvalSettings
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.train import ExpertTask, train_experts
from limbeck.losses import cross_entropy
from limbeck.methods.settings import Sre2lSettings
from limbeck.methods.statistics_matching import Recovery, State
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import Failure
from limbeck.runtime.random import generator
from limbeck.training.gradient import Gradient
from limbeck.training.images import TensorImages
from limbeck.training.optimisers import Sgd
from limbeck.training.targets import Labels
from limbeck.training.train import Member, Training, train, train_together

CPU = torch.device("cpu")
NETWORK = flat_network("ConvNetD1-w4", (3, 8, 8), 3)
X = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.eye(3, dtype=torch.float64)[torch.arange(10) % 3]


def how(lr: float, epochs: int = 4, returns: int = 3) -> Training:
    optimiser = Sgd(lr, 0.9)
    return Training(optimiser=optimiser, loss=cross_entropy, epochs=epochs, batch_size=4, augment=Dsa(), returns=returns)


def start(key: str = "a") -> Tensor:
    return NETWORK.initial(generator(0, key)).double()


class Overflows(Gradient):
    """The gradient, but infinite in one of the epochs while velocities are those of a step size above a bound."""

    def __init__(self, bad: int, most_steps: int) -> None:
        super().__init__(NETWORK, cross_entropy)
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "bad", bad)
        object.__setattr__(self, "most_steps", most_steps)

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        self.seen.append(theta.clone())  # type: ignore[attr-defined]
        found = super().__call__(theta, x, y)
        return found * math.inf if len(self.seen) in range(self.bad, self.bad + self.most_steps) else found  # type: ignore[attr-defined]


def test_an_epoch_that_diverges_is_begun_again_with_a_quarter_of_the_step() -> None:
    """Three batches an epoch: the fifth step of all is in the second epoch, which is done again from its start."""
    gradient = Overflows(bad=5, most_steps=1)
    with pytest.warns(UserWarning, match=r"run 7 diverged in epoch 2, which is begun again with 0.25 of the step size"):
        found = train(NETWORK, start(), TensorImages(X), Y, how(0.05), seed=3, key=("run", 7), gradient=gradient)
    # Every epoch as its own training: the second at a quarter, its neighbours at all of the step size.
    theta, state = start(), (torch.zeros_like(start()),)
    for epoch in range(4):
        part = how(0.0125 if epoch == 1 else 0.05)
        theta = train(
            NETWORK, theta, TensorImages(X), Y, part, seed=3, key=("run", 7), first_epoch=epoch, last_epoch=epoch + 1, state=state
        )
    assert torch.equal(found, theta)


class Cliff(Gradient):
    """The gradient, but infinite where θ is longer than a bound."""

    def __init__(self, most: float) -> None:
        super().__init__(NETWORK, cross_entropy)
        object.__setattr__(self, "most", most)

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        found = super().__call__(theta, x, y)
        return found * math.inf if theta.norm() > self.most else found  # type: ignore[attr-defined]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_training_that_was_begun_again_goes_on_with_the_same_bits(stop: int) -> None:
    """What an epoch makes depends on its start alone: nothing has to be remembered of a return."""
    kept: dict[str, Any] = {}

    def keep(epoch: int, theta: Tensor) -> None:
        if epoch == stop:
            kept["theta"], kept["state"] = theta.clone(), tuple(part.clone() for part in state)

    part, arguments = how(0.2, epochs=4), {"seed": 3, "key": ("run",), "gradient": Cliff(3.0)}
    state = part.optimiser.state(start())
    with pytest.warns(UserWarning) as said:
        ended = train(NETWORK, start(), TensorImages(X), Y, part, state=state, after_epoch=keep, **arguments)  # type: ignore[arg-type]
    assert ended.isfinite().all()
    assert len(said) == 4  # one in the second epoch, one in the third, two in the last
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rest = {**arguments, "first_epoch": stop, "state": kept["state"]}
        again = train(NETWORK, kept["theta"], TensorImages(X), Y, part, **rest)  # type: ignore[arg-type]
    assert torch.equal(ended, again)


def test_of_networks_in_step_only_the_one_that_diverges_is_begun_again() -> None:
    """Rows that are finite stay what they were; the other one is what it is alone with a quarter of the step."""

    class OneRow(Gradient):
        def __init__(self) -> None:
            super().__init__(NETWORK, cross_entropy)
            object.__setattr__(self, "calls", [])

        def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            self.calls.append(1)  # type: ignore[attr-defined]
            found = super().__call__(theta, x, y)
            if len(self.calls) == 2:  # type: ignore[attr-defined]
                found = torch.where(torch.tensor([[False], [True]]), math.nan, found)
            return found

    members = [Member(TensorImages(X), Labels(Y), ("run", number)) for number in range(2)]
    thetas = torch.stack([start("a"), start("b")])
    with pytest.warns(UserWarning, match="^run 1 diverged in epoch 1"):
        found = train_together(NETWORK, thetas, members, how(0.05, epochs=1), seed=3, gradient=OneRow())
    for row, lr in ((0, 0.05), (1, 0.0125)):
        alone = train(NETWORK, thetas[row], TensorImages(X), Y, how(lr, epochs=1), seed=3, key=("run", row))
        torch.testing.assert_close(found[row], alone, rtol=1e-10, atol=1e-12)


def test_a_training_that_may_not_be_begun_again_ends_where_it_diverged() -> None:
    done: list[int] = []
    found = train(
        NETWORK,
        start(),
        TensorImages(X),
        Y,
        how(0.05, epochs=50, returns=0),
        seed=3,
        key=("run",),
        gradient=Overflows(bad=4, most_steps=10**9),
        after_epoch=lambda epoch, theta: done.append(epoch),
    )
    assert not found.isfinite().any() and done == [1, 2]


# --- experts, networks of the full data, evaluations -------------------------------------------------------------------------


def test_experts_that_diverge_fail_in_their_first_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    settings = DataSettings(source="scenes:easy", size=8, per_class=6, val_fraction=0.34)
    data = load_data(settings)
    parts = (data, fit_preprocessing(settings, data.train), flat_network("ConvNetD1-w4", data.shape, data.num_classes))
    wild = ExpertSettings(num_experts=1, train_epochs=30, expert_lr=1e30, batch_size=16)
    task = ExpertTask(*parts, wild, Dsa(), 0, CPU)
    with warnings.catch_warnings(record=True) as said, pytest.raises(Failure) as caught:
        warnings.simplefilter("always")
        train_experts(task, [0, 1])
    message = "expert 0 diverged in epoch 1, with a 64th of the step size too; experts.expert_lr (1e+30) is too large"
    assert str(caught.value) == message
    assert [str(one.message) for one in said if "diverged" in str(one.message)] == [
        f"expert 0 diverged in epoch 1, which is begun again with {step} of the step size"
        for step in ("0.25", "0.0625", "0.015625")
    ]


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(3).repeat(count)
    images = np.random.default_rng(seed).integers(0, 100, (3 * count, 3, 8, 8))
    images[np.arange(3 * count), labels] += 120
    return images.astype(np.uint8), labels


def evaluator(**changes: Any) -> Evaluator:
    train, val, test = (whole(*colours(count, seed)) for seed, count in enumerate((20, 5, 10)))
    data = ImageSet(train, val, test, ("red", "green", "blue"), "colours", "fingerprint")
    settings = EvalSettings(**{"seeds": 3, "epochs": 40, "batch_size": 8, "full_epochs": 12, "full_batch_size": 10, **changes})
    network = flat_network("ConvNetD1-w8-nonorm", data.shape, 3)
    return Evaluator(data, Identity(), network, settings, Dsa("none"), 0, CPU)


def test_networks_that_diverge_in_an_evaluation_are_failed_training_and_no_accuracy() -> None:
    small = SmallSet.of_classes(torch.rand(3, 3, 8, 8), torch.arange(3), 3, 1e30)
    found = evaluator().distilled(small, seeds=range(3))
    assert (found.failed, found.n, found.mean) == (3, 3, 0.0)
    assert str(found) == "failed training" and found.with_margin == "failed"
    assert Accuracy.from_dict(found.to_dict()).failed == 3
    sound = evaluator().distilled(dataclasses.replace(small, syn_lr=0.01), seeds=range(3))
    assert sound.failed is None and "failed" not in sound.to_dict()


def test_failed_training_is_said_beside_the_figures() -> None:
    some = Accuracy(mean=0.3, n=3, values=(0.4, 0.5, 0.0), failed=1, lr=0.5, lr_from="own")
    page = " ".join(str(Evaluation(sets=(SetResult(accuracy=Accuracies(distilled=some)),))).split())
    assert "training failed of 1 of 3 networks, which diverged and count as 0 %; the step size 0.5 (its own) is too large" in page


# --- SRe2L -------------------------------------------------------------------------------------------------------------------


class Patchy(nn.Module):
    """A teacher that says NaN at some of its calls."""

    def __init__(self, bad: Sequence[int]) -> None:
        super().__init__()
        network = flat_network("ConvNetD2-w8-batchnorm", (3, 8, 8), 3)
        seen = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        self.inner = network.with_parameters(network.initial(generator(0, "teacher")), lambda: seen)
        self.bad, self.calls = frozenset(bad), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = self.inner(x)
        return found * math.nan if self.calls - 1 in self.bad else found


def recovery(teacher: nn.Module, iterations: int = 60, **changes: Any) -> Recovery:
    settings = Sre2lSettings(iterations=iterations, batch_size=6, **changes)
    prepared = Normalise(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25]))
    return Recovery(teacher, prepared, (3, 8, 8), 3, 2, settings, seed=1, device=CPU)


def test_a_recovery_skips_what_is_not_finite() -> None:
    losses: list[float] = []
    job = recovery(Patchy([3, 4, 9]), iterations=12)
    state = job.run(job.start(), lambda state, loss: losses.append(loss.item()))
    assert [number for number, loss in enumerate(losses) if not math.isfinite(loss)] == [3, 4, 9]
    assert state["images"].isfinite().all() and state["lost"].tolist() == [0, 3, 0]


def test_a_recovery_goes_on_with_smaller_steps_and_to_the_same_bits() -> None:
    bad = range(10, 30)
    with pytest.warns(UserWarning, match="20 iterations of batch 0 in a row were not finite; it goes on with 0.25 of sre2l.lr"):
        job = recovery(Patchy(bad))
        ended = job.run(job.start())
    assert ended["lost"].tolist() == [0, 20, 1]
    held: dict[int, State] = {}

    def keep(state: State, loss: Tensor) -> None:
        held[int(state["done"])] = {name: value.clone() for name, value in state.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = recovery(Patchy(bad))
        job.run(job.start(), keep)
        for stop in (5, 15, 29, 30, 45):
            later = recovery(Patchy([number - stop for number in bad if number >= stop]))
            assert torch.equal(later.run(held[stop])["images"], ended["images"]), stop


def test_a_recovery_whose_teacher_says_nothing_fails_after_twenty() -> None:
    teacher = Patchy(range(10_000))
    with pytest.raises(Failure, match="in 20 of 20 iterations of batch 0, from the first on: the teacher, which eval.full_lr"):
        job = recovery(teacher)
        job.run(job.start())
    assert teacher.calls == 20


def test_a_recovery_that_smaller_steps_do_not_help_fails() -> None:
    with warnings.catch_warnings(), pytest.raises(Failure, match=r"with smaller steps too: sre2l.lr \(0.25\) is too large"):
        warnings.simplefilter("ignore")
        job = recovery(Patchy(range(1, 10_000)), iterations=1000)
        job.run(job.start())


@pytest.mark.parametrize(("lr", "said"), [(1e9, True), (0.25, False)])
def test_a_recovery_that_is_nothing_but_black_and_white_is_said(lr: float, said: bool) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        job = recovery(Patchy([]), lr=lr)
        job.run(job.start())
    expected = ["sre2l: 100 % of the numbers of batch 0 are black or white; sre2l.lr (1e+09) may be too large"]
    assert [str(one.message) for one in heard if "sre2l" in str(one.message)] == (expected if said else [])

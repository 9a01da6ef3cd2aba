"""The outer loop on an objective whose gradients are known."""

import os
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.accuracy import Accuracy
from limbeck.distilled.small_set import SmallSet
from limbeck.matching.adjoint import Gradients
from limbeck.methods import snapshots
from limbeck.methods.objective import Objective, State, Update
from limbeck.methods.outer import LEAST_SYN_LR, OuterLoop
from limbeck.methods.settings import OuterSettings
from limbeck.methods.state import Best, OuterState
from limbeck.runtime.files import read_tensors
from limbeck.runtime.metrics import read_metrics

X, Y = torch.randn(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind(0)
LABELS = Y[:, 0, 0, :3].clone()


@dataclass
class Bowl(Objective):
    """L = ½‖X‖² + ½‖Y‖² + ½(η − 1)², but what `losses` says at some iterations; it counts its calls in its state."""

    losses: dict[int, float] = field(default_factory=dict)
    criterion: bool = False

    @property
    def has_criterion(self) -> bool:
        return self.criterion

    def init(self) -> State:
        return {"calls": torch.zeros(())}

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        loss = 0.5 * (images.square().sum() + labels.square().sum() + (syn_lr - 1).square())
        loss = torch.tensor(self.losses.get(iteration, loss.item()), dtype=torch.float64)
        gradients = Gradients(loss, images.clone(), labels.clone(), syn_lr - 1)
        return Update(gradients, 3 * images if plain else None, {"calls": state["calls"] + 1}, {"expert": 7}, {"layer": 0.75})


@dataclass
class Weights:
    """Weights that grow with the iteration they were made in."""

    every: int
    active: bool = True

    def weights(self, images: Tensor, iteration: int) -> Tensor:
        return torch.full_like(images[:, :1], 1.0 + iteration)

    def maps(self, images: Tensor, iteration: int) -> Tensor:
        return images.abs().mean(1)


def loop(folder: Path, objective: Bowl | None = None, **changes: Any) -> OuterLoop:
    settings = {"iterations": 12, "lr_img": 0.05, "lr_label": 0.1, "lr_lr": 0.2, "checkpoint_every": 5, **changes}
    match_norm, active, every = settings.pop("match_norm", False), settings.pop("active", True), settings.pop("every", 4)
    return OuterLoop(
        objective=objective or Bowl(),
        enhancement=Weights(3, active),  # type: ignore[arg-type]
        settings=OuterSettings(**settings),
        evaluate=lambda x, y, eta: Accuracy(mean=1 / (1 + x.abs().max().item())),
        every=every,
        match_norm=match_norm,
        folder=folder,
    )


def by_torch(iterations: int, skipped: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor]:
    """The same with torch.optim.SGD."""
    x, y, eta = (
        X.clone().requires_grad_(),
        LABELS.clone().requires_grad_(),
        torch.tensor(0.01, dtype=torch.float64, requires_grad=True),
    )
    groups = [{"params": [x], "lr": 0.05, "momentum": 0.5}, {"params": [y], "lr": 0.1, "momentum": 0.9}]
    optimiser = torch.optim.SGD([*groups, {"params": [eta], "lr": 0.2, "momentum": 0.5}])
    for iteration in range(iterations):
        if iteration not in skipped:
            x.grad, y.grad, eta.grad = (1.0 + iteration // 3 * 3) * x.detach(), y.detach().clone(), eta.detach() - 1
            optimiser.step()
    return x.detach(), y.detach(), eta.detach()


def test_updates_equal_torch(tmp_path: Path) -> None:
    state = loop(tmp_path).run(X, LABELS, 0.01)
    for value, expected in zip((state.images, state.labels, state.syn_lr), by_torch(12), strict=True):
        assert torch.allclose(value, expected, rtol=1e-12)
    assert state.objective["calls"] == 12


def test_adamw_on_images_is_torchs_and_its_moments_are_kept(tmp_path: Path) -> None:
    own = {"img_optimiser": "adamw", "img_betas": (0.8, 0.95), "img_weight_decay": 0.1, "ema_decay": 0.9}
    lost = Bowl(losses={4: float("nan")})
    loop(tmp_path / "stopped", lost, **own, iterations=6).run(X, LABELS, 0.01)
    resumed = loop(tmp_path / "stopped", lost, **own).run(torch.zeros_like(X), LABELS, 9.0)
    x = X.clone().requires_grad_()
    optimiser = torch.optim.AdamW([x], lr=0.05, betas=(0.8, 0.95), weight_decay=0.1)
    for iteration in range(12):
        if iteration != 4:
            x.grad = (1.0 + iteration // 3 * 3) * x.detach()
            optimiser.step()
    assert torch.allclose(resumed.images, x.detach(), rtol=1e-12)
    assert torch.allclose(resumed.labels, by_torch(12, skipped=(4,))[1], rtol=1e-12)  # by SGD as ever
    whole = loop(tmp_path / "whole", lost, **own).run(X, LABELS, 0.01)
    for name in ("images", "images_velocity", "images_second", "images_steps", "average"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name)), name
    assert whole.images_steps == 11 and whole.problem() is None
    assert replace(whole, images_second=None).problem() == "of the moments of X some are missing"
    assert replace(whole, images_second=X[:1]).problem() == "images_second has shape (1, 3, 5, 6), not (4, 3, 5, 6)"
    whole.back_to({"X": X, "Y": LABELS, "syn_lr": whole.syn_lr, "weights": whole.weights}, {}, averaged=True)
    assert not any(moment.any() for moment in whole.images_moments)


@pytest.mark.parametrize("loss", [5.001, float("nan"), float("inf")])
def test_an_iteration_above_the_cap_changes_nothing(tmp_path: Path, loss: float) -> None:
    objective = Bowl(losses=dict.fromkeys(range(12), 5.0) | {0: loss, 6: loss})
    state = loop(tmp_path, objective, max_match_loss=5.0).run(X, LABELS, 0.01)
    for value, expected in zip((state.images, state.labels, state.syn_lr), by_torch(12, skipped=(0, 6)), strict=True):
        assert torch.allclose(value, expected, rtol=1e-12)
    assert state.skipped == 2
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "iteration"]
    assert [row["iteration"] for row in rows if row["skipped"]] == [0, 6]
    assert rows[-1]["skipped_share"] == pytest.approx(2 / 12)


@pytest.mark.parametrize("name", ["images", "labels", "syn_lr"])
def test_a_gradient_of_another_shape_is_not_spread_out(tmp_path: Path, name: str) -> None:
    class Narrow(Bowl):
        def gradients(self, *arguments: Any, plain: bool) -> Update:
            update = super().gradients(*arguments, plain=plain)
            narrow = getattr(update.gradients, name).reshape(-1)[:1]
            return replace(update, gradients=replace(update.gradients, **{name: narrow}))

    with pytest.raises(ValueError, match=f"method: the gradient by {name} has shape \\(1,\\), not"):
        loop(tmp_path, Narrow()).run(X, LABELS, 0.5)


def test_syn_lr_stays_positive(tmp_path: Path) -> None:
    class Falls(Bowl):
        def gradients(self, *args: Any, **kwargs: Any) -> Update:
            update = super().gradients(*args, **kwargs)
            g = update.gradients
            return Update(Gradients(g.loss, g.images, g.labels, torch.ones_like(g.syn_lr)), update.plain, update.state)

    assert loop(tmp_path, Falls()).run(X, LABELS, 0.01).syn_lr.item() == pytest.approx(LEAST_SYN_LR)


def test_the_running_average_is_what_is_evaluated(tmp_path: Path) -> None:
    one = loop(tmp_path, ema_decay=0.75, iterations=2, every=100)
    state = one.run(X, LABELS, 0.01)
    first, second = by_torch(1)[0], by_torch(2)[0]
    average = 0.75 * (0.75 * X + 0.25 * first) + 0.25 * second
    assert torch.allclose(state.average, average, rtol=1e-12)
    assert torch.allclose(read_tensors(one.files.snapshots.path(2))[0]["X"], average, rtol=1e-12)


def test_match_norm_keeps_the_plain_norm(tmp_path: Path) -> None:
    state = loop(tmp_path, Bowl(criterion=True), match_norm=True, iterations=1, every=100).run(X, LABELS, 0.01)
    assert torch.allclose(X - state.images, 0.05 * 3 * X, rtol=1e-12)  # the direction of X, the norm of 3 X


def test_comparisons_report_cosine_and_norm_ratio(tmp_path: Path) -> None:
    loop(tmp_path / "a", Bowl(criterion=True), iterations=51).run(X, LABELS, 0.01)
    rows = [row for row in read_metrics(tmp_path / "a" / "metrics.jsonl") if row["kind"] == "comparison"]
    assert [row["iteration"] for row in rows] == [0, 50]
    assert rows[0]["cosine"] == pytest.approx(1.0)
    assert rows[0]["norm_ratio"] == pytest.approx(1 / 3)
    assert rows[1]["norm_ratio"] == pytest.approx(49 / 3)  # the weights of iteration 48
    loop(tmp_path / "b", active=False, iterations=2).run(X, LABELS, 0.01)
    assert not [row for row in read_metrics(tmp_path / "b" / "metrics.jsonl") if row["kind"] == "comparison"]


def test_the_best_snapshot_is_the_result(tmp_path: Path) -> None:
    one = loop(tmp_path)
    scores = iter([0.2, 0.6, 0.6, 0.5])
    object.__setattr__(one, "evaluate", lambda x, y, eta: Accuracy(mean=next(scores)))
    state = one.run(X, LABELS, 0.01)
    assert state.best == Best(4, 0.6)
    best = one.best(state, SmallSet(X, LABELS, torch.arange(4) % 3, 0.01, "logits"))
    for value, expected in zip(
        (best.images, best.labels, torch.tensor(best.syn_lr, dtype=torch.float64)), by_torch(4), strict=True
    ):
        assert torch.allclose(value, expected, rtol=1e-12)
    tensors, header = read_tensors(one.files.snapshots.path(12))
    assert tensors.keys() == {"X", "Y", "syn_lr", "maps", "weights"}
    assert header["kept_share"] == {"layer": 0.75}


def test_large_snapshots_keep_the_first_the_best_and_a_few_images_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, thin = loop(tmp_path / "whole", every=2), loop(tmp_path / "thin", every=2)
    for one, most in ((whole, 1e9), (thin, 2 * 4 * X[0].numel() + 1)):
        monkeypatch.setattr(snapshots, "LOOKED_AT", int(most))
        scores = iter([0.2, 0.3, 0.6, 0.5, 0.4, 0.6, 0.5])
        object.__setattr__(one, "evaluate", lambda x, y, eta, scores=scores: Accuracy(mean=next(scores)))
        state = one.run(X, LABELS, 0.01)
        assert state.best == Best(4, 0.6)
    start = SmallSet(X, LABELS, torch.arange(4) % 3, 0.01, "logits")
    assert torch.equal(thin.best(state, start).images, whole.best(state, start).images)
    for iteration in range(0, 13, 2):
        (full, before), (found, header) = (
            read_tensors(whole.files.snapshots.path(iteration)),
            read_tensors(thin.files.snapshots.path(iteration)),
        )
        at = header.pop("positions", None)
        assert at == (None if iteration in (0, 4) else [0, 2]) and header == before
        for name in found:
            rows = name in ("X", "Y", "maps", "weights") and at is not None
            assert torch.equal(found[name], full[name][at] if rows else full[name])
        assert at is None or found.keys() == {"X", "Y", "syn_lr", "maps", "weights"}


def test_a_checkpoint_holds_nothing_twice(tmp_path: Path) -> None:
    one, evaluated = loop(tmp_path, active=False, every=100), torch.device("cpu")
    object.__setattr__(one.enhancement, "weights", lambda images, iteration: torch.ones_like(images[:, :1]))
    state = one.run(X, LABELS, 0.01)
    names = read_tensors(one.files.checkpoints.last)[0].keys()
    assert not names & {"average", "weights", "images_second", "images_steps"} and "images_velocity" in names
    again = OuterState.load(one.files.checkpoints.last, evaluated)
    assert torch.equal(again.average, state.images) and torch.equal(again.weights, state.weights)


@pytest.mark.parametrize("most", [1e9, 100])
@pytest.mark.parametrize("stop", [0, 3, 4, 5, 9, 11])
def test_a_stopped_loop_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, most: float) -> None:
    monkeypatch.setattr(snapshots, "LOOKED_AT", int(most))
    whole = loop(tmp_path / "whole", ema_decay=0.9).run(X, LABELS, 0.01)

    class Stops(Bowl):
        def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
            if iteration == stop:
                raise KeyboardInterrupt
            return super().gradients(state, images, labels, syn_lr, iteration, plain=plain)

    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path / "stopped", Stops(), ema_decay=0.9).run(X, LABELS, 0.01)
    with (tmp_path / "stopped" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "iteration", "itera')  # a line that the kill cut off
    resumed = loop(tmp_path / "stopped", ema_decay=0.9).run(torch.zeros_like(X), LABELS, 99.0)
    assert OuterState.load(tmp_path / "stopped" / "checkpoint.safetensors", torch.device("cpu")).iteration == 12
    for name in ("images", "labels", "syn_lr", "images_velocity", "average", "weights"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name))
    assert (resumed.best, resumed.skipped, resumed.kept_share) == (whole.best, whole.skipped, whole.kept_share)
    assert _without_time(tmp_path / "stopped") == _without_time(tmp_path / "whole")
    for file in sorted((tmp_path / "whole" / "snapshots").iterdir()):
        assert file.read_bytes() == (tmp_path / "stopped" / "snapshots" / file.name).read_bytes()


def _without_time(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("at", ["gradients", "evaluate"])
@pytest.mark.parametrize("stop", [0, 4, 6])
def test_control_c_in_python_ends_with_a_checkpoint(tmp_path: Path, stop: int, at: str) -> None:
    """In an iteration after it, in an evaluation before it; what goes on from there ends with the same bits."""
    whole = loop(tmp_path / "whole", ema_decay=0.9).run(X, LABELS, 0.01)
    asked = []

    def press() -> None:
        if not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)

    class Stops(Bowl):
        def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
            if iteration == stop and at == "gradients":
                press()
            return super().gradients(state, images, labels, syn_lr, iteration, plain=plain)

    stopped = loop(tmp_path / "stopped", Stops(), ema_decay=0.9, checkpoint_every=100)
    if at == "evaluate":
        evaluate, seen = stopped.evaluate, []

        def pressing(x: Tensor, y: Tensor, eta: float) -> Accuracy | None:
            seen.append(len(seen) * stopped.every)
            if seen[-1] >= stop:
                press()
            return evaluate(x, y, eta)

        stopped = replace(stopped, evaluate=pressing)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(X, LABELS, 0.01)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    reached = OuterState.load(stopped.files.checkpoints.last, torch.device("cpu"))
    assert reached.iteration == (stop + 1 if at == "gradients" else -(-stop // stopped.every) * stopped.every)
    loop(tmp_path / "stopped", ema_decay=0.9).run(torch.zeros_like(X), LABELS, 99.0)
    resumed = OuterState.load(stopped.files.checkpoints.last, torch.device("cpu"))
    for name in ("images", "labels", "syn_lr", "images_velocity", "average", "weights"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name))
    assert _without_time(tmp_path / "stopped") == _without_time(tmp_path / "whole")
    for file in sorted((tmp_path / "whole" / "snapshots").iterdir()):
        assert file.read_bytes() == (tmp_path / "stopped" / "snapshots" / file.name).read_bytes()


def test_what_is_changed_by_half_is_no_checkpoint(tmp_path: Path) -> None:
    """A handler of the caller's own may raise anything anywhere; what was written before stays."""

    class Breaks(OuterLoop):
        def apply(self, state: OuterState, update: Update, d_images: Tensor) -> None:
            super().apply(state, update, d_images)
            if state.iteration == 6:
                raise SystemExit

    one = loop(tmp_path, ema_decay=0.9, checkpoint_every=4)
    with pytest.raises(SystemExit):
        Breaks(**{name: getattr(one, name) for name in one.__dataclass_fields__}).run(X, LABELS, 0.01)
    assert OuterState.load(one.files.checkpoints.last, torch.device("cpu")).iteration == 4

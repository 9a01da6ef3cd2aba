"""NCFM against a plain restatement, its learned frequencies and what its loop leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from methods.test_contract import SMALL
from reference import characteristic as plain
from reference.distribution_matching import features
from reference.student import plain_convnet
from torch import Tensor

from limbeck.augmentation import NO_AUGMENTATION, Dsa
from limbeck.methods.characteristic_matching import CharacteristicMatching
from limbeck.methods.class_draws import ClassDraws
from limbeck.methods.descent import adamw
from limbeck.methods.objective import State, Update
from limbeck.methods.settings import NcfmSettings, RealSettings
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_tensors
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.random import generator
from limbeck.training.images import TensorImages

SHAPE, LAST = (2, 8, 8), 3
CLASSES = torch.tensor([2, 0, 1, 0, 2])
NETWORKS = ["ConvNetD2-w4", "ConvNetD1-w3-nonorm-maxpool-leaky"]
FEW = {"frequencies": 6, "sampling": "normal"}


def some_images(count: int, key: str) -> Tensor:
    return torch.randn(count, *SHAPE, generator=generator(0, key), dtype=torch.float64)


X = some_images(len(CLASSES), "synthetic")
Y, ETA = torch.zeros(len(CLASSES), 3, dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64)
REAL = some_images(20, "real")


class Experts:
    """Fresh and trained parameters, in float64."""

    path = Path("experts")

    def __init__(self, network: FlatNetwork) -> None:
        self.network = network

    def read(self, expert: int, epoch: int, device: torch.device | None = None) -> Tensor:
        assert epoch in (0, LAST)
        theta = self.network.initial(generator(expert, "start")).double()
        return theta if epoch == 0 else theta + 0.3 * torch.randn(len(theta), generator=generator(expert, "way")).double()


def objective(network: str = NETWORKS[0], own: dict[str, Any] | None = None, **changes: Any) -> CharacteristicMatching:
    """Twenty real images of three classes, of which the last has only two."""
    labels, f = torch.tensor([0, 1] * 9 + [2, 2]), flat_network(network, SHAPE, 3)
    parts: dict[str, Any] = {"real": RealSettings(batch=4), "ncfm": NcfmSettings(**(FEW | (own or {}))), "seed": 5} | changes
    return CharacteristicMatching(TensorImages(REAL), labels, CLASSES, f, Experts(f), 2, LAST, **parts)  # type: ignore[arg-type]


def call(one: CharacteristicMatching, iteration: int, state: State | None = None, x: Tensor = X) -> Update:
    return one.gradients(one.init() if state is None else state, x, Y, ETA, iteration, plain=False)


def by_hand(one: CharacteristicMatching, iteration: int, psi: Tensor | None = None) -> tuple[Tensor, Tensor, float]:
    """L, ∂L/∂X and Σ D, each network, image, class and frequency by itself."""
    network, own, x = plain_convnet(one.network.name, 3), one.ncfm, X.clone().requires_grad_()
    draws = generator(5, "network between", iteration)
    expert, share = int(torch.randint(2, (), generator=draws)), torch.rand((), generator=draws).item()
    fresh, trained = (one.store.read(expert, epoch) for epoch in (0, LAST))
    theta = (1 - share) * fresh + share * trained
    width = len(features(network, theta, X[0]))
    t = torch.randn(own.frequencies, width, generator=generator(5, "frequencies", iteration)).double()
    if psi is not None:
        t = torch.stack([row * psi[i % len(psi)].exp() for i, row in enumerate(t)])
    apart, said = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for draw in ClassDraws(one.images, one.labels, CLASSES, 4, one.augmentation, 5).draws(iteration):
        sides = []
        for images in (REAL[draw.real], x[draw.class_id == CLASSES]):
            seen = draw.augmentation(images)
            found = [features(network, theta, image) for image in seen]
            sides.append([f / f.square().sum().sqrt() for f in found])
        apart = apart + plain.discrepancy(*sides, t, own.amplitude, own.phase)
        answers = [network(trained, image[None])[0] for image in seen]
        said = said - sum(answer[draw.class_id] - answer.exp().sum().log() for answer in answers) / len(answers)
    total = own.scale * apart + own.calibration * said
    return total.detach(), torch.autograd.grad(total, x)[0], apart.item()


def close(found: Tensor, expected: Tensor, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * expected.abs().amax().item())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("augmentation", "own"),
    [
        (NO_AUGMENTATION, {}),
        (Dsa(), {"calibration": 0.0, "scale": 2.0}),
        (Dsa(), {"amplitude": 0.8, "phase": 0.1, "calibration": 7.0}),
    ],
)
def test_loss_and_gradient_are_the_formula(network: str, augmentation: Dsa, own: dict[str, float]) -> None:
    one = objective(network, own, augmentation=augmentation)
    for iteration in (0, 1):
        update, (loss, by_images, apart) = call(one, iteration), by_hand(one, iteration)
        close(update.gradients.loss, loss)
        close(update.gradients.images, by_images)
        assert update.facts["class_distance"].item() == pytest.approx(apart / 3)
        assert ("calibration" in update.facts) == (one.ncfm.calibration > 0)
        assert update.state == {} and not update.gradients.labels.any() and update.gradients.syn_lr.item() == 0
    same = one.gradients({}, X, Y, ETA, 1, plain=True)
    assert same.plain is not None and torch.equal(same.plain, update.gradients.images) and not one.has_criterion


@pytest.mark.parametrize("sampling", ["normal", "learned"])
@pytest.mark.parametrize("at_once", [1, 7, 10])
def test_classes_that_go_through_the_network_together_change_nothing(at_once: int, sampling: str) -> None:
    whole, parts = (objective(own={"sampling": sampling}) for _ in range(2))
    object.__setattr__(parts, "_by_class", replace(parts._by_class, at_once=at_once))
    first, second = call(whole, 0), call(parts, 0)
    close(second.gradients.images, first.gradients.images)
    close(second.gradients.loss, first.gradients.loss)
    for name, value in first.state.items():
        torch.testing.assert_close(second.state[name], value, rtol=1e-4, atol=1e-6)


def test_batch_norm_sees_all_images_of_a_kind() -> None:
    """Of one class the loss is that class's; of all together it is not the sum of these."""
    one = objective("ConvNetD1-w4-batchnorm", {"calibration": 0.0}, augmentation=NO_AUGMENTATION)
    assert not one.shared and objective().shared
    x = X.clone()
    x[CLASSES == 1] *= 5
    moved = call(one, 0, x=x).gradients.images[CLASSES == 0]
    assert not torch.allclose(moved, call(one, 0).gradients.images[CLASSES == 0])


def test_draws_depend_on_seed_and_iteration_alone() -> None:
    base = call(objective(), 3).gradients.images
    assert torch.equal(call(objective(), 3).gradients.images, base)
    assert not torch.equal(call(objective(seed=6), 3).gradients.images, base)
    assert not torch.equal(call(objective(), 4).gradients.images, base)
    shares = [objective()._drawn(iteration) for iteration in range(100)]
    assert {expert for expert, _ in shares} == {0, 1}
    assert abs(sum(share for _, share in shares) / 100 - 0.5) < 0.1


def test_learned_frequencies_are_the_formula_and_psi_takes_a_step_of_adam_up() -> None:
    one = objective(own={"sampling": "learned", "frequencies": 20, "sampling_lr": 0.1})
    state = one.init()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "psi": (2, 16),
        "first": (2, 16),
        "second": (2, 16),
        "steps": (),
    }
    state["psi"] += 0.3 * torch.randn(2, 16, generator=generator(1, "psi"))
    update, (loss, by_images, _) = call(one, 2, state), by_hand(one, 2, state["psi"].double())
    close(update.gradients.loss, loss, 1e-6)
    close(update.gradients.images, by_images, 1e-6)
    step, slope = 1e-4, torch.zeros(2, 16, dtype=torch.float64)
    for place in ((0, 0), (1, 5), (1, 15)):
        up, down = (state["psi"].double().clone() for _ in range(2))
        up[place] += step
        down[place] -= step
        slope[place] = (by_hand(one, 2, up)[2] - by_hand(one, 2, down)[2]) / (2 * step)
        assert (10 * update.state["first"])[place].item() == pytest.approx(-slope[place].item(), rel=1e-3)
    psi, moments = state["psi"].clone(), (torch.zeros(2, 16), torch.zeros(2, 16), torch.zeros(()))
    adamw(psi, moments, 10 * update.state["first"], 0.1, (0.9, 0.999), 0.0)
    torch.testing.assert_close(update.state["psi"], psi, rtol=1e-5, atol=1e-6)
    assert update.state["steps"] == 1 and state["steps"] == 0  # what was given is left as it was


def test_psi_raises_what_x_lowers() -> None:
    one = objective(own={"sampling": "learned", "frequencies": 64, "sampling_lr": 0.1, "calibration": 0.0})
    state, first = one.init(), call(one, 0).gradients.loss
    for _ in range(15):
        state = call(one, 0, state).state
    raised = call(one, 0, state).gradients
    assert raised.loss > 1.05 * first
    elsewhere = [call(one, 1, held).gradients.loss for held in (state, one.init())]  # at other draws, too
    assert elsewhere[0] > elsewhere[1]
    lower = X - 1e-3 * raised.images / raised.images.abs().max()
    assert call(one, 0, state, lower).gradients.loss < raised.loss


def test_an_expert_that_is_broken_is_named() -> None:
    one = objective()
    assert one.broken({}, X, 0) == ""
    one.store.read = lambda *_: torch.full((5,), torch.nan)  # type: ignore[method-assign]
    assert one.broken({}, X, 0).startswith(f"expert {one._drawn(0)[0]} in 'experts' holds numbers that are not finite")


def settings(**changes: str) -> Any:
    given = {"data.source": "scenes:easy", "data.size": "16", "data.per_class": "8", "experts.train_epochs": "2", "method": "ncfm"}
    given |= {"ncfm.frequencies": "8", "experts.num_experts": "1", **{key.replace("__", "."): one for key, one in changes.items()}}
    return load_recipe("scenes", SMALL | given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"match__criterion": "loss", "match__drop_ratio": "0.5"}, "match.criterion: LowLossDropout(drop_ratio=0.5) is not none"),
        ({"ncfm__phase": "0", "ncfm__amplitude": "0"}, "ncfm.phase: 0.0 is not above 0 where ncfm.amplitude is 0"),
        ({"ncfm__sampling": "uniform"}, "ncfm.sampling: 'uniform' is not "),
        ({"outer__img_optimiser": "lion"}, "outer.img_optimiser: 'lion' is not "),
        ({"outer__img_betas": "[0.9, 1]"}, "outer.img_betas: "),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], message: str
) -> None:
    monkeypatch.setattr("limbeck.runs.workspace.train_experts", lambda *_: pytest.fail("experts were asked for"))
    with pytest.raises(UsageError) as caught:
        distill(settings(**changes), tmp_path / "run")
    assert str(caught.value).startswith(message)


def test_learned_frequencies_go_on_with_the_same_bits_and_only_the_ends_of_experts_are_kept(tmp_path: Path) -> None:
    learned = {"ncfm__sampling": "learned", "ncfm__sampling_lr": "0.1", "outer__iterations": "4"}
    result = distill(settings(**learned), tmp_path / "whole")
    assert result.experts is not None

    class Stopped(Exception):
        pass

    def stop(snapshot: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        distill(
            settings(**learned, eval__every="3"), tmp_path / "stopped", callbacks=[lambda seen: seen.iteration < 3 or stop(seen)]
        )
    distill(settings(**learned, eval__every="3"), tmp_path / "stopped", resume=True)
    held, again = (read_tensors(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "stopped"))
    assert {"objective.psi", "objective.steps", "images_second", "images_steps"} < held.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in held.items())
    assert held["objective.psi"].any() and held["images_steps"] == 4
    rows = [row for row in read_metrics(tmp_path / "whole" / "metrics.jsonl") if row["kind"] == "iteration"]
    assert all({"class_distance", "calibration", "expert"} < row.keys() for row in rows)

"""DC and DSA against a plain restatement, the loops of their networks, and what a resumed run finds."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import gradient_matching as plain
from reference.student import plain_convnet
from torch import Tensor
from torch.nn.functional import cross_entropy

from limbeck import losses
from limbeck.augmentation import NO_AUGMENTATION, Dsa
from limbeck.matching.criteria import Criterion, LayerDropout, LowLossDropout, RandomDropout, UniformDropout
from limbeck.methods.class_draws import ClassDraws
from limbeck.methods.enhance import Enhancement
from limbeck.methods.gradient_matching import GradientMatching, Weights
from limbeck.methods.objective import State, Update
from limbeck.methods.outer import OuterLoop
from limbeck.methods.settings import OuterSettings, RealSettings
from limbeck.methods.state import OuterState
from limbeck.networks.flat import flat_network
from limbeck.recipes import load_recipe
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.random import generator
from limbeck.saliency.weights import NoWeighting
from limbeck.training.compute import Compute
from limbeck.training.gradient import Gradient, Loss
from limbeck.training.images import TensorImages

SHAPE = (2, 8, 8)
CLASSES = torch.tensor([2, 0, 1, 0, 2])
NETWORKS = ["ConvNetD2-w4", "ConvNetD2-w4-batchnorm", "ConvNetD1-w3-nonorm-maxpool-sigmoid"]
DSA = Dsa()


def some_images(count: int, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, *SHAPE, generator=generator(0, key), dtype=torch.float64).to(dtype)


X = some_images(len(CLASSES), "synthetic")
Y, ETA = torch.zeros(len(CLASSES), 3, dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64)


def objective(network: str = NETWORKS[0], dtype: torch.dtype = torch.float64, **changes: Any) -> GradientMatching:
    """Twenty real images of three classes, of which the last has only two."""
    labels = torch.tensor([0, 1] * 9 + [2, 2])
    parts: dict[str, Any] = {"real": RealSettings(batch=4, outer_loops=3, inner_loops=2, network_lr=0.1), "seed": 5} | changes
    return GradientMatching(TensorImages(some_images(20, "real", dtype)), labels, CLASSES, flat_network(network, SHAPE, 3), **parts)


def call(one: GradientMatching, iteration: int, state: State | None = None, x: Tensor = X, asked: bool = False) -> Update:
    return one.gradients(state or {}, x, Y.to(x), ETA.to(x), iteration, plain=asked)


def by_hand(one: GradientMatching, iteration: int, drop: int = 0, at: Tensor = X) -> tuple[Tensor, Tensor]:
    """L and ∂L/∂X at a network that has just been drawn."""
    theta = one.network.initial(generator(5, "matched network", iteration // one.loops[0])).double()
    network, x = plain_convnet(one.network.name, 3), at.clone().requires_grad_()
    assert isinstance(one.images, TensorImages)
    total = torch.zeros((), dtype=torch.float64)
    for draw in ClassDraws(one.images, one.labels, CLASSES, 4, one.augmentation, 5).draws(iteration):
        real = draw.augmentation(one.images.images[draw.real])
        own = draw.augmentation(x[draw.class_id == CLASSES])
        total = total + plain.class_distance(network, theta, real, own, draw.class_id, list(one.network.shapes.values()), drop)
    return total.detach(), torch.autograd.grad(total, x)[0]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().amax().item())


# The oracle takes images one by one, so that statistics of batches are out of its reach.
@pytest.mark.parametrize("network", [NETWORKS[0], NETWORKS[2]])
@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, DSA])
def test_loss_and_gradient_are_the_formula(network: str, augmentation: Dsa) -> None:
    one = objective(network, augmentation=augmentation)
    for iteration in (0, 3) if augmentation.operations else (0,):
        update, (loss, by_images) = call(one, iteration, asked=True), by_hand(one, iteration)
        close(update.gradients.loss, loss)
        close(update.gradients.images, by_images)
        assert update.plain is not None and torch.equal(update.plain, update.gradients.images)
        assert update.facts["class_distance"] == pytest.approx(loss.item() / 3)
        assert not update.gradients.labels.any() and update.gradients.labels.shape == Y.shape
        assert update.gradients.syn_lr.item() == 0


def test_the_criterion_leaves_out_the_weights_of_lowest_difference() -> None:
    one = objective(criterion=LowLossDropout(0.3), augmentation=DSA)
    weights = Weights(one.network)
    assert weights.count == 2 * 4 * 9 + 4 * 4 * 9 + 3 * 4 * 4
    update = call(one, 0, asked=True)
    loss, by_images = by_hand(one, 0, drop=int(0.3 * weights.count))
    whole = by_hand(one, 0)
    close(update.gradients.loss, loss)
    close(update.gradients.images, by_images)
    assert update.plain is not None
    close(update.plain, whole[1])
    assert not torch.allclose(whole[1], by_images, rtol=1e-3)
    shares = [update.kept_share[name] * size for name, size in zip(weights.slices, weights.sizes, strict=True)]
    assert list(update.kept_share) == ["blocks.0.0.weight", "blocks.1.0.weight", "classifier.weight"]
    assert sum(shares) == pytest.approx(weights.count - int(0.3 * weights.count))


def test_rows_that_are_dropped_entirely_add_nothing() -> None:
    weights = Weights(flat_network("ConvNetD1-w2-nonorm-nopool", (1, 2, 2), 2))
    real, synthetic = torch.randn(2, weights.count, generator=generator(0), dtype=torch.float64)
    kept = torch.ones(weights.count, dtype=torch.bool)
    kept[:9] = False  # the first filter
    rows = [(real[a:b], synthetic[a:b]) for a, b in ((9, 18), (18, 26), (26, 34))]
    expected = sum(1 - (a @ b) / (a.norm() * b.norm() + 1e-6) for a, b in rows)
    close(weights.distance(real, synthetic, kept), expected)


@pytest.mark.parametrize("criterion", [RandomDropout(0.5), UniformDropout(0.5), LayerDropout(0.5), LayerDropout(0.5, "middle")])
def test_every_criterion_has_a_meaning_for_gradients(criterion: Criterion) -> None:
    one = objective(criterion=criterion)
    first, second, other = call(one, 0), call(one, 0), call(one, 3)
    assert one.has_criterion
    assert torch.equal(first.gradients.images, second.gradients.images)
    assert sum(first.kept_share.values()) < 3
    if criterion == LayerDropout(0.5, "first"):
        assert first.kept_share == other.kept_share
        assert first.kept_share["blocks.0.0.weight"] == 0 and first.kept_share["classifier.weight"] == 1


def test_a_network_is_trained_on_the_images_as_they_are_by_then() -> None:
    settings = RealSettings(batch=4, outer_loops=3, inner_loops=2, network_lr=0.1, network_momentum=0.5, network_weight_decay=0.01)
    one = objective(real=settings)
    first = call(one, 3)
    theta = one.network.initial(generator(5, "matched network", 1)).double()
    assert torch.equal(first.state["theta"], theta) and int(first.state["network"]) == 1
    changed, velocity = X + 0.5, torch.zeros_like(theta)
    second = call(one, 4, first.state, changed)
    network, theta = plain_convnet(one.network.name, 3), theta.clone()
    for _ in range(2):
        theta.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(theta, changed), CLASSES), theta)
        velocity = 0.5 * velocity + gradient + 0.01 * theta.detach()
        theta = theta.detach() - 0.1 * velocity
    close(second.state["theta"], theta)
    close(second.state["velocity"], velocity)
    assert second.facts["position"] == 1
    last = call(one, 5, second.state, changed)
    assert last.state == {}
    assert call(one, 6, last.state).facts == {"network": 2, "position": 0, "class_distance": call(one, 6).facts["class_distance"]}


def test_a_state_is_not_changed_and_one_of_an_earlier_network_not_used() -> None:
    one = objective()
    state = call(one, 0).state
    before = {name: value.clone() for name, value in state.items()}
    trained = call(one, 1, state)
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert not torch.equal(trained.state["theta"], state["theta"])
    # The last matching of a network was skipped: its state is still there when the next network's turn comes.
    assert torch.equal(call(one, 3, trained.state).gradients.images, call(one, 3).gradients.images)
    # The first was skipped: the network has not been matched yet, and is drawn.
    assert torch.equal(call(one, 4).state["theta"], call(one, 3).state["theta"])


@pytest.mark.parametrize("network", NETWORKS)
def test_a_resumed_run_is_the_same(network: str, tmp_path: Path) -> None:
    one = objective(network, torch.float32, augmentation=DSA, criterion=RandomDropout(0.2))

    def go(state: OuterState, until: int) -> OuterState:
        while state.iteration < until:
            update = call(one, state.iteration, state.objective, state.images)
            state.images = state.images - 0.1 * update.gradients.images
            state.objective, state.iteration = update.state, state.iteration + 1
        return state

    start = OuterState.start(X.float(), Y.float(), 0.01, one.init())
    whole = go(OuterState.start(X.float(), Y.float(), 0.01, one.init()), 5)
    go(start, 2).save(tmp_path / "checkpoint.safetensors")
    resumed = go(OuterState.load(tmp_path / "checkpoint.safetensors", torch.device("cpu")), 5)
    assert torch.equal(whole.images, resumed.images) and bool(whole.images.isfinite().all())
    assert torch.equal(whole.objective["theta"], resumed.objective["theta"])


def test_draws_depend_on_seed_and_iteration_alone() -> None:
    first, again, seed = objective(augmentation=DSA), objective(augmentation=DSA), objective(augmentation=DSA, seed=6)
    base = call(first, 3).gradients.images
    call(again, 0)
    assert torch.equal(call(again, 3).gradients.images, base)
    assert not torch.equal(call(seed, 3).gradients.images, base)
    assert not torch.equal(call(first, 6).gradients.images, base)


def test_images_of_zeros_and_constant_images_have_a_finite_gradient() -> None:
    for x in (torch.zeros_like(X), torch.ones_like(X), 1e6 * X):
        update = call(objective(augmentation=DSA), 0, x=x)
        assert bool(update.gradients.images.isfinite().all()) and bool(update.gradients.loss.isfinite())


def test_one_image_of_one_class() -> None:
    one = GradientMatching(
        TensorImages(some_images(3, "real")), torch.tensor([1, 0, 1]), torch.tensor([1]), flat_network(NETWORKS[0], SHAPE, 3)
    )
    assert one.loops == (1, 1)
    update = one.gradients({}, X[:1], Y[:1], ETA, 0, plain=False)
    assert update.gradients.images.shape == (1, *SHAPE) and bool(update.gradients.images.any())
    assert update.plain is None and update.state == {}


def test_a_class_without_real_images_is_refused() -> None:
    with pytest.raises(UsageError, match="class 2 has synthetic images and no training images"):
        GradientMatching(TensorImages(some_images(2, "real")), torch.tensor([0, 1]), CLASSES, flat_network(NETWORKS[0], SHAPE, 3))


def test_real_batches_are_of_their_class_without_repetition_and_new_in_every_iteration() -> None:
    one = objective()
    draws = ClassDraws(one.images, one.labels, CLASSES, 4, DSA, 5)
    seen: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for iteration in range(30):
        for draw, size in zip(draws.draws(iteration), (4, 4, 2), strict=True):
            assert len(set(draw.real.tolist())) == len(draw.real) == size
            assert torch.equal(CLASSES[draw.synthetic], torch.full((len(draw.synthetic),), draw.class_id))
            seen[draw.class_id] |= set(draw.real.tolist())
            assert all(len(value) == 1 for value in draw.augmentation.parameters.values())
    assert seen == {k: {i for i, label in enumerate(one.labels.tolist()) if label == k} for k in range(3)}
    assert draws.ipc == 2


@pytest.mark.parametrize(
    ("ipc", "loops"),
    [(1, (1, 1)), (3, (1, 1)), (4, (10, 50)), (10, (10, 50)), (15, (20, 25)), (30, (30, 20)), (50, (50, 10)), (200, (50, 10))],
)
def test_loops_are_those_of_the_nearest_published_number(ipc: int, loops: tuple[int, int]) -> None:
    assert RealSettings().loops(ipc) == loops
    assert RealSettings(outer_loops=7).loops(ipc) == (7, loops[1])
    assert RealSettings(inner_loops=0).loops(ipc) == (loops[0], 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch", 0),
        ("outer_loops", 0),
        ("inner_loops", -1),
        ("network_lr", 0.0),
        ("network_lr", float("nan")),
        ("network_momentum", 1.0),
        ("network_weight_decay", -0.1),
        ("network_batch", 0),
    ],
)
def test_impossible_settings_name_their_key(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"real\.{key}: {value!r} is not "):
        RealSettings(**{key: value})


def test_the_loss_falls() -> None:
    """Two classes, a bright left and a bright right half: after 20 updates unseen networks and batches are matched better."""
    labels = torch.arange(2).repeat(40)
    real = 0.5 * torch.randn(80, 1, 8, 8, generator=generator(1))
    real[labels == 0, :, :, :4] += 2
    real[labels == 1, :, :, 4:] += 2
    one = GradientMatching(
        TensorImages(real),
        labels,
        torch.tensor([0, 1]),
        flat_network("ConvNetD2-w8", (1, 8, 8), 2),
        RealSettings(batch=32),
        augmentation=DSA,
    )
    x, y = torch.randn(2, 1, 8, 8, generator=generator(2)), torch.zeros(2, 2)

    def unseen(x: Tensor) -> float:
        updates = [one.gradients({}, x, y, torch.tensor(0.01), iteration, plain=False) for iteration in range(100, 110)]
        return sum(update.gradients.loss.item() for update in updates)

    before, velocity = unseen(x), torch.zeros_like(x)
    for iteration in range(20):
        velocity = 0.5 * velocity + one.gradients({}, x, y, torch.tensor(0.01), iteration, plain=False).gradients.images
        x = x - 0.1 * velocity
    assert unseen(x) < 0.9 * before


def test_steps_of_the_outer_loop_are_those_of_sgd_on_the_sum_over_classes(tmp_path: Path) -> None:
    one = objective(real=RealSettings(batch=4, outer_loops=1), augmentation=DSA)
    settings = OuterSettings(iterations=4, lr_img=0.1, img_momentum=0.5, lr_label=0.0, lr_lr=0.0)
    maps = Enhancement(flat_network(NETWORKS[0], SHAPE, 3).module.double(), CLASSES, 0, weighting=NoWeighting())
    found = OuterLoop(one, maps, settings, lambda x, y, eta: None, 10, False, tmp_path).run(X, Y, 0.01)
    x = X.clone().requires_grad_()
    descent = torch.optim.SGD([x], lr=0.1, momentum=0.5)
    for iteration in range(4):
        x.grad = by_hand(one, iteration, at=x.detach())[1]
        descent.step()
    close(found.images, x.detach())


@pytest.mark.parametrize(("compile", "iterations", "compiled"), [("auto", 202, False), ("auto", 203, True), ("no", 9999, False)])
def test_long_runs_compile_the_gradient_of_real_images(
    monkeypatch: pytest.MonkeyPatch, compile: str, iterations: int, compiled: bool
) -> None:
    asked: list[Any] = []

    def gradient(self: Compute, loss: Loss, shape: Any, steps: int, batches: Any) -> Gradient:
        asked.append((loss, shape, steps, set(batches)))
        return Gradient(self.network, loss)

    monkeypatch.setattr(Compute, "gradient", gradient)
    changes = {"method": "dc", "engine.compile": compile, "outer.iterations": str(iterations), "real.batch": "300", "ipc": "2"}
    workspace = Workspace(load_recipe("scenes", changes | {"data.per_class": "30"}), NoProgress())
    made = workspace.method(workspace, torch.arange(10).repeat_interleave(2), None)
    # A step on 27 images saves so many numbers that it counts for almost two.
    weighed = Compute(workspace.network, torch.device("cpu")).weighed(10 * iterations, (3, 32, 32), 27)
    assert (weighed >= 4000) == (iterations >= 203)
    assert asked == ([(losses.cross_entropy, (3, 32, 32), weighed, {27, 20})] if compiled else [])
    x, y = torch.randn(20, 3, 32, 32, generator=generator(0)), torch.zeros(20, 10)
    plainly = dataclasses.replace(made, gradient=None).gradients({}, x, y, torch.tensor(0.01), 0, plain=False)
    torch.testing.assert_close(
        made.gradients({}, x, y, torch.tensor(0.01), 0, plain=False).gradients.images, plainly.gradients.images
    )

"""DM against a plain restatement."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import distribution_matching as plain
from reference.student import plain_convnet
from torch import Tensor, nn

from limbeck.augmentation import NO_AUGMENTATION, Dsa
from limbeck.matching.criteria import Criterion, LayerDropout, LowLossDropout, RandomDropout, UniformDropout
from limbeck.methods.class_draws import ClassDraws
from limbeck.methods.class_features import Features
from limbeck.methods.distribution_matching import DistributionMatching
from limbeck.methods.objective import Update
from limbeck.methods.settings import RealSettings
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.names import build_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.training.images import TensorImages

SHAPE = (2, 8, 8)
CLASSES = torch.tensor([2, 0, 1, 0, 2])
NETWORKS = ["ConvNetD2-w4", "ConvNetD1-w3-nonorm-maxpool-leaky"]


def some_images(count: int, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, *SHAPE, generator=generator(0, key), dtype=torch.float64).to(dtype)


X = some_images(len(CLASSES), "synthetic")
Y, ETA = torch.zeros(len(CLASSES), 3, dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64)


def objective(network: str = NETWORKS[0], **changes: Any) -> DistributionMatching:
    """Twenty real images of three classes, of which the last has only two."""
    labels = torch.tensor([0, 1] * 9 + [2, 2])
    parts: dict[str, Any] = {"real": RealSettings(batch=4), "seed": 5} | changes
    return DistributionMatching(TensorImages(some_images(20, "real")), labels, CLASSES, flat_network(network, SHAPE, 3), **parts)


def call(one: DistributionMatching, iteration: int, x: Tensor = X, asked: bool = False) -> Update:
    return one.gradients({}, x, Y, ETA, iteration, plain=asked)


def by_hand(one: DistributionMatching, iteration: int, drop: int = 0) -> tuple[Tensor, Tensor]:
    """L and ∂L/∂X."""
    theta = one.network.initial(generator(5, "matched network", iteration)).double()
    network, x = plain_convnet(one.network.name, 3), X.clone().requires_grad_()
    assert isinstance(one.images, TensorImages)
    total = torch.zeros((), dtype=torch.float64)
    for draw in ClassDraws(one.images, one.labels, CLASSES, 4, one.augmentation, 5).draws(iteration):
        real = draw.augmentation(one.images.images[draw.real])
        own = draw.augmentation(x[draw.class_id == CLASSES])
        total = total + plain.class_distance(network, theta, real, own, drop)
    return total.detach(), torch.autograd.grad(total, x)[0]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * expected.abs().amax().item())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, Dsa()])
def test_loss_and_gradient_are_the_formula(network: str, augmentation: Dsa) -> None:
    one = objective(network, augmentation=augmentation)
    for iteration in (0, 1):
        update, (loss, by_images) = call(one, iteration, asked=True), by_hand(one, iteration)
        close(update.gradients.loss, loss)
        close(update.gradients.images, by_images)
        assert update.plain is not None and torch.equal(update.plain, update.gradients.images)
        assert update.facts == {"class_distance": pytest.approx(loss.item() / 3)}
        assert update.kept_share == {"features": 1.0} and update.state == {}
        assert not update.gradients.labels.any() and update.gradients.labels.shape == Y.shape
        assert update.gradients.syn_lr.item() == 0


def test_the_criterion_leaves_out_the_features_of_lowest_difference() -> None:
    one = objective(criterion=LowLossDropout(0.4))
    update, features = call(one, 2, asked=True), 4 * 2 * 2
    loss, by_images = by_hand(one, 2, drop=int(0.4 * features))
    close(update.gradients.loss, loss)
    close(update.gradients.images, by_images)
    assert update.plain is not None
    close(update.plain, by_hand(one, 2)[1])
    assert update.kept_share["features"] == pytest.approx(10 / 16)
    assert one.has_criterion and not objective().has_criterion


@pytest.mark.parametrize("criterion", [UniformDropout(0.5), LayerDropout(0.5, "middle")])
def test_criteria_of_layers_are_refused(criterion: Criterion) -> None:
    with pytest.raises(UsageError, match=r"match\.criterion: .*Dropout.* is not loss, random or none: features have no layers"):
        objective(criterion=criterion)


def test_random_features_are_keyed_by_the_iteration() -> None:
    one = objective(criterion=RandomDropout(0.5))
    assert torch.equal(call(one, 1).gradients.images, call(one, 1).gradients.images)
    assert call(one, 1).kept_share == {"features": 0.5}


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 7, 100])
def test_classes_that_go_through_the_network_together_change_nothing(at_once: int) -> None:
    whole, parts = objective(criterion=LowLossDropout(0.25)), objective(criterion=LowLossDropout(0.25))
    object.__setattr__(parts, "_by_class", replace(parts._by_class, at_once=at_once))
    first, second = call(whole, 0, asked=True), call(parts, 0, asked=True)
    assert first.plain is not None and second.plain is not None
    close(second.gradients.images, first.gradients.images)
    close(second.gradients.loss, first.gradients.loss)
    close(second.plain, first.plain)


def test_batch_norm_sees_all_images_of_a_kind() -> None:
    one = objective("ConvNetD1-w4-batchnorm", augmentation=NO_AUGMENTATION)
    theta = one.network.initial(generator(5, "matched network", 0)).double()
    assert isinstance(one.images, TensorImages)
    held, x = one.images.images, X.clone().requires_grad_()
    draws = ClassDraws(one.images, one.labels, CLASSES, 4, one.augmentation, 5).draws(0)
    kernel, shift = theta[: 4 * 2 * 9].view(4, 2, 3, 3), theta[4 * 2 * 9 : 4 * 2 * 9 + 4]

    def features(images: Tensor) -> Tensor:
        z = nn.functional.conv2d(images, kernel, shift, padding=1)
        z = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        return nn.functional.avg_pool2d(z.relu(), 2).flatten(1)

    real, own = features(torch.cat([held[draw.real] for draw in draws])), features(torch.cat([x[k == CLASSES] for k in range(3)]))
    means = [torch.stack([part.mean(0) for part in rows.split(sizes)]) for rows, sizes in ((real, [4, 4, 2]), (own, [2, 1, 2]))]
    total = (means[0] - means[1]).square().sum()
    update = call(one, 0)
    close(update.gradients.loss, total.detach())
    close(update.gradients.images, torch.autograd.grad(total, x)[0])


def test_draws_depend_on_seed_and_iteration_alone() -> None:
    one, other = objective(), objective(seed=6)
    base = call(one, 3).gradients.images
    call(one, 0)
    assert torch.equal(call(objective(), 3).gradients.images, base)
    assert not torch.equal(call(other, 3).gradients.images, base)
    assert not torch.equal(call(one, 4).gradients.images, base)


class Foreign(nn.Module):
    """A network whose part `features` is no method, as torchvision's VGG has it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.features(x))
        return found


def test_features_are_what_the_classifier_is_given() -> None:
    x = torch.randn(3, 2, 16, 16, generator=generator(0))
    for name in ("ConvNetD1-w4", "ResNet18-w8", "MLP-w8"):
        module = build_network(name, 2, 16, 16, 3).eval()
        assert torch.equal(module.get_submodule("classifier")(Features(module)(x)), module(x))
    network = FlatNetwork(Foreign(), "foreign")
    assert torch.equal(network.module.classifier[3](Features(network.module)(x)), network.module(x))  # type: ignore[index, operator]
    one = DistributionMatching(TensorImages(some_images(4, "real")), torch.tensor([0, 1, 2, 2]), CLASSES, network)
    update = call(one, 0)
    assert bool(update.gradients.images.any()) and bool(update.gradients.images.isfinite().all())
    assert not any(part._forward_pre_hooks for part in network.module.modules())


def test_a_network_without_features_is_refused() -> None:
    network = FlatNetwork(nn.Sequential(nn.Conv2d(2, 3, 8), nn.Flatten()), "bare")
    one = DistributionMatching(TensorImages(some_images(4, "real")), torch.tensor([0, 1, 2, 2]), CLASSES, network)
    with pytest.raises(UsageError, match="a method `features` or with a linear layer"):
        call(one, 0)


def test_the_loss_falls() -> None:
    """Two classes, a bright left and a bright right half: after 20 updates unseen networks and batches are matched better."""
    labels = torch.arange(2).repeat(40)
    real = 0.5 * torch.randn(80, 1, 8, 8, generator=generator(1))
    real[labels == 0, :, :, :4] += 2
    real[labels == 1, :, :, 4:] += 2
    network = flat_network("ConvNetD2-w8", (1, 8, 8), 2)
    one = DistributionMatching(TensorImages(real), labels, torch.tensor([0, 1]), network, RealSettings(batch=32))
    x, y = torch.randn(2, 1, 8, 8, generator=generator(2)), torch.zeros(2, 2)

    def unseen(x: Tensor) -> float:
        updates = [one.gradients({}, x, y, torch.tensor(0.01), iteration, plain=False) for iteration in range(100, 110)]
        return sum(update.gradients.loss.item() for update in updates)

    before, velocity = unseen(x), torch.zeros_like(x)
    for iteration in range(20):
        velocity = 0.5 * velocity + one.gradients({}, x, y, torch.tensor(0.01), iteration, plain=False).gradients.images
        x = x - velocity
    assert unseen(x) < 0.7 * before

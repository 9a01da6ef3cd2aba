"""The functional trainer against torch's own SGD and modules; networks trained together against each alone."""

import dataclasses
from typing import Any

import pytest
import torch
from reference.deviation import deviation
from torch import Tensor, nn

from limbeck import views
from limbeck.augmentation import Dsa
from limbeck.losses import Divergence, cross_entropy
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.random import generator
from limbeck.training.gradient import Gradient
from limbeck.training.images import TensorImages
from limbeck.training.optimisers import AdamW, Gsam, Optimiser, Sgd, decays
from limbeck.training.rates import Constant, DropAtHalf, Rate
from limbeck.training.targets import Hard, Labels, Teacher
from limbeck.training.train import Member, Training, accuracy, train, train_together
from limbeck.views import Views

PLAIN = Dsa("none")


def setting(rate: Rate, epochs: int, augment: Dsa | Views = PLAIN, optimiser: Optimiser | None = None) -> Training:
    optimiser = optimiser or Sgd(0.05, 0.9, 5e-4)
    return Training(optimiser=optimiser, loss=cross_entropy, epochs=epochs, batch_size=4, augment=augment, rate=rate)


class Overflows(Gradient):
    """The gradient where it is asked for, of which the first one is infinite; `seen` is where."""

    def __init__(self, network: FlatNetwork) -> None:
        super().__init__(network, cross_entropy)
        object.__setattr__(self, "seen", [])

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        self.seen.append(theta.clone())  # type: ignore[attr-defined]
        found = super().__call__(theta, x, y)
        return found * torch.inf if len(self.seen) == 1 else found  # type: ignore[attr-defined]


def test_an_epoch_that_is_begun_again_climbs_as_far_as_it_would_have() -> None:
    """ρ belongs to the schedule, whose least step size the smaller one is below."""
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 3)
    theta, gradient = network.initial(generator(0, "a")).double(), Overflows(network)
    gsam = Gsam(0.1, rho_min=0.02, rho_max=0.08, adaptive=False, lr_min=0.05)
    part = dataclasses.replace(setting(Constant(), 1, optimiser=gsam), returns=1)
    with pytest.warns(UserWarning, match="begun again with 0.25 of the step size"):
        train(network, theta, TensorImages(images(1)), labels(), part, seed=3, key=("run",), gradient=gradient)
    seen = gradient.seen[6:]  # type: ignore[attr-defined]
    assert torch.equal(seen[0], theta)
    for before, climbed in zip(seen[::2], seen[1::2], strict=True):
        assert float((climbed - before).norm()) == pytest.approx(0.08, rel=1e-6)


def images(seed: int, count: int = 10) -> Tensor:
    return torch.randn(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(count: int = 10) -> Tensor:
    return torch.eye(3, dtype=torch.float64)[torch.arange(count) % 3]


def by_torch(module: nn.Module, x: Tensor, y: Tensor, epochs: int, drop: bool) -> Tensor:
    """The same with torch.optim.SGD, one image order per epoch, momentum anew after the drop."""
    parameters = list(module.parameters())
    optimiser = torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(epochs):
        if drop and 2 * epoch >= epochs and 2 * (epoch - 1) < epochs:
            optimiser = torch.optim.SGD(parameters, 0.005, momentum=0.9, weight_decay=5e-4)
        order = torch.randperm(len(x), generator=generator(3, "run", "order", epoch))
        for index in order.split(4):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(x[index]), y[index]).backward()
            optimiser.step()
    return torch.cat([value.detach().flatten() for value in parameters])


def test_training_equals_torch() -> None:
    network = flat_network("ConvNetD2-w4", (3, 8, 8), 3)
    x, y = images(0), labels()
    theta = network.initial(generator(0, "a")).double()
    for rate, drop in ((Constant(), False), (DropAtHalf(), True)):
        for epochs in (5, 6):
            trained = train(network, theta, TensorImages(x), y, setting(rate, epochs), seed=3, key=("run",))
            expected = by_torch(network.with_parameters(theta).train(), x, y, epochs, drop)
            assert deviation(trained, expected) < 1e-12


def test_stopped_and_gone_on_is_the_same() -> None:
    network, how = flat_network("ConvNetD1-w4", (3, 8, 8), 3), setting(DropAtHalf(), 7, Dsa())
    theta = network.initial(generator(0, "a")).double()
    whole = train(network, theta, TensorImages(images(0)), labels(), how, seed=3, key=("run",))
    for stop in (1, 3, 4, 6):
        state, kept = how.optimiser.state(theta), {}

        def keep(epoch: int, theta: Tensor, stop: int = stop, state: tuple[Tensor, ...] = state, kept: dict = kept) -> None:
            if epoch == stop:
                kept["theta"], kept["state"] = theta.clone(), tuple(part.clone() for part in state)

        train(network, theta, TensorImages(images(0)), labels(), how, seed=3, key=("run",), state=state, after_epoch=keep)
        rest = {"first_epoch": stop, "state": kept["state"]}
        again = train(network, kept["theta"], TensorImages(images(0)), labels(), how, seed=3, key=("run",), **rest)
        assert torch.equal(again, whole)


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("optimiser", [Sgd(0.05, 0.9), Gsam(0.05, 0.9)], ids=["sgd", "gsam"])
def test_dropout_follows_from_seed_key_and_epoch(optimiser: Optimiser) -> None:
    network, how = FlatNetwork(dropping(), "dropping"), setting(Constant(), 4, optimiser=optimiser)
    theta, kept, random = network.initial(generator(0, "a")).double(), {}, torch.get_rng_state()
    state = optimiser.state(theta)

    def keep(epoch: int, theta: Tensor) -> None:
        if epoch == 2:
            kept["theta"], kept["state"] = theta.clone(), tuple(part.clone() for part in state)

    def trained(start: Tensor = theta, *key: str, **options: Any) -> Tensor:
        return train(network, start, TensorImages(images(0)), labels(), how, seed=3, key=("run", *key), **options)

    whole = trained(state=state, after_epoch=keep)
    assert torch.equal(torch.get_rng_state(), random)
    torch.rand(1)
    assert torch.equal(trained(), whole)
    assert torch.equal(trained(kept["theta"], first_epoch=2, state=kept["state"]), whole)
    assert not torch.equal(trained(theta, "other"), whole)


def test_every_epoch_drops_others() -> None:
    """With equal images, one a batch, epochs differ by nothing but what is dropped."""
    seen: list[Tensor] = []
    module = dropping()
    module[3].register_forward_hook(lambda part, inputs, output: seen.append(output.detach()))
    network = FlatNetwork(module, "dropping")
    theta, how = network.initial(generator(0, "a")).double(), setting(Constant(), 3, optimiser=Sgd(0.0))
    train(network, theta, TensorImages(images(0, 4)), labels(4), how, seed=3, key=())
    masks = [value == 0 for value in seen]
    assert len(masks) == 3 and not any(torch.equal(masks[epoch], masks[epoch - 1]) for epoch in range(3))


def test_what_does_not_drop_leaves_chance_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("limbeck.training.train.global_draws")
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 3)
    theta = network.initial(generator(0, "a")).double()
    train(network, theta, TensorImages(images(0)), labels(), setting(Constant(), 1), seed=3, key=())


def test_only_what_was_sound_at_its_start_begins_an_epoch_again() -> None:
    """Of two networks in step one diverges for good in the first of ten epochs of two steps."""

    class Counted(Gradient):
        def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            calls.append(1)
            return super().__call__(theta, x, y)

    network, calls = flat_network("ConvNetD1-w4", (3, 8, 8), 3), list[int]()
    adamw = AdamW(0.01, decayed=decays(network.shapes.values()))
    how = dataclasses.replace(setting(Constant(), 10, optimiser=adamw), returns=3)
    good, bad = images(0, 8), images(1, 8) * torch.nan
    members = [Member(TensorImages(one), Labels(labels(8)), (name,)) for name, one in (("good", good), ("bad", bad))]
    theta = network.initial(generator(0, "a")).double()
    with pytest.warns(UserWarning, match="^bad diverged in epoch 1, which is begun again with") as said:
        both = train_together(network, torch.stack([theta, theta]), members, how, seed=3, gradient=Counted(network, cross_entropy))
    assert (len(calls), len(said)) == (2 * (10 + 3), 3)
    assert both[1].isnan().any()
    alone = train(network, theta, TensorImages(good), labels(8), how, seed=3, key=("good",))
    assert (both[0] - alone).norm() / alone.norm() < 1e-8


@pytest.mark.parametrize("augment", [Dsa(), Views(mix="cutmix")], ids=["dsa", "views"])
def test_together_is_each_alone(augment: Dsa | Views) -> None:
    network = flat_network("ConvNetD2-w4", (3, 8, 8), 3)
    how = setting(DropAtHalf(), 8, augment)  # 24 steps
    members = [Member(TensorImages(images(number)), Labels(labels().roll(number, 0)), ("run", number)) for number in range(3)]
    theta = torch.stack([network.initial(generator(0, "start", number)) for number in range(3)]).double()
    together = train_together(network, theta, members, how, seed=3)
    for start, member, found in zip(theta, members, together, strict=True):
        alone = train(network, start, member.images, member.targets, how, seed=3, key=member.key)
        assert (found - alone).norm() / alone.norm() < 1e-10
    assert not torch.allclose(together[0], together[1])


def test_an_epoch_takes_its_pool_alone_and_together() -> None:
    network, how = flat_network("ConvNetD1-w4", (3, 8, 8), 3), setting(Constant(), 3)
    theta = network.initial(generator(0, "a")).double()
    seen: list[list[int]] = []

    class Noted(TensorImages):
        def fetch(self, index: Tensor) -> Tensor:
            seen.append(sorted(index.tolist()))
            return super().fetch(index)

    def pool(epoch: int) -> Tensor:
        return torch.arange(epoch, 4 + 2 * epoch)

    alone = train(network, theta, Noted(images(0)), labels(), how, seed=3, key=("run",), pool=pool)
    taken = [sorted(seen[0]), sorted(seen[1] + seen[2]), sorted(seen[3] + seen[4])]
    assert taken == [[0, 1, 2, 3], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7]]
    member = Member(TensorImages(images(0)), Labels(labels()), ("run",), pool)
    both = train_together(network, torch.stack([theta, theta]), [member, member], how, seed=3)
    assert (both[0] - alone).norm() / alone.norm() < 1e-10


def test_a_teacher_sees_the_very_views_and_labels_are_mixed_alike() -> None:
    network, views_ = flat_network("ConvNetD1-w4", (3, 8, 8), 3), Views(mix="cutmix")
    theta = network.initial(generator(0, "a")).double()
    seen: list[Tensor] = []

    class Linear(nn.Module):
        """Its logits are linear in the image, so that of mixed views they are mixed alike."""

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.mean((2, 3))

    how = Training(optimiser=Sgd(0.1), loss=Divergence(2.0), epochs=2, batch_size=10, augment=views_)
    taught = train(network, theta, TensorImages(images(0)), Teacher(Linear()), how, seed=3, key=("run",))
    order = torch.randperm(10, generator=generator(3, "run", "order", 0))
    drawn = views.draw(views_, generator(3, "run", "augment", 0), (10, 3, 8, 8))
    assert torch.equal(seen[0], views.apply(drawn, images(0)[order]))
    assert not torch.equal(taught, theta)


def test_the_start_is_left_alone_and_epochs_are_reported() -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 3)
    theta, seen = network.initial(generator(0, "a")).double(), []
    before = theta.clone()
    train(
        network,
        theta,
        TensorImages(images(0)),
        labels(),
        setting(Constant(), 3),
        seed=0,
        key=(),
        after_epoch=lambda e, t: seen.append(e),
    )
    assert torch.equal(theta, before)
    assert seen == [1, 2, 3]


def test_accuracy_counts() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 0, 0]

    logits = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])[:, :, None, None]
    assert accuracy(First(), TensorImages(logits), torch.tensor([0, 1, 1, 1]), batch_size=3) == 0.75


def test_hard_targets_are_one_hot_rows_made_by_the_batch() -> None:
    classes, index = torch.tensor([2, 0, 1, 2]), torch.tensor([3, 1])
    rows = torch.eye(3)[classes]
    x, mix = torch.zeros(2, 3, 4, 4), lambda y: 0.5 * y
    assert torch.equal(Hard(classes, 3).of(index, x, mix), Labels(rows).of(index, x, mix))

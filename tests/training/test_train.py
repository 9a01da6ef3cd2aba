"""The functional trainer against torch's own SGD and modules."""

import torch
from torch import Tensor, nn

from limbeck.augmentation_settings import AugmentSettings
from limbeck.losses import cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.runtime.random import generator
from limbeck.training.images import Held
from limbeck.training.sgd import Constant, DropAtHalf, Rate, Sgd
from limbeck.training.train import Training, accuracy, train

PLAIN = AugmentSettings(strategy="none")


def setting(rate: Rate, epochs: int) -> Training:
    return Training(optimiser=Sgd(0.05, 0.9, 5e-4), loss=cross_entropy, epochs=epochs, batch_size=4, augment=PLAIN, rate=rate)


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
    x, y = torch.randn(10, 3, 8, 8, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[torch.arange(10) % 3]
    theta = network.initial(generator(0, "a")).double()
    for rate, drop in ((Constant(), False), (DropAtHalf(), True)):
        for epochs in (5, 6):
            trained = train(network, theta, Held(x), y, setting(rate, epochs), seed=3, key=("run",))
            expected = by_torch(network.with_parameters(theta).train(), x, y, epochs, drop)
            assert (trained - expected).norm() / expected.norm() < 1e-12


def test_the_start_is_left_alone_and_epochs_are_reported() -> None:
    network = flat_network("ConvNetD1-w4", (1, 8, 8), 2)
    theta, seen = network.initial(generator(0, "a")), []
    before = theta.clone()
    how = setting(Constant(), 3)
    train(
        network,
        theta,
        Held(torch.randn(6, 1, 8, 8)),
        torch.eye(2)[torch.arange(6) % 2],
        how,
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
    assert accuracy(First(), Held(logits), torch.tensor([0, 1, 1, 1]), batch_size=3) == 0.75

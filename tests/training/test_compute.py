"""What is compiled: by a count of steps in which large ones weigh more, so that equal trainings decide alike."""

from dataclasses import replace

import pytest
import torch

from limbeck.augmentation import Dsa
from limbeck.evaluation.evaluator import REPEATS
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.evaluation.trials import Trial, Trials
from limbeck.losses import soft_cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.networks.micro_batches import output_sizes
from limbeck.training import compute as compute_module
from limbeck.training.compute import Compute
from limbeck.training.gradient import Gradient
from limbeck.training.images import TensorImages
from limbeck.training.targets import Labels


@pytest.mark.parametrize(
    ("name", "side", "batch", "steps", "compiled"),
    [
        ("ConvNetD3-w32", 32, 256, 1100, True),  # 100 epochs of 2700 images
        ("ConvNetD3-w32", 32, 256, 110, False),  # 10 of them
        ("ConvNetD3-w16", 32, 256, 66, False),  # the experts of the recipes for scenes
        ("ConvNetD5-w128", 128, 256, 3600, True),  # published, ImageNet's subsets
        ("ConvNetD2-w8", 16, 64, 3999, False),  # small steps count as they are
        ("ConvNetD2-w8", 16, 64, 4000, True),
    ],
)
def test_large_steps_count_for_many(name: str, side: int, batch: int, steps: int, compiled: bool) -> None:
    compute = Compute(flat_network(name, (3, side, side), 10), torch.device("cpu"))
    assert compute.compiles(compute.weighed(steps, (3, side, side), batch)) == compiled


@pytest.mark.parametrize(
    ("side", "width", "ipc", "epochs", "compiled"),
    [
        (32, 32, 10, 1000, True),  # CIFAR-10 under `dd`
        (32, 32, 10, 300, True),  # the same of the recipe sized for two cores
        (32, 32, 1, 1000, False),  # steps of ten small images
        (128, 128, 1, 1000, True),  # ImageNet's subsets
    ],
)
def test_trainings_on_sets_count_by_the_size_of_their_steps(
    side: int, width: int, ipc: int, epochs: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for many: a network of the full data, of which there are two or three, has to save more than one of a set."""
    network = flat_network(f"ConvNetD3-w{width}", (3, side, side), 10)
    how = replace(PROTOCOLS["dd"], epochs=epochs).training(network, Dsa(), 0.01, ipc, "logits")
    of_sets = Trials(network, 0, torch.device("cpu"), repeats=REPEATS)
    assert of_sets.compiles(how, 10 * ipc, (3, side, side)) == compiled
    weighed = of_sets.compute.weighed(epochs, (3, side, side), 10 * ipc)
    assert replace(of_sets, repeats=1).compiles(how, 10 * ipc, (3, side, side)) == (weighed >= 4000)
    # What trains decides alike.
    monkeypatch.setattr("limbeck.training.compute._compiled", lambda same, loss, *_: Gradient(same.network, loss, compile=True))
    trial = Trial(TensorImages(torch.zeros(10 * ipc, 3, side, side)), Labels(torch.zeros(10 * ipc, 10)), how, ("evaluation", 0))
    assert of_sets.gradient(trial).compile == compiled


@pytest.mark.parametrize(("waiting", "least", "pays"), [(True, 0.0, True), (True, 1e9, False), (False, 0.0, False)])
def test_workers_that_wait_pay_sooner(monkeypatch: pytest.MonkeyPatch, waiting: bool, least: float, pays: bool) -> None:
    monkeypatch.setattr(compute_module, "cores", lambda: 2)
    monkeypatch.setattr(compute_module, "workers_wait", lambda: waiting)
    monkeypatch.setattr(compute_module, "WORKERS_FROM_SECONDS", 1e9)
    monkeypatch.setattr(compute_module, "WAITING_WORKERS_FROM_SECONDS", least)
    network = flat_network("MLP-w8", (1, 2, 2), 10)
    images, gradient = TensorImages(torch.zeros(3, 1, 2, 2)), Gradient(network, soft_cross_entropy)
    assert Compute(network, torch.device("cpu")).pays_workers(gradient, images, Labels(torch.zeros(3, 10)), 3, 1000) == pays


def test_weighed_steps_in_closed_form() -> None:
    network = flat_network("MLP-w8", (1, 2, 2), 10)
    numbers = sum(output_sizes(network, (1, 2, 2)))
    compute = Compute(network, torch.device("cpu"))
    batch = 10**6
    assert compute.weighed(7, (1, 2, 2), batch) == round(7 * batch * numbers * 1e-9 / 2.5e-3) > 7
    assert compute.weighed(7, (1, 2, 2), 1) == 7

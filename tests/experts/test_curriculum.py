"""PAD's curriculum against its published schedule, difficulties against one image at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.experts.curriculum import Curriculum, Measure, difficulty, window
from limbeck.experts.notes import ClassScores
from limbeck.losses import cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.training.images import TensorImages


def curriculum(count: int, classes: int = 3) -> Curriculum:
    draws = np.random.default_rng(0)
    return Curriculum(draws.random(count * classes), draws.permutation(np.repeat(np.arange(classes), count)))


def test_the_published_schedule() -> None:
    assert [window(epoch) for epoch in (0, 10, 19, 20, 39)] == [(0, 0.75), (0, 0.875), (0, 0.9875), (0, 1), (0, 1)]
    assert [window(epoch) for epoch in (40, 41, 60, 61, 99)] == [(0, 1), (0.1, 1), (0.1, 1), (0.2, 1), (0.2, 1)]
    held = curriculum(40)
    assert [len(held.positions(epoch)) / 3 for epoch in (0, 2, 20, 40, 41, 60, 61)] == [30, 31, 40, 40, 36, 36, 32]


@given(st.integers(1, 50), st.integers(0, 120))
def test_an_epoch_takes_the_easiest_of_every_class_and_later_leaves_them_out(count: int, epoch: int) -> None:
    held = curriculum(count)
    taken = held.positions(epoch).numpy()
    assert len(taken) == len(set(taken))
    assert (np.diff(taken) > 0).all()
    for k in range(3):
        inside, all_ = held.scores[taken][held.labels[taken] == k], held.scores[held.labels == k]
        assert len(inside) > 0
        left = np.setdiff1d(all_, inside)
        if epoch < 20:
            assert not len(left) or left.min() > inside.max()
        else:
            assert not len(left) or left.max() < inside.min()


def test_equally_difficult_images_are_taken_in_order() -> None:
    held = Curriculum(np.zeros(8), np.zeros(8, dtype=np.int64))
    assert held.positions(0).tolist() == [0, 1, 2, 3, 4, 5]


def test_statistics_are_those_of_sorted_lists() -> None:
    held = Curriculum(np.array([3.0, 1.0, 2.0, 9.0, 5.0, 7.0]), np.array([2, 2, 2, 2, 0, 2]))
    said = held.statistics(["a", "nothing", "c"], "grand")
    assert said.images == 6
    assert said.classes == (ClassScores(0, "a", 1, 5.0, (5.0,) * 5), ClassScores(2, "c", 5, 22 / 5, (1.0, 2.0, 3.0, 7.0, 9.0)))
    assert said.easiest == (1, 2, 0, 4, 5, 3)
    assert said.hardest == (3, 5, 4, 0, 2, 1)
    many = curriculum(40)
    said = many.statistics(["a", "b", "c"], "grand")
    ranked = sorted(range(120), key=lambda position: float(many.scores[position]))
    assert said.easiest == tuple(ranked[:10])
    assert said.hardest == tuple(ranked[::-1][:10])


def one_by_one(theta: Tensor, x: Tensor, y: Tensor, measure: Measure) -> list[float]:
    network, found = flat_network("ConvNetD1-w4", (3, 8, 8), 3), []
    for image, label in zip(x, y, strict=True):
        leaf = theta.clone().requires_grad_()
        logits = network(leaf, image[None])
        if measure == "el2n":
            found.append((logits.softmax(1)[0] - label).pow(2).sum().sqrt().item())
        else:
            cross_entropy(logits, label[None]).backward()
            assert leaf.grad is not None
            own = leaf.grad[-(4 * 4 * 4 + 1) * 3 :] if measure == "grand_last" else leaf.grad  # the head's: 64 inputs, 3 classes
            found.append(own.pow(2).sum().sqrt().item())
    return found


def test_the_gradient_of_the_last_layer_has_a_closed_form() -> None:
    """∂ℓ/∂W = (p − y) hᵀ and ∂ℓ/∂b = p − y, so that GraNd is ‖p − y‖ √(1 + ‖h‖²): EL2N times what the features say."""
    draws = torch.Generator().manual_seed(0)
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 3)
    x, y = torch.randn(7, 3, 8, 8, generator=draws, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[torch.arange(7) % 3]
    theta = network.initial(draws).double()
    with torch.no_grad():
        features = network.with_parameters(theta).features(x)
    errors, lengths = (difficulty(network, [theta], TensorImages(x), y, cross_entropy, one) for one in ("el2n", "grand_last"))
    assert lengths == pytest.approx(errors * (1 + features.square().sum(1)).sqrt().numpy(), rel=1e-12)


@pytest.mark.parametrize("measure", ["el2n", "grand", "grand_last"])
def test_difficulties_are_those_of_each_image_alone(measure: Measure) -> None:
    draws = torch.Generator().manual_seed(0)
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 3)
    x = torch.randn(7, 3, 8, 8, generator=draws, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.arange(7) % 3]
    thetas = [network.initial(draws).double() for _ in range(2)]
    found = difficulty(network, thetas, TensorImages(x), y, cross_entropy, measure, batch_size=3)
    expected = np.mean([one_by_one(theta, x, y, measure) for theta in thetas], axis=0)
    assert found == pytest.approx(expected, rel=1e-12)

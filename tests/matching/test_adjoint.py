"""The exact adjoint against back-propagation through the unroll and against central differences."""

import pytest
import torch
from torch import Tensor

from limbeck.augmentation_settings import OPERATIONS, AugmentSettings
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Exact, Gradients, InnerLoop, Unroll
from limbeck.matching.criteria import Criterion, KeepAll, LowLossDropout, MatchingLoss
from limbeck.matching.steps import StepDraw, StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime.random import generator

NAMES = [
    "ConvNetD2-w8",
    "ConvNetD2-w8-groupnorm",
    "ConvNetD2-w8-batchnorm",
    "ConvNetD2-w8-nonorm",
    "ConvNetD3-w4-maxpool-leaky",
    "ConvNetD1-w4-nopool-sigmoid",
    "ConvNetD2-w8-batchnorm-sigmoid",
]


def operations(draws: list[StepDraw]) -> set[str]:
    return {draw.augmentation.operation for draw in draws}


class Case:
    """Seven images of 12×16, T = 9 steps of 3 images (so that a last chunk is smaller), in float64."""

    def __init__(self, name: str, batch_syn: int = 3, steps: int = 9) -> None:
        draws = generator(0, "case")
        self.network = flat_network(name, (3, 12, 16), 4)
        self.step = StudentStep(self.network, soft_cross_entropy)
        self.theta = self.network.initial(draws).double()
        self.target = self.theta + 0.05 * torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.images = torch.randn(7, 3, 12, 16, generator=draws, dtype=torch.float64)
        self.labels = torch.randn(7, 4, generator=draws, dtype=torch.float64)
        self.syn_lr = torch.tensor(0.05, dtype=torch.float64)
        drawn = (draw_steps((7, 3, 12, 16), batch_syn, steps, AugmentSettings(), seed, 0) for seed in range(1000))
        self.draws = next(draws for draws in drawn if operations(draws) >= set(OPERATIONS[:steps]))

    def inner(self) -> InnerLoop:
        return InnerLoop(self.step, self.theta, self.draws)

    def loss(self, criterion: Criterion) -> MatchingLoss:
        return MatchingLoss(self.theta, self.target, criterion)

    def gradients(self, adjoint: Exact | Unroll, criterion: Criterion) -> Gradients:
        return adjoint(self.inner(), self.images, self.labels, self.syn_lr, self.loss(criterion))[0]

    def value(self, images: Tensor, labels: Tensor, syn_lr: Tensor) -> float:
        return Exact()(self.inner(), images, labels, syn_lr, self.loss(KeepAll()))[0].loss.item()


def error(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).norm() / reference.norm()).item()


@pytest.mark.parametrize("name", NAMES)
def test_exact_equals_unroll(name: str) -> None:
    case = Case(name)
    exact, unroll = case.gradients(Exact(), LowLossDropout(0.3)), case.gradients(Unroll(), LowLossDropout(0.3))
    assert operations(case.draws) == set(OPERATIONS)
    assert exact.loss.item() == pytest.approx(unroll.loss.item(), rel=1e-12)
    assert error(exact.images, unroll.images) < 1e-10
    assert error(exact.labels, unroll.labels) < 1e-10
    assert error(exact.syn_lr, unroll.syn_lr) < 1e-10


def test_several_losses_share_the_steps() -> None:
    case = Case("ConvNetD2-w8")
    for adjoint in (Exact(), Unroll()):
        losses = (case.loss(LowLossDropout(0.5)), case.loss(KeepAll()))
        both = adjoint(case.inner(), case.images, case.labels, case.syn_lr, *losses)
        for result, criterion in zip(both, (LowLossDropout(0.5), KeepAll()), strict=True):
            assert error(result.images, case.gradients(Unroll(), criterion).images) < 1e-10
        assert error(both[0].images, both[1].images) > 1e-3


@pytest.mark.parametrize("name", ["ConvNetD2-w8-sigmoid", "ConvNetD2-w8-nonorm-sigmoid", "ConvNetD2-w8-batchnorm-sigmoid"])
def test_central_differences(name: str) -> None:
    case = Case(name, steps=5)
    gradients = case.gradients(Exact(), KeepAll())
    pixel, label, h = (2, 1, 5, 7), (4, 2), 1e-4

    def moved(tensor: Tensor, at: tuple[int, ...], by: float) -> Tensor:
        tensor = tensor.clone()
        tensor[at] += by
        return tensor

    def slope(of: str, at: tuple[int, ...]) -> float:
        inputs = {"images": case.images, "labels": case.labels, "syn_lr": case.syn_lr}

        def difference(step: float) -> float:
            ends = [case.value(**{**inputs, of: moved(inputs[of], at, sign * step)}) for sign in (1, -1)]
            return (ends[0] - ends[1]) / (2 * step)

        return (4 * difference(h) - difference(2 * h)) / 3  # Richardson: the error falls with h⁴

    assert slope("images", pixel) == pytest.approx(gradients.images[pixel].item(), rel=1e-6)
    assert slope("labels", label) == pytest.approx(gradients.labels[label].item(), rel=1e-6)
    assert slope("syn_lr", ()) == pytest.approx(gradients.syn_lr.item(), rel=1e-6)


def test_a_batch_norm_step_records_nothing() -> None:
    case = Case("ConvNetD2-w8-batchnorm")
    before = {name: value.clone() for name, value in case.network.module.named_buffers()}
    assert before
    case.gradients(Exact(), KeepAll())
    for name, value in case.network.module.named_buffers():
        assert torch.equal(value, before[name])


def test_draws_of_one_step_do_not_depend_on_the_number_of_steps() -> None:
    augment = AugmentSettings()
    few, many = (draw_steps((7, 3, 8, 8), 3, steps, augment, 5, 2) for steps in (4, 9))
    for a, b in zip(few, many[:4], strict=True):
        assert torch.equal(a.index, b.index)
        assert a.augmentation.operation == b.augmentation.operation


def test_every_permutation_is_used_up() -> None:
    draws = draw_steps((7, 3, 8, 8), 3, 9, AugmentSettings(), 5, 2)
    assert [len(draw.index) for draw in draws] == [3, 3, 1] * 3
    for first in (0, 3, 6):
        assert sorted(torch.cat([draw.index for draw in draws[first : first + 3]]).tolist()) == list(range(7))
    assert [len(draw.index) for draw in draw_steps((7, 3, 8, 8), 100, 2, AugmentSettings(), 5, 2)] == [7, 7]


def test_compiled_equals_plain() -> None:
    case = Case("ConvNetD1-w4", batch_syn=7, steps=3)
    plain = case.gradients(Exact(), KeepAll())
    case.step = StudentStep(case.network, soft_cross_entropy, compiled=True)
    compiled = case.gradients(Exact(), KeepAll())
    assert error(compiled.images, plain.images) < 1e-10
    assert error(compiled.labels, plain.labels) < 1e-10
    assert error(compiled.syn_lr, plain.syn_lr) < 1e-10

"""The ways to the gradient: against back-propagation through the unroll, plain oracles and central differences."""

import dataclasses
import threading
from collections.abc import Iterable

import pytest
import torch
from reference import student
from reference.deviation import deviation
from torch import Tensor

from limbeck.augmentation import Applied, Dsa
from limbeck.augmentation_settings import OPERATIONS
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, Gradients, InnerLoop, Tesla, Truncated, Unroll
from limbeck.matching.closed_form import Staged
from limbeck.matching.criteria import Criterion, KeepAll, LowLossDropout
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.steps import StepDraw, StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime.memory import measure
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


KINDS = ("reverse", "staged")
STEPS = 9


class Case:
    """Seven images, T = 9 steps of 3 images (so that a last chunk is smaller), in float64.

    Args:
        name: of the network.
        batch_syn: B.
        steps: T.
        kind: of the step's derivatives, uncompiled: by reverse mode, or `staged`, in closed form.
        micro_batch: images at a time.
        shape: (C, H, W).
    """

    def __init__(
        self,
        name: str,
        batch_syn: int = 3,
        steps: int = STEPS,
        kind: str = "reverse",
        micro_batch: int | None = None,
        shape: tuple[int, int, int] = (3, 12, 16),
    ) -> None:
        draws = generator(0, "case")
        self.network = flat_network(name, shape, 4)
        self.step = StudentStep(self.network, soft_cross_entropy, micro_batch=micro_batch)
        if kind == "staged":
            stages = self.network.stages()
            assert stages is not None
            object.__setattr__(self.step, "functions", Staged(self.network, stages, soft_cross_entropy))
        self.theta = self.network.initial(draws).double()
        self.target = self.theta + 0.05 * torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.images = torch.randn(7, *shape, generator=draws, dtype=torch.float64)
        self.labels = torch.randn(7, 4, generator=draws, dtype=torch.float64)
        self.syn_lr = torch.tensor(0.05, dtype=torch.float64)
        drawn = (draw_steps((7, *shape), batch_syn, steps, Dsa(), seed, 0) for seed in range(1000))
        self.draws = next(draws for draws in drawn if operations(draws) >= set(OPERATIONS[:steps]))

    def inner(self) -> InnerLoop:
        return InnerLoop(self.step, self.theta, self.draws)

    def loss(self, criterion: Criterion) -> MatchingLoss:
        return MatchingLoss(self.theta, self.target, criterion)

    def plan(self, criterion: Criterion) -> student.Plan:
        """The same for the oracles."""
        network = student.plain_convnet(self.network.name, 4)
        return student.Plan(network, self.theta, self.draws, self.images, self.labels, self.syn_lr, self.loss(criterion))

    def gradients(self, adjoint: Adjoint, criterion: Criterion) -> Gradients:
        return adjoint(self.inner(), self.images, self.labels, self.syn_lr, self.loss(criterion))[0]

    def value(self, images: Tensor, labels: Tensor, syn_lr: Tensor) -> float:
        return Exact()(self.inner(), images, labels, syn_lr, self.loss(KeepAll()))[0].loss.item()


def error(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).norm() / reference.norm()).item()


def same(found: Gradients, expected: Gradients | tuple[Tensor, Tensor, Tensor]) -> None:
    """L (where it is known) and its gradients by X, Y and η agree to 1e-10."""
    if isinstance(expected, Gradients):
        assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
        expected = expected.images, expected.labels, expected.syn_lr
    for value, reference in zip((found.images, found.labels, found.syn_lr), expected, strict=True):
        assert value.shape == reference.shape
        assert reference.norm() > 1e-6
        assert deviation(value, reference) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_unroll_equals_plain_back_propagation(name: str) -> None:
    case = Case(name)
    same(case.gradients(Unroll(), LowLossDropout(0.3)), student.truncated(case.plan(LowLossDropout(0.3)), STEPS))


@pytest.mark.parametrize("name", NAMES)
def test_exact_equals_unroll(name: str) -> None:
    case = Case(name)
    exact, unroll = case.gradients(Exact(), LowLossDropout(0.3)), case.gradients(Unroll(), LowLossDropout(0.3))
    assert operations(case.draws) == set(OPERATIONS)
    assert {len(draw.index) for draw in case.draws} == {1, 3}
    same(exact, unroll)


EVERY = range(STEPS + 2)


@pytest.mark.parametrize(
    ("name", "micro_batch", "kept"),
    [
        ("ConvNetD2-w8", None, EVERY),
        ("ConvNetD1-w4-groupnorm", 2, EVERY),  # parts of 2 and 1, and of 1
        ("ConvNetD2-w8-batchnorm", None, (1, STEPS)),
        ("ConvNetD2-w8-batchnorm-sigmoid", None, (2, 7)),
        ("ConvNetD2-w8-maxpool-leaky", 1, (0, 4)),
        ("ConvNetD1-w4-nopool-sigmoid", 2, (3, STEPS)),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_however_many_steps_are_kept(name: str, micro_batch: int | None, kept: Iterable[int], kind: str) -> None:
    """Several losses at once, so that what is kept is used more than once."""
    case, plain = Case(name, kind=kind, micro_batch=micro_batch), Case(name)
    criteria = (LowLossDropout(0.3), KeepAll())
    expected = [plain.gradients(Unroll(), criterion) for criterion in criteria]
    for number in kept:
        losses = [case.loss(criterion) for criterion in criteria]
        found = Exact(kept=number)(case.inner(), case.images, case.labels, case.syn_lr, *losses)
        for one, reference in zip(found, expected, strict=True):
            same(one, reference)


@pytest.mark.parametrize(("kind", "micro_batch"), [("reverse", None), ("staged", None), ("staged", 2)])
def test_images_that_are_padded_to_32_pixels(kind: str, micro_batch: int | None) -> None:
    """MNIST's 28×28, through the closed form and in parts as well."""
    case = Case("ConvNetD3-w4", kind=kind, micro_batch=micro_batch, shape=(1, 28, 28))
    expected = student.truncated(case.plan(LowLossDropout(0.3)), STEPS)
    same(case.gradients(Unroll(), LowLossDropout(0.3)), expected)
    for adjoint in (Exact(), Exact(kept=4), Truncated(steps=STEPS)):
        same(case.gradients(adjoint, LowLossDropout(0.3)), expected)
    same(case.gradients(Tesla(), LowLossDropout(0.3)), student.tesla(case.plan(LowLossDropout(0.3))))


@pytest.mark.parametrize("adjoint", [Exact, Truncated, Tesla])
def test_steps_kept_are_not_computed_again(adjoint: type[Exact | Truncated | Tesla], monkeypatch: pytest.MonkeyPatch) -> None:
    case, calls = Case("ConvNetD2-w8"), []
    functions = case.step.functions
    for name in ("gradient", "keep", "pullback", "pullback_kept", "pullback_data"):
        original = getattr(type(functions), name)
        monkeypatch.setattr(
            type(functions), name, lambda *args, name=name, original=original: calls.append(name) or original(*args)
        )
    case.gradients(adjoint(kept=2), KeepAll())
    expected = {
        Exact: ["gradient"] * 7 + ["keep"] * 2 + ["pullback_kept"] * 2 + ["pullback"] * 7,
        Truncated: ["gradient"] * 7 + ["keep"] * 2 + ["pullback_kept"] * 2 + ["pullback"] * 7,  # of ten steps all nine
        Tesla: ["gradient"] * 9 + ["pullback_data"] * 9,
    }
    assert calls == expected[adjoint]


@pytest.mark.parametrize("adjoint", [Exact(kept=2, on_host=True), Truncated(4, kept=2, on_host=True), Tesla(on_host=True)])
def test_where_the_checkpoints_wait_makes_no_difference(adjoint: Exact | Truncated | Tesla) -> None:
    case = Case("ConvNetD2-w8")
    near = dataclasses.replace(adjoint, on_host=False)
    assert (near.on_host, adjoint.on_host) == (False, True)
    same(case.gradients(adjoint, KeepAll()), case.gradients(near, KeepAll()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ConvNetD2-w8", "ConvNetD2-w8-batchnorm-maxpool-leaky"])
@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_truncated_leaves_out_the_steps_before(name: str, steps: int, kind: str) -> None:
    case = Case(name, kind=kind)
    expected = student.truncated(case.plan(LowLossDropout(0.3)), steps)
    for kept in (0, 1, steps, STEPS):
        same(case.gradients(Truncated(steps, kept=kept), LowLossDropout(0.3)), expected)
    whole = case.gradients(Exact(), LowLossDropout(0.3))
    assert error(whole.images, expected[0]) > 1e-3
    assert case.gradients(Truncated(steps=steps), LowLossDropout(0.3)).loss.item() == pytest.approx(whole.loss.item(), rel=1e-12)


@pytest.mark.parametrize("steps", [STEPS, STEPS + 3])
def test_truncated_after_all_steps_is_exact(steps: int) -> None:
    case = Case("ConvNetD2-w8", kind="staged", micro_batch=2)
    same(case.gradients(Truncated(steps, kept=3), KeepAll()), case.gradients(Exact(), KeepAll()))


def test_truncated_holds_the_checkpoints_of_its_own_steps_only() -> None:
    def peak(adjoint: Adjoint, steps: int) -> float:
        """In units of θ."""
        case = Case("ConvNetD1-w64", steps=steps)
        taken = measure(lambda: case.gradients(adjoint, KeepAll()), torch.device("cpu"))[1].peak
        return taken / (8 * case.network.num_parameters)

    assert peak(Exact(), 12) - peak(Exact(), 6) > 5
    assert peak(Truncated(steps=2), 12) - peak(Truncated(steps=2), 6) < 1


@pytest.mark.parametrize(("kind", "micro_batch"), [("reverse", None), ("staged", None), ("reverse", 2), ("staged", 2)])
@pytest.mark.parametrize("name", ["ConvNetD2-w8", "ConvNetD2-w8-nonorm-sigmoid", "ConvNetD1-w4-groupnorm-maxpool-leaky"])
def test_tesla_takes_the_cotangent_as_constant(name: str, kind: str, micro_batch: int | None) -> None:
    case = Case(name, kind=kind, micro_batch=micro_batch)
    expected = student.tesla(case.plan(LowLossDropout(0.3)))
    found, exact = (case.gradients(adjoint, LowLossDropout(0.3)) for adjoint in (Tesla(), Exact()))
    same(found, expected)
    assert found.loss.item() == pytest.approx(exact.loss.item(), rel=1e-12)
    assert error(found.images, exact.images) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_of_one_step_tesla_is_exact(kind: str) -> None:
    case = Case("ConvNetD2-w8-batchnorm", steps=1, kind=kind)
    same(case.gradients(Tesla(), KeepAll()), case.gradients(Exact(), KeepAll()))
    same(case.gradients(Truncated(steps=1), KeepAll()), case.gradients(Exact(), KeepAll()))


@pytest.mark.parametrize("adjoint", [Unroll(), Exact(kept=3), Truncated(4, kept=3), Tesla()])
def test_what_is_given_stays_as_it_is(adjoint: Adjoint) -> None:
    """Also where it requires gradients, as X does that a torch optimiser has updated."""
    case = Case("ConvNetD2-w8")
    given = [tensor.clone() for tensor in (case.theta, case.images, case.labels, case.syn_lr)]
    first = case.gradients(adjoint, KeepAll())
    for tensor in (case.images, case.labels, case.syn_lr):
        tensor.requires_grad_()
    second = case.gradients(adjoint, KeepAll())
    same(second, first)
    assert not any(value.requires_grad for value in (second.loss, second.images, second.labels, second.syn_lr))
    for tensor, before in zip((case.theta, case.images, case.labels, case.syn_lr), given, strict=True):
        assert torch.equal(tensor, before)
        assert tensor.grad is None


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

    assert slope("images", pixel) == pytest.approx(gradients.images[pixel].item(), rel=1e-6, abs=1e-11)
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
    augment = Dsa()
    few, many = (draw_steps((7, 3, 8, 8), 3, steps, augment, 5, 2) for steps in (4, 9))
    for a, b in zip(few, many[:4], strict=True):
        assert torch.equal(a.index, b.index)
        assert a.augmentation.operation == b.augmentation.operation


def test_every_permutation_is_used_up() -> None:
    draws = draw_steps((7, 3, 8, 8), 3, 9, Dsa(), 5, 2)
    assert [len(draw.index) for draw in draws] == [3, 3, 1] * 3
    for first in (0, 3, 6):
        assert sorted(torch.cat([draw.index for draw in draws[first : first + 3]]).tolist()) == list(range(7))
    assert [len(draw.index) for draw in draw_steps((7, 3, 8, 8), 100, 2, Dsa(), 5, 2)] == [7, 7]


@pytest.mark.parametrize(("count", "batch_syn"), [(7, 3), (7, 2), (50, 16), (6, 3), (5, 9)])
def test_the_small_chunk_may_come_first(count: int, batch_syn: int) -> None:
    """As of a list of chunks that is emptied from its end; without a small one nothing changes."""
    first, last = (
        [draw.index for draw in draw_steps((count, 3, 8, 8), batch_syn, 9, Dsa(), 5, 2, one)] for one in ("first", "last")
    )
    popped: list[int] = []
    while len(popped) < 9:
        popped += [len(chunk) for chunk in reversed(torch.arange(count).split(min(batch_syn, count)))]
    assert [len(index) for index in first] == popped[:9]
    used, all_first, all_last = min(9, -(-count // min(batch_syn, count))), torch.cat(first), torch.cat(last)
    assert sorted(torch.cat(first[:used]).tolist()) == list(range(count))
    if count % min(batch_syn, count) == 0:
        assert torch.equal(all_first, all_last)
    else:
        assert torch.equal(all_first[:count], all_last[:count])  # the same permutation, cut elsewhere


def test_compiled_equals_plain() -> None:
    case = Case("ConvNetD1-w4", batch_syn=7, steps=3)
    plain = case.gradients(Exact(), KeepAll())
    case.step = StudentStep(case.network, soft_cross_entropy, compiled=True)
    compiled = case.gradients(Exact(), KeepAll())
    assert error(compiled.images, plain.images) < 1e-10
    assert error(compiled.labels, plain.labels) < 1e-10
    assert error(compiled.syn_lr, plain.syn_lr) < 1e-10


def test_steps_that_are_not_asked_to_have_gradients_have_them() -> None:
    case = Case("ConvNetD1-w4-groupnorm")
    for adjoint in (Unroll(), Exact(), Exact(kept=2), Truncated(4), Tesla()):
        expected = case.gradients(adjoint, LowLossDropout(0.3))
        with torch.no_grad():
            same(case.gradients(adjoint, LowLossDropout(0.3)), expected)


def test_the_steps_of_a_truncation_may_be_said_without_their_name() -> None:
    assert Truncated(5).steps_back(9) == 5 and Truncated(5, kept=3) == Truncated(steps=5, kept=3)


@pytest.mark.parametrize("small", [True, False])
def test_one_thread_lies_between_steps_side_by_side_where_waking_others_costs_more(
    monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    """The loss, whose sums round as the threads split them, has all of them; so has whoever comes afterwards."""
    case, seen = Case("ConvNetD1-w4-nopool-sigmoid"), {}
    monkeypatch.setattr("limbeck.matching.adjoint.SMALL", case.theta.numel() + case.images[:3].numel() if small else 1)
    step, stages = StudentStep(case.network, soft_cross_entropy, compiled=True, lanes=2), case.network.stages()
    assert stages is not None
    object.__setattr__(step, "functions", Staged(case.network, stages, soft_cross_entropy))  # uncompiled, and one by one
    loss = MatchingLoss(case.theta, case.target)

    def terminal(theta: Tensor) -> Tensor:
        seen["loss"] = torch.get_num_threads()
        return loss(theta)

    def threads_of(applied: Applied) -> Applied:
        def noted(x: Tensor) -> Tensor:
            seen["between"] = torch.get_num_threads()
            return applied(x)

        return noted

    draws = draw_steps(case.images.shape, 3, STEPS, Dsa(), 0, 0)
    noted = [dataclasses.replace(draw, augmentation=threads_of(draw.augmentation)) for draw in draws]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        [found] = Exact()(InnerLoop(step, case.theta, noted), case.images, case.labels, case.syn_lr, terminal)
        assert torch.get_num_threads() == 3
        later: list[int] = []
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
    finally:
        torch.set_num_threads(before)
    assert seen == {"loss": 3, "between": 1 if small else 3} and later == [3]
    inner = InnerLoop(StudentStep(case.network, soft_cross_entropy), case.theta, draws)
    [expected] = Exact()(inner, case.images, case.labels, case.syn_lr, loss)
    assert deviation(found.images, expected.images) < 1e-12

"""One student step, compiled: one graph for each size and function, and what it gives is what it gives plainly."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from matching.one_step import CLASSES, At, error, everything, same, student
from torch import Tensor

from limbeck.augmentation import Dsa
from limbeck.augmentation_settings import OPERATIONS
from limbeck.losses import soft_cross_entropy
from limbeck.matching import steps
from limbeck.matching.adjoint import Exact, InnerLoop
from limbeck.matching.closed_form import Kept
from limbeck.matching.settings import Precision
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime.ahead import Ahead, Library, Traced
from limbeck.runtime.random import generator

opened: list[Traced] = []


def graphs() -> int:
    """How many graphs have been made so far."""
    return len(opened)


@pytest.fixture(autouse=True, scope="module")
def counted() -> Iterator[None]:
    """Graphs are counted, and none is computed through `torch.compile`."""
    usual = Ahead._opened

    def counting(self: Ahead, traced: Traced) -> Library:
        opened.append(traced)
        return usual(self, traced)

    def refused(*arguments: Any, **options: Any) -> Callable[..., Any]:
        return lambda *tensors: pytest.fail("it could not be compiled ahead of time")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Ahead, "_opened", counting)
        patched.setattr(steps, "compiled", refused)
        yield


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are traced as ever, but their graphs are run as they are: seconds instead of half a minute."""

    def as_it_is(self: Ahead, traced: Traced) -> Callable[..., Any]:
        opened.append(traced)
        return lambda tensors: traced.graph(*tensors)

    monkeypatch.setattr(Ahead, "_opened", as_it_is)


def iterate(step: StudentStep, shape: tuple[int, int, int, int], batch_syn: int | None, kept: int, iteration: int) -> set[str]:
    """One outer iteration of 12 steps from new θ, X and Y; which operations it drew."""
    draws = generator(0, "iterate", iteration)
    theta = step.network.initial(draws)
    images, labels = torch.randn(shape, generator=draws), torch.randn(shape[0], CLASSES, generator=draws)
    drawn = draw_steps(shape, batch_syn, 12, Dsa(), 0, iteration)
    inner = InnerLoop(step, theta, drawn)
    (found,) = Exact(kept=kept)(inner, images, labels, torch.tensor(0.05), lambda theta: theta.square().sum())
    assert found.images.isfinite().all()
    return {draw.augmentation.operation for draw in drawn}


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    ("shape", "batch_syn", "micro_batch", "kept", "sizes"),
    [
        ((8, 3, 8, 8), 5, 3, 5, {2, 3}),
        ((7, 1, 8, 8), 3, None, 0, {1, 3}),  # one image, or one channel: their strides have no meaning
        pytest.param((10, 3, 8, 8), None, 4, 5, {2}, marks=pytest.mark.slow),
        pytest.param((7, 1, 8, 8), 3, None, 5, {1, 3}, marks=pytest.mark.slow),
        pytest.param((12, 3, 8, 8), 7, 4, 5, {2, 3, 4}, marks=pytest.mark.slow),
        pytest.param((1, 3, 8, 8), None, None, 5, {1}, marks=pytest.mark.slow),
    ],
)
def test_one_graph_for_each_size_and_function(
    shape: tuple[int, int, int, int], batch_syn: int | None, micro_batch: int | None, kept: int, sizes: set[int]
) -> None:
    """Whatever permutations and augmentations are drawn, at whatever θ, λ and X."""
    network = flat_network("ConvNetD1-w4", shape[1:], CLASSES)
    step = StudentStep(network, soft_cross_entropy, compiled=True, micro_batch=micro_batch)
    batches = {len(draw.index) for draw in draw_steps(shape, batch_syn, 12, Dsa(), 0, 0)}
    assert {size for batch in batches for size in step.sizes(batch)} == sizes
    before = graphs()
    seen = iterate(step, shape, batch_syn, kept, 0)
    assert graphs() - before == (4 if kept else 2) * len(sizes)
    for iteration in range(1, 3):
        seen |= iterate(step, shape, batch_syn, kept, iteration)
    assert seen == set(OPERATIONS)
    assert graphs() - before == (4 if kept else 2) * len(sizes)


@pytest.mark.usefixtures("traced_only")
def test_one_graph_however_the_images_lie_in_memory() -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), CLASSES)
    step, at = StudentStep(network, soft_cross_entropy, compiled=True), At(network, 4, (3, 8, 8)).float()
    before, expected = graphs(), step.gradient(*at.point)
    ways = at.x.contiguous(memory_format=torch.channels_last), at.x.flip(3).flip(3), torch.cat([at.x, at.x], 3)[..., :8]
    for x, y in zip(ways, (at.y, at.y.t().contiguous().t(), torch.cat([at.y, at.y], 1)[:, :4]), strict=True):
        assert torch.equal(step.gradient(at.theta, x, y), expected)
    assert graphs() - before == 1


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("ConvNetD2-w4-groupnorm-maxpool-leaky", (3, 8, 8), "staged"),
        ("ConvNetD2-w4", (3, 10, 8), "reverse"),  # a pooling leaves out a row, so that there are no stages
    ],
)
def test_low_precision_is_traced_whole(name: str, shape: tuple[int, int, int], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are not in stages go through `torch.compile`, whose graphs are run as they are here, too."""
    monkeypatch.setattr(steps, "compiled", lambda function, *how, **more: torch.compile(function, fullgraph=True, backend="eager"))
    plain = student(name, shape, kind, precision="bf16")
    traced = StudentStep(plain.network, soft_cross_entropy, True, "bf16")
    at = At(plain.network, 3, shape).float()
    assert error(traced.gradient(*at.point), plain.gradient(*at.point)) < 1e-5
    found, expected = (step.pullback(*at.point, at.cotangent) for step in (traced, plain))
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert error(value, reference) < 1e-5


@pytest.fixture(scope="module")
def compiled() -> StudentStep:
    """A compiled step that the tests below share, of micro-batches of 2."""
    network = flat_network("ConvNetD1-w4", (3, 8, 8), CLASSES)
    return StudentStep(network, soft_cross_entropy, compiled=True, micro_batch=2)


def kept_products(step: StudentStep, at: At) -> list[tuple[str, Tensor]]:
    """g and what is made from what it keeps: two functions to compile. The others are compiled in `test_adjoint` and below."""
    gradient, kept = step.keep(*at.point)
    return [("g", gradient), *step.pullback(*at.point, at.cotangent, kept)._asdict().items()]


def test_compiled_equals_plain_in_single_precision(compiled: StudentStep) -> None:
    at = At(compiled.network, 4, (3, 8, 8)).float()
    found = kept_products(compiled, at)
    same(found, kept_products(StudentStep(compiled.network, soft_cross_entropy), at), 1e-4)
    assert all(value.dtype == torch.float32 for _, value in found)
    assert [type(part) for part in compiled.keep(*at.point)[1]] == [Kept, Kept]


def test_compiled_does_not_recompile(compiled: StudentStep) -> None:
    at = At(compiled.network, 4, (3, 8, 8)).float()
    kept_products(compiled, at)
    before = graphs()
    plain = StudentStep(compiled.network, soft_cross_entropy)
    for seed, operation in enumerate(OPERATIONS):
        at = At(compiled.network, 4, (3, 8, 8), seed).float()
        drawn = Dsa(operation).draw(generator(seed, "compiled"), at.x.shape)
        at.x = drawn(at.x[torch.randperm(4, generator=generator(seed, "order"))])
        same(kept_products(compiled, at), kept_products(plain, at), 1e-4)
    assert graphs() == before


def test_lanes_give_the_product_of_micro_batches(compiled: StudentStep) -> None:
    """Micro-batches side by side: each is computed alone and they are added in their order, whichever ends first."""
    at, threads = At(compiled.network, 6, (3, 8, 8)).float(), torch.get_num_threads()
    side_by_side = StudentStep(compiled.network, soft_cross_entropy, compiled=True, micro_batch=2, lanes=2)
    found = kept_products(side_by_side, at)
    same(found, kept_products(StudentStep(compiled.network, soft_cross_entropy), at), 1e-4)
    for _ in range(5):
        assert all(torch.equal(one, two) for (_, one), (_, two) in zip(found, kept_products(side_by_side, at), strict=True))
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "precision"),
    [
        ("ConvNetD2-w8-groupnorm-maxpool-leaky", (3, 8, 12), "fp32"),
        ("ConvNetD2-w8-batchnorm-sigmoid", (3, 8, 12), "fp32"),
        ("ConvNetD2-w8-nonorm-nopool", (3, 8, 12), "fp32"),
        ("ConvNetD1-w4-nonorm-sigmoid", (3, 8, 12), "bf16"),
        ("ConvNetD3-w4", (1, 28, 28), "fp32"),  # padded to 32×32
    ],
)
def test_other_compiled_steps_equal_plain(name: str, shape: tuple[int, int, int], precision: Precision) -> None:
    """All five functions."""
    network = flat_network(name, shape, CLASSES)
    step = StudentStep(network, soft_cross_entropy, True, precision, None if "batchnorm" in name else 3)
    plain = StudentStep(network, soft_cross_entropy)
    before = graphs()
    for seed in range(3):
        at = At(network, 6, shape, seed).float()
        same(everything(step, at), everything(plain, at), 1e-4 if precision == "fp32" else 0.02)
    assert graphs() - before == 5

"""One student step: in micro-batches, in low precision and compiled it gives what it gives plainly."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference.student import plain_convnet, products
from torch import Tensor
from torch._dynamo.utils import counters

from limbeck.augmentation import Dsa
from limbeck.augmentation_settings import OPERATIONS
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Exact, InnerLoop
from limbeck.matching.closed_form import Kept, Staged
from limbeck.matching.derivatives import Pulled
from limbeck.matching.settings import Precision
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks import micro_batches
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.random import generator

KINDS = ("reverse", "staged")
CLASSES = 4


def student(name: str, shape: tuple[int, int, int] = (3, 8, 12), kind: str = "reverse", **options: Any) -> StudentStep:
    """An uncompiled step, by reverse mode or in closed form."""
    step = StudentStep(flat_network(name, shape, CLASSES), soft_cross_entropy, **options)
    if kind == "staged":
        stages = step.network.stages(torch.bfloat16 if options.get("precision") == "bf16" else None)
        assert stages is not None
        object.__setattr__(step, "functions", Staged(step.network, stages, soft_cross_entropy))
    return step


class At:
    """θ with norms that scale and shift, λ, and B images with labels."""

    def __init__(self, network: FlatNetwork, batch: int, shape: tuple[int, ...] = (3, 8, 12), seed: int = 0) -> None:
        draws = generator(seed, "at", batch)
        self.theta = network.initial(draws).double()
        self.theta += 0.1 * torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.cotangent = torch.randn(self.theta.shape, generator=draws, dtype=torch.float64)
        self.x = torch.randn(batch, *shape, generator=draws, dtype=torch.float64)
        self.y = torch.randn(batch, CLASSES, generator=draws, dtype=torch.float64)

    def float(self) -> "At":
        for name in ("theta", "cotangent", "x", "y"):
            setattr(self, name, getattr(self, name).float())
        return self

    @property
    def point(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.theta, self.x, self.y


def error(value: Tensor, reference: Tensor) -> float:
    assert value.shape == reference.shape
    assert reference.norm() > 1e-6
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()


def everything(step: StudentStep, at: At) -> list[tuple[str, Tensor]]:
    """What each function of a step gives."""
    gradient, kept = step.keep(*at.point)
    found: list[tuple[str, Tensor]] = [("g", step.gradient(*at.point)), ("g kept", gradient)]
    ways: dict[str, Callable[[], Pulled]] = {
        "again": lambda: step.pullback(*at.point, at.cotangent),
        "kept": lambda: step.pullback(*at.point, at.cotangent, kept),
        "data": lambda: step.pullback(*at.point, at.cotangent, by_theta=False),
    }
    for way, pull in ways.items():
        pulled = pull()
        found += [(f"{part} {way}", value.clone()) for part, value in pulled._asdict().items() if (way, part) != ("data", "theta")]
        assert (len(pulled.theta) == 0) == (way == "data")
    assert not any(value.requires_grad for _, value in found)
    return found


def same(found: list[tuple[str, Tensor]], expected: list[tuple[str, Tensor]], tolerance: float) -> None:
    for (name, value), (expected_name, reference) in zip(found, expected, strict=True):
        assert name == expected_name
        assert error(value, reference) < tolerance, name


# Micro-batches


@given(st.integers(1, 60), st.integers(1, 70))
@example(8, 5)
@example(7, 3)
def test_sizes_of_micro_batches(batch: int, micro_batch: int) -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), CLASSES)
    sizes = StudentStep(network, soft_cross_entropy, micro_batch=micro_batch).sizes(batch)
    assert sum(sizes) == batch
    assert 1 <= min(sizes) <= max(sizes) <= micro_batch
    assert max(sizes) - min(sizes) <= 1
    # Equal, in the fewest, where some number of fewer than twice the fewest possible divides the batch; else the fewest.
    least = -(-batch // micro_batch)
    even = [count for count in range(least, 2 * least) if batch % count == 0]
    assert len(sizes) == (even[0] if even else least)


def test_without_micro_batches_a_batch_is_whole() -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), CLASSES)
    assert StudentStep(network, soft_cross_entropy).sizes(7) == [7]
    assert StudentStep(network, soft_cross_entropy, micro_batch=4).sizes(8) == [4, 4]
    assert StudentStep(network, soft_cross_entropy, micro_batch=5).sizes(9) == [3, 3, 3]
    assert StudentStep(network, soft_cross_entropy, micro_batch=3).sizes(7) == [3, 2, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ConvNetD2-w8", "ConvNetD2-w8-groupnorm-maxpool-leaky", "ConvNetD2-w8-nonorm-sigmoid"])
@given(st.integers(1, 9), st.sampled_from([1, 2, 3, 5, 7, 9, 20]))
@example(7, 3)
@example(9, 1)
@settings(max_examples=8, deadline=None)
def test_micro_batches_give_what_the_whole_batch_gives(name: str, kind: str, batch: int, micro_batch: int) -> None:
    whole, parts = student(name, kind=kind), student(name, kind=kind, micro_batch=micro_batch)
    at = At(whole.network, batch)
    same(everything(parts, at), everything(whole, at), 1e-10)
    assert len(parts.keep(*at.point)[1]) == len(parts.sizes(batch))


def test_each_micro_batch_is_as_small_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a budget of memory would not be kept."""
    step = student("ConvNetD2-w8", micro_batch=3)
    at, seen = At(step.network, 8), []
    original = FlatNetwork.__call__
    monkeypatch.setattr(FlatNetwork, "__call__", lambda self, theta, x: seen.append(len(x)) or original(self, theta, x))
    everything(step, at)
    assert seen == [2] * 4 * 4  # keep, gradient, pullback, and pullback of the data; from what is kept, nothing is computed again


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_equal_plain_back_propagation(kind: str) -> None:
    step = student("ConvNetD2-w8-groupnorm", kind=kind, micro_batch=3)
    at = At(step.network, 7)
    expected = products(plain_convnet(step.network.name, CLASSES), *at.point, at.cotangent)
    pulled = step.pullback(*at.point, at.cotangent)
    assert error(step.gradient(*at.point), expected.gradient) < 1e-10
    for name, value in pulled._asdict().items():
        assert error(value, getattr(expected, name)) < 1e-10, name


def test_the_value_is_that_of_the_whole_batch() -> None:
    step = student("ConvNetD2-w8", micro_batch=2)
    at = At(step.network, 5)
    assert step.value(*at.point).item() == pytest.approx(soft_cross_entropy(step.network(at.theta, at.x), at.y).item(), rel=1e-12)


def test_batch_norm_is_not_taken_in_parts() -> None:
    with pytest.raises(ValueError, match=r"^ConvNetD2-w8-batchnorm has batch norm"):
        student("ConvNetD2-w8-batchnorm", micro_batch=2)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_given_is_written_to(kind: str) -> None:
    step = student("ConvNetD2-w8", kind=kind, micro_batch=2)
    at = At(step.network, 5)
    before = [value.clone() for value in (*at.point, at.cotangent)]
    first = everything(step, at)
    assert all(torch.equal(a, b) for a, b in zip((*at.point, at.cotangent), before, strict=True))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(everything(step, at), first, strict=True))


# Precision


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ConvNetD2-w8", "ConvNetD2-w8-batchnorm-maxpool-leaky", "ConvNetD2-w8-nonorm-sigmoid"])
def test_bfloat16_stays_close_and_returns_float32(name: str, kind: str) -> None:
    exact, rounded = student(name, kind=kind), student(name, kind=kind, precision="bf16")
    at = At(exact.network, 8).float()
    near = exact.gradient(*at.point).norm() * at.cotangent.norm()
    errors = []
    for (part, value), (_, reference) in zip(everything(rounded, at), everything(exact, at), strict=True):
        assert value.dtype == torch.float32, part
        errors.append(error(value, reference))
        if part.startswith("slope"):  # ⟨g, λ⟩ of a λ that is nearly orthogonal to g: its error is one of ‖g‖ ‖λ‖
            assert (value - reference).abs() < 0.005 * near, part
        else:
            assert torch.cosine_similarity(value.flatten(), reference.flatten(), dim=0) > 0.98, part
            assert value.norm().item() == pytest.approx(reference.norm().item(), rel=0.05), part
    assert max(errors) > 1e-3  # else the lower precision was not used


def test_the_loss_of_rounded_logits_is_not_rounded() -> None:
    step = student("ConvNetD2-w8", precision="bf16")
    at = At(step.network, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = step.network(at.theta, at.x)
    assert logits.dtype == torch.bfloat16
    assert step.value(*at.point).item() == soft_cross_entropy(logits.float(), at.y).item()
    assert step.value(*at.point).item() != soft_cross_entropy(logits, at.y).item()


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_is_single_precision(kind: str) -> None:
    step = student("ConvNetD2-w8", kind=kind)
    at = At(step.network, 6)
    expected = everything(step, at)
    found = everything(step, at.float())
    assert all(value.dtype == torch.float32 for _, value in found)
    same(found, expected, 1e-4)


# Compiled


def graphs() -> int:
    """How many graphs have been made so far."""
    return int(counters["stats"]["unique_graphs"])


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps are traced and guarded as ever, but their graphs are run as they are: seconds instead of half a minute."""

    compile = torch.compile

    def traced(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        backend = {"backend": "eager", "options": None}
        return compile(function, **{**options, **backend})

    monkeypatch.setattr(torch, "compile", traced)
    torch.compiler.reset()  # the limit on recompilations counts over all tests
    yield
    torch.compiler.reset()


def iterate(step: StudentStep, shape: tuple[int, int, int, int], batch_syn: int | None, kept: int, iteration: int) -> set[str]:
    """One outer iteration of 12 steps from new θ, X and Y; which operations it drew."""
    draws = generator(0, "iterate", iteration)
    theta = step.network.initial(draws)
    images, labels = torch.randn(shape, generator=draws), torch.randn(shape[0], CLASSES, generator=draws)
    steps = draw_steps(shape, batch_syn, 12, Dsa(), 0, iteration)
    inner = InnerLoop(step, theta, steps)
    (found,) = Exact(kept)(inner, images, labels, torch.tensor(0.05), lambda theta: theta.square().sum())
    assert found.images.isfinite().all()
    return {draw.augmentation.operation for draw in steps}


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
def test_low_precision_is_traced_whole(name: str, shape: tuple[int, int, int], kind: str) -> None:
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
    torch.compiler.reset()
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


@pytest.mark.parametrize(
    ("batch", "micro_batch", "lanes", "sizes"),
    [
        (10, 5, 2, [5, 5]),
        (100, 32, 2, [25] * 4),
        (100, 7, 16, [4] * 25),
        (100, 13, 8, [13] * 4 + [12] * 4),  # ten of ten would need two rounds
        (12, 5, 2, [3] * 4),
        (12, None, 3, [12]),
        (3, 5, 4, [3]),
    ],
)
def test_sizes_of_micro_batches_in_lanes(batch: int, micro_batch: int | None, lanes: int, sizes: list[int]) -> None:
    assert micro_batches.sizes(batch, micro_batch, lanes) == sizes


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
    torch.compiler.reset()
    network = flat_network(name, shape, CLASSES)
    step = StudentStep(network, soft_cross_entropy, True, precision, None if "batchnorm" in name else 3)
    plain = StudentStep(network, soft_cross_entropy)
    before = graphs()
    for seed in range(3):
        at = At(network, 6, shape, seed).float()
        same(everything(step, at), everything(plain, at), 1e-4 if precision == "fp32" else 0.02)
    assert graphs() - before == 5


def test_every_seed_iteration_and_permutation_has_draws_of_its_own() -> None:
    def order(seed: int, iteration: int) -> list[tuple[int, ...]]:
        drawn = draw_steps((40, 3, 8, 8), None, 3, Dsa(), seed, iteration)
        return [tuple(draw.index.tolist()) for draw in drawn]

    all_of_them = [index for seed in range(3) for iteration in range(3) for index in order(seed, iteration)]
    assert len(set(all_of_them)) == len(all_of_them) == 27  # of 40! orders
    assert order(1, 2) == order(1, 2)

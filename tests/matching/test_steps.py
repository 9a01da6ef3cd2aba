"""One student step: in micro-batches and in low precision it gives what it gives plainly."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matching.one_step import CLASSES, KINDS, At, error, everything, same, student
from reference.student import plain_convnet, products

from limbeck.augmentation import Dsa
from limbeck.losses import soft_cross_entropy
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks import micro_batches
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.errors import UsageError

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


def test_every_seed_iteration_and_permutation_has_draws_of_its_own() -> None:
    def order(seed: int, iteration: int) -> list[tuple[int, ...]]:
        drawn = draw_steps((40, 3, 8, 8), None, 3, Dsa(), seed, iteration)
        return [tuple(draw.index.tolist()) for draw in drawn]

    all_of_them = [index for seed in range(3) for iteration in range(3) for index in order(seed, iteration)]
    assert len(set(all_of_them)) == len(all_of_them) == 27  # of 40! orders
    assert order(1, 2) == order(1, 2)


@pytest.mark.parametrize(("batch", "steps", "said"), [(0, 3, "batch_syn: 0"), (-3, 3, "batch_syn: -3"), (None, 0, "steps: 0")])
def test_draws_of_nothing_are_refused(batch: int | None, steps: int, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said} is not at least 1$"):
        draw_steps((4, 3, 8, 8), batch, steps, Dsa(), 0, 0)


def test_steps_that_are_not_compiled_do_not_go_side_by_side() -> None:
    """Two threads that called one module with parameters of their own gave wrong gradients, now and then."""
    with pytest.raises(ValueError, match=r"^2 lanes would take turns with the parameters of one module"):
        StudentStep(flat_network("ConvNetD1-w4", (3, 8, 8), 4), soft_cross_entropy, lanes=2)

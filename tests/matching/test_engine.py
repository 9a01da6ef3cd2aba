"""Setting the engine up: what is decided, and that the budget holds."""

import dataclasses
import re

import pytest
import torch

from limbeck.augmentation import Dsa
from limbeck.matching.adjoint import Exact, InnerLoop, Tesla, Truncated, Unroll
from limbeck.matching.criteria import KeepAll
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.engine import (
    FEW_STEPS,
    Arrangement,
    Problem,
    _dearest,
    _guess,
    check_engine,
    decide,
    kept_bytes,
    prepare,
    unrolled_bytes,
    within_budget,
)
from limbeck.matching.settings import EngineSettings
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.networks.micro_batches import automatic_lanes, automatic_micro_batch, output_sizes
from limbeck.runtime.ahead import Ahead
from limbeck.runtime.devices import undisturbed
from limbeck.runtime.errors import UsageError
from limbeck.runtime.memory import measure
from limbeck.runtime.progress import NoProgress

CPU = torch.device("cpu")


class Said(NoProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def problem(name: str = "ConvNetD2-w8", count: int = 12, steps: int = 3, iterations: int = 10) -> Problem:
    network = flat_network(name, (3, 16, 16), 4)
    return Problem(network, (count, 3, 16, 16), 4, [count], steps, iterations)


@pytest.fixture
def single():
    """Bytes are counted of single precision, which is what runs compute in."""
    with undisturbed():
        yield


def iteration(case: Problem, step, adjoint):
    theta, x, y, direction = case.example(case.shape[0])
    draws = draw_steps(case.shape, None, case.steps, Dsa(), 0, 0)
    loss = MatchingLoss(theta, theta + 0.01 * direction, KeepAll())
    return adjoint(InnerLoop(step, theta, draws), x, y, torch.tensor(0.02), loss)[0]


@pytest.mark.parametrize("given", [Exact(), Unroll(), Tesla(), Truncated(steps=2)])
def test_a_small_problem_is_left_as_it_is(given):
    step, adjoint, decided = prepare(problem(), given, EngineSettings(), NoProgress())
    assert adjoint == given
    assert decided == Arrangement(compiled=False)  # so few steps are not worth a compilation
    assert torch.isfinite(iteration(problem(), step, adjoint).images).all()


@pytest.mark.parametrize("memory", ["1.2MB", "2MB", "4MiB", "1GB"])
@pytest.mark.parametrize("given", [Exact(), Tesla()])
@pytest.mark.usefixtures("single")
def test_a_gradient_stays_within_the_budget(memory, given):
    settings = EngineSettings(memory=memory)
    case = problem(count=24, steps=5)
    step, adjoint, decided = prepare(case, given, settings, NoProgress())
    gradients, taken = measure(lambda: iteration(case, step, adjoint), CPU)
    assert taken.peak <= settings.budget()
    whole, reference, _ = prepare(case, given, EngineSettings(), NoProgress())
    expected = iteration(case, whole, reference)
    assert (gradients.images - expected.images).norm() < 1e-4 * expected.images.norm()
    assert decided.micro_batch is None if memory == "1GB" else memory != "1.2MB" or decided.micro_batch < 12


def test_a_small_budget_makes_small_micro_batches():
    case = problem(count=24)
    small, large = (prepare(case, Exact(), EngineSettings(memory=memory), NoProgress())[2] for memory in ("1.2MB", "1GB"))
    assert small.micro_batch < 12
    assert large.micro_batch is None


def test_a_budget_that_one_image_exceeds_is_refused_with_what_would_do():
    case = problem(count=24)
    with pytest.raises(UsageError, match=r"^engine\.memory: '50kB' is not at least [1-9]\d*MiB for this problem$"):
        prepare(case, Exact(), EngineSettings(memory="50kB"), NoProgress())
    with pytest.raises(UsageError, match=r"with engine\.micro_batch as it is"):
        prepare(case, Exact(), EngineSettings(memory="50kB", micro_batch=4), NoProgress())


def work_of(case: Problem, adjoint, step: StudentStep) -> int:
    """1 MiB an image that is computed."""
    return step.lanes * max(step.sizes(max(case.batches))) * 2**20


@pytest.fixture
def counted(monkeypatch):
    """The engine without a compiler and without measuring."""
    monkeypatch.setattr("limbeck.matching.engine._work", work_of)
    monkeypatch.setattr("limbeck.matching.engine._compile", lambda *arguments: True)
    monkeypatch.setattr("limbeck.matching.engine.automatic_lanes", lambda *arguments: 8)
    return monkeypatch


def fixed_mib(case: Problem) -> float:
    refused = re.search(r"at least (\d+)MiB", refusal(case, "1kB"))
    return int(refused[1]) - 1  # of which one image takes one


def refusal(case: Problem, memory: str) -> str:
    with pytest.raises(UsageError) as error:
        prepare(case, Exact(), EngineSettings(memory=memory, compile="yes"), NoProgress())
    return str(error.value)


def test_lanes_are_given_up_where_one_image_in_each_is_too_much(counted):
    case = problem(count=24)
    for images, lanes in ((8, 8), (5, 4), (2, 2), (1, 1)):
        settings = EngineSettings(memory=f"{fixed_mib(case) + images}MiB", compile="yes")
        decided = prepare(case, Exact(), settings, NoProgress())[2]
        assert (decided.lanes, decided.micro_batch) == (lanes, 1)


def test_what_a_refusal_says_would_do_does(counted):
    case = problem(count=24)
    for memory in ("1kB", "100kB"):
        least = re.search(r"at least (\d+MiB) for", refusal(case, memory))[1]
        prepare(case, Exact(), EngineSettings(memory=least, compile="yes"), NoProgress())
    counted.setattr("limbeck.matching.engine.on_gpu", lambda device: True)
    for steps in (1, 40, 4000):  # θ_n that wait on the host, or must where there is little room
        case = problem(count=24, steps=steps)
        least = re.search(r"at least (\d+MiB) for", refusal(case, "1kB"))[1]
        assert prepare(case, Exact(), EngineSettings(memory=least, compile="yes"), NoProgress())[2].micro_batch == 1


def test_a_guess_counts_what_is_computed_at_once():
    case = problem(count=24)
    one = _guess(case, Arrangement(compiled=True, micro_batch=1))
    assert _guess(case, Arrangement(compiled=True, micro_batch=1, lanes=8)) == 8 * one
    assert _guess(case, Arrangement(compiled=True, micro_batch=10, lanes=8)) == _guess(case, Arrangement(compiled=True)) == 24 * one


def test_a_smaller_micro_batch_that_does_not_compile_runs_uncompiled(counted):
    counted.setattr("limbeck.matching.engine._compile", lambda problem, adjoint, step, *rest: max(step.sizes(24)) > 2)
    case = problem(count=24)
    settings = EngineSettings(memory=f"{fixed_mib(case) + 2}MiB", compile="yes")
    _, _, decided = prepare(case, Exact(), settings, NoProgress())
    assert not decided.compiled and decided.lanes * decided.micro_batch <= 2


def test_an_arrangement_is_repeated():
    decided = Arrangement(compiled=False, micro_batch=5)
    step, _, again = prepare(problem(), Exact(), EngineSettings(memory="50kB"), NoProgress(), decided)
    assert again == decided
    assert step.sizes(12) == [4, 4, 4]


def test_work_is_that_of_the_largest_micro_batches() -> None:
    """A batch of 116 images goes by 15 where one of 128 goes by 8, and takes more memory."""
    case = dataclasses.replace(problem(), batches=[116, 128])
    step = StudentStep(case.network, case.loss, micro_batch=15)
    assert (max(step.sizes(128)), max(step.sizes(116))) == (8, 15)
    assert _dearest(case, step) == 116
    assert _dearest(case, dataclasses.replace(step, micro_batch=None)) == 128


def test_batch_norm_is_never_split():
    case = problem("ConvNetD2-w8-batchnorm")
    assert automatic_micro_batch(case.network, (3, 16, 16), CPU) is None
    check_engine(EngineSettings(), case.network, CPU)
    with pytest.raises(UsageError, match=r"^engine\.micro_batch: 4 is not auto: batch norm takes"):
        check_engine(EngineSettings(micro_batch=4), case.network, CPU)
    assert check_engine(EngineSettings(micro_batch=4), case.network, CPU, steps=False) == []


def test_tf32_needs_cuda():
    with pytest.raises(UsageError, match=r"^engine\.precision: 'tf32' is not fp32 or bf16 on a CPU$"):
        check_engine(EngineSettings(precision="tf32"), problem().network, CPU)


class Parts(torch.nn.Module):
    """Modules that give a dictionary, a tuple and nothing by images."""

    class Named(torch.nn.Module):
        def forward(self, x):
            return {"x": x, "half": (x[:, :1], None)}

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean()

    def __init__(self):
        super().__init__()
        self.named, self.mean, self.last = self.Named(), self.Mean(), torch.nn.Linear(3 * 16 * 16, 4)

    def forward(self, x):
        return self.last(self.named(x)["x"].flatten(1)) + self.mean(x)


def test_what_modules_give_is_counted_by_images_whatever_it_is():
    network = flat_network(Parts(), (3, 16, 16), 4)
    assert output_sizes(network, (3, 16, 16)) == [3 * 256 + 256, 4, 0, 4]
    case = Problem(network, (12, 3, 16, 16), 4, [12], 3, 10)
    assert prepare(case, Exact(), EngineSettings(), NoProgress())[2] == Arrangement(compiled=False)


def test_images_that_are_padded_count_as_they_are_then():
    """MNIST's 28×28 have the activations, and nearly the memory, of 32×32 pixels."""
    small, large = (flat_network("ConvNetD3-w64", (1, side, side), 10) for side in (28, 32))
    assert output_sizes(small, (1, 28, 28)) == output_sizes(large, (1, 32, 32))
    assert automatic_micro_batch(small, (1, 28, 28), CPU) == automatic_micro_batch(large, (1, 32, 32), CPU) == 32
    taken = []
    for network, side in ((small, 28), (large, 32)):
        case = Problem(network, (12, 1, side, side), 10, [12], 3, 10)
        step, adjoint, _ = prepare(case, Exact(), EngineSettings(), NoProgress())
        taken.append(measure(lambda case=case, step=step, adjoint=adjoint: iteration(case, step, adjoint), CPU)[1].peak)
    assert taken[0] == pytest.approx(taken[1], rel=0.02)


def test_automatic_micro_batches_fit_the_cache():
    network = flat_network("ConvNetD3-w64", (3, 32, 32), 10)
    assert automatic_micro_batch(network, (3, 32, 32), CPU) == 32  # 32 · 64 · 32² · 4 bytes are 8 MiB
    assert automatic_micro_batch(flat_network("ConvNetD5-w128", (3, 256, 256), 10), (3, 256, 256), CPU) == 1


@pytest.mark.parametrize(
    ("name", "batch", "threads", "lanes"),
    [
        ("ConvNetD3-w32", 10, 2, 2),
        ("ConvNetD3-w32", 10, 16, 2),  # four images of 128 KiB are the least that a lane is worth
        ("ConvNetD3-w64", 100, 16, 16),
        ("ConvNetD3-w64", 100, 1, 1),
        ("ConvNetD3-w32", 3, 8, 1),
        ("ConvNetD3-w32-batchnorm", 100, 8, 1),
    ],
)
def test_lanes_by_count(monkeypatch, name, batch, threads, lanes):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    network = flat_network(name, (3, 32, 32), 10)
    assert automatic_lanes(network, (3, 32, 32), CPU, batch) == lanes
    case = Problem(network, (batch, 3, 32, 32), 10, [batch], 30, 1000)
    decided = decide(case, Exact(), EngineSettings(compile="yes"))
    assert decided.lanes == (15 if lanes == 16 else lanes)  # fifteen times seven are a hundred too
    assert decided.micro_batch is None or decided.micro_batch * lanes >= batch or decided.micro_batch == 32


@pytest.mark.usefixtures("single")
def test_small_steps_are_all_kept_and_large_ones_none():
    """Bytes by count: z and the gradient by x' of every stage, so that what is decided does not hang on a timing."""
    for width, count, steps, kept in (32, 10, 30, 30), (32, 100, 30, 0), (64, 10, 40, 40), (32, 10, 200, 0):
        case = Problem(flat_network(f"ConvNetD3-w{width}", (3, 32, 32), 10), (count, 3, 32, 32), 10, [count], steps, 1000)
        z = count * (width * (32**2 + 16**2 + 8**2) + 10)
        gx = count * (width * (16**2 + 8**2 + 4**2) + 10)
        assert kept_bytes(case, EngineSettings()) == 4 * (z + gx)
        assert decide(case, Exact(), EngineSettings(compile="yes")).kept == kept
        assert decide(case, Tesla(), EngineSettings(compile="yes")).kept == 0
    assert decide(case, Truncated(steps=5), EngineSettings(compile="yes")).kept == 5
    assert decide(case, Exact(), EngineSettings(compile="no")).kept == 0


def test_a_budget_is_filled_with_kept_steps_by_count():
    case = Problem(flat_network("ConvNetD3-w32", (3, 32, 32), 10), (100, 3, 32, 32), 10, [100], 30, 1000)
    each = kept_bytes(case, EngineSettings())

    def kept(megabytes: int, adjoint=Exact(), **more):
        settings = EngineSettings(compile="yes", memory=f"{megabytes}MB", **more)
        return within_budget(case, adjoint, settings, decide(case, adjoint, settings)).kept

    first = next(size for size in range(1, 10000) if kept(size))
    assert kept(first) == 1 and kept(first - 1) == 0
    assert [kept(first + 1 + k * each // 10**6) for k in (1, 2, 7)] == [2, 3, 8]
    assert kept(10**6) == 30 and kept(10**6, Truncated(steps=5)) == 5 and kept(10**6, Tesla()) == 0
    plain = EngineSettings(compile="yes")
    decided = decide(case, Exact(), plain)
    assert within_budget(case, Exact(), plain, decided) is decided


def test_what_is_compiled_and_split_is_what_is_asked_for():
    """Compiled from 5000 steps on; micro-batches as given, none where one holds all; a precision noted that was not named."""
    small, large = problem(steps=5, iterations=999), problem(steps=5, iterations=1000)
    assert [decide(case, Exact(), EngineSettings()).compiled for case in (small, large)] == [False, True]
    for micro_batch, uncompiled, compiled in ((5, 5, 5), (11, 11, 11), (12, 12, None), (99, 99, None)):
        for compile, expected in (("no", uncompiled), ("yes", compiled)):
            decided = decide(small, Exact(), EngineSettings(compile=compile, micro_batch=micro_batch))
            assert (decided.compiled, decided.micro_batch) == (compile == "yes", expected)
            assert decided.lanes == (
                min(automatic_lanes(small.network, (3, 16, 16), CPU, 12), -(-12 // micro_batch)) if expected else 1
            )
    for adjoint in (Exact(), Unroll()):
        assert decide(small, adjoint, EngineSettings(precision="auto")).precision in ("fp32", "bf16")
        assert decide(small, adjoint, EngineSettings(precision="fp32")).precision is None


def test_a_network_with_dropout_is_refused_by_its_name(monkeypatch):
    network = problem().network
    monkeypatch.setattr(type(network), "has_dropout", True)
    with pytest.raises(UsageError, match=r"^network: 'ConvNetD2-w8' is not a network without dropout"):
        check_engine(EngineSettings(), network, CPU)
    assert check_engine(EngineSettings(), network, CPU, steps=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["auto", "1GB", "3MB"])
def test_lanes_give_the_same_gradient(monkeypatch, memory):
    monkeypatch.setattr("limbeck.matching.engine.automatic_lanes", lambda *arguments: 2)
    case = problem(count=8)
    step, adjoint, decided = prepare(case, Exact(), EngineSettings(compile="yes", memory=memory), NoProgress())
    assert decided.lanes == 2
    assert memory == "3MB" or (decided.micro_batch, decided.kept) == (4, 3)
    plain, exact, _ = prepare(case, Exact(), EngineSettings(compile="no"), NoProgress())
    found, expected = iteration(case, step, adjoint).images, iteration(case, plain, exact).images
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_no_compiler_is_a_warning_and_the_same_gradient(monkeypatch):
    def broken(*arguments, **options):
        def call(*arguments):
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(Ahead, "_opened", broken())
    case = problem()
    said = Said()
    step, adjoint, decided = prepare(case, Exact(), EngineSettings(compile="yes"), said)
    assert said.lines == ["warning: the step could not be compiled and runs uncompiled (RuntimeError)"]
    assert not decided.compiled
    plain, exact, _ = prepare(case, Exact(), EngineSettings(compile="no"), NoProgress())
    assert torch.equal(iteration(case, step, adjoint).images, iteration(case, plain, exact).images)


def test_a_compiler_that_cannot_do_lanes_does_one_micro_batch_after_the_other(monkeypatch):
    compile = torch.compile

    def broken_outside_the_lock(function, **options):
        def call(*arguments):
            raise RuntimeError("no C++ wrapper")

        whole = compile(function, fullgraph=True, dynamic=False, backend="eager")
        return call if options["options"].get("cpp_wrapper") else whole

    def no_library(self, traced):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken_outside_the_lock)
    monkeypatch.setattr(Ahead, "_opened", no_library)
    monkeypatch.setattr("limbeck.matching.engine.automatic_lanes", lambda *arguments: 2)
    case = problem()
    said = Said()
    step, adjoint, decided = prepare(case, Exact(), EngineSettings(compile="yes"), said)
    then = "is compiled for one micro-batch after the other"
    assert said.lines == [f"warning: the step could not be compiled and {then} (RuntimeError)"]
    assert (decided.compiled, decided.lanes, decided.micro_batch, decided.kept) == (True, 1, 6, 3)
    plain, exact, _ = prepare(case, Exact(), EngineSettings(compile="no"), NoProgress())
    found, expected = iteration(case, step, adjoint).images, iteration(case, plain, exact).images
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.slow
def test_a_budget_decides_how_many_steps_are_kept():
    """Kept steps fill what the budget leaves, and the gradient is that of any other split."""
    case = dataclasses.replace(problem("ConvNetD3-w16", 20, 6), shape=(20, 3, 16, 16))
    gradients, kept = [], []
    for memory in ("3MB", "8MB", "1GB"):
        settings = EngineSettings(memory=memory, compile="yes")
        step, adjoint, decided = prepare(case, Exact(), settings, NoProgress())
        result, taken = measure(lambda step=step, adjoint=adjoint: iteration(case, step, adjoint), CPU)
        assert taken.peak <= settings.budget()
        gradients.append(result.images)
        kept.append(decided.kept)
    assert kept == sorted(kept)
    assert kept[-1] == 6
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).norm() < 1e-4 * gradients[0].norm()


def test_the_bytes_of_an_unroll_grow_by_the_same_for_every_step() -> None:
    """Also where the network and the steps are few: two are counted, and the rest follows."""
    first, second, third, tenth = (unrolled_bytes(problem(steps=steps)) for steps in (FEW_STEPS, FEW_STEPS + 1, FEW_STEPS + 2, 10))
    assert 0 < first < second and third - second == second - first
    assert tenth == first + (10 - FEW_STEPS) * (second - first)
    assert unrolled_bytes(problem(steps=1)) == first  # no fewer than are counted
    assert unrolled_bytes(problem(count=24, steps=3)) > 1.5 * unrolled_bytes(problem(steps=3))

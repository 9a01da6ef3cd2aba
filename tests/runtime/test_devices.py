"""What differs between devices, each branch with a stub of what it would ask of a GPU or a processor."""

from typing import Any

import pytest
import torch

from limbeck.augmentation import Dsa
from limbeck.cli.main import main
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, InnerLoop, Tesla, Unroll
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.engine import Arrangement, Problem, check_engine, prepare
from limbeck.matching.settings import EngineSettings
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime import devices
from limbeck.runtime.devices import (
    STAND_IN,
    STAND_IN_MEMORY,
    allocated,
    autocast,
    fast_bf16,
    has_values,
    memory_of,
    on_gpu,
    to_host,
)
from limbeck.runtime.memory import Count, Taken, free_memory, measure, peak_memory, total_memory
from limbeck.runtime.progress import NoProgress

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Driver:
    """Stands in for `torch.cuda`: notes what is asked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.held, self.most = 1000, 5000
        for name, answer in {
            "synchronize": None,
            "reset_peak_memory_stats": None,
            "mem_get_info": (3, 7),
            "get_device_capability": (9, 0),
        }.items():
            patch.setattr(torch.cuda, name, lambda device, name=name, answer=answer: self.asked.append(name) or answer)
        patch.setattr(torch.cuda, "memory_allocated", lambda device: self.held)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.most)
        patch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: self.asked.append("graph"))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def test_what_is_a_gpu() -> None:
    assert [on_gpu(device) for device in (CPU, CUDA, STAND_IN)] == [False, True, True]
    assert [has_values(device) for device in (CPU, CUDA, STAND_IN)] == [True, True, False]


def test_only_cuda_is_waited_for_and_draws_graphs(driver: Driver) -> None:
    for device in (CPU, STAND_IN):
        devices.synchronize(device)
        devices.new_step(device)
    assert driver.asked == []
    devices.synchronize(CUDA)
    devices.new_step(CUDA)
    assert driver.asked == ["synchronize", "graph"]


def test_memory_of_every_kind(driver: Driver) -> None:
    assert memory_of(CUDA) == (free_memory(CUDA), total_memory(CUDA)) == (3, 7)
    assert memory_of(STAND_IN) == (STAND_IN_MEMORY, STAND_IN_MEMORY)
    free, total = memory_of(CPU)
    assert 0 < free <= total
    assert allocated(CUDA, anew=True) == (1000, 5000)
    assert driver.asked[-2:] == ["synchronize", "reset_peak_memory_stats"]
    assert peak_memory(CUDA) == 5000
    assert peak_memory(STAND_IN) == peak_memory(CPU) > 2**20


def test_cuda_is_measured_by_its_allocator(driver: Driver) -> None:
    def work() -> str:
        driver.held = 1600
        return "done"

    assert measure(work, CUDA) == ("done", Taken(4000, 600))


def test_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.rand(3)
    assert to_host(here) is here
    waiting = to_host(torch.empty(3, 2, dtype=torch.float16, device="meta"))
    assert (waiting.device, waiting.shape, waiting.dtype) == (CPU, (3, 2), torch.float16)
    asked: dict[str, Any] = {}

    class Far:
        device, shape, dtype = CUDA, (3,), torch.float32

    class Pinned:
        def copy_(self, source: Any, non_blocking: bool) -> Any:
            asked.update(source=source, non_blocking=non_blocking)
            return self

    monkeypatch.setattr(torch, "empty", lambda *size, **how: asked.update(how) or Pinned())
    far: Any = Far()
    assert isinstance(to_host(far), Pinned)
    assert asked == {"source": far, "non_blocking": True, "pin_memory": True, "dtype": torch.float32}


def test_autocast() -> None:
    with autocast(CPU, torch.bfloat16):
        assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype == torch.bfloat16
    with autocast(STAND_IN, torch.bfloat16):
        assert torch.rand(2, 2, device="meta").matmul(torch.rand(2, 2, device="meta")).dtype == torch.float32


@pytest.mark.parametrize(
    ("able", "level", "cap", "fast"),
    [
        ({"avx512_bf16": True}, "AVX512", "", True),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "AVX512", "", True),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "AVX512", "", False),  # at half rate without AMX
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, "AVX512", "", True),
        ({"avx512_bf16": True}, "AVX2", "", False),  # as ATEN_CPU_CAPABILITY=avx2 makes it
        ({"avx512_bf16": True}, "AVX512", "AVX2", False),
        ({"avx512_bf16": True}, "AVX512", "AVX512_CORE_BF16", True),
        ({"avx512_bf16": False, "amx_bf16": True}, "AVX512", "ALL", True),
        ({"avx512_bf16": False, "avx2": True}, "AVX2", "", False),
        ({"arm_bf16": True}, "SVE256", "", True),
        ({}, "DEFAULT", "", False),
    ],
)
def test_instructions_for_bf16(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool | str], level: str, cap: str, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert fast_bf16(CPU) == fast


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_on_a_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fast_bf16(CUDA) == fast
    assert fast_bf16(STAND_IN)


def problem() -> Problem:
    return Problem(flat_network("ConvNetD1-w4", (3, 8, 8), 2), (4, 3, 8, 8), 2, [4], 2, 1, soft_cross_entropy)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_takes_bf16_only_where_it_is_fast_and_keeps_to_it(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("limbeck.matching.engine.fast_bf16", lambda device: fast)
    settings, expected = EngineSettings(precision="auto"), "bf16" if fast else "fp32"
    for adjoint in (Exact(), Unroll()):
        step, _, decided = prepare(problem(), adjoint, settings, NoProgress())
        assert step.precision == decided.precision == expected
    monkeypatch.setattr("limbeck.matching.engine.fast_bf16", lambda device: not fast)  # a resumed run on another machine
    assert prepare(problem(), Exact(), settings, NoProgress(), decided)[0].precision == expected
    assert prepare(problem(), Exact(), EngineSettings(), NoProgress())[2] == Arrangement(False)


def test_slow_bf16_by_name_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    network = problem().network
    for taken in ("10 to 30 times", "two to six times"):
        monkeypatch.setattr("limbeck.matching.engine.slow_bf16", lambda device, taken=taken: taken)
        (said,) = check_engine(EngineSettings(precision="bf16"), network, CPU)
        assert f"take {taken} as long as fp32's" in said
    assert check_engine(EngineSettings(precision="auto"), network, CPU) == check_engine(EngineSettings(), network, CPU) == []
    monkeypatch.setattr("limbeck.matching.engine.slow_bf16", lambda device: "")
    assert check_engine(EngineSettings(precision="bf16"), network, CPU) == []


def test_a_recipe_cannot_choose_slow_bf16(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: Any) -> None:
    monkeypatch.setattr("limbeck.matching.engine.slow_bf16", lambda device: "10 to 30 times")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("ipc: 5000\nengine:\n  precision: bf16\ndata:\n  per_class: 12\n  size: 16\n")
    for command in ("distill", "plan"):
        assert main([command, str(recipe)]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("limbeck: error: engine.precision: 'bf16' is not fp32: recipe") and "10 to 30 times" in said
        assert main([command, str(recipe), "engine.precision=bf16"]) == 2  # refused for its ipc alone
        assert "ipc: 5000" in capsys.readouterr().err


def test_tensors_of_the_stand_in_are_counted_by_hand() -> None:
    """y = relu(x W) and its gradients: x, W, z, y, then the gradients as autograd makes them and gives them up."""
    size = 4 * 64 * 64  # bytes of every matrix here

    def work() -> tuple[torch.Tensor, ...]:
        x, weight = (torch.empty(64, 64, device="meta", requires_grad=True) for _ in range(2))
        y = (x @ weight).relu()  # z is given up: relu keeps its result
        return torch.autograd.grad(y, (x, weight), torch.empty(64, 64, device="meta"))

    found, taken = measure(work, STAND_IN)
    assert [one.shape for one in found] == [(64, 64)] * 2
    # x, W, y, ∂y, ∂z, then ∂x or ∂W on top; both of these remain.
    assert taken == Taken(7 * size, 2 * size)


@pytest.mark.parametrize("adjoint", [Exact(), Exact(kept=2), Tesla(), Unroll()])
def test_the_count_is_what_a_profiler_measures_on_the_cpu(adjoint: Adjoint) -> None:
    def peak(device: torch.device) -> int:
        network = flat_network("ConvNetD2-w16", (3, 32, 32), 10).to(device)
        draws, size = torch.Generator().manual_seed(0), network.num_parameters
        theta, target, x, y, eta = (
            torch.rand(shape, generator=draws).to(device) for shape in ((size,), (size,), (20, 3, 32, 32), (20, 10), ())
        )
        inner = InnerLoop(StudentStep(network, soft_cross_entropy), theta, draw_steps((20, 3, 32, 32), None, 3, Dsa("crop"), 0, 0))
        return measure(lambda: adjoint(inner, x, y, eta, MatchingLoss(theta, target)), device)[1].peak

    assert peak(STAND_IN) == pytest.approx(peak(CPU), rel=0.02)


def test_views_and_older_tensors_are_not_counted() -> None:
    older = torch.empty(1000, device="meta")
    with Count() as count:
        held = [torch.empty(1000, device="meta") for _ in range(3)]
        views = held[0][:10], older[5:], older.add_(1)
        assert count.held == 3 * 4096 and len(views) == 3
        del held
        assert count.held == 4096  # the view's
    assert count.peak == 3 * 4096

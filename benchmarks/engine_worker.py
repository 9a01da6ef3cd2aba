"""One measurement of the engine benchmark, in a process of its own.

    echo '{"kind": …}' | python benchmarks/engine_worker.py

reads a job as JSON from standard input and writes its result as JSON, the last line of standard output.

The problem is the same in all processes: θ*_t is a fresh network, θ*_{t+M} what five steps of SGD on random images make of it,
X and Y are noise, η = 0.01, with all augmentations and a quarter of the parameters dropped from the loss.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.augmentation import Dsa
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, Gradients, InnerLoop, Tesla, Truncated, Unroll
from limbeck.matching.criteria import LowLossDropout
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.settings import Kind, Precision
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.devices import repeatable
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.memory import measure, peak_memory, reuse_freed_memory
from limbeck.runtime.random import generator

SYN_LR = 0.01
TARGET_STEPS, TARGET_IMAGES, TARGET_LR = 5, 20, 0.02
LEAST_SECONDS = 0.02  # a clock's reading of less says little


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to the pixel gradient.

    Args:
        kind: `unroll`, `exact`, `tesla` or `truncated`.
        compiled: whether the step is compiled.
        precision: of convolutions and matrix products.
        micro_batch: images that a step differentiates at a time; None takes a batch whole.
        kept: how many of the last steps keep their intermediate results.
        lanes: micro-batches computed side by side; None stands for as many as the engine takes.
        last_steps: through how many steps `truncated` walks back.
    """

    kind: Kind
    compiled: bool = False
    precision: Precision = "fp32"
    micro_batch: int | None = None
    kept: int = 0
    lanes: int | None = 1
    last_steps: int = 0

    def walked(self, steps: int) -> int:
        """Of how many of T = `steps` steps the product is taken."""
        return self.last_steps if self.kind == "truncated" else steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What one process computes the gradient of.

    Args:
        network: f, by name.
        size: H = W of the images, which have three channels.
        classes: K.
        images: N.
        batch: B, images per student step.
        steps: T.
        device: where, such as `cpu` or `cuda:0`.
        threads: of the CPU.
    """

    network: str
    size: int
    classes: int
    images: int
    batch: int
    steps: int
    device: str
    threads: int


def variant(problem: Mapping[str, Any], way: Mapping[str, Any], repeats: int, reference: str | None) -> dict[str, Any]:
    """Time, memory and error of one way to the gradient.

    Args:
        problem: a `Problem`, as JSON.
        way: a `Way`, as JSON.
        repeats: iterations that are timed, after one that is not.
        reference: the file with the exact gradient, if there is one.

    Returns:
        `seconds` of every timed iteration, `warm_up_seconds`, `peak_bytes` of the process (on CUDA: of its tensors),
        `resident_bytes` of the process before the first iteration, and `errors`: per leaf the relative error and the cosine.
    """
    posed, taken = Problem(**problem), Way(**way)
    device = _set_up(posed, taken.precision == "tf32")
    if taken.kind != "unroll":
        reuse_freed_memory()
    iteration = iteration_of(posed, taken, torch.float32)
    last: dict[str, Gradients] = {}
    resident = _resident()
    warm_up, *seconds = (_seconds(lambda: last.update(found=iteration()), device) for _ in range(repeats + 1))
    measured = {"seconds": seconds, "warm_up_seconds": warm_up, "peak_bytes": peak_memory(device), "resident_bytes": resident}
    return {**measured, "errors": _errors(last["found"], Path(reference)) if reference else None}


def reference(problem: Mapping[str, Any], path: str, key: str) -> dict[str, Any]:
    """Write the exact gradient, in float64, to `path`; `key` goes into its header. The result is empty."""
    posed = Problem(**problem)
    _set_up(posed, False)
    reuse_freed_memory()
    gradients = iteration_of(posed, Way(kind="exact"), torch.float64)()
    tensors = {"images": gradients.images, "labels": gradients.labels, "syn_lr": gradients.syn_lr}
    write_tensors(Path(path), tensors, {"fingerprint": key})
    return {}


def probe(cases: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """The most bytes of tensors held at once in an iteration of each case, `peaks`; `resident_bytes` of the process itself.

    Compiled steps run uncompiled here: that holds more at once, so that nothing is promised that does not fit.
    """
    posed = [(Problem(**one), Way(**other)) for one, other in cases]
    peaks, resident = [], 0
    # Asking the compiler for anything imports it, which takes seconds.
    compiled = any(way.compiled for _, way in posed)
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        for problem, way in posed:
            device = _set_up(problem, False)
            iteration = iteration_of(problem, way, torch.float32)
            iteration()
            resident = resident or _resident()
            peaks.append(measure(iteration, device)[1].peak)
    return {"peaks": peaks, "resident_bytes": resident}


def convolutions(problem: Mapping[str, Any], precision: str, micro_batch: int | None, repeats: int) -> dict[str, Any]:
    """Time the convolutions of every layer alone, channels last, on a whole batch in micro-batches.

    Returns:
        `layers`, each with `flop` of one convolution and the `seconds` of every repeat of `forward`, of `input` (its gradient by
        the input) and of `weight` (by the weight).
    """
    posed = Problem(**problem)
    device = _set_up(posed, precision == "tf32")
    reuse_freed_memory()
    network = flat_network(posed.network, (3, posed.size, posed.size), posed.classes)
    sizes = Counter(StudentStep(network, soft_cross_entropy, micro_batch=micro_batch).sizes(posed.batch))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layers = []
    for layer, shape in _convolutions_of(network, posed.size):
        seconds = {name: [0.0] * repeats for name in ("forward", "input", "weight")}
        flop = 0
        for size, count in sizes.items():
            works, pixels = _convolution(layer, (size, *shape), device, dtype)
            flop += 2 * layer.weight.numel() * pixels * count
            for name, work in works.items():
                timed = _timed(work, device, repeats)
                seconds[name] = [total + count * one for total, one in zip(seconds[name], timed, strict=True)]
        layers.append({"flop": flop, "seconds": seconds})
    return {"layers": layers}


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "variant": variant,
    "reference": reference,
    "probe": probe,
    "convolutions": convolutions,
}


def main() -> None:
    """Do the job on standard input."""
    job = json.load(sys.stdin)
    result = JOBS[job.pop("kind")](**job)
    print(json.dumps(encodable(result), allow_nan=False))


def _set_up(problem: Problem, tf32: bool) -> torch.device:
    torch.set_num_threads(problem.threads)
    device = torch.device(problem.device)
    repeatable(device, tf32)
    return device


def iteration_of(problem: Problem, way: Way, dtype: torch.dtype) -> Callable[[], Gradients]:
    """What is timed: all student steps and the way back, as one iteration of a distillation takes them."""
    device = torch.device(problem.device)
    network = flat_network(problem.network, (3, problem.size, problem.size), problem.classes)
    start = network.initial(generator(0, "engine bench", "start"))
    target = _trained(network, start, problem)  # in single precision on the CPU, that it be the same wherever it is asked for
    draw = generator(0, "engine bench", "images")
    shape = (problem.images, 3, problem.size, problem.size)
    held = (start, target, torch.randn(shape, generator=draw), torch.randn(problem.images, problem.classes, generator=draw))
    theta, target, images, labels = (tensor.to(device, dtype) for tensor in held)
    syn_lr = torch.tensor(SYN_LR, dtype=dtype, device=device)
    step = StudentStep(network.to(device), soft_cross_entropy, way.compiled, way.precision, way.micro_batch, way.lanes or 1)
    inner = InnerLoop(step, theta, draw_steps(shape, problem.batch, problem.steps, Dsa(), 0, 0))
    adjoint = _adjoint(way)

    def iteration() -> Gradients:
        return adjoint(inner, images, labels, syn_lr, MatchingLoss(theta, target, LowLossDropout(0.25)))[0]

    return iteration


def _adjoint(way: Way) -> Adjoint:
    if way.kind == "unroll":
        return Unroll()
    if way.kind == "tesla":
        return Tesla()
    return Truncated(steps=way.last_steps) if way.kind == "truncated" else Exact(kept=way.kept)


def _trained(network: FlatNetwork, start: Tensor, problem: Problem) -> Tensor:
    step, theta = StudentStep(network, soft_cross_entropy), start
    for number in range(TARGET_STEPS):
        draw = generator(0, "engine bench", "target", number)
        x = torch.randn(TARGET_IMAGES, 3, problem.size, problem.size, generator=draw)
        theta = theta - TARGET_LR * step.gradient(theta, x, torch.randn(TARGET_IMAGES, problem.classes, generator=draw))
    return theta


def _errors(found: Gradients, path: Path) -> dict[str, dict[str, float]]:
    """Relative error ‖a − b‖ / ‖b‖ and cosine ⟨a, b⟩ / ‖a‖‖b‖ of the gradients a found with the exact ones b in the file."""
    errors = {}
    for name, exact in read_tensors(path)[0].items():
        own = getattr(found, name).detach().cpu().double()
        cosine = (own * exact).sum() / (own.norm() * exact.norm())
        errors[name] = {"relative": ((own - exact).norm() / exact.norm()).item(), "cosine": cosine.item()}
    return errors


def _convolutions_of(network: FlatNetwork, size: int) -> list[tuple[nn.Conv2d, tuple[int, ...]]]:
    """Every convolution of the network in its order, with the shape (C, H, W) of its input."""
    found: list[tuple[nn.Conv2d, tuple[int, ...]]] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d), "hooks sit on convolutions only"
        found.append((layer, tuple(inputs[0].shape[1:])))

    for part in network.module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(record)
    with torch.no_grad():
        network.module(torch.zeros(2, 3, size, size))
    return found


def _convolution(
    layer: nn.Conv2d, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Callable[[], Any]], int]:
    """A layer's convolution and its two adjoints for an input of that shape (B, C, H, W), and the pixels (B·H·W) of its output."""

    def filled(*size: int) -> Tensor:
        return torch.randn(size, device=device).to(dtype).contiguous(memory_format=torch.channels_last)

    x, weight = filled(*shape), filled(*layer.weight.shape)
    stride, padding, dilation = list(layer.stride), [int(side) for side in layer.padding], list(layer.dilation)
    geometry = (stride, padding, dilation, False, [0, 0], layer.groups)
    z = torch.ops.aten.convolution(x, weight, None, *geometry)
    gz = filled(*z.shape)

    def backward(*mask: bool) -> Callable[[], Any]:
        return lambda: torch.ops.aten.convolution_backward(gz, x, weight, None, *geometry, mask)

    forward = lambda: torch.ops.aten.convolution(x, weight, None, *geometry)  # noqa: E731 (beside its adjoints)
    works = {"forward": forward, "input": backward(True, False, False), "weight": backward(False, True, False)}
    return works, z.numel() // z.shape[1]


def _timed(work: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Seconds of one call, once for each repeat: a mean over so many calls that a clock can tell."""
    _seconds(work, device)
    calls = max(1, min(1000, int(LEAST_SECONDS / max(_seconds(work, device), 1e-6))))
    return [_seconds(work, device, calls) / calls for _ in range(repeats)]


def _seconds(work: Callable[[], Any], device: torch.device, calls: int = 1) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()

"""Check and measure one GPU in at most nine minutes: `make gpu`, or

    python benchmarks/gpu.py --output runs/gpu [--data imagenet:imagenette --root /data/imagenet]
    python benchmarks/gpu.py --toy --device cpu          # the same stages at toy size, in seconds

Stages print what they find as they finish and keep it in OUTPUT/<stage>.json; one that fails costs no other. What no time
is left for is not measured, and said to be so.
"""

import argparse
import math
import shutil
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_worker import Problem, Way, _convolutions_of, iteration_of
from seeds import material

from limbeck.augmentation import Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.experts.files import Job
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.train import ExpertTask, material_of
from limbeck.matching.adjoint import Gradients
from limbeck.networks.flat import flat_network
from limbeck.runs.distill import distill
from limbeck.runs.settings import settle
from limbeck.runtime.devices import environment, on_gpu, repeatable, resolve_device, synchronize
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_tensors, write_json
from limbeck.runtime.memory import measure
from limbeck.training.train import train

SECONDS, RESERVED = 530.0, 200.0  # in all, and of them for the stages after `engine`
BOUND, BOUND_64 = 1e-5, 1e-10  # relative, of a smooth network: a ReLU that rounding puts on the other side moves more
PRODUCT = 8192  # side of the matrices whose product is taken for the device's peak


@dataclass(frozen=True)
class Sizes:
    """How large the stages' problems are."""

    checked: str = "ConvNetD3-w64"
    checked_size: int = 32
    checked_steps: int = 5
    network: str = "ConvNetD5"
    size: int = 128
    ipc: tuple[int, ...] = (1, 10, 50)
    steps: int = 40
    repeats: int = 3
    product: int = PRODUCT
    experts: int = 8
    images: int = 2560
    epochs: int = 20
    iterations: int = 200


TOY = Sizes("ConvNetD1-w4", 8, 2, "ConvNetD2-w4", 8, (1, 2), 2, 1, 64, 2, 40, 1, 4)


@dataclass(frozen=True)
class Bench:
    """What stages measure on, and until when."""

    device: torch.device
    sizes: Sizes
    data: dict[str, Any]
    output: Path
    until: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def problem(self, images: int, steps: int, device: torch.device | str, **given: Any) -> Problem:
        """An inner loop over so many images, 100 of them at most in a step."""
        s, known = self.sizes, {"network": self.sizes.network, "size": self.sizes.size}
        held = known | given | {"images": images, "batch": min(100, images), "steps": steps or s.steps}
        return Problem(classes=10, device=str(device), threads=torch.get_num_threads(), **held)

    def seconds(self, work: Callable[[], Any], repeats: int | None = None) -> float:
        """The median of some calls, after one that is not timed."""
        taken = []
        for _ in range(1 + (repeats or self.sizes.repeats)):
            synchronize(self.device)
            began = time.perf_counter()
            work()
            synchronize(self.device)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])


@contextmanager
def precision(device: torch.device, tf32: bool) -> Iterator[None]:
    """TF32 or not, inside."""
    repeatable(device, tf32)
    try:
        yield
    finally:
        repeatable(device)


WAYS = {
    "exact": Way(kind="exact"),
    "exact, kept": Way(kind="exact", kept=2),
    "exact, micro-batches": Way(kind="exact", micro_batch=7),
    "exact, compiled": Way(kind="exact", compiled=True),
    "truncated": Way(kind="truncated", last_steps=2),
    "tesla": Way(kind="tesla"),
    "unroll": Way(kind="unroll"),
}


def gradient(bench: Bench) -> Iterator[dict[str, Any]]:
    """Every way to the gradient, on the device and on the CPU; smooth networks are held to the bound."""
    s = bench.sizes
    for activation in ("-sigmoid", ""):
        given = {"network": s.checked + activation, "size": s.checked_size}
        for name, way in WAYS.items():
            for dtype, bound in ((torch.float32, BOUND), (torch.float64, BOUND_64)):
                if way.compiled and not (on_gpu(bench.device) and activation and dtype == torch.float32):
                    continue  # it takes a minute, and is wanted once
                there, here = (
                    iteration_of(bench.problem(20, s.checked_steps, place, **given), replace(way, compiled=own), dtype)()
                    for place, own in ((bench.device, way.compiled), ("cpu", False))
                )
                error, held = deviation(there, here)["relative"], bound if activation else None
                yield {"network": given["network"], "way": name, "dtype": str(dtype), "relative": error, "bound": held}
                if held is not None and error > held:
                    raise AssertionError(f"{name} in {dtype}: {error:.1e} off the CPU's gradient, of which {held:g} was allowed")


def deviation(found: Gradients, exact: Gradients) -> dict[str, float]:
    """Of the pixel gradient: relative error and cosine."""
    own, other = (one.images.detach().cpu().double().flatten() for one in (found, exact))
    cosine = torch.nn.functional.cosine_similarity(own, other, dim=0)
    return {"relative": ((own - other).norm() / other.norm()).item(), "cosine": cosine.item()}


def precisions(bench: Bench) -> Iterator[dict[str, Any]]:
    """The pixel gradient in fp32, TF32 and bf16 beside float64."""
    for ipc in bench.sizes.ipc[:2]:
        problem = bench.problem(10 * ipc, min(10, bench.sizes.steps), bench.device)
        exact = iteration_of(problem, Way(kind="exact", micro_batch=10), torch.float64)()
        for name in ("fp32", *(("tf32",) if on_gpu(bench.device) else ()), "bf16"):
            with precision(bench.device, name == "tf32"):
                found = iteration_of(problem, Way(kind="exact", precision=name), torch.float32)()  # type: ignore[arg-type]
            yield {"ipc": ipc, "steps": problem.steps, "precision": name, **deviation(found, exact)}


MEASURED = {
    "unroll": Way(kind="unroll"),
    "eager": Way(kind="exact"),
    "eager, half kept": Way(kind="exact", kept=-2),
    "compiled": Way(kind="exact", compiled=True),
    "compiled, bf16": Way(kind="exact", compiled=True, precision="bf16"),
    "compiled, tf32": Way(kind="exact", compiled=True, precision="tf32"),
    "compiled, micro-batches": Way(kind="exact", compiled=True, micro_batch=25),
}


def convolutions(way: Way, steps: int) -> int:
    """Of a layer, in all steps and their products; the first layer, which takes fewer, counts as the others.

    A step takes three, and its product nine by reverse mode, eight in the closed form that compiled steps have, and six where the
    step has kept its intermediate results or all are unrolled.
    """
    again = 6 if way.kind == "unroll" else 8 if way.compiled else 9
    return 3 * steps + again * (steps - way.kept) + 6 * way.kept


def peaks(bench: Bench) -> dict[str, float]:
    """Operations a second of a product of matrices, by the precision of its factors: of those that are measured."""
    s, found = bench.sizes, {}
    for name in ("fp32", *(("tf32", "bf16") if on_gpu(bench.device) else ())):
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        a = torch.randn(s.product, s.product, device=bench.device, dtype=dtype)
        with precision(bench.device, name == "tf32"):
            found[name] = 2 * s.product**3 / bench.seconds(partial(torch.matmul, a, a))
    return found


def engine(bench: Bench) -> Iterator[dict[str, Any]]:
    """Time, memory, iterations an hour and the share of the device's peak in that precision, beside plain unrolling."""
    s, peak = bench.sizes, peaks(bench)
    yield from ({"way": f"product of matrices, {name}", "flops": flops} for name, flops in peak.items())
    network = flat_network(s.network, (3, s.size, s.size), 10)
    flop = sum(2 * layer.weight.numel() * math.prod(shape[1:]) for layer, shape in _convolutions_of(network, s.size))
    for name, way in MEASURED.items():  # the quickest first, those that are compiled while there is time
        for ipc in s.ipc:
            problem = bench.problem(10 * ipc, s.steps, bench.device)
            if not on_gpu(bench.device) and (way.compiled or way.precision == "tf32"):
                continue
            row = {"ipc": ipc, "steps": s.steps, "batch": problem.batch, "way": name}
            if bench.left < RESERVED:
                yield {**row, "left_out": "no time was left"}
                continue
            own = replace(way, kept=s.steps // 2 if way.kept == -2 else way.kept)
            try:
                with precision(bench.device, way.precision == "tf32"):
                    work = iteration_of(problem, own, torch.float32)
                    work()
                    taken = measure(work, bench.device)[1].peak
                    seconds = bench.seconds(work)
            except torch.OutOfMemoryError:
                yield {**row, "left_out": "it does not fit"}
                torch.cuda.empty_cache()
                continue
            share = convolutions(own, s.steps) * flop * problem.batch / seconds / peak[way.precision]
            yield {**row, "seconds": seconds, "bytes": taken, "iterations_an_hour": 3600 / seconds, "share_of_peak": share}


def experts(bench: Bench) -> Iterator[dict[str, Any]]:
    """Experts an hour of a hundred epochs, in step and one by one."""
    s, draws = bench.sizes, np.random.default_rng(0)
    labels = np.arange(10).repeat(s.images // 10)
    x = draws.integers(0, 256, (len(labels), 3, s.size, s.size), dtype=np.uint8)
    data = ImageSet.from_arrays(x, labels, x[::10], labels[::10], val_fraction=0)
    network = flat_network(s.network, data.shape, 10).to(bench.device)
    settings = ExpertSettings(num_experts=s.experts, train_epochs=2)
    found = material_of(ExpertTask(data, fit_preprocessing(DataSettings(), data.train), network, settings, Dsa(), 0, bench.device))
    jobs = [Job(number, 0, (1,), None) for number in range(s.experts)]
    held, own = (found.images, found.labels, found.how), {"seed": 0, "gradient": found.gradient(), "last_epoch": 1}

    def alone() -> None:
        for job in jobs:
            train(network, found.start(job)[0], *held, key=("expert", job.expert), **own)

    for name, work in (("in step", lambda: found.in_step(jobs, lambda *_: None)), ("one by one", alone)):
        seconds = bench.seconds(work, 1)
        yield {"way": name, "experts": s.experts, "seconds": seconds, "an_hour": 3600 * s.experts / seconds / 100}


def evaluation(bench: Bench) -> Iterator[dict[str, Any]]:
    """Five seeds of an evaluation in step, and one."""
    s = bench.sizes
    given = {"network": s.network, "size": s.size, "ipc": s.ipc[1], "epochs": s.epochs, "seeds": 5, "device": str(bench.device)}
    trials, made, test = material(argparse.Namespace(**given))
    trials = replace(trials, compile="no")
    yield {"seeds": 5, "seconds": bench.seconds(lambda: trials.in_step(made), 1)}
    yield {"seeds": 1, "seconds": bench.seconds(lambda: trials.trained(made[0]), 1)}
    asked = bench.seconds(lambda: list(trials.answers(made[0], trials.start(made[0]), [test])))
    yield {"images_a_second": len(test) / asked}


TINY = {
    "data.size": 16,
    "data.per_class": 12,
    "data.val_fraction": 0.25,
    "network": "ConvNetD2-w8",
    "experts.num_experts": 2,
    "experts.train_epochs": 4,
    "schedule.first_max_start_epoch": 1,
    "schedule.max_start_epoch": 3,
    "match.syn_steps": 3,
    "match.expert_epochs": 1,
    "outer.iterations": 6,
    "eval.every": 3,
    "eval.epochs": 2,
    "eval.seeds": 2,
    "eval.full_epochs": 1,
    "eval.random_lr": 0.01,
}


class Stopped(Exception):
    """A run was stopped on purpose."""


def resume(bench: Bench) -> Iterator[dict[str, Any]]:
    """A run that is stopped and goes on, beside one that nobody stops."""

    def stop(snapshot: Any) -> None:
        if snapshot.iteration == 3:
            raise Stopped

    settings = settle({**TINY, "engine.device": str(bench.device)})
    whole, halves = (bench.output / "resume" / name for name in ("whole", "halves"))
    shutil.rmtree(bench.output / "resume", ignore_errors=True)
    distill(settings, whole)
    try:
        distill(settings, halves, callbacks=[stop])
    except Stopped:
        distill(settings, halves, resume=True)
    one, other = (read_tensors(folder / "checkpoint.safetensors")[0]["images"].double() for folder in (whole, halves))
    yield {"relative": ((one - other).norm() / one.norm()).item()}
    torch.testing.assert_close(one, other, rtol=1e-3 if on_gpu(bench.device) else 0, atol=1e-3 if on_gpu(bench.device) else 0)


def run(bench: Bench) -> Iterator[dict[str, Any]]:
    """Images to an evaluated set, everything on the way included."""
    s = bench.sizes
    own = {"network": s.network, "data.size": max(s.size, 16), "outer.iterations": s.iterations, "eval.every": s.iterations // 2}
    own |= {"eval.epochs": s.epochs, "match.syn_steps": min(s.steps, 10), "data.per_class": max(12, s.images // 20)}
    shutil.rmtree(bench.output / "run", ignore_errors=True)
    began = time.monotonic()
    result = distill(settle({**TINY, **own, **bench.data, "engine.device": str(bench.device)}), bench.output / "run")
    found = result.to_dict()
    yield {"seconds": time.monotonic() - began, "stages": found["seconds"], "peak_memory": found["peak_memory"]}


STAGES: tuple[Callable[[Bench], Iterator[dict[str, Any]]], ...] = (gradient, precisions, engine, experts, evaluation, resume, run)


def main(words: list[str] | None = None) -> int:
    """Run the stages; how many failed."""
    parser = argparse.ArgumentParser(description="check and measure a GPU")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true", help="toy sizes")
    parser.add_argument("--data", default="scenes", help="of the full run")
    parser.add_argument("--root", help="data.root of the full run")
    parser.add_argument("--stages", default=",".join(stage.__name__ for stage in STAGES))
    given = parser.parse_args(words)
    data = {"data.source": given.data, **({} if given.root is None else {"data.root": given.root})}
    try:
        device = resolve_device(given.device)
    except UsageError as refused:
        parser.exit(2, f"{parser.prog}: --device: {str(refused).removeprefix('engine.device: ')}\n")
    bench = Bench(device, TOY if given.toy else Sizes(), data, given.output, time.monotonic() + SECONDS)
    failed = 0
    repeatable(device)

    def over(*_: object) -> None:
        raise TimeoutError("no time was left")

    # One stage that takes too long must not take the time of whoever waits: it ends here, and what it found is kept.
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    for stage in STAGES:
        if stage.__name__ not in given.stages.split(","):
            continue
        began, rows, error = time.monotonic(), [], None
        try:
            if bench.left < 0:
                raise TimeoutError("no time was left")
            for row in stage(bench):
                rows.append(row)
                print(f"{stage.__name__}: {', '.join(f'{key} {shown(value)}' for key, value in row.items())}", flush=True)
        except Exception as problem:  # noqa: BLE001 (the other stages are wanted all the same)
            error, failed = f"{type(problem).__name__}: {problem}", failed + 1
            print(f"{stage.__name__}: FAILED, {error}", flush=True)
            traceback.print_exc()
        taken = time.monotonic() - began
        print(f"{stage.__name__}: {taken:.1f} s", flush=True)
        kept = {"rows": rows, "seconds": taken, "error": error, "environment": environment(device)}
        write_json(given.output / f"{stage.__name__}.json", kept)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    return failed


def shown(value: Any) -> str:
    """A value for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(min(main(), 1))

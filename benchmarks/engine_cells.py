"""What `engine.py` measures: cells, each in a process of its own and kept in a file, and what is foretold of their memory."""

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from engine_worker import Problem, Way
from isa import ISA
from safetensors import SafetensorError, safe_open

from limbeck.matching.settings import Precision
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.networks.micro_batches import automatic_lanes, automatic_micro_batch
from limbeck.runtime.devices import environment, resolve_device
from limbeck.runtime.errors import Failure, UsageError, require
from limbeck.runtime.files import read_header, read_json, write_json
from limbeck.runtime.fingerprint import fingerprint, plain

VERSION = 4  # of what the processes do: results of another are measured again
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
PROBE_BATCHES, PROBE_STEPS = (2, 4), (2, 4)
# Double precision is about eight times slower than single on a CPU, and an uncompiled iteration takes twice its convolutions.
REFERENCE_COST = 16.0
BATCH_SYN = 100
# On a CPU a process that unrolls had 1.36 times the memory of its tensors (what the C library's heap holds between them).
HEAP = 1.4

VARIANTS: dict[str, Callable[[int], Way]] = {  # by T
    "unroll": lambda steps: Way(kind="unroll"),
    "eager": lambda steps: Way(kind="exact"),
    "one-lane": lambda steps: Way(kind="exact", compiled=True),
    "compiled": lambda steps: Way(kind="exact", compiled=True, lanes=None),
    "compiled-tf32": lambda steps: Way(kind="exact", compiled=True, precision="tf32"),
    "compiled-bf16": lambda steps: Way(kind="exact", compiled=True, precision="bf16", lanes=None),
    "tesla": lambda steps: Way(kind="tesla", compiled=True, lanes=None),
    "truncated": lambda steps: Way(kind="truncated", compiled=True, last_steps=max(1, steps // 4), lanes=None),
    "kept-half": lambda steps: Way(kind="exact", compiled=True, kept=steps // 2, lanes=None),
    "kept-all": lambda steps: Way(kind="exact", compiled=True, kept=steps, lanes=None),
}
CUDA_ONLY = ("compiled-tf32",)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineBenchSettings:
    """What is measured.

    Args:
        network: by name.
        size: H = W of the images.
        classes: K.
        steps: the numbers of student steps T to measure.
        ipc: the numbers of images per class to measure; above 100 images a step takes 100 of them.
        variants: names out of `VARIANTS`; None takes all that the device can do.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        repeats: iterations that are timed, after one that is not.
        threads: of the CPU; None leaves them as torch has them.
        reference_seconds: float64 gradients that will take longer are not computed, and errors not known; 0 computes none.
        isa: instructions of the CPU, names out of `isa.ISA`; of several every cell is measured with each before the next.
    """

    network: str = "ConvNetD3-w64"
    size: int = 32
    classes: int = 10
    steps: tuple[int, ...] = (10, 20, 40, 80)
    ipc: tuple[int, ...] = (1, 10, 50)
    variants: tuple[str, ...] | None = None
    device: str = "auto"
    repeats: int = 3
    threads: int | None = None
    reference_seconds: float = 900.0
    isa: tuple[str, ...] = ("native",)


@dataclass(frozen=True, slots=True)
class Growth:
    """The bytes that a variant holds as a function of B and T, from four measurements of few images and steps.

        bytes = b₀ + b₁ B' + (s₀ + s₁ B) T

    where the work of one step is that of a micro-batch, B' images, and what every step leaves behind that of the batch.
    """

    base: tuple[float, float]
    slope: tuple[float, float]

    @classmethod
    def fit(cls, peaks: Sequence[float]) -> "Growth":
        """From the peaks at (B, T) for every B of `PROBE_BATCHES` and, within it, every T of `PROBE_STEPS`."""
        (few, many), (short, long) = PROBE_BATCHES, PROBE_STEPS
        slopes = [(peaks[at + 1] - peaks[at]) / (long - short) for at in (0, 2)]
        bases = [peaks[at] - short * slope for at, slope in zip((0, 2), slopes, strict=True)]
        lines = []
        for low, high in (bases, slopes):
            per_image = (high - low) / (many - few)
            lines.append((low - few * per_image, per_image))
        return cls(*lines)

    def bytes(self, batch: int, micro_batch: int, steps: int) -> int:
        """For B, B' and T."""
        base = self.base[0] + self.base[1] * micro_batch
        return max(0, round(base)) + max(0, round((self.slope[0] + self.slope[1] * batch) * steps))


def convolution_seconds(layers: Sequence[Mapping[str, Any]], way: Way, steps: int) -> list[float]:
    """Seconds that the convolutions of T student steps and of their products take alone, by repeat.

    A step takes each layer's convolution and its gradients by input and weight once; the first layer's input has none. A
    product takes three, three and two of them; in the first layer two, two and one. Without h_θ it needs none by weight.

    Args:
        layers: as the process has measured them.
        way: of the gradient.
        steps: T.
    """
    totals = [0.0] * len(layers[0]["seconds"]["forward"]) if layers else []
    for layer, counts in zip(layers, _counts(len(layers), way, steps), strict=True):
        for name, count in counts.items():
            totals = [total + count * one for total, one in zip(totals, layer["seconds"][name], strict=True)]
    return totals


def convolution_flop(layers: Sequence[Mapping[str, Any]], way: Way, steps: int) -> float:
    """The floating-point operations of the same convolutions, an addition and a multiplication being two."""
    counts = _counts(len(layers), way, steps)
    return float(sum(layer["flop"] * sum(at.values()) for layer, at in zip(layers, counts, strict=True)))


def _counts(layers: int, way: Way, steps: int) -> list[dict[str, int]]:
    walked, by_weight = way.walked(steps), 0 if way.kind == "tesla" else 1
    first = {"forward": steps + 2 * walked, "input": 2 * walked, "weight": steps + walked * by_weight}
    later = {"forward": steps + 3 * walked, "input": steps + 3 * walked, "weight": steps + 2 * walked * by_weight}
    return [first if number == 0 else later for number in range(layers)]


def call_worker(kind: str, arguments: Mapping[str, Any], isa: str = "native") -> dict[str, Any]:
    """The result of a job of `engine_worker`, done in a fresh process with those instructions.

    Raises:
        Failure: when that process fails, with its last words.
    """
    words = [sys.executable, str(Path(__file__).with_name("engine_worker.py"))]
    way = arguments.get("way")
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"} if way is not None and way.compiled else {}  # as in the command; else torch's own
    told, env = json.dumps(plain({"kind": kind, **arguments})), {**os.environ, **ISA[isa], **waiting}
    done = subprocess.run(words, input=told, capture_output=True, text=True, env=env)
    if done.returncode < 0:
        raise Failure(f"its process was killed by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        # A traceback's message may go on for pages; its first line begins at the margin.
        message = next((line for line in reversed(said) if line[0] not in " \t" and ":" in line), "no message")
        name, colon, text = message.strip().partition(":")
        raise Failure(f"{name.rpartition('.')[2]}{colon}{text}"[:300])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@dataclass(slots=True)
class Bench:
    """The cells of one kind of instructions."""

    settings: EngineBenchSettings
    isa: str
    folder: Path
    fresh: bool
    device: torch.device
    threads: int
    micro_batch: dict[Precision, int | None]
    environment: dict[str, Any]
    measured: dict[Path, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: EngineBenchSettings, isa: str, folder: Path, fresh: bool) -> "Bench":
        network, device = checked(settings)
        require(not folder.exists() or folder.is_dir(), "--output", str(folder), "a folder")
        for name in settings.variants or ():
            fit = device.type == "cuda" or name not in CUDA_ONLY
            require(fit, "--variants", name, "possible on a CPU")
        threads = settings.threads or torch.get_num_threads()
        shape = (3, settings.size, settings.size)
        micro_batch = {kind: automatic_micro_batch(network, shape, device, 2 if kind == "bf16" else 4) for kind in PRECISIONS}
        instructions = "AVX2" if isa == "avx2" else torch.backends.cpu.get_cpu_capability()
        held = {**environment(device), "threads": threads, "instructions": instructions}
        own = folder if isa == settings.isa[0] else folder / isa
        return cls(settings, isa, own, fresh, device, threads, micro_batch, held)

    def variants(self) -> list[str]:
        """Those that were asked for, or that the device can do; beside other instructions none that AVX2 takes minutes for."""
        able = [name for name in VARIANTS if self.device.type == "cuda" or name not in CUDA_ONLY]
        asked = able if self.settings.variants is None else list(self.settings.variants)
        slow = self.isa == "avx2" and self.settings.isa != ("avx2",)
        return [name for name in asked if not (slow and name.endswith("bf16"))]

    def problems(self) -> list[tuple[Problem, int]]:
        """All of them, each with its number of images per class."""
        return [
            (self.problem(ipc * self.settings.classes, steps), ipc) for ipc in self.settings.ipc for steps in self.settings.steps
        ]

    def problem(self, images: int, steps: int) -> Problem:
        own = self.settings
        return Problem(
            network=own.network,
            size=own.size,
            classes=own.classes,
            images=images,
            batch=min(images, BATCH_SYN),
            steps=steps,
            device=str(self.device),
            threads=self.threads,
        )

    def way(self, problem: Problem, name: str) -> Way:
        way = VARIANTS[name](problem.steps)
        if not way.compiled:
            return way
        lanes = self.lanes(problem) if way.lanes is None else way.lanes
        size = min(self.micro_batch[way.precision] or problem.batch, -(-problem.batch // lanes))
        return replace(way, micro_batch=size if size < problem.batch else None, lanes=lanes)

    def lanes(self, problem: Problem) -> int:
        """Micro-batches that the engine computes side by side, on so many threads."""
        network = flat_network(problem.network, (3, problem.size, problem.size), problem.classes)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return automatic_lanes(network, (3, problem.size, problem.size), self.device, problem.batch)
        finally:
            torch.set_num_threads(before)

    def micro(self, problem: Problem, precision: Precision) -> int | None:
        """The micro-batch that the cache holds; None where it would be the whole batch."""
        size = self.micro_batch[precision]
        return size if size is not None and size < problem.batch else None

    def about(self, problem: Problem, name: str) -> dict[str, Any]:
        return {"steps": problem.steps, "images": problem.images, "batch": problem.batch, "way": plain(self.way(problem, name))}

    def growth(self, variants: Sequence[str]) -> tuple[dict[str, Growth], int]:
        """How each variant's memory grows (`eager` is always among them), and the bytes of a process that does nothing yet."""
        names = list(dict.fromkeys([*variants, "eager"]))
        cases = [(self.problem(images, t), VARIANTS[name](t)) for name in names for images in PROBE_BATCHES for t in PROBE_STEPS]
        found = self.measure(self.folder / "probe.json", "probe", {"cases": cases})
        peaks = [found["peaks"][at : at + 4] for at in range(0, 4 * len(names), 4)]
        resident = found["resident_bytes"] if self.device.type == "cpu" else 0
        return {name: Growth.fit(four) for name, four in zip(names, peaks, strict=True)}, resident

    def predicted(self, problem: Problem, growth: Growth, name: str) -> int:
        # The probes had as many images as a batch, and no micro-batches: of all images there is X, its copy that gradients flow
        # to, and its gradient; of a batch that is taken in parts, what the augmentation holds.
        image, micro_batch = 4 * 3 * problem.size**2, self.way(problem, name).micro_batch or problem.batch
        beside = 3 * (problem.images - problem.batch) + 8 * (problem.batch - micro_batch)
        tensors = image * beside + growth.bytes(problem.batch, micro_batch, problem.steps)
        return round(tensors * (HEAP if self.device.type == "cpu" else 1))

    def convolutions(self, problem: Problem, precision: Precision) -> list[dict[str, Any]]:
        """The measured layers of a batch."""
        posed = replace(problem, images=problem.batch, steps=1)
        arguments = {
            "problem": posed,
            "precision": precision,
            "micro_batch": self.micro(problem, precision),
            "repeats": self.settings.repeats,
        }
        path = self.folder / "convolutions" / f"{precision}-batch{problem.batch}.json"
        layers: list[dict[str, Any]] = self.measure(path, "convolutions", arguments)["layers"]
        return layers

    def reference(self, problem: Problem, ipc: int, fits: bool) -> Path | None:
        """The file with the exact gradient, made if it is missing; None where that would take too long or too much memory."""
        path = self.folder / "references" / f"ipc{ipc}-T{problem.steps}.safetensors"
        key = fingerprint(VERSION, replace(problem, threads=1), self.environment["torch"])
        with suppress(OSError, SafetensorError, ValueError), safe_open(path, framework="pt") as file:
            if self.settings.reference_seconds and read_header(file.metadata()).get("fingerprint") == key:
                return path
        if not (fits and self.settings.reference_seconds):
            return None
        alone = convolution_seconds(self.convolutions(problem, "fp32"), Way(kind="exact"), problem.steps)
        if REFERENCE_COST * statistics.median(alone) > self.settings.reference_seconds:
            return None
        call_worker("reference", {"problem": problem, "path": str(path), "key": key}, self.isa)
        return path

    def cell(self, problem: Problem, ipc: int, name: str, reference: Path | None) -> dict[str, Any]:
        """What is measured of a variant, or the `error` that its process ended with."""
        way, path = self.way(problem, name), self.folder / "cells" / f"{name}-ipc{ipc}-T{problem.steps}.json"
        layers = self.convolutions(problem, way.precision)
        arguments = {"problem": problem, "way": way, "repeats": self.settings.repeats}
        try:
            found = self.measure(path, "variant", arguments, reference=None if reference is None else str(reference))
        except Failure as failure:
            return {"error": str(failure)}
        median = statistics.median(found["seconds"])
        alone = statistics.median(convolution_seconds(layers, way, problem.steps)) * _share(problem)
        return {
            **found,
            "median_seconds": median,
            "min_seconds": min(found["seconds"]),
            "compile_seconds": max(0.0, found["warm_up_seconds"] - median) if way.compiled else 0.0,
            "convolution_seconds": alone,
            "convolution_flops": convolution_flop(layers, way, problem.steps) * _share(problem) / alone,
            "times_convolutions": median / alone,
        }

    def measure(self, path: Path, kind: str, arguments: Mapping[str, Any], **places: str | None) -> dict[str, Any]:
        """The result of a job: from its file where the same was done before, else from a process.

        `places` are arguments that name files; of them it counts only whether they are there.
        """
        if path in self.measured:
            return self.measured[path]
        key = fingerprint(VERSION, kind, arguments, {name: place is not None for name, place in places.items()}, self.environment)
        found: dict[str, Any] | None = None
        if path.exists() and not self.fresh:
            stored = read_json(path)
            found = stored["result"] if stored.get("fingerprint") == key else None
        if found is None:
            found = call_worker(kind, {**arguments, **places}, self.isa)
            write_json(path, {"fingerprint": key, "kind": kind, "job": arguments, "environment": self.environment, "result": found})
        self.measured[path] = found
        return found


def checked(settings: EngineBenchSettings) -> tuple[FlatNetwork, torch.device]:
    """The network and the device, or a `UsageError` that names the option."""
    try:
        network = flat_network(settings.network, (3, settings.size, settings.size), settings.classes)
        return network, resolve_device(settings.device)
    except UsageError as error:
        raise UsageError("--" + str(error).removeprefix("engine.")) from None


def _share(problem: Problem) -> float:
    """Images that T steps see, of those T whole batches have: the last batch of a permutation may be smaller."""
    per_permutation = -(-problem.images // problem.batch)
    rounds, rest = divmod(problem.steps, per_permutation)
    return (rounds * problem.images + min(rest * problem.batch, problem.images)) / (problem.steps * problem.batch)

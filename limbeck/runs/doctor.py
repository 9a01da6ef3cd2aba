"""Whether Limbeck can work here: versions, device, compiler, places, and a gradient that is computed in two ways.

    exact against unroll      in double precision, on a tiny network: both are the same derivative, to rounding
    compiled against plain    a student step's gradient and its product with a vector, in single precision

What keeps a run from working, or makes its figures wrong, is a problem; what only makes it slow is a note.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from limbeck.augmentation import Dsa
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, Gradients, InnerLoop, Unroll
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime import disk
from limbeck.runtime.cgroup import memory_left
from limbeck.runtime.cleaning import Kind, held
from limbeck.runtime.compiling import keep_compiled_code
from limbeck.runtime.devices import memory_of, resolve_device, slow_bf16, undisturbed
from limbeck.runtime.errors import one_line
from limbeck.runtime.executor import cores
from limbeck.runtime.kept import cache_root
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid, Page, duration
from limbeck.runtime.version import VERSION

PACKAGES = ("torch", "numpy", "scipy", "safetensors", "pillow", "scikit-learn", "joblib", "psutil")
EXACT, COMPILED = 1e-9, 1e-4  # deviations that are rounding: in double precision over four steps, in single over one
LITTLE = 10**9  # bytes


@dataclass(frozen=True)
class Place(Record):
    """A folder that runs write to: what for, where, the bytes that are free there, and why nothing can be written, if so."""

    what: str
    path: str
    free: int
    reason: str = ""


@dataclass(frozen=True)
class SelfTest(Record):
    """A figure that must be rounding.

    Args:
        name: what is compared with what.
        deviation: the greatest, relative to the greatest number; None where it could not be computed.
        limit: what rounding explains.
        seconds: that it took.
        reason: why it could not be computed.
    """

    name: str
    deviation: float | None
    limit: float
    seconds: float
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether it is rounding."""
        return self.deviation is not None and self.deviation <= self.limit


@dataclass(frozen=True, kw_only=True)
class Checkup(Record):
    """What was found.

    Args:
        versions: of packages, of Python and of the system.
        device: that `auto` takes, in words.
        memory: bytes that are `free` and there in all, as far as this process may take them.
        cores: that this process may use.
        instructions: that Torch uses on the CPU.
        compiler: the path of the C++ compiler; None where there is none.
        cache: its folder.
        kinds: what the cache holds.
        places: that are written to.
        tests: of the gradient.
        notes: what makes runs slow, or is good to know.
        problems: what must be changed.
        seconds: that all of it took.
    """

    versions: Mapping[str, str]
    device: str
    memory: Mapping[str, int]
    cores: int
    instructions: str
    compiler: str | None
    cache: str
    kinds: tuple[Kind, ...]
    places: tuple[Place, ...]
    tests: tuple[SelfTest, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return str(self.page)

    @property
    def page(self) -> Page:
        """For people."""
        free, total = (disk.in_words(self.memory[name]) for name in ("free", "total"))
        lines = [
            ", ".join(f"{name} {number}" for name, number in self.versions.items()),
            f"device: {self.device}; {self.cores} cores, {self.instructions}; {free} of {total} memory free",
            f"compiler: {self.compiler or 'none'}",
            *(f"{test.name}: {_figure(test)}, in {duration(test.seconds)}" for test in self.tests),
        ]
        places = [["place", "folder", "free"]] + [[place.what, place.path, _room(place)] for place in self.places]
        kinds = [["kept", "what", "files", "size"]]
        kinds += [[kind.name, kind.what, str(kind.files), disk.in_words(kind.bytes)] for kind in self.kinds if kind.files]
        cleaning = f"the cache is {self.cache}; `limbeck doctor --clean KIND,…` empties it, LIMBECK_CACHE=DIR names another"
        said = [*(f"note: {note}" for note in self.notes), *(f"problem: {problem}" for problem in self.problems)]
        verdict = f"{len(self.problems)} problems" if self.problems else "nothing is wrong"
        return Page((*lines, Grid.of(places), *([Grid.of(kinds)] if len(kinds) > 1 else []), cleaning, *said, verdict))


@undisturbed()
def examine() -> Checkup:
    """Look at everything; less than a minute."""
    began = time.perf_counter()
    device, found, notes = resolve_device("auto"), compiler(), list[str]()
    versions, problems = _versions()
    places, tests = _places(), [self_test("exact against unroll", exact_deviation, EXACT)]
    if found is not None or device.type == "cuda":
        tests.append(self_test("compiled against plain", compiled_deviation, COMPILED))
    else:
        notes.append(
            "no C++ compiler was found: everything runs uncompiled, which takes about twice as long (g++ or clang++ will do)"
        )
    problems += [f"{test.name}: {_figure(test)}" for test in tests if not test.good]
    for place in places:
        if place.reason:
            problems.append(f"nothing can be written in {place.path} ({place.what}): {place.reason}")
        elif place.free < LITTLE:
            notes.append(f"{disk.in_words(place.free)} are free in {place.path} ({place.what})")
    if (left := memory_left()) is not None:
        notes.append(
            f"this process may take {disk.in_words(left[1])} of memory, of which {disk.in_words(left[0])} are left (cgroup)"
        )
    if slow := slow_bf16(device):
        notes.append(f"engine.precision=bf16 takes {slow} as long as fp32 here")
    free, total = memory_of(device)
    return Checkup(
        versions=versions,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({_processor()})",
        memory={"free": free, "total": total},
        cores=cores(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        compiler=found,
        cache=str(cache_root()),
        kinds=tuple(held()),
        places=tuple(places),
        tests=tuple(tests),
        notes=tuple(notes),
        problems=tuple(problems),
        seconds=round(time.perf_counter() - began, 3),
    )


def compiler() -> str | None:
    """The path of the C++ compiler that Torch takes; None where there is none."""
    named = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++", "cl"]
    return next((path for name in named if (path := shutil.which(name))), None)


def self_test(name: str, deviation: Callable[[], float], limit: float) -> SelfTest:
    """Compute a deviation, whatever comes of it."""
    began = time.perf_counter()
    try:
        found, reason = deviation(), ""
    except Exception as error:  # noqa: BLE001 (what is wrong with an installation shows in many ways)
        found, reason = None, f"{type(error).__name__}: {one_line(error)}"
    return SelfTest(name, found, limit, round(time.perf_counter() - began, 3), reason)


def exact_deviation() -> float:
    """Of `Exact` from `Unroll` in double precision: four steps of a tiny network, by X, Y and η."""
    network, draws = flat_network("ConvNetD1-w8", (3, 8, 8), 10), torch.Generator().manual_seed(0)
    start, target = network.initial(draws).double(), network.initial(draws).double()
    x, y, eta = torch.randn(10, 3, 8, 8, generator=draws).double(), torch.eye(10).double(), torch.tensor(0.01).double()
    steps = draw_steps((10, 3, 8, 8), batch_syn=5, steps=4, augmentation=Dsa(), seed=0, iteration=0)
    inner = InnerLoop(StudentStep(network, soft_cross_entropy), start, steps)

    def of(adjoint: Adjoint) -> Gradients:
        return adjoint(inner, x, y, eta, MatchingLoss(start, target))[0]

    exact, unroll = of(Exact()), of(Unroll())
    return max(deviation(getattr(exact, name), getattr(unroll, name)) for name in ("loss", "images", "labels", "syn_lr"))


def compiled_deviation() -> float:
    """Of a compiled step's gradient and product from the plain ones."""
    keep_compiled_code()
    network, draws = flat_network("ConvNetD1-w8", (3, 8, 8), 10), torch.Generator().manual_seed(0)
    theta, direction = network.initial(draws), network.initial(draws)
    x, y = torch.randn(10, 3, 8, 8, generator=draws), torch.eye(10)
    found = []
    for compiled in (True, False):
        step = StudentStep(network, soft_cross_entropy, compiled)
        pulled = step.pullback(theta, x, y, direction)
        found.append((step.gradient(theta, x, y), pulled.x, pulled.y, pulled.theta))
    return max(deviation(one, other) for one, other in zip(*found, strict=True))


def deviation(found: Tensor, wanted: Tensor) -> float:
    """The greatest, over the greatest number that is wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def _versions() -> tuple[dict[str, str], list[str]]:
    """Of what is there, and what is missing."""
    found, missing = {"limbeck": VERSION}, list[str]()
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(f"{name} is not installed")
    return {**found, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}, missing


def _places() -> list[Place]:
    """Where runs write."""
    folders = {"cache": cache_root(), "current folder": Path.cwd(), "passing files": Path(tempfile.gettempdir())}
    if sys.platform == "linux":
        folders["shared memory"] = Path("/dev/shm")
    found = []
    for what, folder in folders.items():
        try:
            disk.try_folder(folder)
            reason = ""
        except OSError as error:
            reason = disk.why(error)
        found.append(Place(what, str(folder), disk.free(folder), reason))
    return found


def _processor() -> str:
    return platform.processor() or platform.machine()


def _figure(test: SelfTest) -> str:
    if test.deviation is None:
        return f"it could not be computed ({test.reason})"
    return f"{test.deviation:.1e}" + ("" if test.good else f", which is more than rounding ({test.limit:.0e})")


def _room(place: Place) -> str:
    return place.reason or disk.in_words(place.free)

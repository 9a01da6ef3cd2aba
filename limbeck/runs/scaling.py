"""What a distillation takes over R processes, foretold from what it takes in one (`limbeck plan --devices`).

    t(R) = crowding(R) · (a + c · s(R) + talk(R))
    talk(R) = Σ over the sums of an iteration:   2 (R − 1) / R · bytes / bandwidth + 2 (R − 1) · latency

a is the part of an iteration that every process does whole (the update of θ, draws, calls), c what is spread, s(R) the largest
part of a batch that a process has, and crowding(R) how many threads take turns on a core: on CPUs sums need these, too. A sum is an
all-reduce around a ring, whose slowest link counts; nothing is taken to go on while the processes talk, so that talk(R) is the most
it can take.

Of X in shards a process computes those images of a batch that it holds. Their number is drawn, with mean b / R and deviation σ, and
the largest of R such is at most b / R + σ √(2 ln R) in the mean.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from limbeck.runtime.checked import Count, Options, Rule, at_least
from limbeck.runtime.errors import require
from limbeck.runtime.records import Record

NUMBER = 4  # bytes
TALKS = 4  # sums of a few numbers at the end of an iteration, such as whether anybody is to stop
WORTH = 1.05  # more devices help where they take more than 5 % off the time
MOST_DEVICES = 65_536

Named = Literal["nvlink", "pcie", "100gbe", "10gbe", "loopback"]
InRange = Annotated[float, Rule("above 0 and at most 1e+6", lambda value: 0 < value <= 1e6)]
Waiting = Annotated[float, Rule("from 0 to 1e+9", lambda value: 0 <= value <= 1e9)]


@dataclass(frozen=True)
class Link(Record):
    """What is between two processes: bytes a second that one sends to the next, and seconds until a message begins to arrive."""

    name: str
    bandwidth: float
    latency: float

    def __str__(self) -> str:
        return f"{self.name}, {self.bandwidth / 1e9:g} GB/s and {1e6 * self.latency:g} µs"


# Of what is printed on the box about three quarters: assumptions, no measurements.
LINKS: Mapping[str, Link] = {
    link.name: link
    for link in (
        Link("nvlink", 300e9, 5e-6),
        Link("pcie", 20e9, 10e-6),
        Link("100gbe", 9e9, 20e-6),
        Link("10gbe", 0.9e9, 50e-6),
        Link("loopback", 1e9, 100e-6),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class World(Options):
    """Which devices are planned for.

    Args:
        devices: of a node; a process each.
        nodes: how many.
        link: what is between processes, of several nodes between these: `nvlink` and `100gbe` for GPUs, `loopback` and `10gbe` for
            CPUs, unless it is said.
        bandwidth: of that link, GB/s from one process to the next; None takes what is assumed of it.
        latency: of that link, µs; None takes what is assumed of it.
        cores: of a node, which its processes share where they compute on the CPU; None takes as many as there are here.
    """

    devices: Annotated[Count, Rule(f"at most {MOST_DEVICES}", lambda value: value <= MOST_DEVICES)] = 1
    nodes: Annotated[int, at_least(1)] = 1
    link: Named | None = None
    bandwidth: InRange | None = None
    latency: Waiting | None = None
    cores: Count | None = None

    def check_together(self) -> None:
        most = MOST_DEVICES // self.devices
        require(self.nodes <= most, "--nodes", self.nodes, f"at most {most}: {MOST_DEVICES} devices in all can be planned")

    def links(self, gpu: bool) -> tuple[Link, Link]:
        """Within a node, and between nodes; the same of one node."""
        usual = ("nvlink", "100gbe") if gpu else ("loopback", "10gbe")
        chosen = LINKS[self.link or usual[self.nodes > 1]]
        bandwidth = chosen.bandwidth if self.bandwidth is None else 1e9 * self.bandwidth
        latency = chosen.latency if self.latency is None else 1e-6 * self.latency
        outer = Link(chosen.name, bandwidth, latency)
        return (LINKS[usual[0]] if self.nodes > 1 else outer), outer

    def sizes(self) -> Iterator[int]:
        """Numbers of devices to show: 1, 2, 4, … up to those of a node, and up to all nodes."""
        yield from _doubled(self.devices)
        yield from (self.devices * nodes for nodes in list(_doubled(self.nodes))[1:])


def _doubled(last: int) -> Iterator[int]:
    """1, 2, 4, … and the last."""
    yield from (1 << power for power in range((last - 1).bit_length()))
    yield last


@dataclass(frozen=True, kw_only=True)
class Work(Record):
    """What an iteration is, in one process.

    Args:
        parameters: P.
        sums: how often P numbers are summed over processes.
        ends: how often λ_T is told to all; 0 where no student walks.
        set_numbers: N (C·H·W + K), the numbers of a gradient by X and Y, which are summed once where X is not in shards.
        fetched: numbers of a batch that a network is trained on, which are summed, too, where X is in shards.
        images: N.
        batch: images that a step, or an iteration without steps, shares out.
        whole: seconds of what every process does; None where nothing could be timed.
        spread: seconds of what is shared out.
    """

    parameters: int
    sums: float
    ends: int
    set_numbers: int
    fetched: int = 0
    images: int
    batch: int
    whole: float | None = None
    spread: float | None = None

    def messages(self, sharded: bool) -> list[tuple[float, int]]:
        """How many sums of how many bytes each."""
        once = 1 if sharded else self.set_numbers + 1
        fetched = [(self.sums, NUMBER * self.fetched)] if sharded and self.fetched else []
        return [(self.sums, NUMBER * self.parameters), *fetched, (max(1, self.ends), NUMBER * once)]

    def sent(self, ranks: int, sharded: bool) -> int:
        """Bytes that rank 0 sends in an iteration, the most that any does."""
        if ranks == 1:
            return 0
        sums = sum(count * (2 * nbytes * (ranks - 1) // ranks) for count, nbytes in self.messages(sharded))
        return round(sums) + self.ends * NUMBER * (self.parameters + 1)


@dataclass(frozen=True, kw_only=True)
class Memory(Record):
    """The bytes of one process, by what becomes of them over several.

    Args:
        base: what each has: torch, the network, what was loaded.
        set: X with gradient, velocity and average, which shards divide.
        trajectory: θ_0 … θ_T and what is computed beside them.
        kept: of steps of a whole batch.
        image: of the work on one.
        at_once: images that are worked on at a time.
        beside: of maps and evaluations, which no iteration runs beside: they do not shrink.
    """

    base: int
    set: int
    trajectory: int
    kept: int
    image: int
    at_once: int
    beside: int = 0

    def of(self, work: Work, ranks: int, sharded: bool) -> int:
        """Bytes of one of so many processes."""
        share = slowest_share(work, ranks, sharded)
        held = self.set * -(-work.images // ranks) / work.images if sharded else self.set
        images = min(self.at_once, math.ceil(share * work.batch))
        return round(self.base + held + max(self.beside, self.trajectory + self.kept * share + self.image * images))


@dataclass(frozen=True, kw_only=True)
class Row(Record):
    """One number of devices.

    Args:
        devices: R.
        nodes: that they are on.
        link: the slowest that is between them; None for one device.
        seconds_per_iteration, seconds: of an iteration, and of all; None where nothing could be timed.
        speed_up: of the latter, over one device.
        efficiency: that over R.
        sent: bytes that rank 0 sends in an iteration.
        talk: seconds that it takes in one.
        share: of the iteration.
        memory: bytes of a device that holds all of X.
        memory_sharded: bytes of one that holds its share; None where every device has to hold all of X.
    """

    devices: int
    nodes: int
    link: str | None
    seconds_per_iteration: float | None
    seconds: float | None
    speed_up: float | None
    efficiency: float | None
    sent: int
    talk: float
    share: float | None
    memory: int
    memory_sharded: int | None


@dataclass(frozen=True, kw_only=True)
class Scaling(Record):
    """What several devices would take, and what that rests on.

    Args:
        work: that was measured.
        links: within a node and between nodes, as assumed.
        sharded: whether time and bytes are those of X in shards.
        rows: numbers of devices.
        useful: the smallest number of devices to which no larger one brings another 5 % of time.
        useful_speed_up: theirs.
        collected: bytes of the whole set with its momenta, which rank 0 gathers in the memory of its host for checkpoints.
        assumptions: sentences.
    """

    work: Work
    links: tuple[Link, ...]
    sharded: bool
    rows: tuple[Row, ...]
    useful: int | None
    useful_speed_up: float | None
    collected: int
    assumptions: tuple[str, ...]


def seconds_of_sum(nbytes: float, ranks: int, link: Link) -> float:
    """Of an all-reduce around a ring: 2 (R − 1) messages, of an R-th each."""
    return 2 * (ranks - 1) * (nbytes / ranks / link.bandwidth + link.latency)


def seconds_of_telling(nbytes: float, ranks: int, link: Link) -> float:
    """Of a broadcast along a tree."""
    return (ranks - 1).bit_length() * (nbytes / link.bandwidth + link.latency)


def slowest_share(work: Work, ranks: int, sharded: bool) -> float:
    """The largest part of a batch that one of the processes has; of X in shards in the mean, at most."""
    even = -(-work.batch // ranks)
    if not sharded or ranks == 1 or work.batch >= work.images:
        return even / work.batch
    rest = (work.images - work.batch) / (work.images - 1)  # drawn without putting back
    deviation = math.sqrt(work.batch / ranks * (1 - 1 / ranks) * rest)
    most = min(work.batch, -(-work.images // ranks), work.batch / ranks + deviation * math.sqrt(2 * math.log(ranks)))
    return max(even, most) / work.batch


def talk(work: Work, ranks: int, link: Link, sharded: bool) -> float:
    """Seconds of all that the processes say to each other in an iteration."""
    if ranks == 1:
        return 0.0
    sums = sum(count * seconds_of_sum(nbytes, ranks, link) for count, nbytes in work.messages(sharded))
    told = work.ends * seconds_of_telling(NUMBER * (work.parameters + 1), ranks, link)
    return sums + told + TALKS * seconds_of_sum(0, ranks, link)


def crowding(ranks: int, threads: int, cores: int | None) -> float:
    """How much longer processes of a node compute that have more threads than there are cores; None: they have devices."""
    return 1.0 if cores is None else max(1.0, ranks * threads / cores)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Foretells what a plan for one device takes on several.

    Args:
        work: of an iteration.
        memory: of a device.
        parts: seconds of all there is to do, by name; empty where nothing could be timed.
        world: the devices.
        gpu: whether they are GPUs.
        threads: of a process, as it was timed.
        cores: of a node.
        sharded: whether X is.
        whole: whether every device has to hold all of X.
    """

    work: Work
    memory: Memory
    parts: Mapping[str, float]
    world: World
    gpu: bool
    threads: int
    cores: int
    sharded: bool
    whole: bool = False

    def plan(self) -> Scaling:
        """The rows, and beyond how many devices more do not help."""
        useful = self.useful()
        return Scaling(
            work=self.work,
            links=tuple(dict.fromkeys(self.world.links(self.gpu))),
            sharded=self.sharded,
            rows=tuple(map(self.row, self.world.sizes())),
            useful=useful,
            useful_speed_up=None if useful is None else self._speed_up(useful),
            collected=self.memory.set,
            assumptions=tuple(self._assumptions()),
        )

    def row(self, ranks: int) -> Row:
        """What so many devices take."""
        iteration, seconds, speed_up = self.iteration(ranks), self.seconds(ranks), self._speed_up(ranks)
        talking = self._crowded(ranks) * talk(self.work, ranks, self.link(ranks), self.sharded)
        return Row(
            devices=ranks,
            nodes=-(-ranks // self.world.devices),
            link=None if ranks == 1 else self.link(ranks).name,
            seconds_per_iteration=iteration,
            seconds=seconds,
            speed_up=speed_up,
            efficiency=None if speed_up is None else speed_up / ranks,
            sent=self.work.sent(ranks, self.sharded),
            talk=talking,
            share=talking / iteration if iteration else None,
            memory=self.memory.of(self.work, ranks, False),
            memory_sharded=self.memory.of(self.work, ranks, True) if not self.whole else None,
        )

    def link(self, ranks: int) -> Link:
        """The slowest between so many devices; a single node is taken to be as large as it has to be."""
        inner, outer = self.world.links(self.gpu)
        crosses = ranks > self.world.devices and self.world.nodes > 1
        return max(inner, outer, key=lambda link: seconds_of_sum(NUMBER * self.work.parameters, 2, link)) if crosses else inner

    def iteration(self, ranks: int) -> float | None:
        """Seconds."""
        if self.work.whole is None or self.work.spread is None:
            return None
        computing = self.work.whole + self.work.spread * slowest_share(self.work, ranks, self.sharded)
        return self._crowded(ranks) * (computing + talk(self.work, ranks, self.link(ranks), self.sharded))

    def _crowded(self, ranks: int) -> float:
        beside = min(ranks, self.world.devices) if self.world.nodes > 1 else ranks
        return crowding(beside, self.threads, None if self.gpu else self.cores)

    def seconds(self, ranks: int) -> float | None:
        """Of all there is to do: what walks through student steps goes with an iteration, maps of shards with R, the rest stays."""
        one, several = self.iteration(1), self.iteration(ranks)
        if not self.parts or one is None or several is None:
            return None
        factor = {"iterations": several / one if one else 1.0, "maps": 1 / ranks if self.sharded else 1.0}
        factor["comparisons"] = factor["iterations"]
        return sum(seconds * factor.get(name, 1.0) for name, seconds in self.parts.items())

    def useful(self) -> int | None:
        """The smallest number of devices to which no larger one brings another 5 %, as far as there are images for them."""
        if self.seconds(1) is None:
            return None
        taken = [self.seconds(ranks) or 0.0 for ranks in range(1, min(MOST_DEVICES, max(2, self.work.batch)) + 1)]
        return 1 + next(place for place, seconds in enumerate(taken) if seconds <= WORTH * min(taken))

    def _speed_up(self, ranks: int) -> float | None:
        one, several = self.seconds(1), self.seconds(ranks)
        return one / several if one is not None and several else None

    def _assumptions(self) -> Iterator[str]:
        inner, outer = self.world.links(self.gpu)
        yield f"between processes: {inner}" if self.world.nodes == 1 else f"within a node: {inner}; between nodes: {outer}"
        yield "sums go around a ring, the slowest link counts, and nothing is computed meanwhile"
        whole, spread = self.work.whole, self.work.spread
        if whole is not None and spread is not None and whole + spread:
            share = 100 * whole / (whole + spread)
            yield f"{share:.0f} % of an iteration do not shrink with the images of a process, by timings of two sizes of batches"
        if not self.gpu:
            yield f"{self.cores} cores a node, {self.threads} threads a process (OMP_NUM_THREADS); threads beyond cores take turns"
        yield "evaluations, checkpoints, compilation and maps of a set that is not in shards take as long as in one process"


def useful_sentence(found: Scaling, what: str = "devices") -> str:
    """Beyond which number of devices more do not help, and by what rule."""
    rule = "no larger number takes another 5 % off the time"
    if found.useful is None:
        return f"beyond how many {what} more do not help is not known where nothing could be timed"
    if found.useful == 1:
        return f"more than one of the {what} does not help: {rule}"
    return f"beyond {found.useful} {what} more do not help: {rule} ({found.useful_speed_up:.1f} times as fast as one)"


def timed_apart(seconds: Sequence[tuple[int, float]]) -> float:
    """The share of the larger batch's time that does not go with its images, in [0, 1], by the line through two timings."""
    (few, less), (many, more) = seconds
    slope = (more - less) / (many - few)
    return min(1.0, max(0.0, (more - slope * many) / more)) if more > 0 else 0.0

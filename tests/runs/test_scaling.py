"""What several devices are foretold to take, against closed forms, and how it must change with its figures."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs.small_run import settings

from limbeck.cli import distill
from limbeck.cli.main import main
from limbeck.matching.adjoint import Adjoint, Exact, Tesla, Truncated, Unroll
from limbeck.runs.over_devices import sums_of, work_of
from limbeck.runs.plan import Plan, plan
from limbeck.runs.scaling import (
    LINKS,
    Link,
    Memory,
    Planner,
    Scaling,
    Work,
    World,
    crowding,
    seconds_of_sum,
    seconds_of_telling,
    slowest_share,
    talk,
    timed_apart,
)
from limbeck.runtime.devices import STAND_IN
from limbeck.runtime.errors import UsageError
from tests.device_paths import rehearsed

WORK = Work(parameters=1000, sums=7, ends=1, set_numbers=500, images=100, batch=40, whole=0.1, spread=0.9)
MEMORY = Memory(base=10_000, set=8000, trajectory=500, kept=400, image=20, at_once=40)
PARTS = {"iterations": 10.0, "maps": 4.0, "comparisons": 1.0, "evaluations": 3.0}
LINK = Link("wire", 1e6, 1e-3)

works = st.builds(
    Work,
    parameters=st.integers(1, 10**8),
    sums=st.integers(0, 200).map(float),
    ends=st.integers(0, 2),
    set_numbers=st.integers(1, 10**9),
    images=st.just(1000),
    batch=st.integers(1, 1000),
    whole=st.floats(0, 10),
    spread=st.floats(1e-3, 100),
)
links = st.builds(Link, st.just("wire"), st.floats(1e6, 1e12), st.floats(0, 1e-2))


def planner(sharded: bool = False, gpu: bool = True, work: Work = WORK, whole: bool = False, **world: object) -> Planner:
    return Planner(
        work=work,
        memory=MEMORY,
        parts=PARTS,
        world=World(**world),
        gpu=gpu,
        threads=1,
        cores=2,
        sharded=sharded,  # type: ignore[arg-type]
        whole=whole,
    )


def test_a_sum_around_a_ring():
    """Of R ranks: 2 (R − 1) messages of an R-th of the bytes, one after the other."""
    assert seconds_of_sum(8e6, 4, LINK) == pytest.approx(6 * (2.0 + 1e-3))
    assert seconds_of_sum(8e6, 1, LINK) == 0
    assert [seconds_of_telling(2e6, ranks, LINK) for ranks in (1, 2, 4, 5)] == pytest.approx([0, 2.001, 4.002, 6.003])


def test_an_iteration_of_two_ranks():
    """T + (T' − 1) = 7 sums of P numbers, one of the set's and η, λ_T told, four words: by hand."""
    sums = 7 * (4000 / 1e6 + 2e-3) + (4 * 501 / 1e6 + 2e-3)
    told, words = 4004 / 1e6 + 1e-3, 4 * 2e-3
    assert talk(WORK, 2, LINK, False) == pytest.approx(sums + told + words)
    found = planner(bandwidth=1e-3, latency=1000)
    assert found.link(2) == Link("nvlink", 1e6, pytest.approx(1e-3))
    assert found.iteration(2) == pytest.approx(0.1 + 0.9 / 2 + sums + told + words)
    assert found.iteration(1) == pytest.approx(1.0)


def test_bytes_are_those_that_ranks_count():
    """2 b (R − 1) / R a sum, rounded down as `Ranks.sent` does; the gradient by X is sent only where all hold it."""
    assert WORK.sent(1, False) == 0
    assert WORK.sent(2, False) == 7 * 4000 + 2004 + 4004
    assert WORK.sent(3, False) == 7 * (2 * 4000 * 2 // 3) + 2 * 2004 * 2 // 3 + 4004
    assert WORK.sent(3, True) == 7 * (2 * 4000 * 2 // 3) + 2 * 4 * 2 // 3 + 4004


def test_without_talk_and_rest_it_is_amdahl():
    """S(R) = 1 / (a + (1 − a) / R)."""
    free = planner(work=replace(WORK, sums=0, ends=0, set_numbers=1), bandwidth=1e6, latency=0)
    for ranks in (1, 2, 4, 8):
        assert free.iteration(ranks) == pytest.approx(0.1 + 0.9 / ranks, rel=1e-6)


def test_uneven_shares_wait_for_the_largest():
    assert [slowest_share(WORK, ranks, False) for ranks in (1, 3, 40, 41)] == [1, 14 / 40, 1 / 40, 1 / 40]


def test_shards_have_what_is_drawn():
    """All of X falls evenly on shards; a batch of it as drawn, a bit more on one of them."""
    assert slowest_share(replace(WORK, batch=100), 4, True) == 0.25
    deviation = math.sqrt(40 / 4 * (3 / 4) * 60 / 99)
    assert slowest_share(WORK, 4, True) == pytest.approx((10 + deviation * math.sqrt(2 * math.log(4))) / 40)
    assert slowest_share(replace(WORK, batch=99), 100, True) == pytest.approx(1 / 99)


def test_memory_of_a_device():
    assert MEMORY.of(WORK, 1, False) == 10_000 + 8000 + 500 + 400 + 40 * 20
    assert MEMORY.of(WORK, 4, False) == 10_000 + 8000 + 500 + 100 + 10 * 20
    half = MEMORY.of(replace(WORK, batch=100), 4, True)
    assert half == 10_000 + 2000 + 500 + 100 + 25 * 20
    evaluated = replace(MEMORY, beside=1600)
    assert [evaluated.of(WORK, ranks, False) for ranks in (1, 4)] == [10_000 + 8000 + 1700, 10_000 + 8000 + 1600]


def test_threads_that_take_turns():
    assert [crowding(ranks, 1, 2) for ranks in (1, 2, 4)] == [1, 1, 2]
    assert crowding(2, 2, 2) == 2
    assert crowding(64, 8, None) == 1
    crowded, alone = planner(gpu=False), planner(gpu=True, link="loopback")
    assert crowded.iteration(2) == alone.iteration(2)
    assert crowded.iteration(4) == pytest.approx(2 * (alone.iteration(4) or 0))
    assert crowded.row(4).talk == pytest.approx(2 * alone.row(4).talk)


def test_all_of_it():
    """What walks through steps goes with an iteration, maps of shards with R, the rest not at all."""
    whole, shards = planner(bandwidth=1e6, latency=0), planner(sharded=True, bandwidth=1e6, latency=0)
    for found, maps in ((whole, 4.0), (shards, 2.0)):
        assert found.seconds(2) == pytest.approx(11 * found.iteration(2) / found.iteration(1) + maps + 3)
        assert found.seconds(1) == pytest.approx(18)


def test_the_slowest_link_counts():
    found = planner(devices=4, nodes=2)
    assert [found.link(ranks).name for ranks in (2, 4, 8)] == ["nvlink", "nvlink", "100gbe"]
    assert [row.devices for row in found.plan().rows] == [1, 2, 4, 8]
    assert [row.nodes for row in found.plan().rows] == [1, 1, 1, 2]
    assert list(World(devices=6, nodes=3).sizes()) == [1, 2, 4, 6, 12, 18]
    assert planner(devices=4, nodes=2, bandwidth=1000, latency=0).link(8).name == "nvlink"


@given(works, links, st.integers(1, 200), st.booleans())
def test_it_changes_as_it_must(work: Work, link: Link, ranks: int, sharded: bool):
    """More devices send no less and hold no more; a faster link takes no longer; no speed-up beyond R."""
    faster = replace(link, bandwidth=2 * link.bandwidth, latency=link.latency / 2)
    assert talk(work, ranks, faster, sharded) <= talk(work, ranks, link, sharded)
    assert work.sent(ranks + 1, sharded) >= work.sent(ranks, sharded)
    assert talk(work, ranks + 1, link, sharded) >= talk(work, ranks, link, sharded)
    assert 1 / ranks - 1e-12 <= slowest_share(work, ranks, sharded) <= 1
    assert slowest_share(work, ranks + 1, False) <= slowest_share(work, ranks, False)
    assert MEMORY.of(work, ranks + 1, False) <= MEMORY.of(work, ranks, False)
    assert MEMORY.of(work, ranks, True) >= MEMORY.base + MEMORY.set / ranks
    one, several = (planner(sharded, work=work).iteration(number) or 0.0 for number in (1, ranks))
    assert one <= several * ranks * (1 + 1e-9)


@given(works.filter(lambda work: work.batch <= 100), st.floats(1e-3, 1e3))
def test_beyond_the_useful_number_none_takes_another_twentieth_off(work: Work, bandwidth: float):
    found = planner(work=work, bandwidth=bandwidth, devices=8)
    useful = found.useful() or 0
    taken = {ranks: found.seconds(ranks) or 0.0 for ranks in range(1, max(2, work.batch) + 1)}
    assert all(taken[useful] <= 1.05 * seconds for seconds in taken.values())
    assert all(taken[ranks] > 1.05 * min(taken.values()) for ranks in range(1, useful))


def test_what_does_not_shrink_is_found_by_two_timings():
    assert timed_apart([(10, 0.2 + 10 * 0.03), (40, 0.2 + 40 * 0.03)]) == pytest.approx(0.2 / 1.4)
    assert timed_apart([(10, 1.0), (40, 4.1)]) == 0
    assert timed_apart([(10, 1.1), (40, 1.0)]) == 1


@pytest.mark.parametrize(
    ("adjoint", "sums"), [(Exact(), 5 + 4), (Exact(kept=2), 5 + 4), (Truncated(steps=2), 5 + 1), (Tesla(), 5), (Unroll(), 5 + 5)]
)
def test_sums_of_five_steps(adjoint: Adjoint, sums: int):
    """g at each step forth; h_θ at each step back, which nobody asks for of the first one; TESLA needs none."""
    assert sums_of(adjoint, 5, 1) == sums
    assert sums_of(adjoint, 5, 2) == 2 * sums - 5


@pytest.mark.parametrize("gpu", [True, False])
def test_it_goes_to_json_and_back(gpu: bool):
    found = planner(gpu=gpu, devices=4, nodes=2).plan()
    assert Scaling.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert any("9 GB/s" in one or "0.9 GB/s" in one for one in found.assumptions)


def test_methods_that_share_classes():
    """DSA's networks are trained between iterations; DM sums the gradient by X, and that once."""
    trained = work_of(rehearsed(STAND_IN, "dsa", **{"real.outer_loops": 4, "real.inner_loops": 3, "real.network_batch": 5}))
    workspace = rehearsed(STAND_IN, "dm")
    total, classes = workspace.settings.ipc * workspace.data.num_classes, workspace.data.num_classes
    assert trained.sums == pytest.approx(3 * math.ceil(total / 5) * 3 / 4)
    once = work_of(workspace)
    numbers = total * math.prod(workspace.data.shape)
    assert (once.sums, once.ends, once.batch, once.set_numbers, once.whole) == (0, 0, classes, numbers, None)
    assert once.sent(2, False) == 4 * (numbers + 1)


def test_a_plan_over_devices():
    result = plan(settings(), world=World(devices=3))
    scaling = result.scaling
    assert scaling is not None and [row.devices for row in scaling.rows] == [1, 2, 3]
    one = scaling.rows[0]
    assert (one.seconds, one.seconds_per_iteration) == pytest.approx((result.seconds, result.seconds_per_iteration))
    assert (one.memory, one.sent, one.speed_up) == (result.peak_memory, 0, 1)
    assert result.to_dict()["scaling"]["rows"][2]["sent"] == scaling.work.sent(3, scaling.sharded) > 0


def test_what_is_printed(capsys: pytest.CaptureFixture[str]):
    rest = {"parts": PARTS, "experts": None, "seconds_per_iteration": 1.0, "peak_memory": 0, "engine": None, "device": "cpu"}
    found = planner(devices=4, nodes=2).plan()
    distill.PLAN.show(distill.Planned("r", Plan(**rest, advice=(), notes=(), scaling=found)))  # type: ignore[arg-type]
    printed = " ".join(capsys.readouterr().out.split())
    assert "devices more do not help: no larger number takes another 5 % off the time" in printed
    assert "assumed: within a node: nvlink, 300 GB/s and 5 µs; between nodes: 100gbe, 9 GB/s and 20 µs" in printed
    assert "X in shards" in printed
    untimed = planner(devices=2, work=replace(WORK, whole=None, spread=None))
    shown = replace(untimed, parts={}).plan()
    distill.PLAN.show(distill.Planned("r", Plan(**rest, advice=(), notes=(), scaling=shown)))  # type: ignore[arg-type]
    assert "is not known where nothing could be timed" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", "0"], "--devices: 0 is not at least 1"),
        (["--devices", "many"], "argument --devices: invalid int value: 'many'"),
        (["--devices", "100000"], "--devices: 100000 is not at most 65536"),
        (["--devices", "8", "--nodes", "0"], "--nodes: 0 is not at least 1"),
        (["--devices", "8", "--nodes", "100000"], "--nodes: 100000 is not at most 8192: 65536 devices in all can be planned"),
        (["--nodes", "2"], "--nodes: 2 is not of use without --devices N"),
        (["--cores", "2"], "--cores: 2 is not of use without --devices N"),
        (["--devices", "2", "--bandwidth", "0"], "--bandwidth: 0.0 is not above 0 and at most 1e+6"),
        (["--devices", "2", "--bandwidth", "nan"], "--bandwidth: nan is not above 0 and at most 1e+6"),
        (["--devices", "2", "--latency", "-1"], "--latency: -1.0 is not from 0 to 1e+9"),
        (["--devices", "2", "--link", "string"], "--link: 'string' is not"),
        (["--devices", "2", "--cores", "0"], "--cores: 0 is not at least 1"),
    ],
)
def test_bad_options_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "scenes", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_links_that_are_assumed_are_said():
    assert list(map(str, LINKS.values()))[:2] == ["nvlink, 300 GB/s and 5 µs", "pcie, 20 GB/s and 10 µs"]
    with pytest.raises(UsageError, match="--link"):
        World(link="string")  # type: ignore[arg-type]


def test_where_every_device_holds_all_nothing_is_said_of_shards():
    assert [row.memory_sharded for row in planner(devices=2, whole=True).plan().rows] == [None, None]
    assert all(row.memory_sharded for row in planner(devices=2).plan().rows)

"""The processes of one run: shares, sums, what one does while others wait, and errors that all of them raise."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from together import Team
from torch import Tensor

from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import cores
from limbeck.runtime.launch import started_together
from limbeck.runtime.published import Published, working
from limbeck.runtime.ranks import Ranks, speaks
from limbeck.runtime.remote import Remote


@pytest.fixture(scope="module")
def two() -> Iterator[Team]:
    with Team(2) as team:
        yield team


@pytest.mark.parametrize("total", [0, 1, 2, 3, 7, 8, 50])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_shares_are_all_there_is_in_order_and_as_equal_as_can_be(total: int, count: int) -> None:
    shares = [range(total)[Ranks(number, count).share(total)] for number in range(count)]
    assert [one for share in shares for one in share] == list(range(total))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_a_process_alone_is_a_world_of_one() -> None:
    here, value = Ranks.here(), torch.tensor([1.0, 2.0])
    here.sum_(value)
    here.broadcast_(value)
    here.wait()
    assert (here.first, here.alone, here.share(5)) == (True, True, slice(0, 5))
    assert here.start_sum(value).wait() is value and value.tolist() == [1.0, 2.0] and here.sent == 0
    assert here.told(lambda: 3) == 3 and here.gathered(lambda: 3) == [3]


def summed() -> tuple[list[Tensor], int]:
    here = Ranks.here()
    before = here.sent
    one, other, scalar = torch.full((3,), 1.0 + here.number), torch.arange(6.0).view(2, 3).T, torch.tensor(10.0 * here.number)
    other = other * (1 + here.number)
    here.sum_(one, other, scalar)
    return [one, other, scalar], here.sent - before


def test_a_sum_over_ranks_is_in_the_place_of_every_tensor(two: Team) -> None:
    for found, sent in two(summed):
        assert found[0].tolist() == [3.0] * 3 and found[2].item() == 10.0
        assert torch.equal(found[1], 3 * torch.arange(6.0).view(2, 3).T)
        assert sent == 10 * 4  # 2 b (R − 1) / R of b = 10 numbers


def under_way() -> tuple[float, float]:
    here, buffer = Ranks.here(), torch.ones(100_000)
    begun = here.start_sum(buffer)
    meanwhile = float(torch.ones(10).sum())
    return begun.wait().sum().item(), meanwhile


def test_a_sum_goes_on_beside_other_work(two: Team) -> None:
    assert two(under_way) == [(200_000.0, 10.0)] * 2


def same() -> Tensor:
    here = Ranks.here()
    value = torch.full((4,), float(here.number))
    here.broadcast_(value)
    return value


def test_a_broadcast_is_what_rank_0_has(two: Team) -> None:
    assert all(found.tolist() == [0.0] * 4 for found in two(same))


def told() -> tuple[str, list[int]]:
    here = Ranks.here()

    def slow() -> str:
        time.sleep(0.2)
        return f"of {here.number}"

    return here.told(slow), here.gathered(lambda: 10 * here.number)


def test_what_one_rank_makes_all_are_told(two: Team) -> None:
    assert two(told) == [("of 0", [0, 10])] * 2


def failed(kind: type[Exception], on: int, only_first: bool) -> str:
    here = Ranks.here()

    def work() -> int:
        if here.number == on:
            raise kind("it went wrong")
        return here.number

    try:
        (here.told if only_first else here.gathered)(work)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "went well"


def test_what_goes_wrong_on_one_rank_is_raised_on_all(two: Team) -> None:
    assert two(failed, UsageError, 0, True) == ["UsageError: it went wrong"] * 2
    assert two(failed, Failure, 1, False) == ["Failure: it went wrong"] * 2
    assert two(failed, UsageError, 1, True) == ["went well"] * 2
    own, other = two(failed, ZeroDivisionError, 0, False)  # its class may be one that others cannot import
    assert (own, other) == ("ZeroDivisionError: it went wrong", "Failure: ZeroDivisionError: it went wrong")


def published(cache: Path, name: str) -> tuple[bool, list[str]]:
    """Whether this rank publishes, and what is there then; or what went wrong."""
    os.environ["LIMBECK_CACHE"], here, place = str(cache), Ranks.here(), f"memory://ranks/{name}"
    try:
        with working("output", place, ranks=here) as work:
            here.told(lambda: (work.folder / "a").write_text("1"))
            assert (work.folder / "a").read_text() == "1"
            publishes = work.published is not None
    except UsageError as error:
        return False, [str(error)]
    return publishes, sorted(Published(Remote("output", place)).newest().files) if here.first else []


def test_one_of_the_ranks_publishes_what_all_have_made(two: Team, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    assert two(published, tmp_path, "folder") == [(True, ["a"]), (False, [])]
    said = "output: 'memory://ranks/folder' is not empty; go on with --resume, or name another place"
    assert two(published, tmp_path, "folder") == [(False, [said])] * 2


def test_only_processes_that_were_started_together_join(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not started_together() and speaks() and speaks()
    for name, value in {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not started_together()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert started_together()


JOINS = """
import os, signal, sys
from limbeck.runtime.ranks import joined, speaks
from limbeck.runtime.errors import Failure
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which torchrun sends to those that are left
with joined() as here:
    speaks = here.gathered(speaks)
    os.write(1, f"cores of each: {os.environ['LOKY_MAX_CPU_COUNT']}\\n".encode())  # at once, or the other's goes in between
    if here.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        here.wait()
    except Failure as error:
        print(sorted(speaks), "failed:", error)
        sys.exit(1)
"""


def test_ranks_of_torchrun_meet_one_speaks_and_a_death_is_noticed() -> None:
    with_torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python"]
    found = subprocess.run([*with_torchrun, sys.executable, "-c", JOINS], capture_output=True, text=True, timeout=300)
    said = "[False, True] failed: rank 1 of 2 has ended, and with it the run"
    assert said in found.stdout and found.returncode == 1, found.stderr
    assert f"cores of each: {max(1, cores() // 2)}\n" in found.stdout

"""Locks between machines that share a store of objects alone."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.runtime import claims
from limbeck.runtime.claims import Claim
from limbeck.runtime.locks import Busy
from limbeck.runtime.owner import Owner
from limbeck.runtime.remote import Remote


def _claim(bucket: str, machine: Path) -> Claim:
    """A claim as another machine makes it, whose own lock is its own."""
    return Claim(Remote("experts.store", f"{bucket}/expert-0003"), machine / "expert-0003")


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners are of a machine that cannot be asked."""
    here = Owner.here()
    monkeypatch.setattr(Owner, "here", staticmethod(lambda: replace(here, place="0" * 16, host="another")))


def test_one_machine_has_it_at_a_time(bucket: str, tmp_path: Path) -> None:
    with _claim(bucket, tmp_path / "a"), pytest.raises(Busy, match="^process [0-9]+ on "):
        _claim(bucket, tmp_path / "b").acquire(timeout=0.0)
    with _claim(bucket, tmp_path / "b"):
        pass
    names = Remote("experts.store", f"{bucket}/expert-0003/claims").names()
    assert names == ["00000002.json"]  # the highest stays


def test_of_many_at_once_one_has_it(bucket: str, tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work(number: int) -> None:
        for _ in range(3):
            with _claim(bucket, tmp_path / str(number)).acquire(timeout=60):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.005)
                inside[0] -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and inside == [0]


def test_who_looked_long_ago_gets_no_number_below_the_highest(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It found claim 1 given back and was stopped; meanwhile others had claims 2 and 3, which are removed, and one has the next."""
    for name in "ab":
        with _claim(bucket, tmp_path / name):
            pass
    last, put_new = _claim(bucket, tmp_path / "last"), Remote.put_new

    def late(self: Remote, content: bytes) -> bool:
        monkeypatch.setattr(Remote, "put_new", put_new)
        for name in "ab":
            with _claim(bucket, tmp_path / name):
                pass
        last.acquire(timeout=0.0)
        return put_new(self, content)

    monkeypatch.setattr(Remote, "put_new", late)
    with pytest.raises(Busy, match="^process "):
        _claim(bucket, tmp_path / "late").acquire(timeout=0.0)
    assert Remote("experts.store", f"{bucket}/expert-0003/claims").names() == ["00000004.json", "00000005.json"]
    last.release()


def test_the_claim_of_a_process_that_has_died_is_free(bucket: str, tmp_path: Path) -> None:
    dead = replace(Owner.here(), pid=2**22 + 1)
    place = Remote("experts.store", f"{bucket}/expert-0003/claims/00000007.json")
    place.put(json.dumps(dead.to_dict()).encode())
    with _claim(bucket, tmp_path).acquire(timeout=0.0) as claim:
        assert claim._number == 8


def test_a_machine_that_does_not_renew_its_claim_counts_as_dead(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        _elsewhere(there)
        _claim(bucket, tmp_path / "a").acquire()
    with pytest.raises(Busy, match="on another"):
        _claim(bucket, tmp_path / "b").acquire(timeout=0.0)
    monkeypatch.setattr(claims, "DEAD_AFTER", -1.0)  # as if that time had passed by the store's clock
    with _claim(bucket, tmp_path / "b").acquire(timeout=0.0):
        pass


def test_a_claim_is_renewed_while_it_is_held(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWED", 0.01)
    place, written = Remote("experts.store", f"{bucket}/expert-0003/claims/00000001.json"), threading.Event()
    put = Remote.put
    monkeypatch.setattr(Remote, "put", lambda self, content: (put(self, content), written.set())[0])
    with _claim(bucket, tmp_path):
        assert written.wait(20) and Owner.from_dict(json.loads(place.read())).runs
    assert json.loads(place.read()) == {"free": True}


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'{"host": 3}'])
def test_a_claim_that_cannot_be_read_is_somebodys(bucket: str, tmp_path: Path, content: bytes) -> None:
    Remote("experts.store", f"{bucket}/expert-0003/claims/00000001.json").put(content)
    with pytest.raises(Busy, match="another process"):
        _claim(bucket, tmp_path).acquire(timeout=0.0)

"""A metrics file that another process goes on writing, read piece by piece: the same rows, the same strictness."""

from pathlib import Path

import pytest

from limbeck.runtime.errors import UsageError
from limbeck.runtime.metrics import MetricsLog, MetricsTail, read_metrics


def iterations(rows: list[dict[str, object]]) -> list[object]:
    return [row["iteration"] for row in rows]


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail, log = MetricsTail(path), MetricsLog(path, "0123456789abcdef")
    assert tail.more() == (False, [])
    log.append(kind="iteration", iteration=0, loss=0.5)
    assert tail.more() == (True, [{"kind": "iteration", "iteration": 0, "loss": 0.5}])
    assert tail.more() == (False, [])
    for k in (1, 2):
        log.append(kind="iteration", iteration=k)
    anew, rows = tail.more()
    assert not anew and iterations(rows) == [1, 2]
    assert iterations(read_metrics(path)) == [0, 1, 2]


def test_a_line_that_is_being_written_comes_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.append(kind="iteration", iteration=0)
    log.append(kind="iteration", iteration=1)
    whole, tail = path.read_bytes(), MetricsTail(path)
    cut = whole.index(b"\n") + 9
    with path.open("r+b") as file:
        file.truncate(cut)
        assert iterations(tail.more()[1]) == [0]
        file.seek(cut)
        file.write(whole[cut:])
    assert tail.more() == (False, [{"kind": "iteration", "iteration": 1}])


def test_a_file_that_was_cut_back_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail, log = MetricsTail(path), MetricsLog(path)
    for k in range(4):
        log.append(kind="iteration", iteration=k)
    assert iterations(tail.more()[1]) == [0, 1, 2, 3]
    log.keep_until(2)
    log.append(kind="iteration", iteration=2, again=True)
    anew, rows = tail.more()
    assert anew and iterations(rows) == [0, 1, 2] and rows[-1]["again"]
    path.unlink()
    assert tail.more() == (True, [])
    assert tail.more() == (False, [])


def test_what_was_not_written_so_is_refused(tmp_path: Path) -> None:
    """Also in what comes later: the sum goes on from the last line that was read."""
    path = tmp_path / "metrics.jsonl"
    tail, log = MetricsTail(path), MetricsLog(path)
    log.append(kind="iteration", iteration=0, loss=0.5)
    tail.more()
    log.append(kind="iteration", iteration=1, loss=0.25)
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.75"))
    with pytest.raises(UsageError, match="line 2 has changed since it was written"):
        tail.more()


@pytest.mark.parametrize("good", [0, 5])
def test_rows_before_a_damaged_line_are_given_first(tmp_path: Path, good: int) -> None:
    """Also where the file has been replaced, so that what was there before is forgotten."""
    path = tmp_path / "metrics.jsonl"
    tail, log = MetricsTail(path), MetricsLog(path)
    log.append(kind="iteration", iteration=100)
    tail.more()
    log.keep_until(0)
    for k in range(good):
        log.append(kind="iteration", iteration=k)
    with path.open("a") as file:
        file.write("oops\n")
    anew, rows = tail.more()
    assert anew and iterations(rows) == list(range(good))
    for _ in range(2):
        with pytest.raises(UsageError, match=f"line {good + 1} is no JSON"):
            tail.more()

"""How far every component lies from its oracle: the fourth column of the tables in `docs/fidelity.md`.

    python benchmarks/fidelity.py           # print what is measured now beside what the page says
    python benchmarks/fidelity.py --write   # write it into the page

The tests that the page names are run, and whatever they compare is noted while they compare it: the largest difference of two
arrays, relative to the largest entry of the expected one (absolute where that is zero). A test that compares no numbers with a
tolerance compares for equality.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "fidelity.md"
TEST = r"(?P<test>tests/\S+\.py::\w+)(?:\[(?P<case>[\w-]+)\])?"
ROW = re.compile(rf"^\|(?P<before>.*\| `{TEST}` \|) (?P<said>[^|]*) \|(?P<after>.*)$", re.MULTILINE)


def deviation(found: Any, expected: Any) -> float:
    """max |found − expected| / max |expected|, or without the latter where it is zero."""
    a, b = (np.asarray(one.detach().cpu() if isinstance(one, torch.Tensor) else one, dtype=np.float64) for one in (found, expected))
    if a.size == 0 or np.array_equal(a, b, equal_nan=True):
        return 0.0
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))


class Recorder:
    """A plugin of pytest: what every test compares, by the test's whole name."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        with noted() as seen:
            yield
        self.found[item.nodeid] = seen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def largest(self, test: str, case: str | None) -> float | None:
        """The largest deviation of a test, of one of its cases or of all; None where it was not run."""
        runs = [seen for name, seen in self.found.items() if _is_of(name, test, case)]
        return max((value for seen in runs for value in seen), default=0.0) if runs else None


def _is_of(name: str, test: str, case: str | None) -> bool:
    head, _, cases = name.partition("[")
    return head == test and (case is None or case in cases.rstrip("]").split("-"))


@contextmanager
def noted() -> Iterator[list[float]]:
    """A list that fills with the deviations of all that is compared."""
    from reference.deviation import NOTED

    seen: list[float] = []
    NOTED.clear()
    arrays = [(torch.testing, "assert_close"), (torch, "allclose"), (np.testing, "assert_allclose")]
    patches = [patch.object(owner, name, _noting(getattr(owner, name), seen)) for owner, name in arrays]
    for kind in {type(pytest.approx(one)) for one in (0.0, [0.0], np.zeros(1))}:
        patches.append(patch.object(kind, "__eq__", _noting_equality(kind.__eq__, seen)))
    for one in patches:
        one.start()
    try:
        yield seen
    finally:
        for one in reversed(patches):
            one.stop()
        seen += NOTED


def _noting(compare: Callable[..., Any], seen: list[float]) -> Callable[..., Any]:
    @wraps(compare)
    def call(found: Any, expected: Any, *args: Any, **options: Any) -> Any:
        pairs = zip(found, expected, strict=True) if isinstance(found, (list, tuple)) else [(found, expected)]
        seen.extend(deviation(*pair) for pair in pairs)
        return compare(found, expected, *args, **options)

    return call


def _noting_equality(compare: Callable[[Any, Any], bool], seen: list[float]) -> Callable[[Any, Any], bool]:
    def call(self: Any, found: Any) -> bool:
        before = len(seen)
        equal = compare(self, found)
        del seen[before:]  # what was compared entry by entry: it counts as a whole
        seen.append(deviation(found, self.expected))
        return equal

    return call


def shown(value: float | None) -> str:
    """A deviation as the page says it."""
    return "not run" if value is None else "equal" if value == 0 else f"{value:.0e}"


def measure(page: str) -> tuple[str, Recorder]:
    """The page with what its tests find now, and all that they found."""
    recorder, tests = Recorder(), sorted({row["test"] for row in ROW.finditer(page)})
    pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", *tests], plugins=[recorder])

    def filled(row: re.Match[str]) -> str:
        return f"|{row['before']} {shown(recorder.largest(row['test'], row['case']))} |{row['after']}"

    return ROW.sub(filled, page), recorder


def main(words: Sequence[str]) -> int:
    """Measure and print; write where that is asked for."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    page = PAGE.read_text(encoding="utf-8")
    new, recorder = measure(page)
    for old_row, new_row in zip(ROW.finditer(page), ROW.finditer(new), strict=True):
        component = new_row["before"].partition("|")[0].strip()
        print(f"{component}: {new_row['said']} (the page says {old_row['said']}), {new_row['test']}")
    if recorder.failed:
        print(f"failed: {', '.join(recorder.failed)}")
        return 1
    if "--write" in words:
        PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

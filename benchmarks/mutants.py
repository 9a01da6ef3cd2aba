"""Which changes to the code no test notices: mutation testing of the rooms whose values a result stands on.

    make mutants                                       # goes on with the sample where it was left
    python benchmarks/mutants.py run --areas matching --sample 100
    python benchmarks/mutants.py run --again           # the survivors only, after tests were added
    python benchmarks/mutants.py run --again --wide    # and with tests of whole runs
    python benchmarks/mutants.py table

The mutants are mutmut's (its operators, on libcst's tree): numbers, strings, comparisons, signs, arguments left out or None,
assignments of None, conditions, keywords. They are made within the bodies of functions; annotations, decorators, defaults,
constants of modules and the texts of messages (strings within `raise`, `assert` and `require`) are left alone.

mutmut's own runner copies every function behind a trampoline, which torch's transformations and pickled classes do not outlive.
Here pytest collects once; every mutant is a fork that exchanges the code of one function in place and runs the tests that execute
the changed statement, the fastest first, until one fails. What a test runs in another process it runs unchanged. A mutant is killed
by a failing test, by a crash, or by ten times the processor time that its tests take without it.

Of every area a sample is drawn, by a hash of the seed and the mutant, so that a larger sample holds a smaller one. A mutant is
known by the text of its function: results stay valid, and draws the same, for functions that have not changed.
"""

import argparse
import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from mutations import Mutant, Place, exchange, functions, mutants_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants"
REASONS = RESULTS / "reasons.json"
# What belongs to the outer loop: the loop, its state, what it does about divergence, what gives it gradients and weights.
OUTER = ("outer", "state", "health", "snapshots", "objective", "enhance", "trajectory", "subsets")
AREAS: dict[str, tuple[list[Path], list[str]]] = {
    "matching": (sorted((ROOT / "limbeck/matching").glob("*.py")), ["tests/matching"]),
    "saliency": (sorted((ROOT / "limbeck/saliency").glob("*.py")), ["tests/saliency"]),
    "outer": (
        [ROOT / f"limbeck/methods/{name}.py" for name in OUTER],
        [
            *(f"tests/methods/test_{name}.py" for name in ("health", "outer", "outer_records", "methods", "trajectory")),
            "tests/reliability/test_numbers.py",
        ],
    ),
    "distilled": (sorted((ROOT / "limbeck/distilled").glob("*.py")), ["tests/distilled"]),
}
# The examples in docstrings; of these, those of the area's package.
EXAMPLES = "tests/test_examples.py"
# Beside an area's own tests: whole runs, and their bits.
WIDER = ("tests/methods", "tests/runs", "tests/same_bits")
# Tests of one mutant take no more of the processor than this without it, at first; those that survive are run against all.
FIRST_SECONDS = 10.0


def sample(area: str, count: int, seed: int) -> tuple[list[Mutant], int]:
    """`count` of the area's mutants, drawn by the seed and their text, and how many it has in all."""
    found = sorted((one for path in AREAS[area][0] for one in mutants_of(path, seed)), key=lambda one: one[0])
    return [make() for _, make in found[:count]], len(found)


class Loop:
    """A pytest plugin: in the place of one run of all tests, one of some of them for every mutant.

    Args:
        area: for the results.
        mutants: what to try.
        results: where to append.
        everything: run all tests that execute the changed statement; else those of the first seconds.
    """

    def __init__(self, area: str, mutants: list[Mutant], results: Path, everything: bool) -> None:
        self.area, self.mutants, self.results, self.everything = area, mutants, results, everything
        self.channel: int | None = None
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.coverage: Any = None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
            if self.channel is not None:
                os.write(self.channel, report.nodeid.encode()[:4000])
                os._exit(1)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        room = AREAS[self.area][0][0].parent.name
        items[:] = [item for item in items if item.location[0] != EXAMPLES or f"[{room}." in item.nodeid]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            print(f"{report.nodeid} cannot be collected:\n{report.longreprtext}", flush=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        began = time.process_time()  # others may use the machine
        done = yield
        self.seconds[item.nodeid] = time.process_time() - began
        return done

    def pytest_runtest_setup(self, item: Any) -> None:
        if self.coverage is not None:
            self.coverage.switch_context(f"setup {item.location[0]}")

    def pytest_runtest_call(self, item: Any) -> None:
        if self.coverage is not None:
            self.coverage.switch_context(item.nodeid)

    def pytest_runtestloop(self, session: Any) -> bool:
        covering, seconds, failed = self._baseline(session.items)
        if failed:
            print(f"left out, as they fail without a change: {sorted(failed)}", flush=True)
        known = functions()
        gc.freeze()  # so that no fork copies what only the collector touches
        items = sorted(
            (item for item in session.items if item.nodeid not in failed), key=lambda item: seconds.get(item.nodeid, 0.0)
        )
        for number, mutant in enumerate(self.mutants):
            contexts = {c for line in range(mutant.lines[0], mutant.lines[1] + 1) for c in covering.get((mutant.path, line), ())}
            near = [item for item in items if item.nodeid in contexts or f"setup {item.location[0]}" in contexts]
            some, total = [], 0.0
            for item in near:
                total += seconds[item.nodeid]
                if total > FIRST_SECONDS and not self.everything and some:
                    break
                some.append(item)
            chosen = some
            began = time.perf_counter()
            limit = 20 + 10 * sum(seconds[item.nodeid] for item in chosen)
            status, killer = self._try(mutant, known, chosen, limit)
            result = {
                "area": self.area,
                "path": mutant.path,
                "function": mutant.function,
                "key": mutant.key,
                "diff": mutant.diff,
                "status": status,
                "by": killer,
                "tests": len(chosen),
                "covering": len(near),
                "complete": self.everything or len(some) == len(near),
                "seconds": round(time.perf_counter() - began, 2),
            }
            with self.results.open("a") as file:
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
            print(
                f"{number + 1}/{len(self.mutants)} {mutant.path} {mutant.function}: {status} in {result['seconds']} s", flush=True
            )
        return True

    def _baseline(self, items: list[Any]) -> tuple[dict[tuple[str, int], list[str]], dict[str, float], set[str]]:
        """Which tests execute which lines, how long they take, and which of them fail; in a fork, so that nothing of it stays."""
        kept = self.results.with_name(f".baseline-{self.area}-{os.getpid()}.json")
        pid = os.fork()
        if pid == 0:
            try:
                import coverage

                self.coverage = coverage.Coverage(data_file=None, config_file=False, include=[str(p) for p in AREAS[self.area][0]])
                self.coverage.start()
                run(items)
                self.coverage.stop()
                data, lines = self.coverage.get_data(), []
                for path in data.measured_files():
                    name = Path(path).relative_to(ROOT).as_posix()
                    lines += [[name, line, [c for c in found if c]] for line, found in data.contexts_by_lineno(path).items()]
                kept.write_text(json.dumps([lines, self.seconds, sorted(self.failed)]))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        lines, seconds, failed = json.loads(kept.read_text())
        kept.unlink()
        print(f"{self.area}: {len(seconds)} tests take {sum(seconds.values()):.0f} s", flush=True)
        return {(name, line): found for name, line, found in lines}, seconds, set(failed)

    def _try(self, mutant: Mutant, known: dict[Place, list[FunctionType]], items: list[Any], limit: float) -> tuple[str, str]:
        """What becomes of the mutant: killed, survived, timeout, or invalid, where there is nothing to run; and by which test."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                os.setsid()
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1), os.dup2(null, 2)
                resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
                room = 4096 * int(Path("/proc/self/statm").read_text().split()[0]) + 6 * 2**30
                resource.setrlimit(resource.RLIMIT_AS, (room, room))
                signal.alarm(int(20 * limit))
                if exchange(mutant, known):
                    self.channel = writer
                    run(items)
                    status = 0
            except (SyntaxError, ValueError):
                status = 3
            except BaseException:
                status = 1
            finally:
                os._exit(status)
        os.close(writer)
        _, status = os.waitpid(pid, 0)
        killer = os.read(reader, 4096).decode(errors="replace")
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what its tests have started
        if os.WIFSIGNALED(status):
            return ("timeout" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL) else "crash"), killer
        return {0: "survived", 1: "killed", 3: "invalid"}.get(os.WEXITSTATUS(status), "killed"), killer


def run(items: list[Any]) -> None:
    """Those tests, in that order."""
    for item, following in zip(items, [*items[1:], None], strict=False):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def read(results: Path) -> dict[str, dict[str, Any]]:
    """The last result of every mutant."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {result["key"]: result for result in map(json.loads, lines)}


def work(areas: list[str], count: int, seed: int, again: bool, wide: bool, scratch: Path) -> None:
    """Try what has no result yet (or has survived), an area in a process."""
    from hypothesis import settings

    for folder in (RESULTS, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    settings.register_profile("mutants", derandomize=True, database=None)
    settings.load_profile("mutants")
    for area in areas:
        results = RESULTS / f"{area}.jsonl"
        known, (drawn, _) = read(results), sample(area, count, seed)
        chosen = [one for one in drawn if (known[one.key]["status"] == "survived" if one.key in known else not again)]
        if not chosen:
            continue
        pid = os.fork()
        if pid == 0:
            tests = [*AREAS[area][1], *(WIDER if wide else ()), EXAMPLES]
            quiet = ["-s", "-p", "no:cacheprovider", "-p", "no:terminal", f"--basetemp={scratch / area}"]
            sys.exit(pytest.main([*tests, *quiet], plugins=[Loop(area, chosen, results, everything=again)]))
        os.waitpid(pid, 0)


def table(seed: int, count: int) -> None:
    """How many of the sample are killed, with the interval that holds the share of all with 95 %."""
    from scipy.stats import binomtest

    print("| area | mutants | tried | killed | share | 95 % |")
    print("|---|---|---|---|---|---|")
    for area in AREAS:
        known, (drawn, total) = read(RESULTS / f"{area}.jsonl"), sample(area, count, seed)
        tried = [known[one.key] for one in drawn if one.key in known and known[one.key]["status"] != "invalid"]
        if tried:
            killed = sum(one["status"] != "survived" for one in tried)
            low, high = binomtest(killed, len(tried)).proportion_ci(method="wilson")
            print(f"| {area} | {total} | {len(tried)} | {killed} | {killed / len(tried):.1%} | {low:.1%} – {high:.1%} |")


def survivors(seed: int, count: int) -> None:
    """What no test has noticed, with the reason where one is known."""
    reasons = json.loads(REASONS.read_text()) if REASONS.exists() else {}
    for area in AREAS:
        known = read(RESULTS / f"{area}.jsonl")
        for one in sample(area, count, seed)[0]:
            if one.key in known and known[one.key]["status"] == "survived":
                reason = reasons.get(one.key, "NO REASON")
                print(f"{one.path}:{one.lines[0]} {one.function} {one.key}: {reason}\n{one.diff}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "survivors"))
    parser.add_argument("--areas", nargs="+", choices=AREAS, default=list(AREAS))
    parser.add_argument("--sample", type=int, default=200, help="mutants of every area")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument(
        "--again",
        action="store_true",
        help="only those that have survived, with all tests that execute them",
    )
    parser.add_argument("--wide", action="store_true", help="tests of whole runs and of their bits, too (slow)")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "mutants")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    sys.path[0] = os.environ["PYTHONPATH"] = str(ROOT)  # this copy, in processes of the tests too
    if chosen.what == "run":
        work(chosen.areas, chosen.sample, chosen.seed, chosen.again, chosen.wide, chosen.scratch)
    elif chosen.what == "table":
        table(chosen.seed, chosen.sample)
    else:
        survivors(chosen.seed, chosen.sample)


if __name__ == "__main__":
    main()

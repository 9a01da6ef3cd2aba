"""SIGTERM, SIGHUP and Ctrl-C: in order, with all that was finished, a word on how to go on, and nothing left behind."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from reliability import kills
from reliability.commands import Commands, Running, commands, parts

WITHIN = 10.0  # seconds


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with commands(tmp_path_factory.mktemp("commands")) as made:
        yield made


def ends(command: Running, kind: signal.Signals, group: bool, status: int, goes_on: str | None, *folders: Path) -> None:
    """Send a signal: the command ends in time, in order, and with nothing left."""
    began = time.monotonic()
    command.send(kind, group)
    assert command.wait() == status, command.said
    while command.processes() and time.monotonic() - began < WITHIN:
        time.sleep(0.02)
    assert time.monotonic() - began < WITHIN
    assert command.processes() == []
    by = "" if kind == signal.SIGINT else f" by {kind.name}"
    said = f"; continue with: limbeck {goes_on}" if goes_on else ""
    assert command.said.splitlines()[-1] == f"limbeck: interrupted{by}{said}"
    assert "Traceback" not in command.said and "Error" not in command.said and "leaked" not in command.said, command.said
    assert parts(*folders) == []
    assert command.commands.left() == []


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("kind", "group", "background", "status"),
    [
        (signal.SIGTERM, True, False, 143),
        (signal.SIGINT, False, True, 130),
        pytest.param(signal.SIGHUP, False, False, 129, marks=pytest.mark.slow),
    ],
)
def test_a_distillation_ends_with_the_checkpoint_of_its_last_iteration(
    tmp_path: Path, started: Commands, kind: signal.Signals, group: bool, background: bool, status: int
) -> None:
    from limbeck.runtime.files import read_tensors

    run, cache = tmp_path / "run", tmp_path / "cache"
    words = ["distill", "scenes", "--output", str(run), *kills.words(method="dm", outer__iterations="100000", eval__every="100000")]
    command = started.start([*words, "outer.checkpoint_every=100000"], cache, background=background)
    command.until(lambda: len(lines(run / "metrics.jsonl")) > 5)
    ends(command, kind, group, status, " ".join([*words, "outer.checkpoint_every=100000", "--resume"]), run, cache)
    reached = read_tensors(run / "checkpoint.safetensors").metadata["iteration"]
    done = [row["iteration"] for row in lines(run / "metrics.jsonl") if row.get("kind") == "iteration"]
    assert done == list(range(reached)) and reached > 3
    assert f"stopped after {reached} of 100000 iterations, which are kept" in command.said


def test_experts_in_workers_end_with_them(tmp_path: Path, started: Commands) -> None:
    """SIGTERM for the whole group, as a queue sends it: workers say nothing, and what was written stays."""
    store, cache = tmp_path / "store", tmp_path / "cache"
    settings = kills.words(experts__num_experts="4", experts__train_epochs="100000", schedule__max_start_epoch="5")
    words = ["experts", "scenes", f"experts.store={store}", *settings]
    command = started.start(words, cache, workers=True)
    command.until(lambda: len({path.parent for path in store.glob("expert-*/state-*.safetensors")}) > 1)
    ends(command, signal.SIGTERM, True, 143, " ".join(words), store, cache)
    assert list(store.glob("expert-*/epochs-*.safetensors"))


@pytest.mark.slow
def test_an_evaluation_ends_where_it_is(tmp_path: Path, started: Commands) -> None:
    cache = tmp_path / "cache"
    started.run(["distill", "scenes", "--output", str(tmp_path / "run"), *kills.words(method="random")], cache)
    words = ["evaluate", str(tmp_path / "run"), "eval.epochs=1000000"]
    command = started.start(words, cache)
    time.sleep(2.0)  # it loads its data, or trains already: wherever it is
    ends(command, signal.SIGINT, True, 130, " ".join(words), tmp_path / "run", cache)


@pytest.mark.slow
def test_the_first_seconds_count_too(tmp_path: Path, started: Commands) -> None:
    """While data are decoded and networks trained on them, a second signal ends at once."""
    cache = tmp_path / "cache"
    words = ["distill", "scenes", "--output", str(tmp_path / "run"), *kills.words(experts__train_epochs="1000000")]
    command = started.start(words, cache)
    command.until(lambda: (tmp_path / "run" / "state.json").exists())
    ends(command, signal.SIGTERM, False, 143, " ".join([*words, "--resume"]), tmp_path / "run", cache)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "group", "status"), [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 130)])
def test_a_compilation_ends_within_seconds(
    tmp_path: Path, started: Commands, kind: signal.Signals, group: bool, status: int
) -> None:
    """Compilers are processes of their own, and take a minute where nothing is cached: none of them stays."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    words = ["distill", "scenes", "--output", str(run), *kills.words(engine__compile="yes", network="ConvNetD3-w16")]
    command = started.start(words, cache, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"), TORCHINDUCTOR_FX_GRAPH_CACHE="0")
    command.until(lambda: any((tmp_path / "inductor").rglob("*.cpp")), 120.0)
    ends(command, kind, group, status, " ".join([*words, "--resume"]), run, cache)
    assert command.commands.run([*words, "--resume"], cache, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"))


@pytest.mark.slow
def test_a_report_is_the_old_one_or_the_new_one(tmp_path: Path, started: Commands) -> None:
    """Stopped while it is written, whenever that is."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    started.run(["distill", "scenes", "--output", str(run), *kills.words(method="random")], cache)
    held = (run / "report.html").read_bytes()
    words, met = ["report", str(run)], 0
    for tenths in range(1, 13):
        command = started.start(words, cache)
        time.sleep(tenths / 10)
        if psutil.Process(command.pid).status() != psutil.STATUS_ZOMBIE:
            met += 1
            ends(command, signal.SIGTERM, False, 143, None, run, cache)
        else:
            assert command.wait() == 0, command.said
        assert (run / "report.html").read_bytes() == held
    assert met > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", list(kills.STAGES))
def test_what_was_killed_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    outcome = kills.run(name, 15, 1, tmp_path, kills.Outcome())
    assert outcome.equal == outcome.clean == outcome.runs > 3, outcome

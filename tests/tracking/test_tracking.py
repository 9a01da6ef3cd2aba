"""What sinks are told of a run: everything once, however often it is stopped, and nothing that the run depends on."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from data.pictures import Said
from distilled.samples import sample_set
from safetensors.torch import load_file

from limbeck.methods.snapshots import Snapshot
from limbeck.recipes import load_recipe
from limbeck.runs.distill import distill
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.metrics import MetricsLog, read_metrics
from limbeck.tracking import libraries
from limbeck.tracking.settings import names_of
from limbeck.tracking.sink import About
from limbeck.tracking.tracker import LARGEST, Tracker, few, scalars_of, tracked

RECORDED = "tracking.recorded:Recorded"
ABOUT = About(Path(), "run", "", {"method": "edf", "match": {"drop_ratio": 0.25}})


def told(run: Path, name: str = RECORDED) -> list[dict[str, Any]]:
    """What such a sink has written down."""
    text = (libraries.place_of(name, run) / "told.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def write_rows(log: MetricsLog, iterations: Sequence[int], seen: Callable[[Snapshot], None] = lambda _: None) -> None:
    """Rows as an outer loop writes them, which evaluates before an iteration."""
    for iteration in iterations:
        if iteration % 2 == 0:
            log.append(kind="evaluation", iteration=iteration, accuracy={"mean": 0.1 * iteration, "std": 0.0}, best=True)
            seen(snapshot(iteration))
        log.append(kind="iteration", iteration=iteration, loss=1 / (1 + iteration), skipped=False, syn_lr=math.inf)


def follow(run: Path, names: tuple[str, ...], iterations: Sequence[int], said: Said | None = None) -> None:
    """One start of a run."""
    log = MetricsLog(run / "metrics.jsonl")
    log.keep_until(iterations[0])
    with tracked(names, run, ABOUT, (said or Said()).say) as tracker:
        tracker.named = sample_set()
        log.heard = tracker.row
        write_rows(log, iterations, tracker.snapshot)


def snapshot(iteration: int) -> Snapshot:
    held = sample_set()
    x, n = held.set.images, len(held.set)
    maps = torch.zeros(n, *x.shape[2:])
    return Snapshot(iteration, x, held.set.labels, 0.1, maps, maps[:, None], 0.5, True, None, 0)


def test_rows_are_numbers_by_name() -> None:
    row = {"kind": "evaluation", "iteration": 4, "accuracy": {"mean": 0.25, "std": 0.1}, "best": True, "why": "so", "loss": None}
    assert scalars_of(row) == {"evaluation/accuracy": 0.25, "evaluation/best": 1.0}


def test_a_sink_is_told_everything_once(tmp_path: Path) -> None:
    """Also what comes twice because the run goes on from a checkpoint that lies before where it was stopped."""
    follow(tmp_path, (RECORDED,), range(5))
    follow(tmp_path, (RECORDED,), range(3, 8))
    found = told(tmp_path)
    assert [one["at"] for one in found if one["what"] == "begin"] == [0, 5]
    assert len({one["run"] for one in found if one["what"] == "begin"}) == 1
    rows = {kind: [one for one in found if f"{kind}" in one] for kind in ("iteration/loss", "evaluation/accuracy")}
    assert [one["at"] for one in rows["iteration/loss"]] == list(range(8))
    assert [one["iteration/loss"] for one in rows["iteration/loss"]] == pytest.approx([1 / (1 + k) for k in range(8)])
    assert [(one["at"], one["evaluation/accuracy"]) for one in rows["evaluation/accuracy"]] == [
        (k, pytest.approx(0.1 * k)) for k in (0, 2, 4, 6)
    ]
    assert [one["at"] for one in found if one["what"] == "picture"] == [0, 2, 4, 6]
    assert all("iteration/syn_lr" not in one for one in found), "what is not finite is not told"
    assert [one["what"] for one in found].count("close") == 2


def test_two_runs_of_the_same_settings_are_two_records(tmp_path: Path) -> None:
    for name in ("a", "b"):
        follow(tmp_path / name, (RECORDED,), range(2))
    assert told(tmp_path / "a")[0]["run"] != told(tmp_path / "b")[0]["run"]


def test_a_sink_that_comes_later_hears_what_was_before(tmp_path: Path) -> None:
    follow(tmp_path, (), range(4))
    follow(tmp_path, (RECORDED,), range(4, 6))
    assert [one["at"] for one in told(tmp_path) if "iteration/loss" in one] == [0, 1, 2, 3, 4, 5]


def test_a_broken_note_begins_anew(tmp_path: Path) -> None:
    follow(tmp_path, (RECORDED,), range(3))
    note = libraries.place_of(RECORDED, tmp_path).with_name("tracking.recorded-Recorded.json")
    for text in ("", "{", '{"run": 3}', '{"run": "a", "told": {"iteration": "x"}}'):
        note.write_text(text)
        follow(tmp_path, (RECORDED,), range(3, 4))
        assert [one["at"] for one in told(tmp_path) if one["what"] == "begin"][-1] == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tracking.recorded:Broken", "ConnectionError: the server has gone"),
        ("tracking.recorded:refuses", "SystemExit: 3"),
        ("tracking.recorded:NOTHING", "TypeError"),
    ],
)
def test_a_broken_sink_is_left_with_one_warning(tmp_path: Path, name: str, words: str) -> None:
    said = Said()
    follow(tmp_path, (name, RECORDED), range(6), said)
    assert len(said.lines) == 1 and said.lines[0].startswith(f"warning: track: {name} failed ({words}")
    assert said.lines[0].endswith("; the run goes on without it")
    assert [one["at"] for one in told(tmp_path) if "iteration/loss" in one] == list(range(6)), "others are told all the same"


def test_an_interrupt_is_no_fault_of_a_sink(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), tracked((RECORDED,), tmp_path, ABOUT, print) as tracker:
        MetricsLog(tmp_path / "metrics.jsonl", heard=tracker.row).append(kind="iteration", iteration=0, loss=0.5)
        raise KeyboardInterrupt
    assert told(tmp_path)[-1]["what"] == "close"


def test_a_picture_shows_a_few_of_large_sets() -> None:
    held = sample_set(names=tuple(f"c{k}" for k in range(30)), ipc=12, shape=(3, 8, 8))
    shown = few(held)
    assert len(shown.class_names) == 20 and len(shown.set) == 200
    assert torch.equal(shown.set.images[:10], held.set.images[held.set.classes == 0][:10])
    seen: list[Any] = []

    class Seen(Tracker):
        def __init__(self) -> None:
            pass

    feed = type("Feed", (), {"sink": True, "tell": lambda self, kind, at, say: say(self), "flush": lambda self: None})()
    feed.picture = lambda at, name, image: seen.append((at, name, image.size))
    tracker = Seen()
    tracker.feeds = [feed]
    tracker.picture(7, held)
    assert seen[0][:2] == (7, "images") and max(seen[0][2]) <= LARGEST


def test_tensorboard_holds_what_it_was_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said = Said()
    follow(tmp_path, ("tensorboard",), range(5), said)
    follow(tmp_path, ("tensorboard",), range(3, 8), said)
    assert said.lines == []
    events = EventAccumulator(str(tmp_path / "track" / "tensorboard"), size_guidance={"images": 0}).Reload()
    loss = events.Scalars("iteration/loss")
    assert [(one.step, one.value) for one in loss] == [(k, pytest.approx(1 / (1 + k))) for k in range(8)]
    accuracy = [(one.step, pytest.approx(one.value)) for one in events.Scalars("evaluation/accuracy")]
    assert accuracy == [(k, 0.1 * k) for k in (0, 2, 4, 6)]
    pictures = events.Images("images")
    assert [one.step for one in pictures] == [0, 2, 4, 6]
    assert pictures[0].encoded_image_string.startswith(b"\x89PNG") and pictures[0].width > pictures[0].height > 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("at", "checkpoint"), [(2, 0), (2, 2), (3, 0), (3, 2), (3, 3), (4, 3)])
def test_tensorboard_after_a_kill_has_everything_once(tmp_path: Path, at: int, checkpoint: int) -> None:
    """What a killed process had not flushed is told again, and what it had is dropped by the new file; pictures are told again only
    where the checkpoint lies before their iteration."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path / "metrics.jsonl")
    with suppress(Killed), tracked(("tensorboard",), tmp_path, ABOUT, print) as tracker:
        tracker.named = sample_set()

        def shown(seen: Snapshot) -> None:
            tracker.snapshot(seen)
            if seen.iteration == at:
                raise Killed  # before its iteration is made

        log.heard = tracker.row
        try:
            write_rows(log, range(at + 1) if at % 2 == 0 else range(at), shown)
        finally:
            tracker.feeds[0].sink.flush()  # type: ignore[union-attr]
            tracker.feeds[0].sink = None  # no note, no end
    follow(tmp_path, ("tensorboard",), range(checkpoint, 7))
    events = EventAccumulator(str(tmp_path / "track" / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [one.step for one in events.Scalars("iteration/loss")] == [0, 1, 2, 3, 4, 5, 6]
    assert [one.step for one in events.Scalars("evaluation/accuracy")] == [0, 2, 4, 6]
    assert [one.step for one in events.Images("images")] == [0, 2, 4, 6]


def records(content: bytes) -> Iterator[bytes]:
    """What a file of wandb's holds: pieces in blocks of 32 KiB, each with a sum, a length and what part of a record it is."""
    at, held = 7, b""
    while at + 7 <= len(content):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        length, part = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        held += content[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # whole, or the last piece
            yield held
            held = b""


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of an offline folder of wandb's."""
    from wandb.proto import wandb_internal_pb2

    found = []
    (file,) = folder.glob("run-*.wandb")
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            found.append(row | {"_step": record.history.step.num})
    return found


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, with all that it writes in one place."""
    module = pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield module
    module.teardown()


def test_wandb_writes_an_offline_folder(tmp_path: Path, wandb: Any) -> None:
    said = Said()
    follow(tmp_path / "run", ("wandb",), range(5), said)
    follow(tmp_path / "run", ("wandb",), range(3, 8), said)
    assert said.lines == []
    folders = sorted(path for path in (tmp_path / "run/track/wandb").glob("offline-run-*"))
    assert len(folders) == 2 and len({path.name.rpartition("-")[2] for path in folders}) == 1, "one run, by its id"
    rows = [row for folder in folders for row in history(folder)]
    loss = {row["_step"]: row["iteration/loss"] for row in rows if "iteration/loss" in row}
    assert loss == {k: pytest.approx(1 / (1 + k)) for k in range(8)}
    assert sorted(row["_step"] for row in rows if "images" in row or "images/_type" in row) == [0, 2, 4, 6]
    assert len(list((tmp_path / "run/track/wandb").rglob("*.png"))) == 4


@pytest.mark.parametrize("reinit", ["default", "create_new"])
def test_a_run_of_somebody_elses_goes_on_beside_that_of_wandb(tmp_path: Path, wandb: Any, reinit: Any) -> None:
    quiet = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True)
    theirs = wandb.init(dir=str(tmp_path), mode="offline", settings=quiet, reinit=reinit)
    current = wandb.run
    follow(tmp_path / "run", ("wandb",), range(3))
    assert wandb.run is current and wandb.setup().most_recent_active_run is theirs
    theirs.log({"theirs": 1.0})
    theirs.finish()
    wandb.teardown()  # which waits until it is written
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert [set(row) & {"theirs", "iteration/loss"} for row in history(folder)] == [{"theirs"}]
    (folder,) = (tmp_path / "run/track/wandb").glob("offline-run-*")
    assert [row["iteration/loss"] for row in history(folder) if "iteration/loss" in row] == pytest.approx([1, 1 / 2, 1 / 3])


def test_trackio_keeps_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    import trackio
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    assert str(tmp_path / "trackio") == str(utils.TRACKIO_DIR), "it was imported before"
    theirs = trackio.init("theirs", "a", config={"b": 3}, embed=False, auto_log_gpu=False, auto_log_cpu=False)
    said = Said()
    follow(tmp_path / "run", ("trackio",), range(5), said)
    follow(tmp_path / "run", ("trackio",), range(3, 8), said)
    assert said.lines == []
    (name,) = SQLiteStorage.get_runs("limbeck")
    assert name.startswith("run-")
    rows = SQLiteStorage.get_logs("limbeck", name)
    assert {row["step"]: row["iteration/loss"] for row in rows if "iteration/loss" in row} == {
        k: pytest.approx(1 / (1 + k)) for k in range(8)
    }
    assert [row["step"] for row in rows if "images" in row] == [0, 2, 4, 6]
    assert trackio.config is theirs.config, "a run of somebody else's goes on"
    trackio.log({"theirs": 1.0})
    trackio.finish()
    assert [set(row) - {"timestamp", "step"} for row in SQLiteStorage.get_logs("theirs", "a")] == [{"theirs"}]


TINY = {"data.size": "16", "data.per_class": "12", "data.val_fraction": "0.25", "network": "ConvNetD1-w4", "method": "dm"}
TINY |= {"outer.iterations": "4", "outer.checkpoint_every": "2", "eval.every": "2", "eval.epochs": "1", "eval.seeds": "2"}
TINY |= {"eval.full_epochs": "1", "eval.random_lr": "0.01", "features": "none", "data.workers": "1", "data.source": "scenes:easy"}


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", TINY | changes)


def alike(run: Path) -> tuple[Any, ...]:
    """What a run has found, without times."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(run / "metrics.jsonl")]
    tensors = load_file(next((run / "distilled").glob("*.safetensors")))
    return rows, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_a_run_is_the_same_with_sinks_and_goes_on_with_them(tmp_path: Path) -> None:
    plain = distill(settings(), tmp_path / "plain")
    said, broken = Said(), "tracking.recorded:Broken"

    def stop(seen: Snapshot) -> None:
        if seen.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(settings(track=f"{RECORDED},{broken}"), tmp_path / "run", callbacks=[stop], progress=said)
    assert [line for line in said.lines if "track" in line] == [
        f"warning: track: {broken} failed (ConnectionError: the server has gone); the run goes on without it"
    ]
    found = distill(settings(track=RECORDED), tmp_path / "run", resume=True)
    assert found.accuracy == plain.accuracy
    assert alike(tmp_path / "run") == alike(tmp_path / "plain")
    lines = told(tmp_path / "run")
    assert lines[0] | {"run": ""} == {"what": "begin", "at": 0, "run": "", "name": "run", "method": "dm"}
    losses = [(one["at"], one["iteration/loss"]) for one in lines if "iteration/loss" in one]
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert losses == [(row["iteration"], row["loss"]) for row in rows if row["kind"] == "iteration"] and len(losses) == 4
    assert [one["at"] for one in lines if "evaluation/accuracy" in one] == [0, 2, 4]
    assert [one["at"] for one in lines if one["what"] == "picture"] == [0, 2, 4]
    (result,) = (one for one in lines if "result/distilled" in one)
    assert result["at"] == 4 and result["result/distilled"] == found.accuracy.distilled.mean
    assert result["result/full"] == found.accuracy.full.mean


def test_a_set_that_is_made_at_once_is_told_of_too(tmp_path: Path) -> None:
    found = distill(settings(method="random", track=RECORDED), tmp_path / "run")
    what = told(tmp_path / "run")
    assert [one["what"] for one in what] == ["begin", "picture", "scalars", "close"]
    assert what[2]["result/distilled"] == found.accuracy.distilled.mean


@pytest.mark.parametrize("value", ["tensorboard,wandb", "[tensorboard,wandb]", " tensorboard , wandb"])
def test_names_may_be_a_list_or_text(value: str) -> None:
    assert names_of(settings(track=value).track) == ("tensorboard", "wandb")


@pytest.mark.parametrize("value", [["mlflow"], "tensorboard,tensorboard", "my module:Sink", 3])
def test_other_names_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^track: .* is not .*names") as found:
        DistillSettings(track=value)
    assert "\n" not in str(found.value)


def test_what_is_missing_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^track: wandb is not installed; pip install 'limbeck\[wandb\]' brings it$"):
        distill(settings(track="wandb"), tmp_path / "run")
    with pytest.raises(UsageError, match="^track: 'tracking.nowhere:Sink' cannot be imported: there is no module"):
        distill(settings(track="tracking.nowhere:Sink"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_somebody_else_names_no_code(tmp_path: Path) -> None:
    recipe = tmp_path / "theirs.yaml"
    for written in (f"track: [tensorboard, {RECORDED!r}]\n", f"track: 'tensorboard, {RECORDED}'\n"):
        recipe.write_text(written)
        with pytest.raises(UsageError, match=f"^track: '{RECORDED}' is code that the recipe"):
            load_recipe(str(recipe))
        assert names_of(load_recipe(str(recipe), trust=True).track) == ("tensorboard", RECORDED)

"""Verifying, pruning and describing a store."""

from pathlib import Path

import numpy as np
import pytest
import torch
from experts.walks import IDENTITY, Walker, walk
from matplotlib.colors import to_hex

from limbeck.experts.blocks import digest, write_rows
from limbeck.experts.estimate import estimate
from limbeck.experts.fill import Shard, Want, fill
from limbeck.experts.prune import prune
from limbeck.experts.recorder import Recorder
from limbeck.experts.show import describe, over_experts
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.verify import verify
from limbeck.figures.experts import expert_curves
from limbeck.figures.style import BLUE, ORANGE
from limbeck.runtime.errors import UsageError

WANT = Want(2, tuple(range(20)), 30, 2, "half")


def filled(path: Path, want: Want = WANT) -> TrajectoryStore:
    store = TrajectoryStore(path, IDENTITY, {"source": "walks"})
    store.note(want)
    fill(store, want, Walker(store, want.coding).train)
    return store


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_every_byte_of_a_file_counts(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert verify(store) == []
    draws = torch.Generator().manual_seed(0)
    for file in sorted(tmp_path.glob("expert-0001/*.safetensors")):
        whole = file.read_bytes()
        for _ in range(12):
            place, bit = (int(torch.randint(most, (), generator=draws)) for most in (len(whole), 8))
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            problems = verify(TrajectoryStore(tmp_path))
            assert problems, (file.name, place)
            assert all(line.startswith(f"expert-0001/{file.name}: ") for line in problems)
        file.write_bytes(whole[:-1])
        assert "cannot be read" in verify(TrajectoryStore(tmp_path))[0]
        file.write_bytes(whole)
    assert verify(TrajectoryStore(tmp_path)) == []


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    next(tmp_path.glob("expert-0001/epochs-0008-0015-*")).unlink()
    store = TrajectoryStore(tmp_path)
    assert verify(store) == ["expert-0001: epochs 8-15 are missing"]
    assert verify(store, [Want(2, (1, 2), 30, 2, "half")]) == []
    assert verify(store, [Want(3, (1, 2), 30, 1, "half")]) == ["expert-0002: epochs 1-2 are missing"]
    assert verify(store, [Want(1, (1, 7), None, 0, "fp32")]) == ["expert-0000: epochs 1,7 are missing"]  # are not so exact
    assert verify(TrajectoryStore(tmp_path / "empty", IDENTITY)) == ["it holds no expert"]


def test_numbers_that_are_not_finite_are_found(tmp_path: Path) -> None:
    TrajectoryStore(tmp_path, IDENTITY)
    theta = torch.full((1, 700), torch.inf)
    header = {"epochs": [0], "coding": "fp32", "step_error": 0.0, "after": None, "end": digest(theta), "accuracy": {}, "state": 0}
    file = write_rows(tmp_path / "expert-0000", {"theta": theta}, header, 0).path
    problem = f"expert-0000/{file.name}: theta has numbers that are not finite"
    assert verify(TrajectoryStore(tmp_path), []) == [problem]


@pytest.mark.parametrize("coding", ["fp32", "half"])
def test_pruning_removes_what_no_recipe_needs_and_nothing_else(tmp_path: Path, coding: str) -> None:
    store = filled(tmp_path, Want(3, tuple(range(31)), 60, 3, coding))
    (tmp_path / "expert-0001" / ".epochs-0000.safetensors.abc.part").write_text("half a file")
    less = [Want(2, tuple(range(12)), 60, 1, coding), Want(1, (20, 21), None, 0, coding)]
    before, read = snapshot(tmp_path), {epoch: store.read(0, epoch) for epoch in (*range(12), 20, 21, 60)}
    logs = [store.log(expert) for expert in range(2)]
    dry = prune(store, less, dry_run=True)
    assert snapshot(tmp_path) == before
    removed = prune(store, less)
    assert [(action["path"], action["what"]) for action in removed] == [(action["path"], action["what"]) for action in dry]
    freed = sum(map(len, before.values())) - sum(map(len, snapshot(tmp_path).values()))
    assert freed == pytest.approx(sum(action["bytes"] for action in removed), abs=6000)  # the accuracies that stay, in a file
    for opened in (store, TrajectoryStore(tmp_path)):
        assert opened.experts == [0, 1]
        # In half the last checkpoints of the cut blocks, 15 and 23, stay with those that are read through them.
        ends = [] if coding == "fp32" else [15]
        assert opened.held(1) == [*range(12), *ends]
        assert opened.held(0) == [*range(12), *ends, 20, 21, *([] if coding == "fp32" else [23]), 60]
        for epoch, theta in read.items():
            assert torch.equal(opened.read(0, epoch), theta)
        assert [opened.log(expert) for expert in range(2)] == logs
        assert verify(opened) == []
        assert set(opened.wanted()) == set(less)
    assert prune(store, less) == []
    fill(store, Want(2, tuple(range(14)), 60, 1, "fp16"), Walker(store, coding).train)  # and it can be filled again
    assert float((store.read(1, 13) - walk(1, 13)[13]).abs().max()) < 1e-3
    assert verify(store) == []


def test_a_store_that_others_read_may_be_pruned(tmp_path: Path) -> None:
    filled(tmp_path, Want(1, tuple(range(20)), None, 0, "fp32"))
    reader = TrajectoryStore(tmp_path)
    assert reader.held(0) == list(range(20))
    prune(TrajectoryStore(tmp_path), [Want(1, tuple(range(10)), None, 0, "fp32")])
    assert torch.equal(reader.read(0, 9), walk(0, 9)[9])  # its file has another name now
    with pytest.raises(KeyError):
        reader.read(0, 12)


def test_superseded_files_go(tmp_path: Path) -> None:
    store = filled(tmp_path, Want(1, (0, 1, 2), None, 0, "half"))
    fill(store, Want(1, (0, 1, 2), None, 0, "fp32"), Walker(store, "fp32").train)
    assert len(list(tmp_path.glob("expert-0000/epochs-*"))) == 2
    removed = prune(store, [Want(1, (0, 1, 2), None, 0, "fp32")])
    assert [(action["path"], action["what"]) for action in removed] == [
        ("expert-0000/epochs-0000-0002-0000.safetensors", "superseded")
    ]
    assert torch.equal(store.read(0, 1), walk(0, 1)[1])


def test_a_point_on_the_way_stays_until_the_way_is_done(tmp_path: Path) -> None:
    store, want = TrajectoryStore(tmp_path, IDENTITY), Want(1, (0, 1), 40, 1, "fp32")
    job = store.shelf(0).job(want.of(0), "fp32")
    assert job is not None
    recorder = Recorder(store.shelf(0), job, "fp32")
    for epoch, theta in enumerate(walk(0, 20)):
        recorder.record(epoch, theta, None, [theta])
    store.shelf(0).look()
    assert prune(store, [want]) == []
    assert [point.epoch for point in store.shelf(0).points] == [1, 17]
    removed = prune(store, [Want(1, (0, 1), None, 1, "fp32")])
    assert [action["what"] for action in removed] == ["state after epoch 17"]


def test_an_expert_that_is_being_written_is_not_pruned(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with store.shelf(1).lock(), pytest.raises(UsageError, match="^PATH: expert-0001 of .* is being written by another process$"):
        prune(TrajectoryStore(tmp_path), [Want(1, (0,), None, 0, "half")])


def test_a_description_says_what_there_is(tmp_path: Path) -> None:
    store = filled(tmp_path, Want(3, tuple(range(20)), 30, 2, "half"))
    said = describe(store)
    assert said["identity"] == IDENTITY
    assert said["about"] == {"source": "walks"}
    assert said["epochs"] == {"0-19,30": 2, "0-19": 1}
    assert said["codings"] == {"half": 60, "fp32": 2}
    assert 1e-4 < said["step_error"] < 0.01
    assert said["bytes"] == sum(map(len, snapshot(tmp_path).values()))
    assert said["list_share"] == said["bytes"] / (3 * 31 * 700 * 4)
    assert said["accuracy"]["0"] == [epoch / 1000 for epoch in range(1, 31)]
    (asked,) = said["wanted"]
    assert asked == {"num_experts": 3, "epochs": "0-19", "last": 30, "label_experts": 2, "dtype": "half", "lacking": 0}
    assert describe(TrajectoryStore(tmp_path / "empty", IDENTITY))["list_share"] is None


def test_over_experts() -> None:
    rows = over_experts([[0.1, None, 0.3], [0.3, None], []])
    assert rows == [(1, 0.2, 0.1, 0.3), (3, 0.3, 0.3, 0.3)]
    assert over_experts([]) == []


def test_the_plot_shows_every_expert_their_mean_and_what_is_held() -> None:
    figure = expert_curves({0: [0.1, 0.3, None, 0.5], 1: [0.3, 0.5]}, {0: [0, 1, 4], 1: [0, 1]})
    (axes,) = figure.axes
    lines = [line.get_xydata() for line in axes.get_lines() if to_hex(line.get_color()) == BLUE]
    points = [line[np.isfinite(line).all(axis=1)].tolist() for line in lines]
    assert points[0] == [[1, 10], [2, 30], [4, 50]]
    assert points[1] == [[1, 30], [2, 50]]
    assert np.allclose(points[2], [[1, 20], [2, 40], [4, 50]])
    (held,) = axes.collections
    assert to_hex(held.get_color()[0]) == ORANGE
    heights = {segment[0, 0]: segment[1, 1] for segment in held.get_segments()}
    assert heights == pytest.approx({0: 0.05, 1: 0.05, 4: 0.025})
    for empty in (({}, {}), ({0: []}, {0: [0]}), ({0: [None]}, {0: [1]})):
        assert len(expert_curves(*empty).axes[0].texts) == 1


@pytest.mark.parametrize(("coding", "most"), [("fp32", 0.23), ("half", 0.12)])
@pytest.mark.parametrize("parameters", [320_010, 616_330])
def test_the_published_ten_images_per_class_take_little(coding: str, most: float, parameters: int) -> None:
    """Epochs 0 … 21 are reached, the last of 100 gives labels: ConvNetD3 at 32×32, ConvNetD5 at 128×128, 100 experts."""
    predicted = estimate(Want(100, tuple(range(22)), 100, 100, coding), parameters)
    assert predicted["list_format"] == 100 * 101 * 4 * parameters
    assert predicted["share"] <= most
    assert predicted["checkpoints"] == 23
    assert (predicted["missing_experts"], predicted["epochs"]) == (100, 10_000)


@pytest.mark.parametrize("coding", ["fp32", "fp16", "half"])
def test_the_estimate_is_what_a_store_takes(tmp_path: Path, coding: str) -> None:
    want = Want(3, tuple(range(20)), 30, 2, coding)
    before = estimate(want, 700, state=1, store=TrajectoryStore(tmp_path, IDENTITY))
    assert before == estimate(want, 700, state=1)
    assert (before["missing_experts"], before["epochs"]) == (3, 30 + 30 + 19)
    store = filled(tmp_path, want)
    assert before["disk"] == pytest.approx(store.summary()["bytes"], rel=0.1)
    wider = Want(4, tuple(range(25)), 30, 2, coding)
    after = estimate(wider, 700, state=1, store=store)
    assert (after["missing_experts"], after["epochs"]) == (4, 3 * 5 + 24)
    assert estimate(wider, 700, store=store, shard=Shard(1, 2))["epochs"] == 10
    assert estimate(want, 700, state=1, store=store) == {**before, "missing_experts": 0, "epochs": 0}

"""Files of somebody else: evaluations that are none, links, pipes, devices, and archives that declare more than they hold."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled.samples import sample_set
from reliability.damage import open_to_change
from reliability.kinds import EVALUATION

from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.distilled.card import card
from limbeck.distilled.set import DistilledSet
from limbeck.recipes import load_recipe
from limbeck.runtime import bounded
from limbeck.runtime.errors import UsageError

# ---- evaluations that metadata hold


BROKEN: list[tuple[str, Any]] = [
    ("evaluation", "<script>"),
    ("evaluation", {"accuracy": {"distilled": {"mean": 0.5, "std": "<script>", "ci95": None}}}),
    ("evaluation", {"accuracy": {"distilled": {"mean": 0.5, "ci95": ["<script>", "b"]}}}),
    ("evaluation", {"accuracy": {"distilled": {"mean": 0.5, "ci95": 3}}}),
    ("evaluation", {"doubts": 3}),
    ("evaluation", {"doubts": ["x"]}),
    ("evaluations", {}),
    ("evaluations", 7),
    ("evaluations", [7]),
    ("evaluations", [{"networks": "x"}]),
    ("evaluations", [{"networks": {"MLP": 3}}]),
    ("evaluations", [{"environment": "x"}]),
    ("evaluations", [{"accuracy": {"full": {"mean": 0.5, "std": []}}}]),
    ("settings", []),
    ("assumed", 3),
    ("assumed", [3]),
]


@pytest.mark.parametrize(("key", "value"), BROKEN)
def test_evaluations_that_are_none_are_refused_before_one_is_paid_for(key: str, value: Any, tmp_path: Path) -> None:
    sample_set().save(tmp_path / "set")
    file = tmp_path / "set" / "metadata.json"
    held = open_to_change(file)
    file.write_text(json.dumps({**held, key: value}))
    with pytest.raises(UsageError, match="is not a sound distilled set: ") as caught:
        DistilledSet.load(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_what_is_loaded_can_take_an_evaluation(tmp_path: Path) -> None:
    for number, value in enumerate((None, [], [EVALUATION])):
        sample_set(metadata={"evaluation": EVALUATION, "evaluations": value}).save(tmp_path / str(number))
        DistilledSet.append_evaluation(tmp_path / str(number), {**EVALUATION, "seeds": 7})
        assert len(DistilledSet.load(tmp_path / str(number)).metadata["evaluations"]) == 1 + len(value or [])


def test_text_that_nobody_could_write_is_refused_before_an_evaluation_is_paid_for(tmp_path: Path) -> None:
    sample_set().save(tmp_path / "set")
    file = tmp_path / "set" / "metadata.json"
    held = open_to_change(file)
    for more in ({"x": ["\ud800"]}, {"\udfff": 1}, {"settings": {"a": {"b": "\ud800"}}}):
        file.write_text(json.dumps({**held, **more}))
        with pytest.raises(UsageError, match="is not a sound distilled set: "):
            DistilledSet.load(tmp_path / "set")


def test_an_origin_that_is_none_of_ours_is_no_format() -> None:
    accuracy = {"mean": 0.5, "lr": 0.1, "lr_from": "{of.__class__.__mro__} {0}", "lr_tried": [0.1]}
    held = sample_set(metadata={"evaluation": {"accuracy": {"distilled": accuracy}}})
    assert r"\{of.\_\_class\_\_.\_\_mro\_\_\} \{0\}" in card(held)


# ---- links, pipes and devices


FILES = ("metadata.json", "distilled.safetensors")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "zero", "out"])
def test_files_of_a_set_are_files_of_its_folder(name: str, kind: str, tmp_path: Path) -> None:
    sample_set().save(tmp_path / "set")
    shutil.copy(tmp_path / "set" / name, tmp_path / "aside")
    (tmp_path / "set" / name).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / "set" / name)
    else:
        (tmp_path / "set" / name).symlink_to("/dev/zero" if kind == "zero" else "../aside")
    said = "it is no regular file|Invalid argument" if kind == "pipe" else f"{name} is a link that leads out of the folder"
    with pytest.raises(UsageError, match=said):
        DistilledSet.load(tmp_path / "set")


def test_a_block_of_an_expert_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    from experts.walks import IDENTITY, walk

    from limbeck.experts.maintain import verify
    from limbeck.experts.store import TrajectoryStore

    store = TrajectoryStore(tmp_path / "store", IDENTITY)
    store.write(0, dict(enumerate(walk(0, 3))))
    (block,) = (tmp_path / "store" / "expert-0000").glob("epochs-*")
    block.unlink()
    os.mkfifo(block)
    store = TrajectoryStore(tmp_path / "store")
    with pytest.raises(UsageError, match="it is no regular file"):
        store.read(0, 1)
    assert any("no regular file" in problem for problem in verify(store, []))


def test_nothing_is_removed_where_a_link_leads(tmp_path: Path) -> None:
    from experts.walks import IDENTITY, walk

    from limbeck.experts.maintain import prune
    from limbeck.experts.notes import Want
    from limbeck.experts.store import TrajectoryStore

    for name in ("mine", "theirs"):
        TrajectoryStore(tmp_path / name, IDENTITY).write(0, dict(enumerate(walk(0, 3))))
    shutil.rmtree(tmp_path / "theirs" / "expert-0000")
    (tmp_path / "theirs" / "expert-0000").symlink_to(tmp_path / "mine" / "expert-0000")
    with pytest.raises(UsageError, match="expert-0000 of '.*' is a link"):
        prune(TrajectoryStore(tmp_path / "theirs"), [Want(1, (0,), None, 1, "fp32")])
    assert TrajectoryStore(tmp_path / "mine").held(0) == [0, 1, 2, 3]


def test_other_files_that_are_pipes_are_refused(tmp_path: Path) -> None:
    from limbeck.experts.imported import load_lists
    from limbeck.methods.checkpoints import Checkpoints
    from limbeck.runtime.metrics import read_metrics

    for name in ("x.npz", "x.pt", "checkpoint.safetensors", "x.jsonl", "x.csv", "x.yaml", "benchmark.json"):
        os.mkfifo(tmp_path / name)
    reads = [
        lambda: load_lists(tmp_path / "x.pt"),
        lambda: Checkpoints(tmp_path, "", lambda _: None).load(torch.device("cpu")),
        lambda: read_metrics(tmp_path / "x.jsonl"),
        lambda: load_data(DataSettings(source=str(tmp_path / "x.npz"))),
        lambda: load_data(DataSettings(source=str(tmp_path / "x.csv"))),
        lambda: load_data(DataSettings(source=f"benchmark:{tmp_path}:x")),
        lambda: load_recipe(str(tmp_path / "x.yaml")),
    ]
    for read in reads:
        with pytest.raises((UsageError, OSError)):
            read()


def test_arrays_that_a_small_archive_declares_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three megabytes that unpack to three gigabytes, and forty bytes of header that declare as many."""
    images = np.zeros((20_000, 224, 224, 3), dtype=np.uint8)  # never touched
    header = np.lib.format.header_data_from_array_1_0(images)
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, header)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", start.getvalue())
        archive.writestr("y_train.npy", start.getvalue())
    with pytest.raises(UsageError, match="x_train has the shape .*, which is more than is in the file"):
        load_data(DataSettings(source=str(tmp_path / "a.npz")))
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x_train.npy", "w") as member:
        for _ in range(20):
            member.write(bytes(2**20))
    monkeypatch.setattr(bounded, "ALWAYS", 2**24)
    with pytest.raises(UsageError, match="it declares .* MB in an archive of .* kB; at most .* are accepted"):
        load_data(DataSettings(source=str(tmp_path / "b.npz")))

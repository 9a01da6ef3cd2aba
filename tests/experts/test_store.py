"""The trajectory store: what is written is read; what is broken or of something else is refused."""

import json
from pathlib import Path

import pytest
import torch
from experts.walks import IDENTITY, walk

from limbeck.experts.blocks import blocks_of, parse_epochs, text_of
from limbeck.experts.notes import Difficulty
from limbeck.experts.store import TrajectoryStore, difference
from limbeck.runtime.errors import UsageError

SMALL = {"network": "ConvNetD1-w4", "num_parameters": 5, "seed": 0}


RECORD = {
    "measure": "grand",
    "networks": 3,
    "epochs": 5,
    "fingerprint": "0123456789abcdef",
    "images": 3,
    "classes": [{"class": 0, "name": "zero", "images": 3, "mean": 2.0, "quantiles": [1.0, 1.5, 2.0, 2.5, 3.0]}],
    "easiest": [2, 0, 1],
    "hardest": [1, 0, 2],
}


def test_difficulties_are_noted_once_each(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, SMALL)
    assert store.difficulties() == []
    other = {**RECORD, "fingerprint": "fedcba9876543210"}
    for record in (RECORD, other, RECORD):
        store.note_difficulty(Difficulty.from_dict(record))
    assert [scores.to_dict() for scores in TrajectoryStore(tmp_path).difficulties()] == [RECORD, other]
    for content in ("{", "[]", '{"classes": []}', json.dumps(RECORD | {"classes": [{"class": 0}]})):
        (tmp_path / "difficulty-fedcba9876543210.json").write_text(content)
        with pytest.raises(UsageError, match=r"^experts: '.*difficulty-fedcba9876543210.json' is broken; delete it$"):
            store.difficulties()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    thetas = {epoch: torch.randn(5) for epoch in (0, 2, 7, 8, 9)}
    store = TrajectoryStore(tmp_path, SMALL)
    store.write(3, thetas, [0.5, 0.25])
    for opened in (store, TrajectoryStore(tmp_path, SMALL), TrajectoryStore(tmp_path)):
        for epoch, theta in thetas.items():
            assert torch.equal(opened.read(3, epoch), theta)
        assert opened.held(3) == [0, 2, 7, 8, 9]
        assert opened.holds(3, [0, 2, 7])
        assert not opened.holds(3, [1])
        assert not opened.holds(0, [0])
        assert opened.experts == [3]
        assert opened.summary().epochs == [0, 2, 7, 8, 9]
        assert opened.accuracies(3) == [0.5, 0.25, *[None] * 7]
        for expert, epoch in ((3, 1), (0, 0), (3, 10)):
            with pytest.raises(KeyError):
                opened.read(expert, epoch)


@pytest.mark.parametrize("coding", ["fp32", "fp16", "half"])
def test_what_is_read_may_be_changed(tmp_path: Path, coding: str) -> None:
    store = TrajectoryStore(tmp_path, IDENTITY)
    store.write(0, dict(enumerate(walk(0, 3))), coding=coding)
    for epoch in (1, 3):
        theta = store.read(0, epoch)
        before = theta.clone()
        theta.add_(1)
        assert torch.equal(store.read(0, epoch), before)
        assert theta.untyped_storage().nbytes() < 4 * 2 * 1024  # its own, not the whole block


def test_an_accuracy_after_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, SMALL)
    store.write(0, {0: torch.zeros(5)}, [0.1, 0.2, 0.3])
    assert TrajectoryStore(tmp_path).accuracies(0) == [0.1, 0.2, 0.3]


def test_half_reads_what_was_written_within_its_error(tmp_path: Path) -> None:
    thetas, store = walk(0, 20), TrajectoryStore(tmp_path, IDENTITY)
    store.write(0, dict(enumerate(thetas)), coding="half")
    read = [store.read(0, epoch) for epoch in range(21)]
    assert all(torch.equal(read[epoch], thetas[epoch]) for epoch in (7, 15, 20))
    assert not torch.equal(read[6], thetas[6])
    for ahead in (1, 2, 3, 9):
        for start in range(21 - ahead):
            true = thetas[start + ahead].double() - thetas[start].double()
            assert float((read[start + ahead].double() - read[start].double() - true).norm() / true.norm()) < 0.01
    assert [block.header.coding for block in store.shelf(0).blocks] == ["half"] * 3


def test_another_identity_is_refused(tmp_path: Path) -> None:
    TrajectoryStore(tmp_path, SMALL, {"source": "here"})
    TrajectoryStore(tmp_path, SMALL, {"source": "there"})
    with pytest.raises(UsageError, match=r"was made with seed 0, not 1$"):
        TrajectoryStore(tmp_path, {**SMALL, "seed": 1})


def test_a_difference_is_named() -> None:
    held = {"a": 1, "b": {"c": 2, "d": [1, 2]}, "more": 0}
    assert difference(held, {"a": 1, "b": {"c": 2, "d": (1, 2)}}) == ""
    assert difference(held, {"a": 2}) == "a 1, not 2"
    assert difference(held, {"b": {"c": 3, "d": [1, 2]}}) == "b.c 2, not 3"
    assert difference(held, {"b": {"c": 2}}) == "b.d [1, 2], not None"
    assert difference(held, {"b": {"c": 2, "d": [1, 2], "e": float("inf")}}) == "b.e None, not 'Infinity'"
    assert difference(held, {"b": 5}) == "b {'c': 2, 'd': [1, 2]}, not 5"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"num_parameters": "many"}', '{"num_parameters": null}'])
def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="is not a trajectory store"):
        TrajectoryStore(tmp_path)
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(UsageError, match="is not a trajectory store"):
        TrajectoryStore(tmp_path)


def test_a_store_of_an_earlier_format_is_refused_in_a_line(tmp_path: Path) -> None:
    old = {"format": 1, "num_parameters": 5, "network": "ConvNetD1-w4", "dtype": "float32"}
    (tmp_path / "metadata.json").write_text(json.dumps(old))
    for identity in (None, SMALL):
        with pytest.raises(UsageError, match=r"^experts: the store .* was made with format 1, not 2$"):
            TrajectoryStore(tmp_path, identity)


def cut(content: bytes) -> bytes:
    return content[:40]


def header(content: bytes) -> bytes:
    return content.replace(b'\\"epochs\\": [0]', b'\\"epochs\\": [9]')


def other_json(content: bytes) -> bytes:
    return content.replace(b'{\\"epochs\\"', b'{\\"Epochs\\"')


def no_end(content: bytes) -> bytes:
    return content.replace(b'\\"end\\"', b'\\"eno\\"')


@pytest.mark.parametrize("harm", [cut, header, other_json, no_end, lambda content: b"", lambda content: b"\xff" * 100])
def test_broken_files_are_named(tmp_path: Path, harm: object) -> None:
    store = TrajectoryStore(tmp_path, SMALL)
    store.write(0, {0: torch.ones(5)})
    (file,) = tmp_path.glob("expert-*/*.safetensors")
    harmed = harm(file.read_bytes())  # type: ignore[operator]
    assert harmed != file.read_bytes()
    file.write_bytes(harmed)
    for use in (lambda opened: opened.read(0, 0), lambda opened: opened.held(0), lambda opened: opened.summary()):
        with pytest.raises(UsageError, match=r"/epochs-0000-0000-0000.safetensors' is broken \(.*\); delete it"):
            use(TrajectoryStore(tmp_path))


def test_checkpoints_of_another_size_are_refused(tmp_path: Path) -> None:
    TrajectoryStore(tmp_path, SMALL).write(0, {0: torch.ones(6)})
    with pytest.raises(UsageError, match="it has 6 parameters, not 5"):
        TrajectoryStore(tmp_path).read(0, 0)


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, SMALL)
    with pytest.raises(ValueError, match="not finite"):
        store.write(0, {0: torch.full((5,), torch.nan)})
    assert store.experts == []


def test_the_last_writing_of_an_epoch_counts(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, SMALL)
    store.write(0, {0: torch.zeros(5), 4: torch.zeros(5)})
    before = TrajectoryStore(tmp_path)
    assert before.read(0, 4).tolist() == [0.0] * 5
    store.write(0, {epoch: torch.ones(5) for epoch in range(6)})
    for opened in (store, TrajectoryStore(tmp_path)):
        assert [opened.read(0, epoch).tolist() for epoch in (0, 2, 4)] == [[1.0] * 5] * 3
    assert before.read(0, 4).tolist() == [0.0] * 5  # it reads on what it knew
    assert before.read(0, 5).tolist() == [1.0] * 5  # and looks again for what it did not


def test_stray_files_are_left_alone(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, SMALL)
    store.write(0, {0: torch.ones(5)})
    for name in ("epochs-0000-0001-abcdef12.safetensors", "extra.safetensors", "notes.txt", ".epochs-x.part"):
        (tmp_path / "expert-0000" / name).write_text("?")
    (tmp_path / "expert-old").mkdir()
    assert TrajectoryStore(tmp_path).summary().epochs == [0]


def test_runs_are_cut_into_blocks() -> None:
    assert blocks_of([0, 2, 7, 8, 9]) == [[0], [2], [7, 8, 9]]
    assert [len(block) for block in blocks_of([*range(22), 100])] == [8, 8, 6, 1]
    assert blocks_of([]) == []


@pytest.mark.parametrize(("text", "epochs"), [("0-3,100", [0, 1, 2, 3, 100]), ("5", [5]), (" 2 , 1-2", [1, 2])])
def test_epochs_are_read_and_written(text: str, epochs: list[int]) -> None:
    assert parse_epochs("--keep", text) == epochs
    assert parse_epochs("--keep", text_of(epochs)) == epochs


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,,2", "1;2", "0-999999999"])
def test_epochs_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="^--keep: .* is not numbers and ranges up to 99999, such as 0-21,100$"):
        parse_epochs("--keep", text)

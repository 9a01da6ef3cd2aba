"""A distilled set comes back from disk bit for bit, or not at all."""

import hashlib
import json
import math
import os
import signal
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from distilled.samples import NAMES, changed, sample_set
from safetensors.torch import load_file

from limbeck.data.preprocessing import Normalise
from limbeck.distilled.set import DistilledSet
from limbeck.runtime import files
from limbeck.runtime.errors import UsageError

METADATA = {
    "method": "edf",
    "settings": {"outer": {"max_match_loss": math.inf, "iterations": 5000}, "augment": {"strategy": "flip"}, "output": None},
    "seeds": {"distill": 0, "evaluation": [0, 1]},
    "versions": {"torch": "2.13.0"},
    "fingerprints": {"data": "0123456789abcdef", "experts": "fedcba9876543210"},
    "evaluation": {"accuracy": {"distilled": {"mean": 0.1 + 0.2, "std": None, "ci95": None, "n": 1}}},
}


def same(one: DistilledSet, other: DistilledSet) -> bool:
    tensors = [(one.images, other.images), (one.labels, other.labels), (one.classes, other.classes)]
    mine, theirs = one.preprocessing.tensors(), other.preprocessing.tensors()
    assert mine.keys() == theirs.keys()
    tensors += [(mine[name], theirs[name]) for name in mine]
    rest = [(held.label_kind, held.syn_lr, held.class_names, held.metadata, held.preprocessing.kind) for held in (one, other)]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in tensors) and rest[0] == rest[1]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("preprocessing", ["identity", "normalise", "whiten"])
@pytest.mark.parametrize("shape", [(3, 8, 10), (1, 9, 8)])
def test_round_trip_is_exact(tmp_path: Path, shape: tuple[int, int, int], preprocessing: str, hard: bool) -> None:
    held = sample_set(shape=shape, preprocessing=preprocessing, hard=hard, metadata=METADATA)
    back = DistilledSet.load(held.save(tmp_path / "set"))
    assert same(held, back)
    assert {file.name for file in (tmp_path / "set").iterdir()} == {
        "distilled.safetensors",
        "metadata.json",
        "README.md",
        "preview.png",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_files_are_readable_by_others(tmp_path: Path) -> None:
    held = sample_set(metadata=METADATA)
    held.save(tmp_path / "set")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    metadata = json.loads((tmp_path / "set" / "metadata.json").read_text(), parse_constant=refuse)
    assert metadata["settings"]["outer"] == {"max_match_loss": "Infinity", "iterations": 5000}
    assert metadata["set"]["class_names"] == list(NAMES)
    tensors = load_file(tmp_path / "set" / "distilled.safetensors")
    assert torch.equal(tensors["images"], held.images)
    assert torch.equal(tensors["preprocessing.mean"], held.preprocessing.tensors()["mean"])
    assert tensors["syn_lr"].dtype == torch.float64 and tensors["syn_lr"].item() == held.syn_lr


def test_facts(tmp_path: Path) -> None:
    held = sample_set(ipc=3, shape=(3, 8, 10))
    assert (len(held), held.num_classes, held.shape, held.ipc) == (9, 3, (3, 8, 10), 3)
    uneven = changed(held, classes=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1]))
    assert uneven.ipc == 5


def test_data_set_gives_images_and_probabilities() -> None:
    held = sample_set()
    dataset = held.as_dataset()
    assert len(dataset) == 6
    image, label = dataset[4]
    assert torch.equal(image, held.images[4])
    row = [math.exp(value) for value in held.labels[4].tolist()]
    torch.testing.assert_close(label, torch.tensor([value / sum(row) for value in row]))
    hard = sample_set(hard=True)
    assert hard.as_dataset()[4][1].tolist() == [0.0, 0.0, 1.0]


def test_pixels_invert_the_preprocessing() -> None:
    x = torch.tensor([-4.0, 0.0, 0.5, 4.0]).view(1, 1, 2, 2)
    held = changed(
        sample_set(names=("one",), ipc=1, shape=(1, 2, 2)),
        images=x,
        preprocessing=Normalise(torch.tensor([0.5]), torch.tensor([0.2])),
    )
    torch.testing.assert_close(held.to_pixels().flatten(), torch.tensor([0.0, 0.5, 0.6, 1.0]))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def test_every_flipped_byte_of_the_tensors_is_noticed(tmp_path: Path) -> None:
    path = sample_set().save(tmp_path / "set") / "distilled.safetensors"
    content = path.read_bytes()
    for position in [*range(0, len(content), 97), len(content) - 1]:
        flip(path, position)
        with pytest.raises(UsageError, match="does not match the checksum") as caught:
            DistilledSet.load(tmp_path / "set")
        assert "\n" not in str(caught.value)
        path.write_bytes(content)
    DistilledSet.load(tmp_path / "set")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("images", [6, 3, 10, 8], r"set.images = \[6, 3, 10, 8\], distilled.safetensors \[6, 3, 8, 10\]"),
        ("labels", [6, 4], "set.labels"),
        ("label_kind", "hard", "set.label_kind"),
        ("preprocessing", "identity", "set.preprocessing"),
        ("syn_lr", 0.02, "set.syn_lr"),
        ("class_names", ["owl", "mole"], "set.class_names"),
        ("class_names", ["owl", "mole", "bat"], "set.class_names"),
        ("format", 2, "its format is 2, this version of Limbeck reads 1"),
        ("sha256", "0" * 64, "checksum"),
        ("more", 1, "set.more"),
    ],
)
def test_edited_metadata_is_noticed(tmp_path: Path, key: str, value: object, says: str) -> None:
    path = sample_set().save(tmp_path / "set") / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["set"][key] = value
    path.write_text(json.dumps(metadata))
    with pytest.raises(UsageError, match="metadata.json cannot be taken: it has changed since it was written; without its keys"):
        DistilledSet.load(tmp_path / "set")
    del metadata["limbeck"], metadata["checksum"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(UsageError, match=says) as caught:
        DistilledSet.load(tmp_path / "set")
    assert str(tmp_path / "set") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"set": []}', '{"set": {}}', '"set"', '{"set": {"format": 1}}'])
def test_broken_metadata_is_refused(tmp_path: Path, content: str) -> None:
    path = sample_set().save(tmp_path / "set")
    (path / "metadata.json").write_text(content)
    with pytest.raises(UsageError, match="is not a sound distilled set") as caught:
        DistilledSet.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["metadata.json", "distilled.safetensors"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = sample_set().save(tmp_path / "set")
    (path / name).unlink()
    with pytest.raises(UsageError, match=f"it has no {name}"):
        DistilledSet.load(path)
    with pytest.raises(UsageError, match="a folder that holds a distilled set"):
        DistilledSet.load(tmp_path / "absent")


def reseal(path: Path, edit: Callable[[dict], object]) -> None:
    """Edit the tensors' header as JSON and make checksum and metadata agree, as somebody would who means to deceive."""
    content = (path / "distilled.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edit(header)
    encoded = json.dumps(header).encode()
    made = struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]
    (path / "distilled.safetensors").write_bytes(made)
    metadata = {"limbeck": "", "checksum": ""} | json.loads((path / "metadata.json").read_text())
    metadata["set"] = json.loads(header["__metadata__"]["json"]) | {"sha256": hashlib.sha256(made).hexdigest()}
    del metadata["limbeck"], metadata["checksum"]
    (path / "metadata.json").write_text(json.dumps(metadata))


def swap_sides(header: dict) -> None:
    header["images"]["shape"] = [6, 3, 10, 8]


def too_long(header: dict) -> None:
    header["images"]["shape"] = [7, 3, 8, 10]


def as_integers(header: dict) -> None:
    header["images"]["dtype"] = "I32"


def renamed(header: dict) -> None:
    header["pictures"] = header.pop("images")


def fewer_names(header: dict) -> None:
    described = json.loads(header["__metadata__"]["json"])
    described["class_names"] = ["owl", "mole"]
    header["__metadata__"]["json"] = json.dumps(described)


def other_preprocessing(header: dict) -> None:
    described = json.loads(header["__metadata__"]["json"])
    described["preprocessing"] = "whiten"
    header["__metadata__"]["json"] = json.dumps(described)


def no_description(header: dict) -> None:
    header["__metadata__"]["json"] = "{}"


EDITS = [swap_sides, too_long, as_integers, renamed, fewer_names, other_preprocessing, no_description]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_resealed_tensors_must_still_make_sense(tmp_path: Path, edit: Callable[[dict], object]) -> None:
    path = sample_set().save(tmp_path / "set")
    reseal(path, lambda header: None)
    DistilledSet.load(path)
    reseal(path, edit)
    with pytest.raises(UsageError, match="is not a sound distilled set") as caught:
        DistilledSet.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": torch.zeros(6, 3, 8)}, "images must be floats"),
        ({"images": torch.zeros(6, 3, 8, 10, dtype=torch.float64)}, "must be float32"),
        ({"images": torch.full((6, 3, 8, 10), math.nan)}, "finite"),
        ({"labels": torch.full((6, 3), math.inf)}, "finite"),
        ({"labels": torch.zeros(6, 4)}, r"labels must be float32 \[6, 3\]"),
        ({"classes": torch.tensor([0, 0, 1, 1, 2, 3])}, "classes must be in 0 … 2"),
        ({"classes": torch.tensor([0, 0, 1, 1, 2])}, "classes must be int64"),
        ({"kind": "soft"}, "kind 'soft' is not one of logits, probabilities, hard"),
        ({"kind": "probabilities", "labels": torch.full((6, 3), 1 / 3)}, "log p are the logits"),
        ({"syn_lr": None}, "syn_lr"),
        ({"kind": "hard"}, "one-hot"),
        ({"syn_lr": 0.0}, "syn_lr"),
        ({"syn_lr": math.nan}, "syn_lr"),
        ({"class_names": ()}, "class_names"),
        ({"metadata": {"set": {}}}, "metadata"),
    ],
)
def test_parts_must_fit_together(change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        changed(sample_set(), **change)


def test_of_one_evaluation_there_is_one_entry_with_all_that_was_measured(tmp_path: Path) -> None:
    path = sample_set().save(tmp_path / "set")
    first, other = ({"accuracy": {"distilled": {"mean": mean}}, "seeds": seeds} for mean, seeds in ((0.5, [0]), (0.6, [1])))

    def added(evaluation: dict, **further: object) -> list[dict]:
        DistilledSet.append_evaluation(path, {**evaluation, **({"further": further} if further else {})})
        return DistilledSet.load(path).metadata["evaluations"]

    assert added(first) == added(first) == [first]
    assert added(other, ranking=1) == [first, {**other, "further": {"ranking": 1}}]
    assert added(first, areas=math.inf) == [{**first, "further": {"areas": math.inf}}, {**other, "further": {"ranking": 1}}]
    assert added(other) == added(other, ranking=1) == added(first, areas=math.inf)
    assert added(other, search=2)[1] == {**other, "further": {"ranking": 1, "search": 2}}


def test_saving_replaces_a_set_and_nothing_else(tmp_path: Path) -> None:
    sample_set(ipc=2).save(tmp_path / "set")
    sample_set(ipc=1).save(tmp_path / "set")
    assert len(DistilledSet.load(tmp_path / "set")) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("also")
    for place in ("mine", "file"):
        with pytest.raises(UsageError, match="output: .* a new folder, an empty one or a distilled set"):
            sample_set().save(tmp_path / place)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert len(DistilledSet.load(sample_set().save(tmp_path / "empty"))) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kill needs a child process")
@pytest.mark.parametrize("before", ["any file", "the folder"])
def test_kill_before_the_rename_leaves_the_old_set(tmp_path: Path, before: str) -> None:
    old = sample_set(ipc=2)
    old.save(tmp_path / "set")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking beside torch's threads: the child uses none of them
        child = os.fork()
    if child == 0:
        rename = os.replace

        def die(source: object, target: object) -> None:
            if before == "any file" or Path(str(source)).is_dir():
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        files.os.replace, files.exchanged = die, die
        sample_set(ipc=1).save(tmp_path / "set")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert same(DistilledSet.load(tmp_path / "set"), old)

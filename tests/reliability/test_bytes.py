"""Every byte that is read back is checked: a file of any kind, damaged or in another's place, is refused or made anew."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.pictures import fill, png
from distilled.samples import changed, sample_set
from experts.walks import filled
from reliability.damage import damaged, swapped
from studies.fake_cells import cell, results
from torch import nn

from limbeck.data import image_cache
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.data.stream_cache import Row, Stream, streamed
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.view_labels import StoredViews, label_views
from limbeck.experts.files import ACCURACIES
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.state import Best, OuterState
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, read_tensors, write_json, write_tensors
from limbeck.runtime.kept import Kept
from limbeck.runtime.metrics import MetricsLog, read_metrics
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.sealed import Damaged, FileKind
from limbeck.studies.cells import CellFolder, CellRecord
from limbeck.training.images import TensorImages
from limbeck.views import Views

PLACES = 30  # in every file
CPU = torch.device("cpu")
NOTES = FileKind("notes", 3)


@dataclass(frozen=True)
class Case:
    """A kind of file.

    Args:
        write: makes it in a folder, with what else it needs; the path of the file.
        read: what is read of it, as something that can be compared.
        remade: whether what is damaged is made anew, and not refused.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    remade: bool = False


def bits(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Tensors as something that can be compared."""
    raw = {name: one.flatten().view(torch.uint8).numpy().tobytes() for name, one in tensors.items()}
    return {name: (str(one.dtype), one.shape, raw[name]) for name, one in sorted(tensors.items())}


def state(iteration: int = 7) -> OuterState:
    draws = torch.Generator().manual_seed(iteration)
    x, y = torch.rand(4, 3, 4, 5, generator=draws), torch.rand(4, 2, generator=draws)
    made = OuterState.start(x, y, 0.1, {"a": torch.arange(3)})
    made.iteration, made.skipped, made.best, made.last_loss = iteration, 1, Best(4, 0.5), 0.25
    made.kept_share = {"layer": 0.75}
    return made


def write_checkpoint(folder: Path) -> Path:
    state().save(folder / "checkpoint.safetensors", "run")
    return folder / "checkpoint.safetensors"


def read_checkpoint(folder: Path) -> Any:
    held = OuterState.load(folder / "checkpoint.safetensors", CPU, "run")
    named = {name: value for name, value in vars(held).items() if isinstance(value, torch.Tensor)}
    return bits(named | held.objective), held.iteration, held.skipped, held.best, held.kept_share, held.last_loss


def write_notes(folder: Path) -> Path:
    write_json(folder / "notes.json", {"a": [1, 2.5, None, float("inf")], "b": {"c": "word"}}, NOTES, "me")
    return folder / "notes.json"


ROWS = [{"kind": "iteration", "iteration": n, "loss": n / 3, "skipped": False} for n in range(6)]


def write_metrics(folder: Path) -> Path:
    log = MetricsLog(folder / "metrics.jsonl", "run")
    for row in ROWS:
        log.append(**row)
    return log.path


def read_rows(folder: Path) -> Any:
    """The rows; the last ones may be missing, as a kill leaves the file, and no others."""
    rows = read_metrics(folder / "metrics.jsonl", "run")
    assert rows == ROWS[: len(rows)]
    return ROWS


def store_file(pattern: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        shelf = filled(folder / "store").shelf(1)
        write_json(shelf.folder / "accuracy.json", {"3": 0.5}, ACCURACIES, shelf.of)
        return next((folder / "store").glob(pattern))

    return write


def read_store(folder: Path) -> Any:
    """All that is read of a store while it is used."""
    store = TrajectoryStore(folder / "store")
    thetas = {f"{expert} {epoch}": store.read(expert, epoch) for expert in (0, 1) for epoch in store.held(expert)}
    points = [bits(dict(enumerate_state(point))) for expert in (0, 1) for point in store.shelf(expert).points]
    return bits(thetas), points, store.metadata, store.wanted(), [store.accuracies(expert) for expert in (0, 1)]


def enumerate_state(point: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for number, tensor in enumerate(point.state):
        yield f"{number} {point.header.end}", tensor


def kept_tensors(folder: Path) -> Kept[dict[str, torch.Tensor]]:
    return Kept.tensors(folder / "kept" / "abc.safetensors", lambda held: held["x"].ndim == 1, {"about": 1})


def kept_object(folder: Path) -> Kept[dict[str, Any]]:
    return Kept.json(folder / "kept" / "abc.json")


def write_kept(folder: Path) -> Path:
    kept_tensors(folder).get(lambda: {"x": torch.arange(5.0), "y": torch.ones(2, 2).half()})
    return kept_tensors(folder).path


def write_kept_object(folder: Path) -> Path:
    kept_object(folder).get(lambda: {"a": 1, "b": [0.5]})
    return kept_object(folder).path


def images_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        if not (folder / "pictures").exists():
            fill(folder / "pictures", a=5, b=5)
        read_images(folder)
        return next(path for path in image_cache.cache_root().glob(f"images/*/{name}"))

    return write


def read_images(folder: Path) -> Any:
    image_cache._sound.clear()  # as another process would
    data = load_data(DataSettings(source=str(folder / "pictures"), size=(8, 8), workers=1), NoProgress())
    return data.fingerprint, data.train.images().numpy().tobytes(), data.test.images().numpy().tobytes()


def stream_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        read_stream(folder)
        return next(path for path in image_cache.cache_root().glob(f"images/*/{name}"))

    return write


def read_stream(folder: Path) -> Any:
    image_cache._sound.clear()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    stream = Stream("x", lambda reached: [Row("train", n + 1, png(pixels[n]), n % 2) for n in range(reached.get("train", 0), 6)])
    held = streamed(stream, DataSettings(workers=1), NoProgress())
    return held.images.tobytes(), held.labels, held.positions, {part: rows.tolist() for part, rows in held.parts.items()}


def set_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        bare = sample_set(metadata={"method": "edf", "evaluation": {"accuracy": {"distilled": {"mean": 0.5}}}})
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(240, 3))
        values: dict[str, Any] = {"epochs": 2, "batch_size": 4, "seed": 0, "key": ("views",)}
        views = label_views(folder / "views.safetensors", teacher, TensorImages(bare.images), Views(mix="cutmix"), **values)
        changed(bare, views=views).save(folder / "set")
        return folder / "set" / name

    return write


def read_a_set(folder: Path) -> Any:
    held = DistilledSet.load(folder / "set")
    views = held.views or pytest.fail("the labels of views are gone")
    epochs = [bits(views._read(epoch)) for epoch in range(2)]
    return bits({"x": held.images, "y": held.labels, "k": held.classes}), held.syn_lr, held.metadata, epochs, views.about


def read_views(folder: Path) -> Any:
    """Labels of views that lie by themselves, where nothing but their file says what they are."""
    views = StoredViews.open(folder / "views.safetensors")
    return [bits(views._read(epoch)) for epoch in range(2)], views.about


def write_cell(folder: Path) -> Path:
    made = cell("edf-0")
    CellFolder(folder).write(made, CellRecord.from_dict(results()))
    return CellFolder(folder).result_file(made)


CASES = {
    "notes": Case(write_notes, lambda folder: read_json(folder / "notes.json", NOTES, "me")),
    "checkpoint": Case(write_checkpoint, read_checkpoint),
    "metrics": Case(write_metrics, read_rows),
    "store's metadata": Case(store_file("metadata.json"), read_store),
    "wish for experts": Case(store_file("wanted-*.json"), read_store),
    "block in half width": Case(store_file("expert-0001/epochs-0008-0015-*"), read_store),
    "block of one": Case(store_file("expert-0001/epochs-0030-0030-*"), read_store),
    "point": Case(store_file("expert-0001/state-0030.*"), read_store),
    "accuracies of an expert": Case(store_file("expert-0001/accuracy.json"), read_store),
    "kept tensors": Case(write_kept, lambda folder: bits(kept_tensors(folder).get(lambda: read_again(write_kept, folder))), True),
    "kept object": Case(write_kept_object, lambda folder: kept_object(folder).get(lambda: {"a": 1, "b": [0.5]}), True),
    "decoded images": Case(images_file("images.npy"), read_images, True),
    "content of decoded images": Case(images_file("content.json"), read_images, True),
    "decoded stream": Case(stream_file("images.npy"), read_stream, True),
    "rows of a stream": Case(stream_file("rows.json"), read_stream, True),
    "set's tensors": Case(set_file("distilled.safetensors"), read_a_set),
    "set's metadata": Case(set_file("metadata.json"), read_a_set),
    "set's labels of views": Case(set_file("views.safetensors"), read_a_set),
    "labels of views": Case(lambda folder: set_file("")(folder).parent / "views.safetensors", read_views),
    "cell of a grid": Case(write_cell, lambda folder: CellFolder(folder).read(cell("edf-0"))),
}


def read_again(write: Callable[[Path], Path], folder: Path) -> dict[str, torch.Tensor]:
    """What was kept, made anew."""
    return {"x": torch.arange(5.0), "y": torch.ones(2, 2).half()}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_refused_or_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    case = CASES[name]
    file = case.write(tmp_path)
    whole, content = case.read(tmp_path), file.read_bytes()
    refused = 0
    for what, other in damaged(content, PLACES):
        file.write_bytes(other)
        try:
            found = case.read(tmp_path)
        except (Damaged, UsageError) as error:
            assert not case.remade, (what, error)
            assert "\n" not in str(error)
            refused += 1
        else:
            assert found == whole, what
        if not case.remade:
            file.write_bytes(content)
    assert case.remade or refused > PLACES / 2  # spaces and the like may change without a difference
    assert case.read(tmp_path) == whole


SWAPS = {
    "checkpoint": (write_checkpoint, lambda path: state(9).save(path, "another run"), read_checkpoint),
    "block": (
        store_file("expert-0001/epochs-0008-0015-*"),
        lambda path: path.write_bytes((path.parents[1] / "expert-0000" / path.name).read_bytes()),
        read_store,
    ),
    "metrics": (write_metrics, lambda path: path.unlink() or another_log(path), read_rows),
    "kind": (write_notes, lambda path: write_json(path, {"a": 1}, FileKind("letters", 3), "me"), CASES["notes"].read),
    "version": (write_notes, lambda path: write_json(path, {"a": 1}, FileKind("notes", 4), "me"), CASES["notes"].read),
    "owner": (write_notes, lambda path: write_json(path, {"a": 1}, NOTES, "you"), CASES["notes"].read),
}


def another_log(path: Path) -> None:
    MetricsLog(path, "another run").append(**ROWS[0])


@pytest.mark.parametrize("name", SWAPS)
def test_what_lies_in_anothers_place_is_refused(tmp_path: Path, name: str) -> None:
    write, put, read = SWAPS[name]
    path = write(tmp_path)
    put(path)  # type: ignore[no-untyped-call]
    with pytest.raises((Damaged, UsageError), match="belongs to another|is of another run|it is no |later version"):
        read(tmp_path)


def test_kept_work_of_another_fingerprint_is_not_taken(tmp_path: Path) -> None:
    one, other = (Kept.tensors(tmp_path / "full" / f"{name}.safetensors", lambda held: True) for name in ("a", "b"))
    one.get(lambda: {"x": torch.zeros(1)})
    other.get(lambda: {"x": torch.ones(1)})
    swapped(one.path, other.path)
    assert one.held() is None and other.held() is None


def test_a_set_with_anothers_tensors_is_refused(tmp_path: Path) -> None:
    sample_set().save(tmp_path / "one")
    sample_set(ipc=3).save(tmp_path / "other")
    for name in ("distilled.safetensors", "metadata.json"):
        swapped(tmp_path / "one" / name, tmp_path / "other" / name)
        with pytest.raises(UsageError, match="does not match the checksum"):
            DistilledSet.load(tmp_path / "one")
        swapped(tmp_path / "one" / name, tmp_path / "other" / name)


def test_decoded_images_of_others_are_not_taken(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "pictures", a=5, b=5)
    whole = read_images(tmp_path)
    (place,) = [path for path in (cache / "images").iterdir() if path.is_dir()]
    other = place.with_name("0" * 16)
    place.rename(other)
    with (other / "images.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"\0\1\2\3")
    other.rename(place)
    assert read_images(tmp_path) == whole


def test_size_and_time_of_change_do_not_vouch_for_images(tmp_path: Path, cache: Path) -> None:
    import os

    fill(tmp_path / "pictures", a=5, b=5)
    whole = read_images(tmp_path)
    (file,) = (cache / "images").glob("*/images.npy")
    before, content = file.stat(), file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_images(tmp_path) == whole
    assert file.read_bytes()[-1] == content[-1]


def test_an_altered_expert_is_not_used(tmp_path: Path) -> None:
    """One expert × 1.5, its digests as they were; and one with a number that is none, its digests anew."""
    from safetensors.torch import load_file, save_file

    filled(tmp_path / "store")
    file = next((tmp_path / "store").glob("expert-0001/epochs-0030-0030-*"))
    header = json.loads(file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")])["__metadata__"]
    tensors = load_file(file)
    save_file({name: 1.5 * value for name, value in tensors.items()}, file, header)
    with pytest.raises(UsageError, match=f"^experts: .*{file.name}' is broken .*; delete it, and it is trained again$"):
        read_store(tmp_path)
    block = TrajectoryStore(tmp_path / "store").shelf(0)
    nan = {name: value.index_fill(1, torch.tensor([5]), torch.nan) for name, value in tensors.items()}
    write_tensors(file, nan, json.loads(header["json"]), FileKind("block of checkpoints"), block.of.replace("0000", "0001"))
    with pytest.raises(UsageError, match=f"{file.name}' is broken .epoch 30 has numbers that are not finite."):
        read_store(tmp_path)


def test_numbers_that_are_not_finite_are_no_checkpoint(tmp_path: Path) -> None:
    made = state()
    made.images_velocity[1, 2, 0, 0] = torch.inf
    made.save(tmp_path / "checkpoint.safetensors", "run")
    with pytest.raises(Damaged, match="^images_velocity has numbers that are not finite$"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 2**20, 1, 0])
def test_declared_lengths_are_bounded(tmp_path: Path, length: int) -> None:
    path = write_checkpoint(tmp_path)
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(Damaged):
        read_tensors(path)


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError):
        read_json(tmp_path / "notes.json", NOTES)


def test_files_of_before_are_read_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "old.json").write_text('{"a": 1}')
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert read_json(tmp_path / "old.json", FileKind("a kind of this test alone")) == {"a": 1}
    assert len(caplog.records) == 1 and "kept no checksum" in caplog.records[0].message

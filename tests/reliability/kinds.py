"""Every kind of file that Limbeck reads, as tiny ones: how they are made, how they are read, and what was read, to be compared."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data.pictures import fill, picture, png
from data.test_cifar import binary_hundred, pickled_ten
from data.test_idx import write as write_idx
from data.test_shards import samples, shard
from distilled.foreign_files import HARD, LOGITS, PIXELS, PREPARED, read, save_npz, save_pt, write_images
from distilled.samples import sample_set
from distilled.test_set_views import labelled
from experts.test_imported import experts, network
from PIL import Image
from reliability.page_kinds import EVALUATION, OF_RUN, OF_STUDY, page_of, run_folder, study

from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.preprocessing import Identity
from limbeck.data.settings import DataSettings
from limbeck.distilled.card import card
from limbeck.distilled.export import export_folder, export_npz, export_research
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.protocols import find
from limbeck.experts.imported import import_lists
from limbeck.experts.maintain import describe, verify
from limbeck.experts.store import TrajectoryStore
from limbeck.image_complexity.build import categories
from limbeck.recipes import load_recipe, settings_from_plain, settings_yaml
from limbeck.recipes_import.translate import import_recipe
from limbeck.runs.strangers import beyond
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint, plain

RECIPE = """# Mine.
ipc: 2
network: ConvNetD2-w8
data:
  source: scenes:easy
  size: 16
  classes: [0, 1, 2]
match: {syn_steps: 3, drop_ratio: 0.25}
outer:
  iterations: 10
  lr_img: 1e3
eval:
  epochs: 5
"""
PROTOCOL = "base: kd\nlr: 0.002\ncrop_scale: [0.2, 1.0]\nlr_factors: {AlexNet: 0.1}\nepochs: 3\n"
RESEARCH = (
    "dataset: CIFAR10\nipc: 1\nsyn_steps: 50\nexpert_epochs: 2\nmax_start_epoch: 20\nlr_img: 100\nlr_lr: 1.0e-05\nzca: true\n"
)
GROUPS = {"fish": ["a", 1], "bird": ["c", 3]}
SETTINGS = {
    "data": {"source": "scenes:easy", "size": 16, "range": None},
    "network": "ConvNetD2-w8",
    "augment": {"strategy": "crop_flip", "crop_ratio": 0.125},
    "eval": {"protocol": "dd", "epochs": 5, "seeds": 3, "networks": "ConvNetD2-w8,MLP"},
}


@dataclass(frozen=True)
class Kind:
    """One kind of file, or a folder of some.

    Args:
        make: writes it into a folder that is there.
        read: reads what lies in such a folder, and returns what was read.
        files: of which one is changed, by patterns.
        checked: of those the ones with a checksum, so that no change of bytes alone may pass with another content.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    files: tuple[str, ...] = ("*",)
    checked: tuple[str, ...] = ()

    def candidates(self, folder: Path) -> list[Path]:
        """The files of which one is changed."""
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return [path for path in found if any(fnmatch(path.relative_to(folder).as_posix(), one) for one in self.files)]

    def is_checked(self, name: str) -> bool:
        """Whether the file of that name has a checksum."""
        return any(fnmatch(name, one) for one in self.checked)


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def content(name: str, value: bytes | Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(value if isinstance(value, bytes) else value())


def set_of(held: DistilledSet) -> str:
    """What a set is, but for where it lies."""
    arrays = (array.numpy() for array in (held.images, held.labels, held.classes))
    said = {key: value for key, value in held.metadata.items() if key != "origin"}
    card(held)
    return fingerprint(array_fingerprint(*arrays), held.label_kind, held.class_names, held.syn_lr, said)


def images_at(name: str = "", **settings: Any) -> Callable[[Path], str]:
    def load(folder: Path) -> str:
        given = {"source": str(folder / name), "val_fraction": 0.0, "workers": 1, **settings}
        found: ImageSet = load_data(DataSettings(**given))
        return fingerprint(found.fingerprint, array_fingerprint(found.train.images().numpy(), found.test.images().numpy()))

    return load


def saved_set(folder: Path) -> None:
    held = sample_set(metadata={"method": "edf", "settings": SETTINGS, "evaluation": EVALUATION, "evaluations": [EVALUATION]})
    held.save(folder / "set")
    DistilledSet.add_views(folder / "set", labelled(held, folder / "views.safetensors"))


def read_saved(folder: Path) -> str:
    held = DistilledSet.load(folder / "set")
    if held.views is not None:
        held.views.verify()
        list(held.view_batches(0))
    repr(held), held._repr_html_(), held.preprocessing.tensors()
    if (stored := held.metadata.get("settings")) is not None:
        made = settings_from_plain(stored, origin="the set", imports=False)
        dict(beyond({"network": made.network, "eval.epochs": made.eval.epochs, "data.source": made.data.source}))
    return set_of(held)


def best_folder(folder: Path) -> None:
    save_pt(folder / "images_best.pt", PREPARED), save_pt(folder / "labels_best.pt", LOGITS), save_pt(folder / "lr_best.pt", 0.01)


def exported(write: Callable[[DistilledSet, Path], Path], name: str) -> Callable[[Path], object]:
    return lambda folder: write(sample_set(shape=(3, 8, 10), preprocessing="normalise"), folder / name)


def set_at(name: str, **options: Any) -> Callable[[Path], str]:
    return lambda folder: set_of(read(folder / name, **options))


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    return {"x_train": images, "y_train": np.arange(12) % 3, "x_test": images[:6], "y_test": np.arange(6) % 3}


def npy_folder(folder: Path) -> None:
    for name, array in arrays().items():
        np.save(folder / f"{name}.npy", array)


def shards(folder: Path) -> None:
    shard(folder / "train-0000.tar", samples(range(9)))
    shard(folder / "val-0000.tar", samples(range(9, 15), lambda i: ("json", json.dumps({"label": i % 3, "width": 11}).encode())))


def cifar_archive(folder: Path) -> None:
    made = pickled_ten(folder / "made")
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as file:
        file.add(made, made.name)
    for path in made.iterdir():
        path.unlink()


def listed(folder: Path) -> None:
    for i in range(12):
        picture(folder / "images" / f"{i}.png", 8, 8)
    lines = [f"{i}.png,{'ant' if i % 2 else 'bee'},{'test' if i > 8 else 'train'}" for i in range(12)]
    (folder / "labels.csv").write_text("\n".join(["file,label,split", *lines]) + "\n")


def listed_lines(folder: Path) -> None:
    for part, count in (("train", 6), ("test", 4)):
        for i in range(count):
            picture(folder / part / f"{i}.png", 8, 8)
        lines = [json.dumps({"file_name": f"{i}.png", "label": i % 2, "text": "a b"}) for i in range(count)]
        (folder / part / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def photos(folder: Path) -> None:
    fill(folder / "photos", train__ant=3, train__bee=3, test__ant=1, test__bee=1)
    Image.new("RGB", (10, 10), (10, 200, 30)).save(folder / "photos" / "train" / "ant" / "a.jpg")
    Image.new("I;16", (10, 10), 3000).save(folder / "photos" / "train" / "ant" / "b.tif")
    Image.new("RGBA", (10, 10), (10, 200, 30, 9)).save(folder / "photos" / "train" / "bee" / "c.webp")
    Image.new("P", (10, 10), 3).save(folder / "photos" / "train" / "bee" / "d.gif")
    Image.new("L", (10, 10), 77).save(folder / "photos" / "train" / "bee" / "e.bmp")


def parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet as files

    pixels = np.random.default_rng(5).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    for part, rows in (("train", range(7)), ("test", range(7, 10))):
        (folder / "set").mkdir(exist_ok=True)
        table = {"image": [{"bytes": png(pixels[i]), "path": None} for i in rows], "label": [i % 2 for i in rows]}
        files.write_table(pyarrow.table(table), folder / "set" / f"{part}-00000.parquet")


def saved_dataset(folder: Path) -> None:
    import datasets

    pixels = np.random.default_rng(5).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    rows = {"image": [{"bytes": png(one), "path": None} for one in pixels], "label": [i % 2 for i in range(8)]}
    datasets.disable_progress_bars()
    held = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": held, "test": held}).save_to_disk(str(folder / "set"))


def tiny_tree(folder: Path) -> None:
    ids = ["n01443537", "n01629819"]
    for wnid in ids:
        for i in range(2):
            picture(folder / "t" / "train" / wnid / "images" / f"{i}.png", 8, 8)
    for i in range(4):
        picture(folder / "t" / "val" / "images" / f"val_{i}.png", 8, 8)
    (folder / "t" / "val" / "val_annotations.txt").write_text("".join(f"val_{i}.png\t{ids[i % 2]}\t0\t1\t2\t3\n" for i in range(4)))
    (folder / "t" / "wnids.txt").write_text("\n".join(ids))
    (folder / "t" / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn01629819\tking\n")


def benchmark(folder: Path) -> None:
    entries = [{"index": k, "name": str(k), "complexity": float(k)} for k in range(4)]
    subsets = {
        f"low-{level}": {"category": "low", "level": level, "complexity": 1.0, "classes": entries} for level in ("easy", "hard")
    }
    source = {"source": "scenes:easy", "size": 8, "per_class": 3, "seed": 0, "crop": "squash"}
    (folder / "benchmark.json").write_text(json.dumps({"format": 1, "source": source, "subsets": subsets}))


def checkpoint(folder: Path) -> None:
    from limbeck.methods.state import OuterState

    state = OuterState.start(PREPARED, LOGITS, 0.01, {"own": torch.ones(3)})
    state.kept_share = {"a": 0.5}
    state.save(folder / "checkpoint.safetensors")


def read_checkpoint(folder: Path) -> str:
    from limbeck.methods.checkpoints import Checkpoints

    held = Checkpoints(folder, "", lambda _: None).load(torch.device("cpu"))
    assert held is not None
    return fingerprint(array_fingerprint(held.images.numpy(), held.labels.numpy()), float(held.syn_lr), held.iteration)


def store(folder: Path) -> None:
    from experts.walks import HALF, IDENTITY, walk

    made = TrajectoryStore(folder / "store", IDENTITY, {"note": "mine"})
    made.write(0, dict(enumerate(walk(0, 3))), [0.1, 0.2, 0.3], "half")
    made.write(1, dict(enumerate(walk(1, 3))), [0.1, None, 0.3])
    made.note(HALF)


def read_store(folder: Path) -> str:
    held = TrajectoryStore(folder / "store")
    problems = verify(held)
    described = plain(describe(held).to_dict())
    thetas = [held.read(expert, epoch).numpy() for expert in held.experts for epoch in held.held(expert)]
    return fingerprint(array_fingerprint(*thetas), problems, {**described, "path": ""})


def replay(folder: Path) -> None:
    save_pt(folder / "replay_buffer_0.pt", experts(1, 2))


def read_replay(folder: Path) -> str:
    output = folder / "made"
    made = import_lists([folder / "replay_buffer_0.pt"], output, network())
    return array_fingerprint(*(made.read(0, epoch).numpy() for epoch in made.held(0)))


def submission(folder: Path) -> None:
    from studies.test_submission import cell, record

    from limbeck.studies.cells import CellRecord
    from limbeck.studies.comp_dd import scenes
    from limbeck.studies.submission import write_submission

    parts = scenes().choose(["easy"])
    cells = [cell(part, seed) for seed in (0, 1) for part in parts]
    records = {one.name: CellRecord.from_dict(record(one)) for one in cells}
    write_submission(folder / "in", scenes(), parts, cells, records, ["a note"])


def read_handed(folder: Path) -> str:
    from limbeck.studies.acceptance import read_submission
    from limbeck.studies.comp_dd import comp_dd, scenes

    return fingerprint(read_submission(folder / "in", (comp_dd(), scenes())).to_dict())


def judge(folder: Path) -> None:
    from limbeck.image_complexity.classifier import Classifier
    from limbeck.image_complexity.networks import save_network
    from limbeck.networks.names import build_network

    made = build_network("ConvNetD1-w4", 3, 8, 8, 3)
    save_network(Classifier("ConvNetD1-w4", made, (3, 8, 8), Identity(), ("a", "b", "c"), {"epochs": 1}), folder / "net")


def read_judge(folder: Path) -> str:
    from limbeck.image_complexity.networks import load_network

    held = load_network(folder / "net")
    return fingerprint(held.name, held.class_names, [array_fingerprint(one.numpy()) for one in held.module.state_dict().values()])


def looked_at(folder: Path) -> str:
    """As `limbeck recipes FILE` looks at it, and as `limbeck distill FILE` reads it."""
    load_recipe(str(folder / "mine.yaml"), imports=False)
    return settings_yaml(load_recipe(str(folder / "mine.yaml")))


LEGACY = {"_use_new_zipfile_serialization": False}

KINDS: dict[str, Kind] = {
    "recipe": Kind(text("mine.yaml", RECIPE), looked_at),
    "protocol": Kind(text("mine.yaml", PROTOCOL), lambda folder: fingerprint(find(str(folder / "mine.yaml")))),
    "research recipe": Kind(
        text("old.yaml", RESEARCH), lambda folder: fingerprint(import_recipe(folder / "old.yaml").text("old.yaml"))
    ),
    "categories": Kind(
        text("groups.yaml", json.dumps(GROUPS)),
        lambda folder: fingerprint(categories(str(folder / "groups.yaml"), ("a", "b", "c", "d"), lambda: np.zeros((4, 2)))),
    ),
    "categories json": Kind(
        text("groups.json", json.dumps(GROUPS)),
        lambda folder: fingerprint(categories(str(folder / "groups.json"), ("a", "b", "c", "d"), lambda: np.zeros((4, 2)))),
    ),
    "set": Kind(saved_set, read_saved, ("set/*.json", "set/*.safetensors"), ("*.safetensors",)),
    "metadata": Kind(saved_set, read_saved, ("set/*.json",)),
    "set npz": Kind(
        lambda folder: save_npz(
            folder / "a.npz", images=PREPARED, labels=LOGITS, lr=0.02, class_names=np.array(["owl", "mole", "newt"])
        ),
        set_at("a.npz", normalised="yes"),
        checked=("*",),
    ),
    "set pt": Kind(
        lambda folder: save_pt(folder / "a.pt", {"images": PREPARED, "labels": HARD, "lr": 0.02}),
        set_at("a.pt", normalised="yes"),
        checked=("*",),
    ),
    "set pt of before": Kind(
        lambda folder: torch.save((PREPARED, HARD), folder / "a.pt", _use_new_zipfile_serialization=False),
        set_at("a.pt", normalised="yes"),
    ),
    "set best": Kind(best_folder, set_at("", normalised="yes"), checked=("*",)),
    "export npz": Kind(exported(export_npz, "a.npz"), set_at("a.npz"), checked=("*",)),
    "export folder": Kind(exported(export_folder, "e"), set_at("e"), checked=("*.npz", "*.png")),
    "export research": Kind(exported(export_research, "e"), set_at("e"), checked=("*.pt",)),
    "set folders": Kind(lambda folder: write_images(folder / "f", PIXELS, HARD), set_at("f"), checked=("*.png",)),
    "npz": Kind(lambda folder: np.savez_compressed(folder / "a.npz", **arrays()), images_at("a.npz"), checked=("*",)),
    "npy": Kind(npy_folder, images_at()),
    "shards": Kind(shards, images_at()),
    "cifar archive": Kind(cifar_archive, images_at("cifar.tar.gz"), ("*.gz",), ("*.gz",)),
    "cifar pickled": Kind(pickled_ten, images_at("cifar-10-batches-py")),
    "cifar binary": Kind(binary_hundred, images_at("cifar-100-binary")),
    "idx": Kind(lambda folder: write_idx(folder / "mnist"), images_at("mnist")),
    "idx gz": Kind(lambda folder: write_idx(folder / "mnist", compressed=True), images_at("mnist"), checked=("*.gz",)),
    "csv": Kind(listed, images_at(), ("*.csv",)),
    "jsonl": Kind(listed_lines, images_at(), ("*.jsonl",)),
    "images": Kind(photos, images_at("photos", size=8)),
    "images skipped": Kind(photos, images_at("photos", size=8, skip_bad=True)),
    "parquet": Kind(parquet, images_at("set")),
    "saved dataset": Kind(saved_dataset, images_at("set")),
    "tiny": Kind(tiny_tree, images_at("t"), ("*.txt",)),
    "benchmark": Kind(
        benchmark, lambda folder: load_data(DataSettings(source=f"benchmark:{folder}:low-easy", val_fraction=0.0)).fingerprint
    ),
    "run": Kind(run_folder, page_of("run"), OF_RUN),
    "comparison": Kind(study("compare-scenes-hard-parts"), page_of("study"), OF_STUDY),
    "comp-dd": Kind(study("comp-dd-scenes"), page_of("study"), OF_STUDY),
    "checkpoint": Kind(checkpoint, read_checkpoint),
    "store": Kind(store, read_store),
    "replay buffer": Kind(replay, read_replay, checked=("*",)),
    "submission": Kind(submission, read_handed, checked=("*.json",)),
    "network": Kind(judge, read_judge),
}

"""Does complexity say what it is meant to? On scenes, whose object's area is known, and on photographs.

    python benchmarks/complexity.py scenes --seed 0            one network for easy, medium and hard, and one for each
    python benchmarks/complexity.py photographs --seed 0 --data FOLDER   one network for CIFAR-10, Imagenette and ImageNet's samples
    python benchmarks/complexity.py sides --seed 0 --data FOLDER   a network for CIFAR-10, one for Imagenette, each looking at both
    python benchmarks/complexity.py table                      the tables of docs/complexity.md, and its figure

Each command is one training or a few; what is done is kept in `benchmarks/results/complexity/` and not measured again.
`photographs` and `sides` read a folder that `--data` names, with three archives of pictures, each a PNG or JPEG file:

    archive                     pictures, by the prefix of their arrays   of a picture
    cifar10.npz                 train, test                               one or several images of 32×32, one below the other
    imagenette_128.npz          train, val                                one image
    imagenet_samples_1000.npz   all                                       one image, of each of ImageNet's classes

PREFIX_blob (uint8) are the files one after the other, of which file i is blob[offsets[i]:offsets[i + 1]] with PREFIX_offsets, and
PREFIX_labels the classes of the images; `class_names` are these classes' names, of the samples `classes` their WordNet ids.
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from complexity_tables import LEVELS, RESULTS, figure, table
from PIL import Image
from scipy.stats import pearsonr, spearmanr

from limbeck.data.imageset import ImageSet
from limbeck.data.joined import joined
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split, cap, hold_out, whole
from limbeck.evaluation.areas import box_share
from limbeck.image_complexity.networks import Classifier, judge
from limbeck.image_complexity.run import Complexity, measure_complexity
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.recipes import settings_from_plain
from limbeck.runs.workspace import Workspace
from limbeck.runtime.files import write_json
from limbeck.runtime.progress import PlainProgress

CAMS = ("gradcam", "smooth_gradcam_pp", "layercam")
KEPT = (
    "complexity",
    "spread",
    "by_threshold",
    "without_blank",
    "mean_activation",
    "area",
    "accuracy",
    "images",
    "blank",
    "reliability",
)

# With a mean over space before its head, as the published ResNet: there the mean gradient of Grad-CAM is the gradient.
NETWORK = "ResNet18-w8-batchnorm"
KINDS = {
    "scenes": {"epochs": 15, "lr": 0.05, "flip": False, "rotate": False},
    "photographs": {"epochs": 15, "lr": 0.05, "flip": True, "rotate": True},
    "sides": {"epochs": 30, "lr": 0.05, "flip": True, "rotate": True},
}
PER_CLASS = {"scenes": 200, "photographs": 500}
TEST = 100  # photographs of each class that are measured


def workspace_of(data: ImageSet, kind: str) -> Workspace:
    how = KINDS[kind]
    keys = {
        "eval.full_epochs": how["epochs"],
        "eval.full_lr": how["lr"],
        "augment.flip": how["flip"],
        "augment.rotate": how["rotate"],
    }
    workspace = Workspace(settings_from_plain(keys), PlainProgress())
    workspace.data = data
    return workspace


def measured(workspace: Workspace, found: Classifier, **settings: Any) -> Complexity:
    result = measure_complexity(ComplexitySettings(workers=1, **settings), workspace, network=found)
    assert result is not None
    return result


def kept(result: Complexity) -> dict[str, Any]:
    held = result.results.to_dict()
    found = {key: held[key] for key in (*KEPT, "histograms")}
    return found | {"spread": {key: value for key, value in found["spread"].items() if key != "values"}}


def correlations(values: np.ndarray, boxes: np.ndarray) -> dict[str, float | None]:
    """Of complexity with the object's area: what is called complex should be small."""
    usable = np.isfinite(values)
    if np.ptp(values[usable]) == 0:
        return {"pearson": None, "spearman": None}
    return {
        "pearson": float(pearsonr(values[usable], boxes[usable])[0]),
        "spearman": float(spearmanr(values[usable], boxes[usable])[0]),
    }


def scenes(seed: int, network: str) -> dict[str, Any]:
    """Complexity of the three levels: under one network, trained on all of them, and each under a network of its own."""
    sets = [load_data(DataSettings(source=f"scenes:{level}", per_class=PER_CLASS["scenes"], seed=seed)) for level in LEVELS]
    data = joined(sets, "scenes, all levels")
    level = np.repeat(np.arange(3), [len(one.test) for one in sets])
    workspace = workspace_of(data, "scenes")
    one = judge(ComplexitySettings(network=network, seed=seed), workspace)
    boxes = 100 * box_share(data.test.boxes, *data.shape[1:]).numpy()
    rows: dict[str, Any] = {"box": {name: float(boxes[level == i].mean()) for i, name in enumerate(LEVELS)}, "one": {}, "own": {}}
    rows["test_accuracy"] = one.about["test_accuracy"]
    layers = ("last", "layer3", "layer2") if network.startswith("ResNet") else ("last",)
    for layer in layers:
        for cam in CAMS:
            for maps in ("image", "layer"):
                result = measured(workspace, one, split="test", layer=layer, cam=cam, maps=maps, seed=seed)
                values = result.images.complexity[:, 0]
                rows["one"][f"{layer} {cam} {maps}"] = {
                    "levels": {name: float(np.nanmean(values[level == i])) for i, name in enumerate(LEVELS)},
                    "within": {name: correlations(values[level == i], boxes[level == i]) for i, name in enumerate(LEVELS)},
                    **correlations(values, boxes),
                    "blank": result.results.blank,
                }
    for name, own in zip(LEVELS, sets, strict=True):
        workspace = workspace_of(own, "scenes")
        alone = judge(ComplexitySettings(network=network, seed=seed), workspace)
        for cam in CAMS:
            result = measured(workspace, alone, split="test", cam=cam, seed=seed)
            area = 100 * box_share(own.test.boxes, *own.shape[1:]).numpy()
            rows["own"].setdefault(f"last {cam} image", {})[name] = kept(result) | correlations(
                result.images.complexity[:, 0], area
            )
    return rows


def photographs(seed: int, folder: Path, size: int, network: str) -> dict[str, Any]:
    """CIFAR-10, Imagenette and ImageNet's samples at one size under one network, trained on both of the former."""
    cifar, nette = read_cifar(folder, seed, size), read_nette(folder, seed, size)
    both = joined([cifar, nette], "CIFAR-10 and Imagenette")
    one = judge(ComplexitySettings(network=network, seed=seed), workspace_of(both, "photographs"))
    samples = read_samples(folder, size)
    rows: dict[str, Any] = {"network": dict(one.about)}
    for cam in CAMS:
        for classes in ("true", "predicted"):
            for maps in ("image", "layer"):
                row = rows.setdefault(f"last {cam} {maps} {classes}", {})
                settings = {"split": "test", "cam": cam, "classes": classes, "maps": maps, "seed": seed, "per_class": TEST}
                result = measured(workspace_of(both, "photographs"), one, **settings)
                for number, name in enumerate(("cifar10", "imagenette")):
                    row[name] = part_of(result, range(10 * number, 10 * number + 10))
                if classes == "predicted":
                    result = measured(workspace_of(samples, "photographs"), one, **{**settings, "split": "train"})
                    row["samples"] = kept(result)
                    if (cam, maps, seed) == ("gradcam", "image", 0):
                        row["samples"]["classes"] = result.measurement.classes(result.images).round(2).tolist()
                        row["samples"]["comp_dd"] = comp_dd(result)
    return rows


def part_of(result: Complexity, classes: range) -> dict[str, Any]:
    """What `summary` says, of some of the classes: means over classes of means over images."""
    labels, table = result.measurement.pictures.labels, result.images
    chosen = np.isin(labels, classes)

    def mean(values: np.ndarray) -> float:
        return float(np.mean([np.nanmean(values[labels == k]) for k in classes]))

    columns = {"complexity": table.complexity[:, 0], "mean_activation": table.mean_activation, "area": table.area}
    return {
        **{name: mean(values) for name, values in columns.items()},
        "active": 100 - mean(table.complexity[:, 0]),
        "by_threshold": {
            f"{at:g}": mean(column) for at, column in zip(result.measurement.settings.thresholds, table.complexity.T, strict=True)
        },
        "classes": [mean_of(table.complexity[labels == k]) for k in classes],
        "accuracy": float((table.predicted == result.measurement.ids[labels])[chosen].mean()),
        "blank": int(table.blank[chosen].sum()),
        "histograms": {name: np.histogram(values[chosen], 50, (0, 100))[0].tolist() for name, values in columns.items()},
    }


def mean_of(columns: np.ndarray) -> list[float]:
    return np.nanmean(columns, 0).tolist()


def sides(seed: int, folder: Path, size: int, network: str) -> dict[str, Any]:
    """A network trained on CIFAR-10 alone and one on Imagenette alone, each looking at both sets and at ImageNet's samples."""
    sets = {
        "cifar10": read_cifar(folder, seed, size),
        "imagenette": read_nette(folder, seed, size),
        "samples": read_samples(folder, size),
    }
    rows: dict[str, Any] = {}
    for own in ("cifar10", "imagenette"):
        found = judge(ComplexitySettings(network=network, seed=seed), workspace_of(sets[own], "sides"))
        for cam in CAMS:
            for maps in ("image", "layer"):
                row = rows.setdefault(f"trained on {own}, {cam} {maps} predicted", {})
                for name, data in sets.items():
                    settings = {"split": "train" if name == "samples" else "test", "cam": cam, "maps": maps, "seed": seed}
                    workspace = workspace_of(data, "sides")
                    row[name] = kept(measured(workspace, found, classes="predicted", per_class=TEST, **settings))
    return rows


def comp_dd(result: Complexity) -> dict[str, Any]:
    """The samples of the published easy and hard classes: one image of each."""
    from limbeck.data.registry import subsets

    values = result.images.complexity[:, 0]
    found: dict[str, Any] = {}
    for subset in subsets().values():
        if subset.name.startswith("comp-dd/"):
            category, _, level = subset.name.removeprefix("comp-dd/").rpartition("-")
            found.setdefault(category, {})[level] = float(np.nanmean(values[[entry.index for entry in subset.classes]]))
    return found


def read_cifar(folder: Path, seed: int, size: int) -> ImageSet:
    with np.load(folder / "cifar10.npz") as file:
        names, parts = tuple(str(name) for name in file["class_names"]), {}
        for part in ("train", "test"):
            blob, offsets = file[f"{part}_blob"], file[f"{part}_offsets"]
            strips = [decoded(blob[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
            parts[part] = (np.concatenate([strip.reshape(-1, 32, 32, 3) for strip in strips]), file[f"{part}_labels"])
    return capped(parts, names, "CIFAR-10", seed, size)


def read_nette(folder: Path, seed: int, size: int) -> ImageSet:
    with np.load(folder / "imagenette_128.npz") as file:
        names = tuple(str(name) for name in file["class_names"])
        parts = {}
        for own, other in (("train", "train"), ("test", "val")):
            blob, offsets, labels = file[f"{other}_blob"], file[f"{other}_offsets"], file[f"{other}_labels"].astype(np.int64)
            taken = cap(labels, PER_CLASS["photographs"] if own == "train" else TEST, seed)
            parts[own] = (np.stack([shrunk(decoded(blob[offsets[i] : offsets[i + 1]]), size) for i in taken]), labels[taken])
    return capped(parts, names, "Imagenette", seed, size)


def read_samples(folder: Path, size: int) -> ImageSet:
    """One image of each of ImageNet's classes, all of them `train`."""
    with np.load(folder / "imagenet_samples_1000.npz") as file:
        blob, offsets, labels = file["all_blob"], file["all_offsets"], file["all_labels"].astype(np.int64)
        names = tuple(str(name) for name in file["classes"])  # WordNet ids; names are not distinct
    images = np.stack([shrunk(decoded(blob[a:b]), size) for a, b in zip(offsets[:-1], offsets[1:], strict=True)])
    split = whole(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels)
    none = split.take(np.arange(0))
    return ImageSet.of(split, none, none, names, "ImageNet samples")


def decoded(content: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content.tobytes())).convert("RGB"))


def shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """Squashed, bilinear and antialiased, as `data.crop=squash` does."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def capped(parts: dict[str, tuple[np.ndarray, np.ndarray]], names: tuple[str, ...], source: str, seed: int, size: int) -> ImageSet:
    """As many images of each class as are trained on and measured, a tenth of the former kept apart."""
    splits: dict[str, Split] = {}
    for part, (images, labels) in parts.items():
        labels = labels.astype(np.int64)
        taken = cap(labels, PER_CLASS["photographs"] if part == "train" else TEST, seed)
        pixels = np.stack([shrunk(images[i], size) for i in taken])
        splits[part] = whole(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels[taken])
    kept_rows, held = hold_out(splits["train"].labels, 0.1, 0, "val")
    train, val, test = splits["train"].take(kept_rows), splits["train"].take(held), splits["test"]
    return ImageSet.of(train, val, test, names, source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("scenes", "photographs", "sides", "table"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--size", type=int, default=32, help="of photographs")
    parser.add_argument("--data", type=Path, help="a folder with archives of photographs")
    arguments = parser.parse_args()
    if arguments.kind in ("photographs", "sides") and arguments.data is None:
        parser.error(f"--data is missing: {arguments.kind} needs a folder with archives of photographs")
    if arguments.kind == "table":
        print(table())
        figure(Path(__file__).parents[1] / "docs" / "images" / "complexity-photographs.png")
        return
    size = "" if arguments.kind == "scenes" else f"-{arguments.size}"
    path = RESULTS / f"{arguments.kind}-{arguments.network}{size}-{arguments.seed}.json"
    if path.exists():
        sys.exit(f"{path} is there already")
    if arguments.kind == "scenes":
        rows = scenes(arguments.seed, arguments.network)
    else:
        run = {"photographs": photographs, "sides": sides}[arguments.kind]
        rows = run(arguments.seed, arguments.data, arguments.size, arguments.network)
    settings = {name: str(value) for name, value in vars(arguments).items() if name not in ("kind", "data")}
    how = KINDS[arguments.kind]
    write_json(path, {"settings": settings | how | {"per_class": PER_CLASS}, "rows": rows})


if __name__ == "__main__":
    main()

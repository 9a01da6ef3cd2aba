"""The pages of the documentation with what their commands need: small data, and settings that make them short."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data.pictures import png
from studies.fake_cells import results

from limbeck.data.registry import subsets
from limbeck.evaluation.statistics import summarise
from limbeck.networks.flat import flat_network
from limbeck.runtime.executor import local
from limbeck.studies import matrix
from limbeck.studies.cells import Cell

ROOT = Path(__file__).parents[2]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_HUB = ("README.md", "docs/publish.md")  # who reads these has a token for the Hub
DRAWING = re.compile("[│▼►]")
# Of other programs: tests of their own run what they start.
PROGRAMS = {
    "make": ("demo", "test", "docs", "gpu", "fake-cuda"),
    "ray": ("up",),
    "kubectl": ("apply",),
    "sbatch": ("--array=1-8", "--nodes=2"),
    "torchrun": ("--nproc-per-node",),  # tried as one process
}
EXAMPLES = "examples/cluster/"  # which `tests/test_cluster.py` tries
DISTIL = """
    data.size=16 data.per_class=12 network=ConvNetD2-w8 experts.num_experts=2 experts.train_epochs=3 experts.batch_size=32
    match.syn_steps=2 match.expert_epochs=1 schedule.min_start_epoch=0 schedule.first_max_start_epoch=1 schedule.max_start_epoch=2
    outer.iterations=2 engine.compile=no eval.every=2 eval.every_seeds=1 eval.epochs=1 eval.full_epochs=1 eval.full_seeds=2
    eval.random_lr=0.01 eval.seeds=2 features=none
"""
SHORT = {
    "distill": DISTIL,
    "plan": DISTIL,
    "tune": DISTIL,
    "experts": DISTIL,
    "evaluate": "eval.epochs=1 eval.full_epochs=1 eval.full_seeds=2 eval.random_lr=0.01 eval.seeds=2",
    "complexity": "data.size=32 eval.full_epochs=1 --per-class 3 --workers 1",
}
# By command and option: what makes it short (the last of several counts), or makes up for there being few classes.
OPTIONS = {
    ("evaluate", "--seeds"): "--seeds 2",
    ("evaluate", "--until-significant"): "5",
    ("comp-dd", "--data-root"): "--subsets bird",
    ("comp-dd", "--methods"): "--seeds 0,1",
    ("complexity", "--build-subsets"): "--classes-per-subset 2 --least 4",
}
# What stands for what is not here.
FOR = {
    "ConvNetD3-w32,ResNet18": "ConvNetD3-w4,ResNet18-w4",
    "VGG11,AlexNet": "MLP-w8,LeNet",
    "ResNet18-w16-batchnorm": "ResNet18-w4-batchnorm",
    "/data/imagenet": "imagenet",
    "data.size=224": "data.size=32",
    "data.size=64": "data.size=32",
    "/shared/store": "shared-store",
    "s3://bucket": "memory://bucket-of-pages",
    "/shared/compare": "shared-compare",
    # A cluster: `tests/runtime/test_ray.py` has one.
    **dict.fromkeys((" --executor ray", " --address auto", " --gpus 0.5", " --cpus 4"), ""),
    "microsoft/resnet-18": "resnet-18",
    "benchmarks/results": "results",
    "RECIPE": "scenes",
    "imagenette/ConvNetD5/edf-ipc10": "scenes",
    "PATH": "store-of-scenes",
}


def commands(page: str) -> list[list[str]]:
    """The words of the commands in the blocks of a page, without what is said behind them."""
    blocks = [block for language, block in BLOCK.findall(PAGES[page]) if not language and not DRAWING.search(block)]
    return [words for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def short(words: list[str]) -> list[str]:
    """The same with what makes it short."""
    text = shlex.join(word for word in words if word != "…")
    for there, here in FOR.items():
        text = text.replace(there, here)
    words = shlex.split(text)
    command = words[1]
    actions = command == "experts" and words[2] in ("show", "verify", "import")
    more = [] if actions else SHORT.get(command, "").split()
    options = [extra for (name, option), extra in OPTIONS.items() if name == command and option in words]
    given = {word.partition("=")[0] for word in words} | ({"eval.seeds"} if "--seeds" in words else set())
    given |= {"eval.seeds"} if "--until-significant" in words else set()
    given |= {"data.size", "network"} if command == "complexity" and "--network" in words else set()
    kept = [word for word in more if word.partition("=")[0] not in given]
    if "--until-significant" in words:
        words.insert(words.index("--until-significant") + 1, options.pop())
    if command == "experts" and not actions:
        kept = [word for word in kept if not word.startswith("experts.num_experts")]
    return [*words[1:], *kept, *(word for option in options for word in option.split())]


def pictures(folder: Path, names: list[str], count: int, side: int = 16) -> None:
    """Images of a colour for each class."""
    draws = np.random.default_rng(len(names))
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            image = draws.integers(0, 100, (side, side, 3), dtype=np.uint8) + np.uint8(150 * number // len(names))
            (folder / name / f"{index}.jpg").write_bytes(png(image))


def photos(root: Path) -> None:
    for name in ("photos", "other"):
        for part, count in (("train", 6), ("test", 2)):
            pictures(root / name / part, [f"class-{k}" for k in range(16)], count)


def cifar(root: Path) -> None:
    """Ten classes of 16×16."""
    draws = np.random.default_rng(0)
    parts = {"": 10, "_test": 4}
    arrays = {f"x{part}": draws.integers(0, 256, (10 * count, 16, 16, 3), dtype=np.uint8) for part, count in parts.items()}
    np.savez(root / "cifar10.npz", **arrays, **{f"y{part}": np.repeat(np.arange(10), count) for part, count in parts.items()})


def theirs(root: Path, side: int) -> None:
    """What the research code of trajectory matching leaves, one image for each of ten classes, as a file and as a folder."""
    draws = torch.Generator().manual_seed(0)
    images, labels, rate = torch.randn(10, 3, side, side, generator=draws) * 2, torch.arange(10), torch.tensor(0.01)
    torch.save((images, labels, 0.01), root / "theirs.pt")
    (root / "theirs" / "logged_files").mkdir(parents=True)
    for name, value in (("images", images), ("labels", labels), ("lr", rate)):
        torch.save(value, root / "theirs" / "logged_files" / f"{name}_best.pt")


def imagenet(root: Path, images: int = 0, of: str = "comp-dd/bird-hard") -> None:
    """The class folders of Comp-DD, and so many images in those of one subset."""
    for name, subset in subsets().items():
        for entry in subset.classes if name.startswith("comp-dd/") or name == of else ():
            for part in ("train", "val"):
                (root / "imagenet" / part / entry.wnid).mkdir(parents=True, exist_ok=True)
                for index in range(images if name == of else 0):
                    file = root / "imagenet" / part / entry.wnid / f"{entry.wnid}_{index}.JPEG"
                    file.write_bytes(png(np.full((16, 16, 3), entry.index % 250, np.uint8)))


def buffers(root: Path) -> None:
    shapes = flat_network("ConvNetD3", (3, 32, 32), 10).shapes.values()
    for number in range(2):
        torch.save([[[torch.full(shape, 0.1) for shape in shapes] for _ in range(2)]], root / f"replay_buffer_{number}.pt")


def fake_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the distillations of a grid be over at once."""

    def leave(cell: Cell, run: Path) -> list[str]:
        mean = 0.5 + 0.01 * cell.settings.seed**2
        values = {"distilled": [mean, mean + 0.02], "random": [0.2, 0.3], "full": [0.75, 0.85]}
        accuracy = {name: summarise(found).to_dict() for name, found in values.items()}
        data = {"fingerprint": str(cell.facts.get("subset", "x"))}
        found = results(accuracy=accuracy, data=data, environment={"limbeck": "1", "device": "x"})
        run.mkdir(parents=True, exist_ok=True)  # the cell's lock is in it
        (run / "results.json").write_text(json.dumps(found))
        return ["true"]

    class Ended:
        returncode = 0

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(matrix, "distill_command", leave)
    monkeypatch.setattr(local, "subprocess", SimpleNamespace(Popen=Ended, DEVNULL=None))

"""Every block of commands of the README and of docs/ runs as it stands, on small data and with small sizes.

A page is one test: its commands run one after the other in one folder, as who reads it would type them. What cannot be here
(somebody else's paths) is put in its place by `FOR`, what would take long is made short by settings behind the words. The
distillations of a grid are processes, which tests of their own start: here they leave at once what one would.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hubs
import numpy as np
import pytest
import torch
from data.pictures import png
from distilled.samples import sample_set
from report.fake_run import make_run
from studies.fake_cells import results
from studies.here import without_pages

import limbeck
from limbeck.cli.main import main
from limbeck.data.registry import subsets
from limbeck.evaluation.statistics import summarise
from limbeck.networks.flat import flat_network
from limbeck.recipes import load_recipe, parse_overrides, recipe_text, settings_from_plain
from limbeck.runtime.executor import local
from limbeck.runtime.remote import Remote
from limbeck.studies import matrix
from limbeck.studies.cells import Cell

ROOT = Path(__file__).parents[1]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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
    "imagenette/edf-ipc10": "scenes",
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


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in of the Hugging Face Hub, and a token for it."""
    with hubs.serving() as found:
        hubs.set_environment(monkeypatch, found, tmp_path_factory.mktemp("home"))
        yield


def prepare(page: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader of the page has."""
    fake_cells(monkeypatch)
    monkeypatch.setattr("limbeck.runs.doctor.compiler", lambda: None)  # to compile a step takes long, and has a test of its own
    if page in ("README.md", "docs/complexity.md", "docs/tuning.md"):
        photos(root)
    for name, few in {"DRAWS": 2, "STEPS_AN_EPOCH": 2, "FEWEST_STEPS": 4}.items():
        monkeypatch.setattr(f"limbeck.runs.tuning.{name}", few)
    if page == "README.md":
        theirs(root, 16)
    if page == "docs/evaluation.md":
        cifar(root)
        theirs(root, 16)
        for recipe in ("scenes", "scenes/datm-ipc1"):
            assert main(short(["limbeck", "distill", recipe])) == 0
        for name in ("a", "b"):
            shutil.copytree(root / "runs" / "scenes", root / "runs" / name)
    if page == "docs/publish.md":
        assert main(short(["limbeck", "distill", "scenes"])) == 0
        shutil.copytree(root / "runs" / "scenes" / "distilled", root / "zoo" / "scenes-edf-ipc1")
        monkeypatch.setenv("LIMBECK_ZOO", str(root / "zoo"))
    if page == "docs/experts.md":
        buffers(root)
        assert main(short(["limbeck", "experts", "scenes", "experts.store=store-of-scenes"])) == 0
    if page == "docs/complexity.md":
        imagenet(root, images=3)
        resnet(root / "resnet-18")
        (root / "groups.yaml").write_text("low: [class-0, class-1, class-2, class-3]\nhigh: [class-4, class-5, class-6, class-7]\n")
    if page == "docs/comp-dd.md":
        imagenet(root)
        words = "compare --methods edf,random --data scenes:medium --ipc 1,3 --output results/compare-scenes-medium"
        assert main(words.split()) == 0
    if page == "docs/scaling.md":
        pytest.importorskip("fsspec")
        cifar(root)
        Remote("test", "memory://bucket-of-pages/photos.npz").put((root / "cifar10.npz").read_bytes())
    if page == "docs/compare.md":
        imagenet(root, 3, "imagenette")
        (root / "mine.yaml").write_text(recipe_text("scenes/mtt-ipc1"))
        (root / "old.yaml").write_text("dataset: CIFAR10\nipc: 1\nsyn_steps: 50\n")


def resnet(folder: Path) -> None:
    """A ResNet of transformers, smaller than the one that is meant, with names of ImageNet."""
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    config = transformers.ResNetConfig(layer_type="basic", num_labels=1000, **sizes)
    transformers.ResNetForImageClassification(config).save_pretrained(folder, safe_serialization=True)


@pytest.fixture(scope="module", autouse=True)
def cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is trained for one page serves the others."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cache() -> None:
    """Instead of the empty cache that every other test has."""


WITH_COMMANDS = [page for page in PAGES if any(words[0] == "limbeck" for words in commands(page))]


def test_blocks_hold_commands_and_every_page_with_some_is_tried() -> None:
    for page in PAGES:
        for words in commands(page):
            example = [word for word in words if word.startswith(EXAMPLES)]
            assert words[0] == "limbeck" or words[1] in (*PROGRAMS.get(words[0], ()), *example), (page, words)
            assert all((ROOT / name).exists() for name in example), (page, words)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(PROGRAMS["make"]) <= set(targets)
    assert len(WITH_COMMANDS) >= 6


WITH_HUB = ("README.md", "docs/publish.md")
OF_PAGES = ("docs/report.md",)  # what a distillation leaves to be looked at is its own
LONG = ("docs/complexity.md", "docs/comp-dd.md")  # figures, and cells, of which other tests have one


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page in LONG)) for page in WITH_COMMANDS])
def test_the_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if page in WITH_HUB:
        request.getfixturevalue("hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    if page not in OF_PAGES:
        without_pages(monkeypatch)
    prepare(page, tmp_path, monkeypatch)
    for words in commands(page):
        if words[0] == "torchrun":
            words = words[words.index("limbeck") :]
        if words[0] != "limbeck":
            continue
        typed = [found for word in short(words) for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        capsys.readouterr()
        assert main(typed) == 0, (shlex.join(typed), capsys.readouterr().err)


# Python's blocks; those of the README, of docs/use-a-set.md and docs/add-a-*.md have tests of their own.


def linear(channels: int, height: int, width: int, classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * height * width, classes))


SMALL_CALL = {
    "num_experts": 1,
    "train_epochs": 3,
    "max_start_epoch": 2,
    "first_max_start_epoch": 1,
    "expert_epochs": 1,
    "syn_steps": 2,
}
SMALL_CALL |= {"iterations": 1, "every": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01, "eval.seeds": 2}


def small_recipe(name: str) -> Any:
    return load_recipe(name, parse_overrides(DISTIL.split()))


def names_for(page: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader of the page has, by the names that its lines have for it."""
    images, labels = np.zeros((8, 16, 16, 3), np.uint8), np.arange(8) % 2
    pairs = [(torch.rand(3, 16, 16), number % 2) for number in range(8)]
    if page == "docs/data.md":
        held = pytest.importorskip("datasets")
        features = held.Features({"img": held.Image(), "label": held.ClassLabel(names=["a", "b"])})
        rows = held.Dataset.from_dict({"img": list(images), "label": labels.tolist()}, features=features)
        library = SimpleNamespace(load_dataset=lambda name: {"cifar10": held.DatasetDict(train=rows, test=rows)}[name])
        return {"limbeck": limbeck, "x": images, "y": labels, "x_test": images, "y_test": labels, "train": pairs, "test": pairs} | {
            "datasets": library
        }
    if page == "docs/complexity.md":
        return {"settings": settings_from_plain({"data.source": "scenes:easy"}, parse_overrides(DISTIL.split()))}
    if page == "docs/tuning.md":
        return {"small_scenes": "scenes:easy"}
    if page == "docs/publish.md":
        pytest.importorskip("datasets")
        return {"run": SimpleNamespace(distilled=sample_set())}
    if page == "docs/compare.md":
        fake_cells(monkeypatch)
    if page == "docs/own-network.md":
        monkeypatch.setattr(limbeck, "distill", partial(limbeck.distill, **SMALL_CALL))
        monkeypatch.setattr(limbeck, "evaluate", partial(limbeck.evaluate, epochs=1, full_epochs=1, seeds=2, random_lr=0.01))
        return {"small_scenes": limbeck.load_data("scenes:easy", size=16, per_class=12)}
    if page == "docs/tutorial.md":
        make_run(root / "runs" / "scenes")
    if page == "docs/figures.md":
        make_run(root / "runs" / "scenes")
        sizes = {"iterations": 1, "every": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        small = partial(limbeck.distill, method="dm", network="ConvNetD2-w4", **sizes)
        monkeypatch.setattr(limbeck, "distill", small)
        return {"data": limbeck.load_data("scenes:easy", size=16, per_class=12)}
    if page == "docs/evaluation.md":
        cifar(root)
        theirs(root, 16)
        assert main([*short(["limbeck", "distill", "scenes"]), "--output", "runs/ten"]) == 0
        monkeypatch.setattr("limbeck.recipes.load_recipe", small_recipe)
        sizes = {"epochs": 1, "full_epochs": 1, "seeds": 2, "random_lr": 0.01}
        monkeypatch.setattr(limbeck, "evaluate", partial(limbeck.evaluate, **sizes))
        small = limbeck.load_data("scenes:easy", size=16, per_class=12)
        return {"small_scenes": small, "my_factory": linear}
    return {}


WITH_PYTHON = ["compare", "complexity", "data", "engine", "evaluation", "figures", "own-network", "publish", "tuning", "tutorial"]
WITH_PYTHON = [f"docs/{page}.md" for page in WITH_PYTHON]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page in WITH_HUB:
        request.getfixturevalue("hub")
    monkeypatch.chdir(tmp_path)
    names = names_for(page, tmp_path, monkeypatch)
    blocks = [block for language, block in BLOCK.findall(PAGES[page]) if language == "python"]
    assert blocks
    for block in blocks:
        for there, here in {**FOR, '"ResNet18"': '"ResNet18-w4"', '"scenes:easy"': "small_scenes"}.items():
            block = block.replace(there, here)
        exec(block, names)  # noqa: S102


def test_no_other_page_has_python() -> None:
    pages = {page for page in PAGES if any(language == "python" for language, _ in BLOCK.findall(PAGES[page]))}
    own = {page for page in pages if page in ("README.md", "docs/use-a-set.md") or page.startswith("docs/add-a-")}
    own.add("docs/upgrading.md")  # what earlier versions had does not run
    assert pages - own == set(WITH_PYTHON)

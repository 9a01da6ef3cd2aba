"""Every block of commands of the README and of docs/ runs as it stands, on small data and with small sizes.

A page is one test: its commands run one after the other in one folder, as who reads it would type them. What cannot be here
(somebody else's paths) is put in its place by `FOR`, what would take long is made short by settings behind the words. The
distillations of a grid are processes, which tests of their own start: here they leave at once what one would.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from pages.small import (
    EXAMPLES,
    PAGES,
    PROGRAMS,
    ROOT,
    WITH_HUB,
    buffers,
    cifar,
    commands,
    fake_cells,
    imagenet,
    photos,
    short,
    theirs,
)
from studies.here import without_pages

from limbeck.cli.main import main
from limbeck.recipes import recipe_names, recipe_text
from limbeck.runtime.remote import Remote


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


def test_recipes_that_are_named_are_there() -> None:
    """On pages and in examples, also those that nothing here runs."""
    names, kinds = set(recipe_names()), {name.partition("/")[0] for name in recipe_names() if "/" in name}
    examples = [path for path in (ROOT / "examples").rglob("*") if path.suffix in (".py", ".sh", ".sbatch", ".yaml", ".md")]
    texts = PAGES | {path.name: path.read_text(encoding="utf-8") for path in examples}
    named = re.compile(rf"(?<![\w/.-])(?:{'|'.join(kinds)})/[\w+]+(?:[-/][\w+]+)*")
    found = {(where, name) for where, text in texts.items() for name in named.findall(text)}
    assert len(found) > 20 and [one for one in sorted(found) if one[1] not in names] == []


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

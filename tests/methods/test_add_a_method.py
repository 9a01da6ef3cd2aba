"""What `docs/add-a-method.md` says beside what `test_pages.py` runs, and what can be wrong with a method of the user's."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_pages import PAGES, files
from test_startup import heavy_after

from limbeck.cli.main import main
from limbeck.distilled.set import DistilledSet
from limbeck.methods import registry
from limbeck.methods.method import Method
from limbeck.methods.registry import METHODS, method_of
from limbeck.recipes import load_recipe, settings_from_plain
from limbeck.runs.distill import distill
from limbeck.runs.plan import plan
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import plain as as_plain
from limbeck.runtime.progress import NoProgress
from limbeck.studies.cells import Cell
from limbeck.studies.compare import check_alike

PAGE, FILES = PAGES["add-a-method"], files("add-a-method")
LINES = dict(re.findall(r'^("[\w-]+"): (.*),$', PAGE, re.MULTILINE))
SMALL = {
    "data.size": "16",
    "data.per_class": "12",
    "network": "ConvNetD2-w8",
    "experts.num_experts": "2",
    "outer.iterations": "3",
    "eval.every": "3",
    "eval.epochs": "2",
    "eval.seeds": "2",
    "features": "none",
    "eval.every_seeds": "1",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files of the page in it."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("expert_means", "test_expert_means", "mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def module_at(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_recipe_can_be_compared_as_the_page_says(example: Path) -> None:
    assert "`limbeck compare scenes/dm-ipc1 expert-means.yaml --trust`" in PAGE
    recipes = {"dm": "scenes/dm-ipc1", "own": "expert-means.yaml"}
    cells = [
        Cell(name, path, {}, load_recipe(path, trust=True), {"method": name, "ipc": 1, "seed": 0}) for name, path in recipes.items()
    ]
    assert [note for note in check_alike(cells) if not note.startswith("outer.")] == []


def test_a_line_in_the_registry_is_the_same_method(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_recipe("expert-means.yaml", SMALL, trust=True)
    assert (settings.method, settings.labels, settings.init, settings.outer.lr_img) == ("expert_means:METHOD", "hard", "real", 1.0)
    distill(settings, example / "own")
    monkeypatch.setitem(METHODS, "expert-means", eval(LINES['"expert-means"'], vars(registry)))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "limbeck.methods.expert_means", module_at(example / "expert_means.py", "copy"))
    named = load_recipe("expert-means.yaml", SMALL | {"method": "expert-means"}, trust=True)
    distill(named, example / "named")
    one, other = (DistilledSet.load(example / name / "distilled") for name in ("own", "named"))
    assert torch.equal(one.images, other.images)
    assert other.metadata["method"] == "expert-means"
    assert plan(settings).experts is not None


def test_a_composition_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "mtt-soft", eval(LINES['"mtt-soft"'], vars(registry)))  # type: ignore[arg-type]
    made = load_recipe("scenes", {"method": "mtt-soft"})
    assert (made.labels, made.outer.lr_label, made.schedule.kind) == ("soft", 2.0, "uniform")


def test_what_a_user_gives_is_checked(example: Path) -> None:
    (example / "mine.py").write_text(
        "from limbeck.methods.method import Method\n"
        "number = 3\n"
        "unknown = Method(make=print, preset={'outer.lr_imgs': 1})\n"
        "hard = Method(make=print)\n"
        "experts = Method(make=print, experts=True, labels='soft')\n"
    )
    small = {"data.per_class": "4", "labels": "soft"}
    for name, message in {
        "mine:number": "method: 'mine:number' is not a limbeck.methods.method.Method, it is a int",
        "mine:nothing": "method: 'mine:nothing' cannot be imported: mine has no 'nothing'",
        "nowhere:METHOD": "method: 'nowhere:METHOD' cannot be imported: there is no module 'nowhere' in the environment",
        "mine.py:METHOD:x": "method: 'mine.py:METHOD:x' is not of the form package.module:METHOD",
        "mine:unknown": "outer.lr_imgs: is not a key (in the preset of mine:unknown); did you mean outer.lr_img?",
    }.items():
        with pytest.raises(UsageError) as error:
            load_recipe("scenes", {"method": name})
        assert str(error.value).startswith(message)
    for name, changes, message in (
        ("mine:hard", {}, "labels: 'soft' is not hard, which mine:hard needs"),
        ("mine:experts", {"experts.train_epochs": "1"}, "experts.train_epochs: 1 is not at least"),
    ):
        with pytest.raises(UsageError) as error:
            distill(load_recipe("scenes", small | {"method": name} | changes), example / "run")
        assert str(error.value).startswith(message)
        assert not (example / "run").exists()
    with pytest.raises(UsageError, match="method: 'NoneType' is not an Objective, which `make` is to return"):
        Method(make=print)()
    with pytest.raises(ValueError, match="kind: 'set' is not one of objective, images, selection"):
        Method(make=print, kind="set")  # type: ignore[arg-type]


def test_what_a_method_makes_at_once_has_every_class(example: Path) -> None:
    (example / "mine.py").write_text(
        "import torch\n"
        "from limbeck.methods.method import Method\n"
        "from limbeck.methods.registry import REAL\n"
        "def first(workspace):\n"
        "    labels = workspace.data.train.labels\n"
        "    return [int((labels == k).argmax()) for k in range(10)]\n"
        "def images(x, classes):\n"
        "    return Method(make=lambda workspace, folder: (x, classes, None), preset=REAL, kind='images')\n"
        "first = Method(make=first, preset=REAL, kind='selection')\n"
        "few = Method(make=lambda workspace: torch.tensor([0, 1]), preset=REAL, kind='selection')\n"
        "small = images(torch.zeros(10, 3, 8, 8), torch.arange(10))\n"
        "broken = images(torch.full((10, 3, 16, 16), torch.nan), torch.arange(10))\n"
        "one = images(torch.zeros(10, 3, 16, 16), torch.zeros(10, dtype=torch.int64))\n"
    )
    for name, message in {
        "few": "images with shape (10, 3, 16, 16): it gives (2, 3, 16, 16)",
        "small": "images with shape (10, 3, 16, 16): it gives (10, 3, 8, 8)",
        "broken": "finite images",
        "one": "1 (ipc) images of every class: [10, 0, 0, 0, 0, 0, 0, 0, 0, 0]",
    }.items():
        with pytest.raises(UsageError) as error:
            distill(load_recipe("scenes", SMALL | {"method": f"mine:{name}"}), example / name)
        assert str(error.value) == f"method: 'mine:{name}' is not one that gives {message}"
    distill(load_recipe("scenes", SMALL | {"method": "mine:first"}), example / "first")
    assert DistilledSet.load(example / "first" / "distilled").classes.tolist() == list(range(10))


def test_soft_labels_of_a_method_that_reads_no_experts_are_the_experts(example: Path) -> None:
    (example / "mine.py").write_text("from limbeck.methods.method import Method\nsoft = Method(make=print, labels='soft')\n")
    for changes, needed in (({}, True), ({"labels": "hard", "outer.lr_label": "0"}, False)):
        made = load_recipe("scenes", {"method": "mine:soft", "init": "real"} | changes)
        assert Workspace(made, NoProgress()).needs_experts is needed


def test_a_set_does_not_choose_the_method_that_is_imported(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distill(load_recipe("expert-means.yaml", SMALL, trust=True), example / "run")
    stored = DistilledSet.load(example / "run" / "distilled").metadata["settings"]
    (example / "expert_means.py").write_text("raise SystemExit('it was run')")
    sys.modules.pop("expert_means")
    importlib.invalidate_caches()
    assert as_plain(settings_from_plain(stored, imports=False)) == stored
    assert main(["evaluate", "run", "eval.seeds=2"]) == 0
    with pytest.raises(SystemExit, match="it was run"):
        settings_from_plain(stored)


def test_the_registry_needs_no_torch() -> None:
    assert heavy_after("from limbeck.methods.registry import METHODS, method_of\n[method_of(name) for name in METHODS]") == []


def test_a_line_names_a_function_that_is_there() -> None:
    for name in METHODS:
        made = method_of(name).make
        assert isinstance(made, str)
        module, _, function = made.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), name

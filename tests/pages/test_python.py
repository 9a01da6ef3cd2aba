"""Every block of Python of docs/ runs as it stands, on small data.

Those of the README, of docs/use-a-set.md and docs/add-a-*.md have tests of their own.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from distilled.samples import sample_set
from pages.small import BLOCK, DISTIL, FOR, PAGES, WITH_HUB, cifar, fake_cells, short, theirs
from report.fake_run import make_run

import limbeck
from limbeck.cli.main import main
from limbeck.recipes import load_recipe, parse_overrides, settings_from_plain


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

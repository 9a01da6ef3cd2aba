"""The blocks of `docs/use-a-set.md` run, each after those of torch; those of packages that are not installed are skipped."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import limbeck
from limbeck.data.preprocessing import Normalise
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet

PAGE = (Path(__file__).parents[1] / "docs" / "use-a-set.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: re.findall(r"```python\n(.*?)^```", part, re.M | re.S) for part in PAGE.split("\n## ")[1:]}
SHORT = {"range(1000)": "range(100)", "epochs=1000": "epochs=4", "width=32": "width=8"}
CLASSES = 4


def striped(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 16×16 pixels whose class is where their stripes go: across, down, both ways, nowhere."""
    labels, far = np.arange(24) % CLASSES, np.arange(16) % 4 // 2
    x = np.random.default_rng(seed).integers(0, 20, (24, 16, 16, 3), dtype=np.uint8)
    shapes = np.stack([np.tile(far[:, None], (1, 16)), np.tile(far, (16, 1)), far[:, None] ^ far, np.zeros((16, 16), np.int64)])
    return x + (120 * shapes[labels, :, :, None]).astype(np.uint8), labels


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A set where the page has one, and what its reader has besides."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    data = limbeck.ImageSet.from_arrays(*striped(0), *striped(1))
    preprocessing = limbeck.fit_normalise(data.train)
    assert isinstance(preprocessing, Normalise)
    rows = [int(np.flatnonzero(data.train.labels == k)[0]) for k in range(CLASSES)]
    x = preprocessing.prepare(data.train.images()[rows])
    small = SmallSet(x, 5 * torch.eye(CLASSES), torch.arange(CLASSES), 0.05, "logits")
    DistilledSet(set=small, preprocessing=preprocessing, class_names=data.class_names).save("runs/scenes/distilled")
    monkeypatch.setattr(limbeck, "load_data", lambda source: data)
    return {"x_test": data.test.images() / 255, "y_test": torch.from_numpy(data.test.labels)}


def short(block: str) -> str:
    for there, here in SHORT.items():
        block = block.replace(there, here)
    return block


def run(title: str, names: dict[str, Any]) -> None:
    for block in SECTIONS[title]:
        exec(short(block), names)  # noqa: S102


def test_every_section_with_a_block_is_tried() -> None:
    assert [title for title, blocks in SECTIONS.items() if blocks] == [
        "Torch",
        "timm",
        "Lightning",
        "scikit-learn",
        "A memory for continual learning",
    ]


def test_torch(names: dict[str, Any]) -> None:
    network, alone, beside = SECTIONS["Torch"]
    exec(short(network), names)  # noqa: S102
    exec(short(alone), names)  # noqa: S102
    assert names["accuracy"] > 0.5, "of four classes"
    files = names["held"]
    exec(short(beside), names)  # noqa: S102
    held = names["held"]
    assert torch.equal(files["images"], held.images) and torch.equal(files["labels"].softmax(1), held.probabilities())
    pixels = (names["data"].test.images() / 255 - names["mean"]) / names["std"]
    torch.testing.assert_close(pixels, names["x_test"])
    assert isinstance(names["held"].as_dataset(), TensorDataset)


def test_scikit_learn(names: dict[str, Any]) -> None:
    run("Torch", names)
    run("scikit-learn", names)
    assert names["accuracy"] > 0.5


def test_a_memory(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("Torch", names)
    run("A memory for continual learning", names)
    assert re.findall(r"^(\d) classes: [\d.]+$", capsys.readouterr().out, re.M) == ["2", "4"]


@pytest.mark.parametrize("title", ["timm", "Lightning"])
def test_other_packages(title: str, names: dict[str, Any]) -> None:
    if find_spec(title.lower()) is None:
        pytest.skip(f"{title.lower()} is not installed")
    run("Torch", names)
    run(title, names)

"""The README's scripts run as they stand, on small data and with small sizes."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import limbeck

README = Path(__file__).parents[1] / "README.md"
SIZES = {
    "syn_steps": 2,
    "epochs": 2,
    "eval.seeds": 2,
    "full_epochs": 1,
    "random_lr": 0.01,
    "features": "none",
    "max_start_epoch": 2,
    "first_max_start_epoch": 1,
}


class MyNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(8, 8), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten())
        self.head = nn.Linear(8 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


def my_network(classes: int) -> nn.Module:
    return MyNet(classes)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def arrays() -> dict[str, np.ndarray]:
    """Blobs of a colour for each of three classes."""
    draws = np.random.default_rng(0)
    found = {}
    for part, count in (("", 24), ("_test", 12)):
        y = np.arange(count) % 3
        x = draws.integers(0, 128, (count, 16, 16, 3), dtype=np.uint8)
        x[np.arange(count), :, :, y] += 127
        found |= {f"x{part}": x, f"y{part}": y}
    return found


def test_the_scripts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    shorter = {
        "distill": SIZES,
        "compare": {**SIZES, "num_experts": 2, "train_epochs": 4, "iterations": 2},
        "evaluate": {"epochs": 2, "full_epochs": 1, "seeds": 2},
    }
    for name, given in shorter.items():
        monkeypatch.setattr(limbeck, name, _shortened(getattr(limbeck, name), given))
    script, parts = blocks()
    names: dict[str, Any] = {**arrays(), "MyNet": MyNet, "my_network": my_network}
    small = script.replace("iterations=500", "iterations=4").replace(
        "num_experts=6, train_epochs=8", "num_experts=2, train_epochs=6"
    )
    small = small.replace(
        '"num_experts": 6, "train_epochs": 8, "iterations": 500', '"num_experts": 2, "train_epochs": 6, "iterations": 2'
    )
    small = small.replace("ConvNetD3-w32", "ConvNetD2-w4")
    exec(small.replace("range(3)", "range(2)").replace("ResNet18", "ConvNetD2-w4"), names)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert len(limbeck.DistilledSet.load("tiny")) == 3
    assert 0 <= names["run"].accuracy.distilled.mean <= 1
    shown = capsys.readouterr().out
    assert {"MyNet", "ConvNetD2-w4", "edf", "mtt"} <= set(re.findall(r"[\w-]+", shown))
    exec(parts.replace("ConvNetD3-w32", "ConvNetD2-w4"), names)
    assert names["x"].shape == (10, 3, 16, 16)


def _shortened(function: Any, given: dict[str, Any]) -> Any:
    def called(*arguments: Any, **settings: Any) -> Any:
        own = {key: value for key, value in given.items() if not {"schedule"} & settings.keys() or "start_epoch" not in key}
        return partial(function, *arguments)(**{**own, **settings})

    return called

"""The example of `docs/add-a-data-source.md`, file by file, as it stands there."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from limbeck.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-data-source.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SMALL = (
    "network=ConvNetD2-w8 experts.num_experts=2 experts.train_epochs=2 match.syn_steps=2 match.expert_epochs=1 outer.iterations=1"
)
SHORT = "schedule.first_max_start_epoch=1 schedule.max_start_epoch=1 eval.every=1 eval.epochs=1 eval.seeds=2 eval.every_seeds=1"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files of the page in it."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("shapes", "test_shapes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_test_of_the_page_passes(example: Path) -> None:
    assert FILES.keys() == {"shapes.py", "test_shapes.py"}
    importlib.import_module("test_shapes").test_images_are_bytes_with_their_classes()


def test_the_command_of_the_page_runs(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "eval.full_epochs=1 eval.random_lr=0.01 engine.compile=no augment.flip=yes data.per_class=20 data.size=null"
    words = ["distill", "scenes", "data.source=shapes:split", *SMALL.split(), *SHORT.split(), *more.split()]
    assert main([*words, "--output", str(example / "run"), "--json"]) == 0, capsys.readouterr().err
    assert '"source": "shapes:split"' in (example / "run" / "distilled" / "metadata.json").read_text()

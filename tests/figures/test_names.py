"""Words of the user's: never mathematics, never an empty box."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from limbeck.accuracy import Accuracy
from limbeck.cli.main import main
from limbeck.figures.comparisons import comparison_figure, recovery_figure
from limbeck.figures.confusion import confusion_map
from limbeck.figures.style import MARK, drawable, inline_svg, png
from limbeck.studies.recovery import Column, Levels, MethodCells, SubsetCell
from limbeck.studies.table import Row, Section

NOWHERE = "\U0010fffd"  # for private use: no font has it
ODD = ("$x_{$", "[/b]", "猫", "cost $5 and $6_", NOWHERE)
SUMMARY = {"mean": 0.5, "values": [0.4, 0.6], "n": 2, "ci95": [0.3, 0.7]}


def test_what_no_font_has_is_replaced() -> None:
    assert drawable("naïve $x_{$ ≥ η\n") == "naïve $x_{$ ≥ η\n"
    assert drawable(f"a{NOWHERE}b") == f"a{MARK}b"
    assert drawable(f"a{NOWHERE}b", "class 3") == "class 3"
    assert drawable("a\x07b") == f"a{MARK}b"
    assert drawable("") == ""


def test_a_page_keeps_the_names_for_the_readers_own_fonts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = inline_svg(confusion_map(np.eye(5).tolist(), ODD), "confusion", "Confusion")
    assert all(name in svg for name in ODD)
    assert "font-family" not in svg


def test_methods_are_called_as_their_files_are() -> None:
    name, accuracy = f"$x_{{$ {NOWHERE}", Accuracy.from_dict(SUMMARY)
    table = Section(ipc=1, network="$a_{$", rows=(Row(method=name, accuracy=accuracy),))
    cell = SubsetCell(seeds=(0,), accuracy=accuracy, recovery_ratio=accuracy)
    column = Column(subset="a-easy", category="$c_{$", level="easy")
    levels = Levels(ipc=1, columns=(column,), rows=(MethodCells(method=name, cells={"a-easy": cell}),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (comparison_figure([table]), recovery_figure([levels], ["easy", "hard"])):
            assert figure is not None
            png(figure)
            texts = [text.get_text() for axes in figure.axes for text in (*axes.get_yticklabels(), axes.title, axes._left_title)]
            assert f"$x_{{$ {MARK}" in texts
            assert any("$a_{$" in text or "$c_{$" in text for text in texts)


def test_a_report_of_such_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.repeat(np.arange(5), 4) for part in ("train", "test")}
    np.savez("odd.npz", **images, **labels, class_names=np.array(ODD))
    small = "network=MLP-w8 eval.seeds=2 eval.epochs=1 eval.random_lr=0.01 eval.full_epochs=1 data.val_fraction=0.25"
    assert main(["distill", "scenes", "--data", "odd.npz", "method=random", *small.split(), "output=out"]) == 0
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in page for name in ODD)
    assert "Warning" not in capsys.readouterr().err

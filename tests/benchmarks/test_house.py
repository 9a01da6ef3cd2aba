"""The house in figures: what counts as a dictionary between rooms, a circle and a way."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from limbeck.training import train

PATH = Path(__file__).parents[2] / "benchmarks" / "house.py"
HOUSE = runpy.run_path(str(PATH))


def test_dictionaries_and_circles_are_found(tmp_path: Path) -> None:
    files = {
        "__init__": "",
        "a": "from limbeck.b import x\ndef f() -> dict[str, Any]: ...\ndef g() -> dict[str, int]: ...",
        "b": "def f():\n    import limbeck.c\ndef h() -> tuple[dict[str, Any], int]: ...",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from limbeck import a",
    }
    for name, text in files.items():
        (tmp_path / "limbeck").mkdir(exist_ok=True)
        (tmp_path / "limbeck" / f"{name}.py").write_text(text)
    trees = {name: ast.parse(text) for name, text in HOUSE["texts_of"](tmp_path).items()}
    assert list(trees) == ["limbeck", "limbeck.a", "limbeck.b", "limbeck.c"]
    assert [one.partition(" ")[0] for one in HOUSE["loose"](trees)] == ["limbeck.a:2", "limbeck.b:3"]
    found = HOUSE["circles"](trees).split(" → ")
    assert set(found) == {"limbeck.a", "limbeck.b", "limbeck.c"} and found[0] == found[-1]
    assert HOUSE["circles"]({name: tree for name, tree in trees.items() if name != "limbeck.c"}) == "none"


def test_a_way_are_the_files_down_to_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def call() -> None:
        train._epoch()  # type: ignore[call-arg]
        done.append("past it")

    assert HOUSE["way"](call) == [] and not done  # of this file, which is none of the package's
    members = [train.Member(images=None, targets=None, key=())]  # type: ignore[arg-type]
    how = train.Training(optimiser=HeldNothing(), loss=lambda *_: None, epochs=1, batch_size=1, augment=None)  # type: ignore[arg-type, return-value]
    found = HOUSE["way"](lambda: train._train(None, members, how, 0, None, False, range(1), None, None))  # type: ignore[arg-type]
    assert found == ["training/train.py"]


class HeldNothing:
    def state(self, theta: object) -> tuple[object, ...]:
        return ()


def test_help_is_given(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["house.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        HOUSE["main"]()
    assert ended.value.code == 0 and "files whose functions have called each other" in capsys.readouterr().out

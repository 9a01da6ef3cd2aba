"""What is handed in is whole, agrees with itself, and every edit of it is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limbeck.evaluation.statistics import summarise
from limbeck.recipes import load_recipe
from limbeck.runtime.errors import UsageError
from limbeck.studies.acceptance import read_submission
from limbeck.studies.cells import Cell, CellFolder, CellRecord
from limbeck.studies.comp_dd import comp_dd, scenes
from limbeck.studies.submission import checksum, write_submission
from limbeck.studies.taken import take_over


def cell(part: Any, seed: int, prefix: str = "", **overrides: str) -> Cell:
    own = {"data.source": part.source, "seed": str(seed), "data.root": "/home/me/imagenet", **overrides}
    facts = {"subset": part.name, "category": part.category, "level": part.level, "method": "edf", "ipc": 1, "seed": seed}
    return Cell(f"{prefix}{part.name}-edf-ipc1-seed{seed}", "scenes/edf-ipc1", own, load_recipe("scenes/edf-ipc1", own), facts)


def record(cell: Cell) -> dict[str, Any]:
    mean = 0.4 + 0.01 * cell.facts["seed"]
    accuracy = {
        "distilled": summarise([mean, mean + 0.02]).to_dict(),
        "random": {**summarise([0.1, 0.2]).to_dict(), "lr": 0.1},
        "full": summarise([0.8, 0.9]).to_dict(),
    }
    return {
        "name": cell.name,
        "facts": dict(cell.facts),
        "settings": cell.changed.to_dict(),
        "fingerprint": "old",
        "accuracy": accuracy,
        "seconds": {"distil": 3.0},
        "data": {"fingerprint": cell.facts["level"]},
        "environment": {"limbeck": "0.1.0", "torch": "2.13", "device": "a GPU", "cores": 2},
        "predictions": "large",
    }


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    parts = scenes().choose(["easy", "hard"])
    cells = [cell(part, seed) for seed in (0, 1) for part in parts]
    write_submission(
        tmp_path / "in", scenes(), parts, cells, {one.name: CellRecord.from_dict(record(one)) for one in cells}, ["a note"]
    )
    return tmp_path / "in"


def read(folder: Path) -> dict[str, Any]:
    return read_submission(folder, (comp_dd(), scenes())).to_dict()


def test_a_submission_says_what_it_rests_on(handed: Path) -> None:
    held = read(handed)
    assert (held["benchmark"], held["methods"], held["ipcs"], held["seeds"]) == ("scenes", ["edf"], [1], [0, 1])
    first = held["cells"][0]
    assert first["settings"]["data.source"] == "scenes:easy" and first["fingerprints"]["data"] == "easy"
    assert "predictions" not in first
    experts = {(one["facts"]["level"], one["facts"]["seed"]): one["fingerprints"]["experts"] for one in held["cells"]}
    assert len(set(experts.values())) == 4
    text = (handed / "README.md").read_text()
    assert "/home/me" not in text + (handed / "submission.json").read_text()
    for said in ("# scenes: edf", "limbeck 0.1.0, torch 2.13", "device a GPU, cores 2", held["checksum"], "a note", first["name"]):
        assert said in text
    assert f"0: {experts['easy', 0]}; 1: {experts['easy', 1]}" in text
    assert [path.name for path in sorted(handed.iterdir())] == ["README.md", "submission.json"]
    (handed / "README.md").unlink()
    assert read(handed) == held


Edit = Callable[[dict[str, Any]], object]


def first(held: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = held["cells"][0]
    return found


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda h: first(h)["accuracy"]["distilled"].update(mean=0.9), "accuracy.distilled.mean is 0.9, its values make 0.41"),
        (lambda h: first(h)["accuracy"]["distilled"].update(summarise([0.9, 0.9]).to_dict()), r"tables\[0\].*, the cells make"),
        (lambda h: first(h)["accuracy"]["distilled"].update(values=[1.4]), "accuracy.distilled.values are not all in"),
        (lambda h: first(h)["accuracy"]["distilled"].update(values=[]), "accuracy.distilled.values are not all in"),
        (lambda h: first(h)["accuracy"].pop("full"), "has no accuracy of the full data"),
        (
            lambda h: h["tables"][0]["rows"][0]["cells"]["scenes-hard"]["recovery_ratio"].update(mean=0.9),
            "recovery_ratio.mean is 0.9",
        ),
        (lambda h: h["tables"][0]["verdicts"][0].update(verdict="holds"), r"verdict is 'holds', the cells make 'undecided'"),
        (lambda h: h["cells"].pop(), "1 of its 4 cells are missing: scenes-hard edf ipc 1 seed 1$"),
        (lambda h: h["cells"].append(first(h)), "cells twice or beyond its grid: scenes-easy edf ipc 1 seed 0$"),
        (lambda h: h["seeds"].pop(), "cells twice or beyond its grid: scenes-easy edf ipc 1 seed 1, scenes-hard edf ipc 1 seed 1$"),
        (lambda h: h["seeds"].clear(), "are no grid of different cells"),
        (lambda h: first(h)["settings"].update(seed=7), r"facts\[3\] is 0, its settings have 7"),
        (lambda h: first(h)["settings"].update({"eval.epochs": 9}), "fingerprints.settings is '.*', its settings make"),
        (lambda h: first(h)["fingerprints"].update(data="other"), "fingerprints.data is 'easy', others of its subset have 'other'"),
        (lambda h: first(h)["facts"].update(level="hard"), r"facts\[1\] is 'hard', the benchmark has 'easy'"),
        (lambda h: first(h).update(recipe="another"), "its checksum is another"),
        (lambda h: h["environments"][0].update(device="a TPU"), r"environments\[0\].device is 'a TPU', the cells have 'a GPU'"),
        (lambda h: h.update(notes="hello"), "notes: 'hello' is not a list"),
        (lambda h: h.update(benchmark="mine"), "its benchmark 'mine' is none of Comp-DD, scenes"),
        (lambda h: h.update(levels=["hard", "easy"]), "levels is .*, the benchmark has"),
        (lambda h: h["subsets"][0].update(source="scenes:hard"), "subsets: scenes-easy.source is 'scenes:hard'"),
        (lambda h: h.update(format=2), "it is of format 2, not 1"),
        (lambda h: h.pop("tables"), "it is broken .tables is missing"),
        (lambda h: h.update(cells="none"), "it is broken"),
        (lambda h: first(h).update(best_iteration=float("nan")), "best_iteration: nan is not a whole number"),
    ],
)
def test_every_edit_is_found(handed: Path, edit: Edit, says: str) -> None:
    held = json.loads((handed / "submission.json").read_text())
    edit(held)
    (handed / "submission.json").write_text(json.dumps(held))
    with pytest.raises(UsageError, match=rf"^--check: '{handed}/submission.json' cannot be accepted: .*{says}") as caught:
        read(handed)
    assert "\n" not in str(caught.value)


def test_cells_of_a_subset_have_one_evaluation(tmp_path: Path) -> None:
    parts = scenes().choose(["easy"])
    cells = [cell(parts[0], 0), cell(parts[0], 1, **{"eval.epochs": "900"})]
    write_submission(tmp_path / "in", scenes(), parts, cells, {one.name: CellRecord.from_dict(record(one)) for one in cells}, [])
    with pytest.raises(UsageError, match=r"seed1: settings.eval.epochs is 900, others of its subset have 300$"):
        read(tmp_path / "in")


def test_what_people_are_shown_is_read_without_a_card_too(handed: Path) -> None:
    held = json.loads((handed / "submission.json").read_text())
    first(held)["seconds"] = "long"
    (handed / "submission.json").write_text(json.dumps({**held, "checksum": checksum(held)}))
    (handed / "README.md").unlink()
    with pytest.raises(UsageError, match="it is broken"):
        read(handed)


def test_an_edited_card_is_found(handed: Path) -> None:
    card = (handed / "README.md").read_text()
    (handed / "README.md").write_text(card.replace("42.0 ±", "52.0 ±"))
    assert "42.0 ±" in card
    with pytest.raises(UsageError, match="README.md says something else than submission.json$"):
        read(handed)


@pytest.mark.parametrize("text", ["", "[]", "[" * 10**5, "{", '{"format": 1}', "\xff"])
def test_what_is_no_submission_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "submission.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="submission.json' cannot be accepted: ") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_rounding_of_another_processor_is_no_edit(handed: Path) -> None:
    held = json.loads((handed / "submission.json").read_text())
    summary = held["tables"][0]["rows"][0]["cells"]["scenes-hard"]["accuracy"]
    summary["std"] *= 1 + 1e-13
    held["checksum"] = checksum(held)
    (handed / "submission.json").write_text(json.dumps(held))
    (handed / "README.md").unlink()
    assert read(handed) == held


def test_the_kept_submission_is_accepted() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "comp-dd-scenes" / "submission"
    found = read_submission(folder, (comp_dd(), scenes()))
    assert found.card == (folder / "README.md").read_text() and str(found).startswith("36 cells, checksum ")


# Cells of another grid


def test_cells_of_equal_settings_are_taken_over(tmp_path: Path) -> None:
    easy, hard = scenes().choose(["easy", "hard"])
    theirs = [cell(easy, 0, "their-"), cell(easy, 1, "their-"), cell(hard, 0, "their-", **{"eval.epochs": "7"})]
    (tmp_path / "theirs" / "cells").mkdir(parents=True)
    for one in theirs:
        CellFolder(tmp_path / "theirs").result_file(one).write_text(json.dumps(record(one)))
    (tmp_path / "theirs" / "cells" / "broken.json").write_text("{")
    (tmp_path / "theirs" / "cells" / "list.json").write_text("[]")
    mine = [cell(part, seed) for seed in (0, 1, 2) for part in (easy, hard)]
    own = CellFolder(tmp_path / "mine")
    own.path.joinpath("cells").mkdir(parents=True)
    own.result_file(mine[2]).write_text(json.dumps({**record(mine[2]), "note": "measured here"}))
    assert [*take_over(mine, tmp_path / "theirs", own.path)] == [mine[0].name]
    found = own.read(mine[0])
    assert found is not None and found.name == mine[0].name and found.accuracy.to_dict() == record(mine[0])["accuracy"]
    assert found.facts == mine[0].facts and found.recipe == mine[0].recipe
    assert json.loads(own.result_file(mine[2]).read_text())["note"] == "measured here"
    assert own.read(mine[1]) is None  # other epochs
    assert take_over(mine, tmp_path / "theirs", own.path) == {}
    with pytest.raises(UsageError, match="^--reuse: .*nowhere' has no folder cells/"):
        take_over(mine, tmp_path / "nowhere", own.path)

"""An item from its words to files and a page: cells with made-up figures, and once real distillations of toy size."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data.pictures import Said
from jsonschema import Draft202012Validator
from reproduction.toy import EASY, HARD, TOY
from studies.fake_cells import accuracy, cell, command, results, starts
from studies.here import in_this_process

import limbeck
from limbeck.cli.main import main
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.image_complexity import networks
from limbeck.image_complexity.classifier import Classifier
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.reproduction import measures, scales
from limbeck.reproduction.measures import Finished, Measured
from limbeck.reproduction.reading import total
from limbeck.reproduction.results import Reproduction
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import encodable
from limbeck.studies import matrix
from limbeck.studies.cells import CELL, Cell

BASE = {"edf": 0.6, "datm": 0.5, "random": 0.2, "mtt": 0.4, "ftd": 0.45, "sre2l": 0.3, "rded": 0.3}
NUMBER = {"type": ["number", "null"]}
VERDICTS = {"enum": ["confirmed", "contradicted", "undecided"]}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["scale", "seeds", "items", "cells", "failed", "left", "limbeck", "checksum"],
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["item", "title", "scale", "shown", "lines", "findings", "published", "left", "command"],
                "properties": {
                    "lines": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": [
                                "row",
                                "place",
                                "ipc",
                                "seeds",
                                "values",
                                "cells",
                                "cosine",
                                "norm_ratio",
                                "skipped_share",
                            ],
                            "properties": {"ipc": {"type": "integer"}, "cosine": NUMBER, "skipped_share": NUMBER},
                        },
                    },
                    "findings": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["claim", "section", "text", "verdict", "control", "p", "p_adjusted", "seeds_needed"],
                            "properties": {"verdict": VERDICTS, "p": NUMBER, "control": {"type": "boolean"}},
                        },
                    },
                },
            },
        }
    },
}


def figure(cell: Cell) -> float:
    """EDF best, a little better where its norm is its own; the seeds differ."""
    s = cell.settings
    matched = -0.2 if s.match.match_norm else 0.0
    return BASE[s.method] + matched + 0.01 * s.seed * (1 if s.method == "edf" else 0.9)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cells end at once with such figures; what was started is noted there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(scales.SCALES, "cpu", lambda: TOY)
    note = tmp_path / "started.jsonl"
    words = command(note, result=lambda cell: results(accuracy={kind: accuracy(mean) for kind, mean in of(cell).items()}))

    def of(cell: Cell) -> dict[str, float]:
        return {"distilled": figure(cell), "full": 0.9 if cell.facts["subset"] == "scenes-hard" else 0.8}

    monkeypatch.setattr(matrix, "distill_command", words)
    monkeypatch.setattr(matrix, "LOOK_EVERY", 0.01)
    return note


def test_an_item_from_words_to_verdicts_and_files(started: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "fig4", "--output", "out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    verdicts = {(one["claim"], one["control"]): one["verdict"] for one in found["items"][0]["findings"]}
    assert verdicts == {
        ("easy-recovers-more", False): "confirmed",
        ("edf-recovers-more", False): "confirmed",
        ("easy-recovers-more", True): "confirmed",
        ("edf-recovers-more", True): "contradicted",
    }
    out = Path("out")
    written = {path.name for path in out.iterdir()}
    assert written == {"cells", "fig4.json", "fig4.md", "fig4.parquet", "fig4.png", "reproduction.json", "reproduction.md"}
    assert len(list((out / "cells").iterdir())) == len(starts(started)) == 2 * 3 * 3  # levels, rows with the control, seeds
    held = read_json(out / "reproduction.json")
    Draft202012Validator(SCHEMA).validate(json.loads((out / "reproduction.json").read_text()))
    assert Reproduction.from_dict(held).to_dict() == held
    (easy,) = [line for line in Reproduction.read(out)["fig4"].lines if (line.row, line.place) == ("edf", "scenes-easy")]
    assert easy.values["recovery"].mean == pytest.approx(0.61 / 0.8)
    text = (out / "fig4.md").read_text()
    assert "limbeck reproduce fig4 --scale toy" in text and "edf (norm matched)" in text and "confirmed" in text


def test_finished_cells_are_found_again_by_the_same_and_by_other_items(started: Path) -> None:
    assert main(["reproduce", "fig4", "--output", "out", "--seeds", "0", "--json"]) == 0
    first = len(starts(started))
    assert first == 6
    assert main(["reproduce", "fig4", "--output", "out", "--seeds", "0,1", "--json"]) == 0
    assert len(starts(started)) == 12  # of the other seed
    assert main(["reproduce", "table3", "--output", "out", "--seeds", "0,1", "--json"]) == 0
    more = [start["cell"] for start in starts(started)[12:]]
    assert len(more) == 8 and all("random" in name or "ftd" in name for name in more)
    assert [one.item for one in Reproduction.read(Path("out")).items] == ["table3", "fig4"]
    assert main(["reproduce", "all", "--only", "fig4,table3", "--output", "out", "--seeds", "0,1", "--show"]) == 0
    assert len(starts(started)) == 20


def test_who_looks_at_one_item_leaves_what_the_file_tells_of_the_others(started: Path) -> None:
    """`cells`, `failed` and `left` are those of all items that stand in the file."""
    both = ["reproduce", "fig4", "table3", "--output", "out"]
    assert main([*both, "--show"]) == 0
    file = Path("out/reproduction.json")
    before = read_json(file)
    assert before["cells"] == len(before["left"]) == 30
    assert main(["reproduce", "fig4", "--output", "out", "--show"]) == 0
    after = read_json(file)
    assert after["cells"] == 30 and sorted(after["left"]) == sorted(before["left"])
    assert main(["reproduce", "fig4", "--output", "out"]) == 0
    found = Reproduction.read(Path("out"))
    assert (found.cells, len(found.left)) == (30, 12) and not found.failed
    assert all("random" in name or "ftd" in name for name in found.left)
    assert main([*both]) == 0
    assert (Reproduction.read(Path("out")).cells, Reproduction.read(Path("out")).left) == (30, ())


def test_what_another_grid_has_is_counted_by_the_list_and_taken_by_the_run(
    started: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written by `--list`; of which versions cells are is said when they are taken and beside the table."""
    from limbeck.reproduction import times

    monkeypatch.setattr(times, "_planned", lambda *_: times.Kind(iterations=10.0, rest=1.0, evaluation=2.0, experts=5.0))
    for words in ([], ["--list"]):
        assert main(["reproduce", "fig4", "--output", "new", "--reuse", "nowhere", *words]) == 2
        assert capsys.readouterr().err == "limbeck: error: --reuse: 'nowhere' has no folder cells/, which every grid's has\n"
    assert main(["reproduce", "fig4", "--output", "old", "--seeds", "0"]) == 0
    for path in Path("old/cells").iterdir():
        held = read_json(path, CELL)
        write_json(path, {**held, "environment": {"limbeck": "0.1.0", "determinism": {"instructions": "AVX2"}}}, CELL)
    capsys.readouterr()
    words = ["reproduce", "fig4", "--output", "new", "--reuse", "old"]
    assert main([*words, "--list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["items"]
    assert (listed["cells"], listed["finished"]) == (18, 6) and not Path("new").exists()
    assert main([*words, "--seeds", "0"]) == 0
    said = f"6 cells taken from old, 6 measured by limbeck 0.1.0: they may differ from what {limbeck.__version__} measures"
    assert said in " ".join(capsys.readouterr().err.split())
    assert not any("not all measured alike" in note for note in Reproduction.read(Path("new"))["fig4"].notes)
    for number, path in enumerate(sorted(Path("new/cells").iterdir())):
        held = read_json(path, CELL)
        write_json(path, {**held, "environment": {"limbeck": "0.2.0" if number else "0.1.0"}}, CELL)
    assert main(["reproduce", "fig4", "--output", "new", "--seeds", "0", "--show"]) == 0
    note = "cells were not all measured alike, which may be what differs: limbeck 0.1.0 in 1, 0.2.0 in 5"
    assert Reproduction.read(Path("new"))["fig4"].notes.count(note) == 1
    assert f"- {note}" in Path("new/fig4.md").read_text() and note in limbeck.write_report("new").read_text()


def test_a_cell_without_its_measurement_is_made_again(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items want something of the same cells; where the run folder is gone, there is nothing to measure it on."""
    taken: list[tuple[str, str]] = []

    def taking(name: str) -> Callable[[Finished], Measured]:
        def take(finished: Finished) -> Measured:
            taken.append((finished.cell.name, name))
            grown = 0.1 + 0.01 * finished.cell.settings.seed if finished.cell.settings.method == "edf" else 0.0
            return Measured(cell=finished.cell.name, measure=name, values={"area_growth": grown, "area": grown})

        return take

    monkeypatch.setattr(measures, "MEASURES", {name: taking(name) for name in measures.MEASURES})
    body = "(run / 'settings.json').write_text('{}')"
    words = matrix.distill_command

    def with_settings(cell: Cell, run: Path) -> list[str]:
        found = words(cell, run)
        return [*found[:-2], body, found[-1]]

    monkeypatch.setattr(matrix, "distill_command", with_settings)
    assert main(["reproduce", "table6b", "--output", "out", "--seeds", "0", "--json"]) == 0
    # EDF as it is, and its control, of which figure 5 wants the course, and table 1 what distillation of knowledge makes of them.
    assert {name for _, name in taken} == {"course", "kd"} and len(taken) == 2 * 2
    assert main(["reproduce", "fig5", "--output", "out", "--json"]) == 0
    assert len(taken) == len(set(taken)) == 2 * 3 * 3
    found = Reproduction.read(Path("out"))["fig5"]
    assert {one.claim: one.verdict for one in found.verdicts} == {"grows": "confirmed", "more-than-datm": "confirmed"}
    for file in Path("out/measured").glob("*datm*"):
        file.unlink()
    before = len(starts(started))
    assert main(["reproduce", "fig5", "--output", "out", "--show"]) == 0
    assert len(starts(started)) == before
    monkeypatch.setattr(matrix, "distill_command", lambda cell, run: ["false"])
    assert main(["reproduce", "fig5", "--output", "out", "--json"]) == 1
    kept = Reproduction.read(Path("out"))
    assert len(kept.failed) == 3 and all(line.seeds for line in kept["fig5"].lines)  # results stay until others replace them
    monkeypatch.setattr(matrix, "distill_command", with_settings)
    assert main(["reproduce", "fig5", "--output", "out", "--json"]) == 0
    assert len(starts(started)) == before + 3 and not Reproduction.read(Path("out")).failed


def test_a_measurement_that_fails_keeps_nothing_else_from_being_found(
    started: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "fig4", "--output", "out", "--seeds", "0", "--json"]) == 0
    seen: list[str] = []

    def catch_up(self: measures.Measurements, cell: Cell) -> None:
        seen.append(cell.name)
        raise (Failure, UsageError)[len(seen) % 2]("there is no course")

    monkeypatch.setattr(measures.Measurements, "catch_up", catch_up)
    found = limbeck.reproduce("fig4", scale="cpu", output="out", seeds=[0])
    assert len(seen) == len(found.failed) == 6 and set(found.failed.values()) == {"there is no course"}
    assert found["fig4"].failed == found.failed and all(line.seeds for line in found["fig4"].lines)
    assert not limbeck.reproduce("fig4", scale="cpu", output="out", seeds=[0], max_seconds=0).failed  # nothing is measured
    assert len(seen) == 6


def test_a_measurement_that_fails_keeps_no_other_from_being_taken_and_a_damaged_one_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(finished: Finished) -> Measured:
        raise Failure("there are no snapshots")

    good = lambda finished: Measured(cell=finished.cell.name, measure="kd", values={"accuracy": 0.5})  # noqa: E731
    monkeypatch.setattr(measures, "MEASURES", {"course": fails, "kd": good})
    said, one = Said(), cell("a")
    found = measures.Measurements(tmp_path, {"a": frozenset(("course", "kd"))}, progress=said)
    with pytest.raises(Failure, match="there are no snapshots"):
        found.take(one, tmp_path)
    assert {name: held.values for name, held in found.of("a").items()} == {"kd": {"accuracy": 0.5}}
    found.file("a", "kd").write_text(found.file("a", "kd").read_text().replace("0.5", "0.75"))
    assert found.missing(one) == ["course", "kd"] and found.of("a") == {}
    assert len(said.lines) == 1 and "a.kd.json' is broken (" in said.lines[0] and "it is measured again" in said.lines[0]
    with pytest.raises(Failure, match="there are no snapshots"):
        found.take(one, tmp_path)
    assert found.of("a")["kd"].values == {"accuracy": 0.5}


def test_a_kind_of_cell_is_the_images_too() -> None:
    from limbeck.reproduction.times import _decisive

    def kind(**data: object) -> object:
        return encodable(
            _decisive(limbeck.DistillSettings.of({"data.source": "photos", **{f"data.{k}": v for k, v in data.items()}}))
        )

    assert kind(seed=3, root="/there", workers=2) == kind()
    other = {"classes": [0, 1], "source": "paintings", "size": 16, "per_class": 4, "crop": "centre", "val_fraction": 0.2}
    assert all(kind(**{name: value}) != kind() for name, value in other.items())
    assert kind(source="scenes:easy") == kind(source="scenes:hard") == kind(source="scenes") != kind()


def test_the_file_of_a_reproduction_holds_what_was_run_alike_and_is_healed(started: Path) -> None:
    def items(*words: str) -> list[str]:
        assert main(["reproduce", *words, "--output", "out", "--show"]) == 0
        return [one.item for one in Reproduction.read(Path("out")).items]

    assert items("fig4") == ["fig4"]
    assert items("table3") == ["table3", "fig4"]
    assert items("table3", "eval.epochs=2") == ["table3"]
    assert items("fig4") == ["fig4"]
    assert items("table3", "--seeds", "0,1") == ["table3"]
    Path("out/reproduction.json").write_text("{")
    assert items("fig4") == ["fig4"]


def test_what_all_leaves_out_on_other_images_is_said(started: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "all", "--data", "photos.npz", "--base", "scenes/edf-ipc1", "--seeds", "0", "--output", "out", "--show"]
    assert main(words) == 0
    left_out = "left out, for these images have no levels of difficulty: fig1a, fig1b, table3, fig4, fig8, fig9, fig10"
    assert f"note: {left_out}" in " ".join(capsys.readouterr().out.split())
    found = Reproduction.read(Path("out"))
    assert found.notes == (left_out,) and found.base == "scenes/edf-ipc1"
    assert f"- {left_out}" in Path("out/reproduction.md").read_text()
    assert main(["reproduce", "table4", *words[2:]]) == 0
    assert not Reproduction.read(Path("out")).notes


def test_a_claim_on_most_sources_is_judged_by_its_mean(started: Path) -> None:
    places = {**TOY.places, "main": ((EASY,), (HARD,))}
    wide = replace(TOY, seeds=(0,), main=("small", "middle"), places=places)
    sre2l, rded = limbeck.reproduce("table10", scale=wide, output="out")["table10"].verdicts
    assert len(sre2l.parts) == 2 * 2  # sources and numbers of images
    (one,) = rded.parts
    assert one.said == "edf − rded, mean" and one.effect is not None and one.effect.mean == pytest.approx(0.3)


def test_what_rounding_leaves_of_equal_values_is_nothing() -> None:
    assert sum([0.1, 0.2, -0.3]) > 0 == total([0.1, 0.2, -0.3])
    assert total([0.1, 0.2, -0.2]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table8"], "ITEM: 'table8' is not one of all, fig1a,"),
        ([], "ITEM: '' is not one or more of all, fig1a,"),
        (["fig4", "--scale", "moon"], "--scale: 'moon' is not one of cpu, gpu, paper"),
        (["fig4", "--only", "table3"], "--only: goes with all"),
        (["table4", "fig1a", "--data", "cifar10", "--show"], "--data: fig1a runs over images of different levels"),
        (["table4", "--data", "photos.npz", "--show"], "name one to start from with --base RECIPE"),
        (["table4", "--base", "moon", "--show"], "--base: 'moon'"),
        (["fig4", "method=datm"], "method: is what a reproduction runs over"),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_the_list_foretells_what_is_left(
    started: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kind of cell is planned once; what is finished, or an item above has, takes no time."""
    from limbeck.reproduction import times

    planned: list[int] = []

    def kind(settings: limbeck.DistillSettings, progress: object) -> times.Kind:
        planned.append(settings.ipc)
        return times.Kind(iterations=10.0, rest=1.0, evaluation=2.0, experts=5.0)

    monkeypatch.setattr(times, "_planned", kind)
    assert main(["reproduce", "all", "--only", "fig4,table3", "--list", "--json"]) == 0
    listed = {one["item"]: one for one in json.loads(capsys.readouterr().out)["items"]}
    assert set(planned) == {1} and len(planned) <= 2  # with experts of either kind
    assert (listed["table3"]["cells"], listed["fig4"]["cells"]) == (30, 18)
    assert listed["fig4"]["seconds"] == 0
    cells = {"random": 2.0, "ftd": 13.0, "datm": 13.0, "edf": 13.0, "matched": 13.0 + 7.0}
    stores = 2 * 3 * 2  # of levels and seeds, plain and flat ones
    assert listed["table3"]["seconds"] == pytest.approx(6 * sum(cells.values()) + stores * 5.0)
    assert main(["reproduce", "--list", "--only", "fig4,table3"]) == 0
    shown = capsys.readouterr().out
    assert "fig4" in shown and "shared" in shown


def test_the_list_says_whose_images_take_time_that_is_not_foretold(
    started: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from limbeck.reproduction import times

    monkeypatch.setattr(times, "_planned", lambda *_: times.Kind(iterations=10.0, rest=1.0, evaluation=2.0, experts=5.0))
    for words, methods in (("table10", ["rded", "sre2l"]), ("fig4", [])):
        assert main(["reproduce", words, "--output", "out", "--list", "--json"]) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        said = "not foretold: how long {} makes its images; only its evaluation is counted"
        assert sorted(notes) == [said.format(method) for method in methods]


def test_the_page_has_verdicts_tables_figures_and_cells(started: Path) -> None:
    assert main(["reproduce", "fig4", "--output", "out", "--seeds", "0", "--json"]) == 0
    page = limbeck.write_report("out").read_text()
    for said in (
        "Reproduction at toy scale",
        "Easy subsets have higher recovery ratios",
        "undecided: fewer than 3 seeds",
        "figure-fig4",
        "norm matched",
    ):
        assert said in page
    assert "6 finished distillations" in page
    assert list(limbeck.figures_of("out")) == ["fig4"]
    assert main(["report", "out", "--figures", "drawn"]) == 0
    assert Path("drawn/fig4.svg").exists()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reproduction]:
    """Real distillations in this process."""
    monkeypatch.chdir(tmp_path)
    in_this_process(monkeypatch)
    monkeypatch.setitem(PROTOCOLS, "kd-rded", replace(PROTOCOLS["kd-rded"], epochs=1))
    return lambda *items: limbeck.reproduce(*items, scale=replace(TOY, seeds=(0,)), output="out")


def test_an_item_of_toy_size_from_images_to_what_is_measured(
    here: Callable[..., Reproduction], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, str, int]] = []
    usual = networks.judge

    def judge(look: ComplexitySettings, workspace: Workspace) -> Classifier:
        trained.append((look.network, workspace.data.source, len(workspace.data.train)))
        return usual(look, workspace)

    monkeypatch.setattr(networks, "judge", judge)
    found = here("fig7", "fig8")
    areas, complexity = found["fig7"], found["fig8"]
    (edf,) = [line for line in areas.lines if line.row == "edf"]
    assert edf.values["course.area_growth"].known and -1 < edf.values["course.area_growth"].mean < 1
    assert edf.cosine is not None and edf.skipped_share is not None
    course = read_json(next(Path("out/measured").glob("*-edf-*.course.json")))
    assert course["series"]["iterations"] == [0.0, 2.0]
    assert sum(course["series"]["bins"]) == pytest.approx(1)
    assert 0 < course["values"]["inside"] < 1  # the boxes of the images that the set began as are known
    assert {line.place for line in complexity.lines} == {"scenes-easy", "scenes-hard"}
    assert all(0 < line.values["seen.complexity"].mean < 1 for line in complexity.lines)
    # One network sees the images of both levels, and has learned both: maps of two networks are not comparable.
    assert trained == [(TOY.eye, "scenes:easy + scenes:hard", 2 * 10 * 11)] * 2
    assert all(one.verdict == "undecided" for one in found.findings)  # one run decides nothing
    assert not Path("out/runs").exists() and not found.left
    assert Path("out/fig7-images.png").stat().st_size > 1000
    again = here("fig7", "fig8")
    assert again.items == found.items

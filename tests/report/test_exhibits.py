"""What is drawn of folders, and the command that writes it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from distilled.samples import sample_set, summary
from report.fake_run import make_run
from report.test_of_complexity import measured

import limbeck
from limbeck.accuracy import Accuracy
from limbeck.cli.main import main
from limbeck.evaluation.areas import discriminative_area
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.report.exhibits import figures_of
from limbeck.report.write import write_report
from limbeck.runs.feature_map import TENSORS, FeatureMap, MapAbout
from limbeck.runtime.files import read_tensors, write_json, write_tensors
from limbeck.studies.recovery import RECOVERY, Column, Levels, MethodCells, Recovery, SubsetCell
from limbeck.studies.table import COMPARISON, Row, Section, Table

OF_A_RUN = ["grid", "evolution", "maps", "areas", "accuracies", "accuracy", "loss", "step-size", "gradients"]
ACCURACY = Accuracy.from_dict(summary(0.4))


def test_a_run_has_all_of_them_with_captions(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = figures_of(run)
    assert list(found) == [*OF_A_RUN, "comparison", "kept", "dropped", "area-curve"]
    assert all(one.caption.endswith(".") and one.title for one in found.values())
    assert "so that all images of the set are shown with less contrast" in found["grid"].caption
    areas = found["areas"].figure.axes[0].get_lines()[0].get_xydata()[1:-1, 0]
    maps = read_tensors(run / "snapshots" / "iteration-000000.safetensors").tensors["maps"]
    np.testing.assert_allclose(areas, 100 * discriminative_area(maps).sort().values.numpy())
    heads = [text.get_text() for text in found["evolution"].figure.axes[0].texts]
    assert heads[:3] == ["owl", "mole", "newt"] and sorted(heads[3:], key=int) == sorted(
        ["0", "100", "200", "300", "400"] * 2, key=int
    )
    names = [label.get_text() for label in found["accuracies"].figure.axes[0].get_yticklabels()]
    assert names == ["Distilled images", "Initial images", "Random real images, as many", "Full training data"]


def test_a_run_without_maps_or_end_has_what_there_is(tmp_path: Path) -> None:
    assert "maps" not in figures_of(make_run(tmp_path / "plain", maps=False))
    assert list(figures_of(make_run(tmp_path / "begun", finished=False)))[:2] == ["accuracy", "loss"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "settings.json").write_text("{}")
    with pytest.raises(limbeck.UsageError, match="there is nothing to draw in '.*empty' yet"):
        figures_of(tmp_path / "empty")


def test_thinned_snapshots_are_shown_where_they_go_together(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ipc=3)
    path = run / "snapshots" / "iteration-000200.safetensors"
    tensors, header = read_tensors(path)
    few = {name: one[[1, 4]] if len(one.shape) and len(one) == 9 else one for name, one in tensors.items()}
    write_tensors(path, few, header | {"positions": [1, 4]}, SNAPSHOT)
    found = figures_of(run)
    words = [text.get_text() for text in found["evolution"].figure.axes[0].texts]
    assert words[:2] == ["owl", "mole"] and "newt" not in words
    assert "2 of 3 classes" in found["evolution"].caption


def test_features_are_drawn_where_a_run_keeps_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    about = MapAbout(
        network="ConvNetD3-w32, trained on the full data",
        dimensions=512,
        way="PCA",
        share=0.25,
        iterations=(0, 400),
        best=400,
        searched=5,
        real=9,
        typical=1.0,
    )
    whole = {name: torch.zeros(2, dtype=torch.int64) for name in ("positions", "classes", "asked")}
    parts = {**whole, "near": torch.zeros(2, 1, dtype=torch.int64), "distances": torch.zeros(2, 1)}
    parts |= {"real": torch.arange(6.0).view(3, 2), "real_classes": torch.arange(3), "paths": torch.ones(2, 2, 2)}
    pictures = {"pictures": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}
    parts |= {**pictures, **{f"picture_{name}": torch.zeros(1, dtype=torch.int64) for name in ("classes", "positions")}}
    FeatureMap(about=about, **{name: parts[name] for name in TENSORS}).write(run, "")
    found = figures_of(run)["features"]
    assert found.caption.startswith("PCA of 512 features of ConvNetD3-w32, trained on the full data, which shows 25.0 % of their")
    assert "from iteration 0 to 400" in found.caption
    assert found.figure.axes[0].collections[0].get_offsets().tolist() == [[0, 1]]
    FeatureMap(about=dataclasses.replace(about, best=0), **{name: parts[name] for name in TENSORS}).write(run, "")
    assert "their way" not in figures_of(run)["features"].caption
    still = dataclasses.replace(about, iterations=(), best=None)
    FeatureMap(about=still, **{name: parts[name] for name in TENSORS if name != "paths"}, paths=torch.ones(1, 2, 2)).write(run, "")
    assert "their way" not in figures_of(run)["features"].caption


def test_runs_and_sets_side_by_side(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name / "run") for name in "ab"]
    sample_set(shape=(3, 16, 16)).save(tmp_path / "set")
    found = figures_of(*paths, tmp_path / "set")
    assert list(found) == ["accuracies", "side-by-side"]
    assert [label.get_text() for label in found["accuracies"].figure.axes[0].get_yticklabels()] == ["a/run", "b/run"]
    words = [text.get_text() for text in found["side-by-side"].figure.axes[0].texts]
    assert words == ["a/run", "b/run", "set", "owl", "mole", "newt"]
    with pytest.raises(limbeck.UsageError, match="PATH: .* is not different folders"):
        figures_of(paths[0], paths[0])
    (tmp_path / "other").mkdir()
    with pytest.raises(limbeck.UsageError, match="PATH: '.*other' is not a run or a distilled set"):
        figures_of(paths[0], tmp_path / "other")


@pytest.mark.parametrize("names", [("owl", "cat", "dog"), ("cat", "dog", "cow")])
def test_sets_of_other_classes_side_by_side(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Those that all have, and nothing where there is none."""
    run = make_run(tmp_path / "run", shape=(3, 8, 8))
    sample_set(names=names, shape=(3, 8, 8)).save(tmp_path / "set")
    found = figures_of(run, tmp_path / "set")
    common = "owl" in names
    assert list(found) == ["accuracies", "side-by-side"] if common else list(found) == ["accuracies"]
    if common:
        assert [text.get_text() for text in found["side-by-side"].figure.axes[0].texts] == ["run", "set", "owl"]


def test_studies_and_experts(tmp_path: Path) -> None:
    row = Row(method="edf", accuracy=ACCURACY)
    table = Table(title="edf on scenes", data="scenes", sections=(Section(ipc=1, network="ConvNetD3", rows=(row,)),))
    write_json(tmp_path / "compared" / "comparison.json", table, COMPARISON)
    (exhibit,) = figures_of(tmp_path / "compared").values()
    assert (exhibit.name, exhibit.title) == ("accuracies", "edf on scenes") and exhibit.figure.axes[0].get_title(loc="left")
    cell = SubsetCell(seeds=(0,), accuracy=ACCURACY, recovery_ratio=ACCURACY)
    columns = tuple(Column(subset=f"a-{level}", category="a", level=level) for level in ("easy", "hard"))
    rows = (MethodCells(method="edf", cells={"a-easy": cell, "a-hard": cell}),)
    tables = (Levels(ipc=1, columns=columns, rows=rows),)
    found = Recovery(title="Comp-DD", benchmark="comp-dd", levels=("easy", "hard"), tables=tables)
    write_json(tmp_path / "comp-dd" / "comp-dd.json", found, RECOVERY)
    assert list(figures_of(tmp_path / "comp-dd")) == ["recovery"]
    store = TrajectoryStore(tmp_path / "experts", {"num_parameters": 2})
    store.write(0, {0: torch.zeros(2), 1: torch.ones(2)}, [0.25])
    (exhibit,) = figures_of(tmp_path / "experts").values()
    assert exhibit.figure.axes[0].get_lines()[0].get_ydata().tolist() == [25.0]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "comp-dd.json").write_text("[1]")
    with pytest.raises(limbeck.UsageError, match=r"PATH: '.*comp-dd.json' is no result of comp-dd"):
        figures_of(tmp_path / "broken")
    with pytest.raises(
        limbeck.UsageError, match="PATH: '.*nowhere' is not there; a run folder, a distilled set, or the folder of a comparison"
    ):
        figures_of(tmp_path / "nowhere")


def test_complexities(tmp_path: Path) -> None:
    tiny = {"data.size": 16, "data.per_class": 12, "full_epochs": 1}
    limbeck.complexity("scenes:easy", network="ConvNetD2-w4", workers=1, output=tmp_path, **tiny)
    assert list(figures_of(tmp_path)) == ["classes", "ranking", "maps"]


@pytest.mark.parametrize("file", ["complexity.json", "comp-dd.json"])
@pytest.mark.parametrize("make", [figures_of, write_report], ids=["figures", "page"])
def test_another_file_of_ours_is_refused_by_pages_and_figures_alike(
    tmp_path: Path, file: str, make: Callable[[Path], object]
) -> None:
    (tmp_path / "a").mkdir()
    found = Recovery(title="Comp-DD", benchmark="comp-dd", tables=())
    held = json.loads((measured(tmp_path / "b", "x") / "complexity.json").read_text()) if file == "complexity.json" else found
    write_json(tmp_path / "a" / file, held, COMPARISON)
    with pytest.raises(limbeck.UsageError, match=rf"{file}' is no result of .* \(it is no .*, but a {COMPARISON.name}\); `limbeck"):
        make(tmp_path / "a")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = make_run(tmp_path / "run"), tmp_path / "figures"
    before = sorted(run.rglob("*"))
    assert main(["report", str(run), "--figures", str(out), "--formats", "svg,png", "--column", "3.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["paths"] == {"figures": str(out)}
    names = {path.name for path in out.iterdir()}
    assert {f"{name}.{form}" for name in [*OF_A_RUN, "comparison", "kept", "dropped", "area-curve"] for form in ("svg", "png")} | {
        "captions.md"
    } == names
    assert 'width="252pt"' in (out / "loss.svg").read_text() and sorted(run.rglob("*")) == before


def test_a_folder_has_the_figures_of_one_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same one replaces its own, wherever both lie; neither another's nor what somebody else has written is touched."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        sample_set(shape=(3, 8, 8)).save(Path("project", name))
    Path("paper").mkdir()
    draw = ["--figures", "paper", "--formats", "svg"]
    for foreign in ("captions.md", "grid.svg"):
        (Path("paper") / foreign).write_text("mine")
        assert main(["report", "project/a", *draw]) == 2
        assert (
            f"--figures: 'paper/{foreign}' is there, and not of Limbeck's figures; name another folder" in capsys.readouterr().err
        )
        assert [(path.name, path.read_text()) for path in Path("paper").iterdir()] == [(foreign, "mine")]
        (Path("paper") / foreign).unlink()
    (Path("paper") / "notes.md").write_text("mine")
    assert main(["report", "project/a", *draw]) == 0
    written = {path.name: path.read_bytes() for path in Path("paper").iterdir()}
    assert main(["report", "project/b", *draw]) == main(["report", "project/a", "project/b", *draw]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "--figures: 'paper' has the figures of another source, 'a'; name another folder" in said[0]
    assert said[1] == said[0]
    assert {path.name: path.read_bytes() for path in Path("paper").iterdir()} == written
    Path("paper").rename("project/paper")
    assert main(["report", "project/a", "--figures", "project/paper", "--formats", "svg"]) == 2, "by the way from one to the other"
    Path("project/paper").rename("paper")
    (tmp_path / "elsewhere").mkdir()
    for name in ("project", "paper"):
        Path(name).rename(tmp_path / "elsewhere" / name)
    monkeypatch.chdir("elsewhere/paper")
    assert main(["report", "../project/a", "--figures", ".", "--formats", "svg"]) == 0
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--figures", "out", "--formats", "gif"), "--formats: 'gif' is not one of svg, pdf, png"),
        (("--figures", "out", "--column", "wide"), "--column: 'wide' is not a number of inches"),
        (("--figures", "out", "--page", "0"), "--page: 0.0 is not from 1 to 40 inches"),
        (("--figures", "out", "--output", "page.html"), "--output: 'page.html' is not accepted beside --figures"),
        (("--formats", "svg"), "--formats: 'svg' is not accepted without --figures"),
        (("--figures", "run/settings.json"), "--figures: 'run/settings.json' is not a folder"),
    ],
)
def test_what_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("run"))
    assert main(["report", "run", *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()

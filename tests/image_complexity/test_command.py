"""`limbeck complexity`, from its words to its files."""

import csv
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.accuracy import Accuracy
from limbeck.cli import complexity
from limbeck.cli.main import COMMANDS, main
from limbeck.data.benchmarks import load_benchmark
from limbeck.data.settings import DataSettings
from limbeck.image_complexity import run
from limbeck.image_complexity.results import ClassRow, Look, Looked, Summary
from limbeck.image_complexity.run import SUMMARY, Complexity
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.runtime.files import read_json
from limbeck.runtime.kept import elsewhere

SMALL = ["complexity", "scenes:hard", "--network", "ConvNetD1-w4", "data.per_class=4", "data.size=8", "eval.full_epochs=1"]


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(COMMANDS, "complexity", complexity.COMMAND)
    monkeypatch.chdir(tmp_path)


def test_results_tables_plots_and_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--workers", "1", "--output", "out", "--parquet", "--build-subsets", "--categories", "cluster:1"]
    assert main([*SMALL, *words, "--classes-per-subset", "3", "--least", "6", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["complete"] is True
    assert {Path(path).name for path in printed["paths"].values()} >= {
        "complexity.json",
        "images.csv",
        "classes.csv",
        "benchmark.json",
    }
    assert set(printed["subsets"]) == {"cluster-1-easy", "cluster-1-hard"}
    easy, hard = (printed["subsets"][f"cluster-1-{level}"]["complexity"] for level in ("easy", "hard"))
    assert easy < printed["complexity"] < hard
    with Path("out/images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == printed["images"] == 40
    by_class = {name: [float(row["complexity_0.5"]) for row in rows if row["class"] == name] for name in "0123456789"}
    means = [sum(values) / len(values) for values in by_class.values()]
    assert sum(means) / 10 == pytest.approx(printed["complexity"])
    parquet = pytest.importorskip("pyarrow.parquet").read_table("out/images.parquet").to_pylist()
    assert [row["complexity_0.5"] for row in parquet] == pytest.approx([float(row["complexity_0.5"]) for row in rows])
    for name in ("classes", "ranking", "maps", "extremes"):
        with Image.open(f"out/{name}.png") as image:
            assert image.width > 300 and len(set(image.convert("L").tobytes())) > 8
    inner = load_benchmark(DataSettings(source=printed["subsets"]["cluster-1-easy"]["source"]))
    assert (inner.source, len(inner.classes or ())) == ("scenes:hard", 3)


def test_deterministic_is_said_beside_the_result_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """However many threads there are, maps take one; the option is for a GPU, and for clusters of classes."""
    held = {}
    for name, threads, options in (("a", 1, []), ("b", 3, ["--deterministic"]), ("c", 3, ["engine.deterministic=true"])):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with elsewhere(Path("cache", name)):
                assert main([*SMALL, "--workers", "1", "--output", name, *options]) == 0
        finally:
            torch.set_num_threads(before)
        held[name] = read_json(Path(name, "complexity.json"), SUMMARY)
    assert Path("a/images.csv").read_bytes() == Path("b/images.csv").read_bytes() == Path("c/images.csv").read_bytes()
    asked = {name: found["environment"]["determinism"]["asked"] for name, found in held.items()}
    assert asked == {"a": False, "b": True, "c": True}


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--workers", "1", "--split", "test", "--per-class", "2", "--threshold", "0.3"]) == 0
    printed = capsys.readouterr().out
    assert "complexity:" in printed and "% at 0.3 [" in printed
    assert "network: ConvNetD1-w4, layer blocks.0" in printed
    assert Path("runs/complexity-scenes-hard/complexity.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "a"], "--threshold: 'a' is not one number"),
        (["--threshold", "2"], "--threshold: [2.0] is not"),
        (["ipc=3"], "ipc: is not used here"),
        (["data.sise=8"], "data.sise: is not a key"),
        (["--layer", "blocks.9"], "--layer: 'blocks.9' is not last or, joined by +, some of blocks.0"),
        (["--categories", "cluster:2"], "--categories: needs --build-subsets"),
        (["--build-subsets"], "--categories: None is not FILE.yaml"),
        (["--network", "none/there/at/all"], "--network: "),
        (["--shard", "3/2"], "--shard: '3/2' is not of the form i/n"),
        (["--classes", "both"], "invalid choice"),
    ],
)
def test_refusals_are_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main([*SMALL, *words]) == 2
    error = capsys.readouterr().err.splitlines()
    assert said in error[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gone.yaml", "--categories: 'gone.yaml' is not there"),
        ("broken.yaml", "--categories: 'broken.yaml' cannot be read"),
        ("list.json", "--categories: 'list.json' holds no mapping"),
        ("named.yaml", "--categories: 'a/b' is not a name without colons and slashes"),
        ("cluster:0", "--categories: 'cluster:0' is not cluster:N with N of at least 1"),
        ("cluster:²", "--categories: 'cluster:²' is not cluster:N with N of at least 1"),
        ("wordnet:bird=", "--categories: 'bird=' is not of the form NAME=PREFIX,…"),
        ("wordnet:a=n01:a=n02", "--categories: 'a' is not the name of one category only"),
    ],
)
def test_categories_are_looked_at_before_anything_is_measured(
    text: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "measure_complexity", None)
    for name, held in {"broken.yaml": "a: [", "list.json": "[1]", "named.yaml": "a/b: [1, 2]"}.items():
        Path(name).write_text(held)
    assert main([*SMALL, "--build-subsets", "--categories", text]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_an_output_in_which_the_network_would_replace_something_else_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("network").mkdir()
    Path("network/main.py").write_text("mine")
    assert main([*SMALL, "--output", "."]) == 2
    assert "--output: " in (error := capsys.readouterr().err.splitlines()[-1]) and "'network' is something else" in error
    assert Path("network/main.py").read_text() == "mine"


ODD = ("$x_{$", "[/b]", "猫", "[red]x", ":cat:", "cost $5 and $6_")


def test_names_that_are_markup_or_mathematics_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.repeat(np.arange(6), 4) for part in ("train", "test")}
    np.savez("odd.npz", **images, **labels, class_names=np.array(ODD))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert main(["complexity", "odd.npz", "--network", "ConvNetD1-w4", "eval.full_epochs=1", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert all(f"│ {name} " in printed for name in ODD)
    assert Path("runs/complexity-odd/ranking.png").exists()


def test_intervals_are_shown_inside_the_percentages(capsys: pytest.CaptureFixture[str]) -> None:
    results = Summary(
        complexity=80.0,
        spread=Accuracy(mean=0.8, ci95=(-3.0, 120.0)),
        by_threshold={"0.5": 80.0},
        mean_activation=1.0,
        area=1.0,
        images=2,
        classes=(ClassRow(index=0, name="a", images=2, complexities={"complexity_0.5": 86.2}, ci95=(57.3, 115.1)),),
        histograms={},
        network=Look(name="any", layers=("last",)),
        data=Looked(fingerprint="", splits=("train",), source="photos"),
        settings=ComplexitySettings(),
        environment={},
    )
    complexity.show(complexity.Measured(Complexity(None, None, results, None)))  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "57.3 … 100.0" in printed and "[0.0, 100.0]" in printed and "115" not in printed


def test_a_share(capsys: pytest.CaptureFixture[str]) -> None:
    complexity.show(complexity.Measured())
    assert "this share is done" in capsys.readouterr().out

"""What each command hands to the library, and what it prints: a summary, or exactly one JSON object."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limbeck.cli.main import main
from limbeck.experts.store import Summary
from limbeck.recipes import describe, load_recipe, recipe_names, recipe_text
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings

RESULTS = {
    "accuracy": {
        "distilled": {"mean": 0.371, "std": 0.0123, "ci95": [0.356, 0.386], "n": 5, "values": [0.371] * 5},
        "random": {"mean": 0.1304, "std": 0.02, "ci95": [0.11, 0.15], "n": 5, "values": [0.1304] * 5},
        "full": {"mean": 0.92, "std": None, "ci95": None, "n": 1, "values": [0.92]},
    },
    "recovery_ratio": 0.40326,
    "paths": {"run": "runs/scenes", "distilled": "runs/scenes/distilled"},
    "seconds": {"experts": 41.2, "distil": 125.6},
}


class Library:
    """Stands in for the library below the command, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def distill(self, settings: DistillSettings, output: Path, **options: Any) -> RunResult:
        self.calls.append(("distill", {"settings": settings, "output": output, **options}))
        print("a library says something")
        return RunResult.from_dict(RESULTS)

    def train_experts(self, settings: DistillSettings, **options: Any) -> Any:
        self.calls.append(("train_experts", {"settings": settings, **options}))
        summary = Summary("cache/experts", 3, [0, 1], 1000, [0.5])
        return SimpleNamespace(place="cache/experts", summary=lambda: summary)

    def evaluate(self, sets: list[Path], settings: DistillSettings, **options: Any) -> str:
        self.calls.append(("evaluate", {"sets": sets, "settings": settings, **options}))
        return "an evaluation"

    def write_report(self, run: Path, target: Path | None = None) -> Path:
        self.calls.append(("write_report", {"run": run}))
        return target or run / "report.html"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    held = Library()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "limbeck.runs.distill", held)
    monkeypatch.setitem(sys.modules, "limbeck.report.html", held)
    return held


def test_distill_hands_over_recipe_overrides_and_output(library: Library) -> None:
    words = ["distill", "scenes", "ipc=2", "--data", "scenes:hard", "--resume", "match.drop_ratio=0.25", "--output", "out/a"]
    assert main(words) == 0
    (name, call), report = library.calls
    overrides = {"ipc": "2", "data.source": "scenes:hard", "match.drop_ratio": "0.25", "output": "out/a"}
    assert name == "distill"
    assert call["settings"] == load_recipe("scenes", overrides)
    assert (call["output"], call["resume"], call["recipe"]) == (Path("out/a"), True, "scenes")
    assert report == ("write_report", {"run": Path("out/a")})


@pytest.mark.parametrize(
    ("recipe", "overrides", "output"),
    [("scenes", [], "runs/scenes"), ("scenes", ["output=elsewhere"], "elsewhere"), ("deep/mine.yaml", [], "runs/mine")],
)
def test_output_folder(library: Library, tmp_path: Path, recipe: str, overrides: list[str], output: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.yaml").write_text("ipc: 1\n")
    assert main(["distill", recipe, *overrides]) == 0
    assert library.calls[0][1]["output"] == Path(output)
    assert library.calls[0][1]["resume"] is False


def test_recipe_in_a_folder_has_no_folder_in_its_run() -> None:
    from limbeck.cli.distill import default_output

    assert default_output("edf/imagenette") == Path("runs/edf-imagenette")


def test_summary_says_all_in_80_columns(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "scenes"]) == 0
    out = capsys.readouterr().out
    rows = {line.strip("│ ").split("│")[0].strip(): line for line in out.splitlines()}
    assert "37.1 ± 1.2 %" in rows["Distilled images"]
    assert "35.6 … 38.6 %" in rows["Distilled images"]
    assert "13.0 ± 2.0 %" in rows["Random real images, as many"]
    assert "92.0 %" in rows["Full training data"]
    assert "±" not in rows["Full training data"]
    assert "recovery ratio: 40.3 %" in out
    assert "time: experts 41.2 s, distil 2 min 06 s" in out
    assert "report:    runs/scenes/report.html\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_report_that_fails_says_what_is_kept(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_report(run: Path) -> Path:
        raise KeyError("loss")

    monkeypatch.setattr(library, "write_report", write_report)
    assert main(["distill", "scenes/mtt-ipc1"]) == 1
    message = (
        "limbeck: failed: the report could not be written ('loss'); the distilled set and its results are in runs/scenes-mtt-ipc1\n"
    )
    assert capsys.readouterr().err == message


def test_experts(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experts", "scenes", "experts.num_experts=4", "--json"]) == 0
    assert library.calls[0][1]["settings"].experts.num_experts == 4
    held = {"num_experts": 3, "epochs": [0, 1], "bytes": 1000, "last_epoch_accuracy": [0.5]}
    assert json.loads(capsys.readouterr().out) == {"experts": held, "paths": {"experts": "cache/experts"}}
    assert main(["experts", "scenes"]) == 0
    assert (
        capsys.readouterr().out
        == "num_experts: 3\nepochs: [0, 1]\nbytes: 1000\nlast_epoch_accuracy: [0.5]\nexperts: cache/experts\n"
    )


def stored_set(folder: Path, **settings: str) -> Path:
    """A set that was distilled from scenes under these settings."""
    from dataclasses import replace

    from distilled.samples import sample_set

    from limbeck.runtime.fingerprint import encodable

    made = load_recipe("scenes", settings)
    return replace(sample_set(), metadata={"settings": encodable(made)}).save(folder)


@pytest.mark.parametrize("folder", ["runs/scenes", "runs/scenes/distilled"])
def test_evaluate_takes_the_stored_settings_under_the_overrides(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    stored_set(tmp_path / "runs" / "scenes" / "distilled", seed="7", **{"outer.max_match_loss": "inf"})
    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", library.evaluate)
    assert main(["evaluate", folder, "eval.seeds=9", "--data", "moved.npz"]) == 0
    _, call = library.calls[0]
    assert call["sets"] == [Path("runs/scenes/distilled")]
    assert (call["settings"].eval.seeds, call["settings"].data.source, call["settings"].seed) == (9, "moved.npz", 7)
    assert (call["settings"].eval.epochs, call["settings"].eval.protocol) == (100, "dd")
    assert math.isinf(call["settings"].outer.max_match_loss)


def test_evaluate_hands_over_what_was_asked_for(library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored_set(tmp_path / "a")
    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", library.evaluate)
    words = ["evaluate", "a", "b.pt", "--protocol", "kd", "--networks", "ResNet18,MLP", "--seeds", "6", "eval.full_epochs=3"]
    words += ["--until-significant", "12", "--also", "ranking,areas", "--class-order", "x,y", "--labels", "hard", "--no-record"]
    assert main(words) == 0
    _, call = library.calls[0]
    assert call["sets"] == [Path("a"), Path("b.pt")]
    settings = call["settings"].eval
    assert (settings.protocol, settings.networks, settings.seeds, settings.full_epochs) == ("kd", "ResNet18,MLP", 6, 3)
    assert settings.epochs is None  # the recipe's hundred belong to its own protocol
    options = call["options"]
    assert (options.looks.most, options.further, options.keep, options.trust) == (12, ("ranking", "areas"), False, False)
    assert (options.foreign.class_order, options.foreign.labels) == (("x", "y"), "hard")


@pytest.mark.parametrize(
    ("word", "said"),
    [("imagenet", "imagenet"), ("255", 255), ("[[0.5], [0.25]]", ((0.5,), (0.25,))), ("no", "no"), (None, "auto")],
)
def test_evaluate_hands_over_how_images_were_normalised(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, word: str | None, said: Any
) -> None:
    """And what of the data and the method a set that does not say how it was made leaves open."""
    (tmp_path / "theirs.pt").touch()
    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", library.evaluate)
    words = [] if word is None else ["--normalised", word]
    keys = ["method=mtt", "data.normalise=cifar10", "data.size=16"]
    assert main(["evaluate", "theirs.pt", "--data", "scenes", *words, *keys]) == 0
    _, call = library.calls[0]
    settings = call["settings"]
    assert call["options"].foreign.normalised == said
    assert (settings.augment.crop_ratio, settings.data.normalise, settings.data.size) == (0.125, "cifar10", 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["theirs.pt", "--data", "scenes", "ipc=3"],
            "ipc: is settled by the distilled set; an evaluation takes eval.*, engine.*, view_labels.*, network, data.*, augment.*",
        ),
        (
            ["a", "data.size=64"],
            "an evaluation takes eval.*, engine.*, view_labels.*, network, data.source, data.root, data.range, "
            "data.image_field, data.label_field, data.workers, data.skip_bad\n",
        ),
        (
            ["theirs.pt", "--data", "scenes", "--normalised", "imagenette"],
            "--normalised: 'imagenette' is not one of auto, yes, no, ",
        ),
        (["a", "ipc=3"], "ipc: is settled by the distilled set"),
        (["a", "--also", "beauty"], "--also: 'beauty' is not one of ranking, robustness"),
        (["a", "--until-significant", "2"], "--until-significant: 2 is not at least 5"),
        (["a", "--until-significant", "--seeds", "9"], "eval.seeds: 9 is not accepted beside --until-significant, which decides"),
        (["a", "--syn-lr", "0.1"], "--syn-lr: 0.1 is not accepted for 'a', which says itself what it is"),
        (["a", "--labels", "soft"], "invalid choice: 'soft'"),
        (["theirs.pt"], "PATH: 'theirs.pt' does not say what it was distilled from; give --data SOURCE or --recipe RECIPE"),
        (["nowhere"], "PATH: 'nowhere' is not there"),
        (["eval.seeds=3"], "PATH: is missing"),
        (["a", "eval.seeds=1"], "eval.seeds: 1 is not at least 2"),
        (["a", "--recipe", "nowhere"], "--recipe: 'nowhere' is neither"),
    ],
)
def test_evaluate_refuses_in_a_line(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    stored_set(tmp_path / "a")
    (tmp_path / "theirs.pt").touch()
    assert main(["evaluate", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert library.calls == []


@pytest.mark.parametrize("key", ["network", "eval.networks", "eval.teacher", "eval.protocol", "augment.strategy"])
def test_a_set_does_not_choose_the_code_that_runs(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    stored_set(tmp_path / "a", **{key: "os:getcwd"})
    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", library.evaluate)
    assert main(["evaluate", "a"]) == 2
    assert f"{key}: 'os:getcwd' is code, as the metadata of 'a' have it" in capsys.readouterr().err
    assert library.calls == []
    assert main(["evaluate", "a", f"{key}=ConvNetD3"]) == (2 if key.startswith("augment") else 0)
    assert main(["evaluate", "a", "--trust"]) == 0


def test_export_writes_what_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from distilled.samples import sample_set

    sample_set().save(tmp_path / "run" / "distilled")
    words = ["export", str(tmp_path / "run"), "--to", "npz", "--output", str(tmp_path / "set.npz")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"paths": {"export": str(tmp_path / "set.npz")}}
    with np.load(tmp_path / "set.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (6, 8, 10, 3)
    assert main(words) == 2
    assert main(["export", str(tmp_path / "nowhere"), "--to", "folder", "--output", str(tmp_path / "images")]) == 2
    assert [line.startswith("limbeck: error: ") for line in capsys.readouterr().err.splitlines()] == [True, True]
    assert not (tmp_path / "images").exists()


def test_export_for_research_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from distilled.samples import sample_set

    sample_set().save(tmp_path / "set")
    words = ["export", str(tmp_path / "set"), "--to", "research", "--output", str(tmp_path / "files")]
    assert main(words) == 0
    assert capsys.readouterr().out == f"export: {tmp_path / 'files'}\n"
    assert torch.load(tmp_path / "files" / "images_best.pt", weights_only=True).shape == (6, 3, 8, 10)
    assert main(words) == 2
    assert capsys.readouterr().err == f"limbeck: error: --output: '{tmp_path / 'files'}' is not a new or an empty folder\n"


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert describe("scenes") in next(line for line in lines if line.startswith("scenes "))
    assert main(["recipes", "scenes"]) == 0
    assert capsys.readouterr().out == recipe_text("scenes")
    assert main(["recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"recipes": {name: describe(name) for name in recipe_names()}}


def test_full_recipe_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "scenes", "--full"]) == 0
    path = tmp_path / "full.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(str(path)) == load_recipe("scenes")


def test_report(library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    assert main(["report", "run"]) == 0
    assert capsys.readouterr().out == "report: run/report.html\n"


NOISY = """
import ctypes, os, sys, types
from pathlib import Path
from limbeck.runs.results import RunResult

def distill(settings, output, **options):
    print("stray: print")
    sys.stdout.write("stray: write\\n")
    sys.__stdout__.write("stray: the real stream\\n")
    os.write(1, b"stray: descriptor\\n")
    os.system("echo stray: child")
    ctypes.CDLL(None).printf(b"stray: C\\n")
    options["progress"].say("stray: progress")
    accuracy = {"distilled": {"mean": 0.5, "std": float("nan")}}
    return RunResult.from_dict({"accuracy": accuracy, "recovery_ratio": float("inf"), "paths": {}})

sys.modules["limbeck.runs.distill"] = types.SimpleNamespace(distill=distill)
sys.modules["limbeck.report.html"] = types.SimpleNamespace(write_report=lambda run: Path("report.html"))
from limbeck.cli.main import main
sys.exit(main(["distill", "scenes/mtt-ipc1", "--json"]))
"""


def test_json_is_alone_on_standard_output(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["accuracy"]["distilled"]["std"], printed["recovery_ratio"]) == ("NaN", "Infinity")
    assert printed["paths"] == {"report": "report.html"}
    assert done.stdout.count("\n") == 1
    strays = ("print", "write", "the real stream", "descriptor", "child", "C", "progress")
    assert sorted(done.stderr.splitlines()) == sorted(f"stray: {kind}" for kind in strays)


def test_evaluate_knows_an_unknown_key_from_a_settled_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from distilled.samples import sample_set

    from limbeck.runtime.fingerprint import plain

    sample_set(metadata={"settings": plain(DistillSettings())}).save(tmp_path / "set")
    assert main(["evaluate", str(tmp_path / "set"), "evaluation.seeds=2"]) == 2
    assert capsys.readouterr().err == "limbeck: error: evaluation.seeds: is not a key; did you mean eval.seeds?\n"


@pytest.mark.parametrize("words", [["evaluate"], ["export", "--to", "npz", "--output", "set.npz"]])
def test_a_run_that_has_not_ended_holds_no_set(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    (tmp_path / "state.json").write_text("{}")
    assert main([*words, str(tmp_path)]) == 2
    message = f"PATH: '{tmp_path}' is a run that has not ended; finish it with `limbeck distill … --resume`"
    assert capsys.readouterr().err == f"limbeck: error: {message}\n"


def test_summary_warns_of_iterations_that_changed_nothing() -> None:
    out = " ".join(str(RunResult.from_dict({**RESULTS, "skipped_share": 0.75, "best_iteration": 0})).split())
    assert "warning: 75.0 % of the iterations changed nothing: their loss or gradient was not finite, or above" in out
    assert "warning: no iteration was better on the validation images than the initial images, which are the result" in out
    assert "warning" not in str(RunResult.from_dict({**RESULTS, "skipped_share": 0.0, "best_iteration": 500}))


def test_recipes_fit_into_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line[0] != " "] == recipe_names()
    assert describe("scenes") in " ".join(" ".join(lines).split())


POOR = r"""
import sys, types
from pathlib import Path
from limbeck.runs.results import RunResult

results = {"accuracy": {"distilled": {"mean": 0.5, "std": 0.1, "ci95": [0.4, 0.6], "n": 2}}, "paths": {"run": "runs/\u732b\udcff"}}
sys.modules["limbeck.runs.distill"] = types.SimpleNamespace(distill=lambda *_, **__: RunResult.from_dict(results))
sys.modules["limbeck.report.html"] = types.SimpleNamespace(write_report=lambda run: Path("report.html"))
from limbeck.cli.main import main
status = main(["distill", "scenes", "--json"])
print("====", flush=True)
sys.exit(status or main(["distill", "scenes"]))
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_poor_terminal_costs_no_results(tmp_path: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", POOR], capture_output=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    data, shown = done.stdout.split(b"====")
    assert json.loads(data)["paths"]["run"] == "runs/\u732b\udcff"
    assert b"50.0 " in shown

"""`limbeck compare`: how names become grids, what is run, written and said, and what is refused before anything runs."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from studies.fake_cells import command, results, starts

from limbeck.cli import compare as cli
from limbeck.cli.command import Parser
from limbeck.cli.main import main
from limbeck.methods.registry import METHODS
from limbeck.recipes import load_recipe, recipe_names, settings_from_plain
from limbeck.runtime.errors import UsageError
from limbeck.studies import matrix
from limbeck.studies.cells import Cell
from limbeck.studies.entrants import Entrant, data_folder, method_recipe, recipe_titles, values_of


def parsed(*words: str) -> Namespace:
    parser = Parser(prog="limbeck compare")
    cli.COMMAND.add_arguments(parser)
    return parser.parse_intermixed_args(list(words))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[Cell], dict[str, Any]]], Path]:
    """Let cells be fake ones with these results; where they note themselves."""
    monkeypatch.chdir(tmp_path)

    def use(result: Callable[[Cell], dict[str, Any]]) -> Path:
        started = tmp_path / "started.jsonl"
        monkeypatch.setattr(matrix, "distill_command", command(started, result=result))
        return started

    return use


MEANS = {"edf": 0.5, "mtt": 0.4, "random": 0.2, "edf (norm matched)": 0.45}


def of_method(cell: Cell) -> dict[str, Any]:
    return results(MEANS[cell.facts["method"]] + 0.01 * cell.facts["seed"] ** 2)


def test_methods_on_some_data(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    started = worker(of_method)
    words = ("--methods", "edf,mtt,random", "--data", "scenes:hard", "--ipc", "3", "--seeds", "0,1", "--matched", "eval.epochs=50")
    found = cli.run(parsed(*words))
    assert [start["cell"] for start in starts(started)] == [
        f"{name}-ipc3-seed{seed}" for seed in (0, 1) for name in ("edf", "edf+matched", "mtt", "random")
    ]
    held = json.loads(Path("runs/compare/cells/edf+matched-ipc3-seed1.json").read_text())
    assert held["recipe"] == "scenes/edf-ipc3"
    assert held["overrides"] == {
        "data.source": "scenes:hard",
        "ipc": "3",
        "seed": "1",
        "eval.epochs": "50",
        "match.match_norm": "true",
    }
    assert held["settings"]["match.match_norm"] is True and held["settings"]["eval.epochs"] == 50
    (table,) = found.sections
    assert [row.method for row in table.rows] == ["edf", "edf (norm matched)", "mtt", "random"]
    assert table.rows[2].accuracy.values == (pytest.approx(0.4), pytest.approx(0.41))
    assert json.loads(Path("runs/compare/comparison.json").read_text())["tables"][0]["ipc"] == 3
    assert Path("runs/compare/comparison.md").read_text().startswith("# edf, mtt, random on scenes:hard\n")
    assert Path("runs/compare/comparison.png").read_bytes().startswith(b"\x89PNG")
    cli.COMMAND.show(found)
    out = capsys.readouterr().out
    assert "mtt − edf: −10.0 [−10.0, −10.0] points, 2 seeds, p" in " ".join(out.split())
    cli.run(parsed(*words))
    assert len(starts(started)) == 8


def test_edf_beside_datm_is_also_run_with_the_plain_norm(worker: Any) -> None:
    def left(*words: str) -> list[str]:
        found = cli.run(parsed(*words, "--data", "scenes", "--seeds", "0", "--show")).left
        return [name.removesuffix("-seed0") for name in found]

    assert left("--methods", "edf,datm,pad") == ["edf-ipc1", "edf+matched-ipc1", "datm-ipc1", "pad-ipc1"]
    assert left("--methods", "edf,datm", "--no-matched") == ["edf-ipc1", "datm-ipc1"]
    assert left("--methods", "edf,mtt") == ["edf-ipc1", "mtt-ipc1"]
    assert left("--methods", "pad,mtt", "--matched") == ["pad-ipc1", "pad+matched-ipc1", "mtt-ipc1"]


def test_recipes_side_by_side(worker: Any) -> None:
    worker(lambda cell: results(0.5))
    found = cli.run(parsed("scenes/edf-ipc1", "scenes/mtt-ipc1", "--seeds", "4", "--output", "out"))
    assert [row.method for row in found.rows] == ["scenes/edf", "scenes/mtt"]
    assert sorted(path.name for path in Path("out/cells").iterdir()) == ["scenes-edf-ipc1-seed4.json", "scenes-mtt-ipc1-seed4.json"]


def test_files_of_one_name_are_told_apart(worker: Any) -> None:
    worker(lambda cell: results(0.5))
    for number, file in enumerate(("a/x.yaml", "b/x.yaml", "c/b/x.yaml", "y.yaml", "my-edf.yaml", "my edf.yaml")):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(f"outer.iterations: {9 + number}\n")

    def compared(*files: str) -> tuple[list[str], list[str]]:
        found = cli.run(parsed(*files, "--seeds", "0", "--output", "-".join(files).replace("/", "-")))
        cells = sorted(path.name.removesuffix("-ipc1-seed0.json") for path in Path(found.paths["cells"]).iterdir())
        return [row.method for row in found.rows], cells

    assert compared("a/x.yaml", "b/x.yaml", "y.yaml") == (["a/x", "b/x", "y"], ["a-x", "b-x", "y"])
    assert compared("b/x.yaml", "c/b/x.yaml")[0] == ["b/x", "c/b/x"]
    assert compared("my-edf.yaml", "my edf.yaml") == (["my-edf", "my edf"], ["1-my-edf", "2-my-edf"])
    assert recipe_titles(["scenes", "scenes.yaml"]) == {"scenes": "scenes", "scenes.yaml": "scenes.yaml"}
    assert list(recipe_titles(["/x.yaml", "../x.yaml", "x.yaml"]).values()) == ["/x", "../x", "x"]
    for twice in ("./a/x.yaml", "b/../a/x.yaml", "a/x.yaml"):
        with pytest.raises(UsageError, match="^RECIPE: 'a/x.yaml' is given twice$"):
            compared("a/x.yaml", twice)


def test_every_combination_of_values(worker: Any) -> None:
    started = worker(lambda cell: results(0.5 - 0.1 * (cell.settings.enhance.weighting == "none")))
    ways = ("--vary", "enhance.weighting=activation,none", "--vary", "match.drop_ratio=.25,0")
    found = cli.run(parsed("scenes/hard-edf-ipc3", *ways, "--seeds", "0", "outer.iterations=9"))
    first = "weighting-activation-drop_ratio-.25-ipc3-seed0"
    assert [start["cell"] for start in starts(started)][0] == first and len(starts(started)) == 4
    held = json.loads(Path(f"runs/compare/cells/{first}.json").read_text())
    own = {"enhance.weighting": "activation", "match.drop_ratio": ".25"}
    assert held["overrides"] == {**own, "ipc": "3", "seed": "0", "outer.iterations": "9"}
    rows = found.rows
    assert [row.method for row in rows] == [
        "weighting=activation drop_ratio=.25",
        "weighting=activation drop_ratio=0",
        "weighting=none drop_ratio=.25",
        "weighting=none drop_ratio=0",
    ]
    assert [row.accuracy.mean for row in rows] == [0.5, 0.5, 0.4, 0.4]
    lists = ("scenes", "--vary", "experts.rate_milestones=[0.5],[0.5,0.75]", "--seeds", "0", "--show")
    assert list(cli.run(parsed(*lists)).left) == [f"rate_milestones-{end}-ipc1-seed0" for end in ("0.5-", "0.5-0.75-")]
    assert values_of('[0,1], ["2, 3", 4],5,,"a,b"') == ["[0,1]", '["2, 3", 4]', "5", '"a,b"']
    words = ("--methods", "edf,mtt", "--data", "scenes", "--vary", "match.syn_steps=2,3", "--seeds", "0", "--show")
    assert list(cli.run(parsed(*words)).left) == [f"{name}-syn_steps-{n}-ipc1-seed0" for name in ("edf", "mtt") for n in (2, 3)]


def test_what_a_table_has_one_of_is_compared_once_for_each_value(worker: Any) -> None:
    worker(lambda cell: results(0.5))
    with pytest.raises(UsageError) as caught:
        cli.run(parsed("scenes", "--vary", "eval.epochs=100,300", "--seeds", "0"))
    said, _, advised = str(caught.value).partition("; ")
    assert said == "eval.epochs 300 in epochs=300 is not eval.epochs 100 in epochs=100"
    assert advised == "a table has one for all: compare once for each value, such as eval.epochs=100 --output runs/epochs-100"
    found = cli.run(parsed("scenes", "--seeds", "0", *advised.partition("such as ")[2].split()))
    assert found.paths["cells"] == "runs/epochs-100/cells" and found.rows[0].accuracy.n == 1


def test_a_file_that_is_called_as_another_with_its_norm_matched(worker: Any) -> None:
    worker(lambda cell: results(0.5))
    for name in ("edf", "edf+matched", "edf (norm matched)"):
        Path(f"{name}.yaml").write_text("outer.iterations: 9\n")

    def compared(*words: str) -> list[str]:
        return [name.removesuffix("-ipc1-seed0") for name in cli.run(parsed(*words, "--seeds", "0", "--show")).left]

    both = ("edf.yaml", "edf+matched.yaml")
    assert compared(*both, "--matched") == ["1-edf", "1-edf+matched", "2-edf+matched", "2-edf+matched+matched"]
    assert compared(*both) == compared("edf.yaml", "--matched") == ["edf", "edf+matched"]  # as they always were
    with pytest.raises(UsageError, match=r"^RECIPE: 'edf \(norm matched\)' is what another one is called with its norm matched"):
        compared("edf.yaml", "edf (norm matched).yaml", "--matched")


def test_keys_that_a_method_does_not_read_are_said_once(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worker(lambda cell: results(0.5))
    Path("mine.yaml").write_text("method: mtt\nmatch.drop_ratio: 0.5\n")
    words = ("--methods", "edf,random", "--data", "scenes", "--ipc", "1,3", "--seeds", "0,1", "match.syn_steps=3")
    for more in ((), ("--show",)):  # whether or not anything is left to run
        cli.run(parsed(*words, *more))
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if "warning" in line] == ["warning: random does not read match.syn_steps"]
    cli.run(parsed("mine.yaml", "--data", "scenes", "--show"))
    assert capsys.readouterr().err.splitlines() == ["warning: mtt does not read match.drop_ratio"]


def test_a_failing_cell_leaves_the_table_and_fails_the_command(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worker(lambda cell: {} if cell.facts["method"] == "mtt" else results(0.5))
    words = ["compare", "--methods", "edf,mtt", "--data", "scenes", "--seeds", "0"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "failed: mtt-ipc1-seed0" in out
    assert err.splitlines()[-1].startswith("limbeck: failed: 1 cell failed: mtt-ipc1-seed0: ")
    assert main([*words, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["failed"].keys() == {"mtt-ipc1-seed0"} and out.count("\n") == 1
    assert err.splitlines()[-1].startswith("limbeck: failed: 1 cell failed: mtt-ipc1-seed0: ")
    assert json.loads(Path("runs/compare/comparison.json").read_text())["failed"].keys() == {"mtt-ipc1-seed0"}


def test_pairs_are_said_and_written(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worker(of_method)
    words = ("--methods", "edf,mtt,random", "--data", "scenes", "--seeds", "0,1", "--pairs", "mtt:random")
    found = cli.run(parsed(*words))
    cli.COMMAND.show(found)
    line = "mtt − random: +20.0 [+20.0, +20.0] points, 2 seeds"
    assert f"asked for: {line}" in capsys.readouterr().out
    assert f"\n- {line}" in Path("runs/compare/comparison.md").read_text()


def test_show_runs_nothing(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    started = worker(of_method)
    words = ("--methods", "edf,mtt", "--data", "scenes", "--seeds", "0,1")
    found = cli.run(parsed(*words, "--show"))
    assert starts(started) == [] and found.sections == () and len(found.left) == 4
    assert not Path("runs").exists()
    cli.run(parsed(*words, "--shard", "1/2"))
    found = cli.run(parsed(*words, "--show"))
    assert found.left == ("mtt-ipc1-seed0", "mtt-ipc1-seed1")
    cli.COMMAND.show(found)
    assert "cells to be run yet: 2;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("scenes:medium", "scenes"),
        ("scenes", "scenes"),
        ("cifar10.npz", "cifar10"),
        ("data/cifar-10-batches-py/", "cifar10"),
        ("cifar-100-python", None),
        ("/data/imagenette2-160/", "imagenette"),
        ("imagenet:imagenette", "imagenette"),
        ("imagenet:bird-hard", None),
        ("photos/", None),
        ("", None),
    ],
)
def test_recipes_of_a_source(source: str, folder: str | None) -> None:
    assert data_folder(source, recipe_names()) == folder


def test_how_a_method_becomes_a_recipe() -> None:
    data = {"data.source": "scenes:easy"}
    assert method_recipe("mtt", "scenes:easy", 1, None) == Entrant("mtt", "scenes/mtt-ipc1", 1, data)
    assert method_recipe("mtt", "scenes:easy", 10, None).recipe == "scenes/mtt-ipc3"
    assert method_recipe("new", "cifar10.npz", 1, None).overrides == {"method": "new", "data.source": "cifar10.npz"}
    based = method_recipe("mtt", None, 1, "imagenette/ConvNetD5/edf-ipc1")
    assert (based.recipe, based.overrides["method"]) == ("imagenette/ConvNetD5/edf-ipc1", "mtt")


@pytest.mark.parametrize("method", METHODS)
def test_a_base_of_edfs_hides_no_methods_own_settings(method: str) -> None:
    """Published EDF learns labels at its own rates, which `labels=hard` refuses and DM's step size is nothing like."""
    made = method_recipe(method, None, 1, "imagenette/ConvNetD5/edf-ipc1")
    held, base = load_recipe(made.recipe, made.overrides), load_recipe(made.recipe)
    assert held.method == method and held.eval == base.eval and held.network == base.network
    plain = settings_from_plain({"method": method})
    assert held.labels == plain.labels
    if method in ("dc", "dsa", "dm"):
        assert held.outer.lr_img == plain.outer.lr_img


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "RECIPE: give either recipes to compare, or --methods NAME,… with --data SOURCE"),
        (("scenes", "--methods", "edf"), "RECIPE: give either"),
        (("scenes", "--base", "scenes"), "--base: 'scenes' is not accepted without --methods"),
        (("scenes", "scenes"), "RECIPE: 'scenes' is given twice"),
        (("--methods", "edf,edf", "--data", "scenes"), "--methods: 'edf' is given twice"),
        (("--methods", ",", "--data", "scenes"), "--methods: ',' is not one or more methods"),
        (("--methods", "edf"), "--data: is missing"),
        (("--methods", "edf", "--data", "photos/"), "--data: there is no recipe for 'edf' on 'photos/'; name one to start from"),
        (("--methods", "edf,edv", "--data", "scenes"), "--methods: 'edv' is not one of edf, "),
        (("--methods", "mine:", "--data", "scenes"), "--methods: 'mine:' is not of the form package.module:METHOD"),
        (("scenes", "ipc=3"), "ipc: is what a comparison runs over; use --ipc"),
        (("scenes", "seed=3"), "seed: is what a comparison runs over; use --seeds"),
        (("scenes", "output=a"), "output: is what a comparison runs over; use --output"),
        (("--methods", "edf", "--data", "scenes", "method=mtt"), "method: is what a comparison runs over"),
        (("scenes", "--data", "a", "data.source=b"), "data.source: is given twice"),
        (("scenes", "--seeds", "0,0"), "--seeds: '0,0' is not one or more different whole numbers"),
        (("scenes", "--seeds", ""), "--seeds: '' is not one or more"),
        (
            ("scenes", "--seeds", "0,18446744073709551616"),
            "--seeds: '0,18446744073709551616' is not one or more different whole numbers from −2⁶³ to 2⁶⁴ − 1, joined by commas",
        ),
        (("scenes", "--seeds", "-9223372036854775809"), "--seeds: '-9223372036854775809' is not one or more different whole"),
        (("scenes", "--ipc", "0"), "--ipc: '0' is not one or more different whole numbers from 1"),
        (("scenes", "--vary", "ipc=1,3"), "ipc: is what a comparison runs over; use --ipc"),
        (("scenes", "--vary", "seed=1,3"), "seed: is what a comparison runs over; use --seeds"),
        (("scenes", "--vary", "match.drop_ratio"), "'match.drop_ratio' is not of the form key=value"),
        (("scenes", "--vary", "match.drop_ratio="), "--vary: 'match.drop_ratio=' is not of the form key=value,… with"),
        (("scenes", "--vary", "match.drop_ratio=0,0"), "--vary: 'match.drop_ratio=0,0' is not of the form"),
        (("scenes", "--vary", "enhance.beta=1,1.0"), "--vary: 'enhance.beta=1,1.0' is not of the form key=value,… with"),
        (("scenes", "--vary", "match.drop=0,1"), "match.drop: is not a key"),
        (("scenes", "--vary", "match.drop_ratio=0,1"), "match.drop_ratio: 1.0 is not in [0, 1)"),
        (
            ("scenes", "--vary", "data.size=16,32"),
            "data.size 32 in size=32 is not data.size 16 in size=16; a table has one for all",
        ),
        (
            ("scenes", "--vary", "match.drop_ratio=0,.5", "match.drop_ratio=.1"),
            "--vary: 'match.drop_ratio=0,.5' is not of a key that is set once; match.drop_ratio is set elsewhere too",
        ),
        (
            ("scenes", "--vary", "match.drop_ratio=0,.5", "--vary", "match.drop_ratio=.1"),
            "--vary: 'match.drop_ratio=.1' is not of a key that is set once",
        ),
        (("scenes", "--pairs", "edf:dm"), "--pairs: 'edf:dm' is not A:B,… with two different ones of scenes"),
        (
            ("--methods", "edf,dm", "--data", "scenes", "--pairs", "edf"),
            "--pairs: 'edf' is not A:B,… with two different ones of edf, dm",
        ),
        (
            ("--methods", "edf,dm", "--data", "scenes", "--pairs", "edf:dm,edf:dm"),
            "--pairs: 'edf:dm' is not a pair that is given once",
        ),
        (("scenes", "--pairs", ","), "--pairs: ',' is not one or more pairs"),
        (("scenes", "--jobs", "x"), "--jobs: 'x' is not one or more"),
        (("scenes", "--jobs", "1,2"), "--jobs: '1,2' is not one whole number"),
        (("scenes", "--shard", "3/2"), "--shard: '3/2' is not of the form i/n"),
        (("scenes", "--max-seconds", "soon"), "--max-seconds: 'soon' is not a number of seconds"),
        (
            ("scenes", "scenes/hard-edf-ipc3"),
            "data.source 'scenes:hard' in scenes/hard-edf is not data.source",
        ),
        (("nothing",), "recipe: 'nothing' is neither"),
    ],
)
def test_what_cannot_be_compared_is_said_and_nothing_run(worker: Any, words: tuple[str, ...], says: str) -> None:
    started = worker(of_method)
    if words[-1:] == ("scenes/hard-edf-ipc3",):
        words = (*words, "--ipc", "1")
    with pytest.raises(UsageError) as caught:
        cli.run(parsed(*words))
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)
    assert starts(started) == [] and not Path("runs").exists()

"""The table by numbers worked out by hand, and how names become grids."""

import json
import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from studies.fake_cells import accuracy, cell, command, results, starts

from limbeck.cli import compare as cli
from limbeck.cli.command import Parser
from limbeck.cli.grid import Entrant, data_folder, method_recipe
from limbeck.evaluation.settings import EvalSettings
from limbeck.experts.settings import ExpertSettings
from limbeck.figures.compare import comparison_figure
from limbeck.figures.style import BLUE, GREEN
from limbeck.matching.settings import MatchSettings
from limbeck.methods.registry import METHODS
from limbeck.methods.settings import DistillSettings
from limbeck.recipes import load_recipe, recipe_names
from limbeck.runtime.errors import Failure, UsageError
from limbeck.saliency.settings import EnhanceSettings
from limbeck.studies import matrix
from limbeck.studies.cells import Cell
from limbeck.studies.compare import check_alike, cost, has_parts, markdown, tabulate, verdict_text

NO_PARTS = DistillSettings(enhance=EnhanceSettings(weighting="none"))


def record(method: str, seed: int, mean: float, ipc: int = 1, **more: Any) -> dict[str, Any]:
    facts = {"method": method, "ipc": ipc, "seed": seed}
    return {**results(mean, **more), "recipe": f"scenes/{method}-ipc1", "facts": facts}


def three(method: str, *means: float, **more: Any) -> list[dict[str, Any]]:
    return [record(method, seed, mean, **more) for seed, mean in enumerate(means)]


def two_sided_p(t: float) -> float:
    """Of Student's t with two degrees of freedom, in closed form."""
    return 1 - abs(t) / math.sqrt(t * t + 2)


# The table


def test_rows_and_differences_by_hand() -> None:
    records = [*three("edf", 0.5, 0.6, 0.7), *three("datm", 0.4, 0.45, 0.5), *three("mtt", 0.49, 0.62, 0.69)]
    (table,) = tabulate(records)
    assert (table["ipc"], table["network"]) == (1, "ConvNetD3-w16")
    edf, datm, mtt = table["rows"]
    half = 4.302653 * 0.1 / math.sqrt(3)  # t_{0.975, 2}
    assert edf["accuracy"]["mean"] == pytest.approx(0.6)
    assert edf["accuracy"]["ci95"] == [pytest.approx(0.6 - half, abs=1e-6), pytest.approx(0.6 + half, abs=1e-6)]
    assert edf["accuracy"]["values"] == [0.5, 0.6, 0.7] and edf["seeds"] == [0, 1, 2]
    assert datm["recovery_ratio"] == pytest.approx(0.45 / 0.8)
    assert mtt["skipped_share"] == 0.25
    assert {kind: summary["mean"] for kind, summary in table["reference"].items()} == pytest.approx({"random": 0.2, "full": 0.8})
    first, second = table["differences"]
    # −0.1, −0.15, −0.2: s = 0.05, t = −0.15 √3 / 0.05; −0.01, 0.02, −0.01: mean 0.
    p = two_sided_p(0.15 * math.sqrt(3) / 0.05)
    assert (first["a"], first["b"], first["n"]) == ("datm", "edf", 3)
    assert first["mean"] == pytest.approx(-0.15)
    assert first["ci95"] == [pytest.approx(-0.15 - 0.1242, abs=1e-4), pytest.approx(-0.15 + 0.1242, abs=1e-4)]
    assert first["p"] == pytest.approx(p)
    assert first["p_adjusted"] == pytest.approx(2 * p)  # two comparisons
    assert 0.05 < 2 * p < 0.1
    assert first["verdict"] == "undecided" and first["seeds_needed"] == 4
    assert second["mean"] == pytest.approx(0, abs=1e-12) and second["p_adjusted"] == pytest.approx(1)
    assert second["seeds_needed"] is None


def test_a_verdict_falls_where_the_adjusted_p_decides() -> None:
    (table,) = tabulate([*three("mtt", 0.50, 0.60, 0.70), *three("dm", 0.40, 0.51, 0.60), *three("tesla", 0.61, 0.70, 0.80)])
    verdicts = {one["a"]: (one["verdict"], one["seeds_needed"]) for one in table["differences"]}
    assert verdicts == {"dm": ("worse", None), "tesla": ("better", None)}


def test_equal_differences_are_no_proof() -> None:
    (table,) = tabulate([*three("a", 0.5, 0.5, 0.5), *three("b", 0.75, 0.75, 0.75)])
    (one,) = table["differences"]
    assert one["p"] == 0.0 and one["p_adjusted"] == 0.25  # 2 of 8 sign patterns
    assert verdict_text(one) == "undecided"  # and no number of seeds follows from no spread


def test_pairs_are_adjusted_for_their_own_number() -> None:
    records = [*three("edf", 0.5, 0.6, 0.7), *three("mtt", 0.49, 0.62, 0.69), *three("dm", 0.30, 0.36, 0.48)]
    (table,) = tabulate(records, [("mtt", "dm"), ("dc", "random")])
    (one,) = table["pairs"]  # dc is not there yet
    # 0.19, 0.26, 0.21: mean 0.22, s = √0.0013.
    assert (one["a"], one["b"]) == ("mtt", "dm") and one["mean"] == pytest.approx(0.22)
    assert one["p_adjusted"] == one["p"] == pytest.approx(two_sided_p(0.22 * math.sqrt(3 / 0.0013)))
    assert one["verdict"] == "better"
    (table,) = tabulate(records, [("mtt", "dm"), ("dm", "edf")])
    mtt, dm = table["pairs"]
    assert mtt["p_adjusted"] == pytest.approx(2 * min(mtt["p"], dm["p"])) or dm["p"] < mtt["p"]
    assert dm["verdict"] == "worse" and table["differences"][1]["verdict"] == "worse"


def test_only_seeds_that_both_have_are_paired() -> None:
    records = [record("a", 0, 0.5), record("a", 2, 0.6), record("b", 1, 0.9), record("b", 2, 0.7), record("c", 5, 0.1)]
    (table,) = tabulate(records)
    assert [row["accuracy"]["n"] for row in table["rows"]] == [2, 2, 1]
    (one,) = table["differences"]
    assert (one["a"], one["seeds"], one["p_adjusted"], one["verdict"]) == ("b", [2], None, "undecided")
    assert one["mean"] == pytest.approx(0.1)


def test_numbers_of_images_and_networks_have_tables_of_their_own() -> None:
    other = {"networks": {"ResNet18": {"accuracy": {"distilled": accuracy(0.3), "full": accuracy(0.9)}}}}
    records = [record("a", 0, 0.5, ipc=3), *three("a", 0.5, 0.6, **other), *three("b", 0.7, 0.8, **other)]
    tables = tabulate(records)
    assert [(table["ipc"], table["network"]) for table in tables] == [(1, "ConvNetD3-w16"), (1, "ResNet18"), (3, "ConvNetD3-w16")]
    assert tables[1]["rows"][0]["accuracy"]["values"] == [0.3, 0.3]
    assert "random" not in tables[1]["reference"] and tables[1]["rows"][0]["recovery_ratio"] == pytest.approx(1 / 3)


def test_a_method_on_another_network_is_compared_where_both_were_evaluated() -> None:
    elsewhere = {"networks": {"ConvNetD3-w16": {"accuracy": {"distilled": accuracy(0.4)}}}, "network": "ResNet18BN"}
    (table,) = tabulate([record("a", 0, 0.5), record("b", 0, 0.9, **elsewhere)])
    assert table["network"] == "ConvNetD3-w16"
    assert [row["accuracy"]["mean"] for row in table["rows"]] == [0.5, 0.4]
    (table,) = tabulate([record("a", 0, 0.5), record("b", 0, 0.9, network="ResNet18BN")])
    assert table["network"] == "" and [row["accuracy"]["mean"] for row in table["rows"]] == [0.5, 0.9]


def test_cost_leaves_experts_and_evaluation_out() -> None:
    trained = {"seconds": {"experts": 30.0, "initial": 2.0, "distil": 8.0, "evaluate": 5.0}}
    trained["cpu_seconds"] = {"experts": 40.0, "initial": 1.0, "distil": 8.0, "evaluate": 9.0}
    trained["peak_memory"] = {"experts": 500, "initial": 500, "distil": 500, "evaluate": 900}  # type: ignore[assignment]
    found = cost([record("a", 0, 0.5, **trained), record("a", 1, 0.5)])
    assert found["seconds"] == {
        "distil": pytest.approx(7.5),
        "distil_cpu": pytest.approx(9.0),
        "evaluate": pytest.approx(3.5),
        "experts": 30.0,
    }
    assert found["peak_memory"] == {"bytes": 300, "bound": False}  # the second cell found its experts trained
    assert cost([record("a", 0, 0.5, **trained)])["peak_memory"] == {"bytes": 500, "bound": True}
    selected = cost([record("a", 0, 0.5, seconds={"select": 3.0, "evaluate": 1.0}, peak_memory={"select": 70, "evaluate": 90})])
    assert selected == {
        "seconds": {"distil": 3.0, "distil_cpu": None, "evaluate": 1.0, "experts": 0.0},
        "peak_memory": {"bytes": 70, "bound": False},
    }
    assert cost([record("a", 0, 0.5, seconds={}, peak_memory=None)])["peak_memory"] is None


def test_gradient_facts_are_means_over_the_cells_that_have_them() -> None:
    records = [
        record("a", 0, 0.5, comparison={"cosine": 0.9, "norm_ratio": 1.2, "n": 4}),
        record("a", 1, 0.5, comparison={"cosine": 0.7, "norm_ratio": 1.0, "n": 4}),
        record("b", 0, 0.5, comparison={}, skipped_share=None),
    ]
    a, b = tabulate(records)[0]["rows"]
    assert a["comparison"] == {"cosine": pytest.approx(0.8), "norm_ratio": pytest.approx(1.1)}
    assert b["comparison"] == {} and b["skipped_share"] is None


def test_markdown_says_it_all() -> None:
    rows = [*three("edf", 0.5, 0.6, 0.7, comparison={"cosine": 0.98, "norm_ratio": 1.1}), *three("datm", 0.4, 0.45, 0.5)]
    text = markdown({"title": "edf, datm", "tables": tabulate(rows), "notes": ["x"], "failed": {"c": "why"}, "left": ["d", "e"]})
    lines = text.splitlines()
    edf = next(line for line in lines if line.startswith("| edf"))
    assert edf == "| edf | 60.0 ± 24.8 | 3 | – | – |  | 0.980, × 1.10 | 25 % | 5 s | 0 MiB |"
    datm = next(line for line in lines if line.startswith("| datm"))
    p = two_sided_p(0.15 * math.sqrt(3) / 0.05)
    assert datm.startswith(f"| datm | 45.0 ± 12.4 | 3 | −15.0 [−27.4, −2.6] | {p:.3g} | worse | – |")
    assert "| full data | 80.0 | 1 | | | | | | | |" in lines
    assert all(line.count("|") == 11 for line in lines if line.startswith("|"))
    assert text.endswith("- failed: c: why\ncells to be run yet (2): d, e\n")


def test_empty_and_single_results() -> None:
    assert tabulate([]) == []
    assert comparison_figure([]) is None
    (table,) = tabulate([record("a", 0, 0.5)])
    assert table["differences"] == [] and table["rows"][0]["accuracy"]["ci95"] is None
    assert "| a | 50.0 | 1 | – | – |" in markdown({"title": "a", "tables": [table], "notes": [], "failed": {}, "left": []})


def test_a_long_name_makes_the_figure_wider() -> None:
    # Or the line below the panel, which is as wide as the panel, would be cut.
    widths = []
    for name in ("edf", "weighting=activation criterion=loss"):
        figure = comparison_figure(tabulate([record(name, 0, 0.5)]))
        assert figure is not None
        figure.canvas.draw()
        box = figure.axes[0].xaxis.label.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        widths.append(figure.get_figwidth())
    assert widths[0] < widths[1]


def test_figure_shows_means_intervals_and_references() -> None:
    tables = tabulate([*three("edf", 0.5, 0.6, 0.7), *three("datm", 0.4, 0.45, 0.5), record("edf", 0, 0.9, ipc=3)])
    figure = comparison_figure(tables)
    assert figure is not None
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["edf", "datm"]
    points = [np.asarray(found.get_offsets()).tolist() for found in first.collections if hasattr(found, "get_offsets")]
    assert [[60.0, 0.0]] in [np.round(found, 6).tolist() for found in points]
    segments = [np.asarray(found.get_segments()) for found in first.collections if hasattr(found, "get_segments")]
    assert segments[0][0][:, 0] == pytest.approx([100 * end for end in tables[0]["rows"][0]["accuracy"]["ci95"]])
    assert to_hex(first.collections[0].get_facecolor()[0]) == BLUE  # type: ignore[index]
    full = [line for line in first.get_lines() if to_hex(line.get_color()) == GREEN]
    assert np.asarray(full[0].get_xdata()).tolist() == pytest.approx([80.0, 80.0])
    assert len(second.get_yticklabels()) == 1


# What may be compared


def alike(**changes: Any) -> list[Cell]:
    settings = replace(DistillSettings(), **changes)
    return [cell("a"), cell("b", settings=settings)]


def test_other_data_or_evaluation_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^eval.epochs 300 in b is not eval.epochs None in a; eval.epochs=… sets it for all$"):
        check_alike(alike(eval=EvalSettings(epochs=300)))
    with pytest.raises(UsageError, match="^data.zca True in b"):
        check_alike(alike(data=replace(DistillSettings().data, zca=True)))
    assert check_alike(alike(eval=EvalSettings(every=7, networks="ResNet18"), ipc=1)) == []


def test_other_experts_are_noted_where_both_read_them() -> None:
    gsam = ExpertSettings(optimiser="gsam")
    assert check_alike(alike(experts=gsam, method="ftd")) == ["experts.optimiser 'gsam' in b, experts.optimiser 'sgd' in a"]
    hard = {"labels": "hard", "outer": replace(DistillSettings().outer, lr_label=0.0)}
    assert check_alike(alike(experts=gsam, method="random", **hard)) == []
    assert check_alike(alike(network="ConvNetD4")) == ["network 'ConvNetD4' in b, network 'ConvNetD3' in a"]
    assert check_alike([cell("a"), cell("b", seed=1, settings=DistillSettings(network="ConvNetD4"))]) == []  # never side by side


def test_which_methods_change_the_gradient() -> None:
    assert has_parts(DistillSettings())
    assert not has_parts(NO_PARTS)
    assert has_parts(replace(NO_PARTS, match=MatchSettings(drop_ratio=0.25)))
    assert not has_parts(replace(NO_PARTS, match=MatchSettings(drop_ratio=0.25, criterion="none")))


# The command


def parsed(*words: str) -> Namespace:
    parser = Parser(prog="limbeck compare")
    cli.COMMAND.add_arguments(parser)
    return parser.parse_intermixed_args(list(words))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[Cell], dict[str, Any]]], Path]:
    """Let cells be fake ones with these results; where they note themselves."""
    monkeypatch.chdir(tmp_path)
    whole = matrix.run_matrix

    def use(result: Callable[[Cell], dict[str, Any]]) -> Path:
        started = tmp_path / "started.jsonl"
        monkeypatch.setattr(matrix, "run_matrix", partial(whole, command=command(started, result=result)))
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
    (table,) = found["tables"]
    assert [row["method"] for row in table["rows"]] == ["edf", "edf (norm matched)", "mtt", "random"]
    assert table["rows"][2]["accuracy"]["values"] == [pytest.approx(0.4), pytest.approx(0.41)]
    assert json.loads(Path("runs/compare/comparison.json").read_text())["tables"][0]["ipc"] == 3
    assert Path("runs/compare/comparison.md").read_text().startswith("# edf, mtt, random on scenes:hard\n")
    assert Path("runs/compare/comparison.png").read_bytes().startswith(b"\x89PNG")
    cli.show(found)
    out = capsys.readouterr().out
    assert "mtt − edf: −10.0 [−10.0, −10.0] points, 2 seeds, p" in " ".join(out.split())
    cli.run(parsed(*words))
    assert len(starts(started)) == 8


def test_recipes_side_by_side(worker: Any) -> None:
    worker(lambda cell: results(0.5))
    found = cli.run(parsed("scenes/edf-ipc1", "scenes/mtt-ipc1", "--seeds", "4", "--output", "out"))
    assert [row["method"] for row in found["tables"][0]["rows"]] == ["scenes/edf", "scenes/mtt"]
    assert sorted(path.name for path in Path("out/cells").iterdir()) == ["scenes-edf-ipc1-seed4.json", "scenes-mtt-ipc1-seed4.json"]


def test_every_combination_of_values(worker: Any) -> None:
    started = worker(lambda cell: results(0.5 - 0.1 * (cell.settings.enhance.weighting == "none")))
    ways = ("--vary", "enhance.weighting=activation,none", "--vary", "match.drop_ratio=.25,0")
    found = cli.run(parsed("scenes/hard-edf-ipc3", *ways, "--seeds", "0", "outer.iterations=9"))
    first = "weighting-activation-drop_ratio-.25-ipc3-seed0"
    assert [start["cell"] for start in starts(started)][0] == first and len(starts(started)) == 4
    held = json.loads(Path(f"runs/compare/cells/{first}.json").read_text())
    own = {"enhance.weighting": "activation", "match.drop_ratio": ".25"}
    assert held["overrides"] == {**own, "ipc": "3", "seed": "0", "outer.iterations": "9"}
    rows = found["tables"][0]["rows"]
    assert [row["method"] for row in rows] == [
        "weighting=activation drop_ratio=.25",
        "weighting=activation drop_ratio=0",
        "weighting=none drop_ratio=.25",
        "weighting=none drop_ratio=0",
    ]
    assert [row["accuracy"]["mean"] for row in rows] == [0.5, 0.5, 0.4, 0.4]
    lists = ("scenes", "--vary", "experts.rate_milestones=[0.5],[0.5,0.75]", "--seeds", "0", "--show")
    assert cli.run(parsed(*lists))["left"] == [f"rate_milestones-{end}-ipc1-seed0" for end in ("0.5-", "0.5-0.75-")]
    assert cli.values_of('[0,1], ["2, 3", 4],5,,"a,b"') == ["[0,1]", '["2, 3", 4]', "5", '"a,b"']
    words = ("--methods", "edf,mtt", "--data", "scenes", "--vary", "match.syn_steps=2,3", "--seeds", "0", "--show")
    assert cli.run(parsed(*words))["left"] == [f"{name}-syn_steps-{n}-ipc1-seed0" for name in ("edf", "mtt") for n in (2, 3)]


def test_a_failing_cell_leaves_the_table_and_fails_the_command(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worker(lambda cell: {} if cell.facts["method"] == "mtt" else results(0.5))
    with pytest.raises(Failure, match="^1 of 2 cells failed: mtt-ipc1-seed0: "):
        cli.run(parsed("--methods", "edf,mtt", "--data", "scenes", "--seeds", "0"))
    assert "failed: mtt-ipc1-seed0" in capsys.readouterr().out
    assert json.loads(Path("runs/compare/comparison.json").read_text())["failed"].keys() == {"mtt-ipc1-seed0"}


def test_pairs_are_said_and_written(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worker(of_method)
    words = ("--methods", "edf,mtt,random", "--data", "scenes", "--seeds", "0,1", "--pairs", "mtt:random")
    found = cli.run(parsed(*words))
    cli.show(found)
    line = "mtt − random: +20.0 [+20.0, +20.0] points, 2 seeds"
    assert f"asked for: {line}" in capsys.readouterr().out
    assert f"\n- {line}" in Path("runs/compare/comparison.md").read_text()


def test_show_runs_nothing(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    started = worker(of_method)
    words = ("--methods", "edf,mtt", "--data", "scenes", "--seeds", "0,1")
    found = cli.run(parsed(*words, "--show"))
    assert starts(started) == [] and found["tables"] == [] and len(found["left"]) == 4
    assert not Path("runs").exists()
    cli.run(parsed(*words, "--shard", "1/2"))
    found = cli.run(parsed(*words, "--show"))
    assert found["left"] == ["mtt-ipc1-seed0", "mtt-ipc1-seed1"]
    cli.show(found)
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
    plain = load_recipe("scenes/random-ipc1", {"method": method})
    assert held.labels == plain.labels
    if method in ("dc", "dsa", "dm"):
        assert held.outer.lr_img == plain.outer.lr_img


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "RECIPE: give either recipes to compare, or --methods NAME,… with --data SOURCE"),
        (("scenes", "--methods", "edf"), "RECIPE: give either"),
        (("scenes", "--base", "scenes"), "--base: 'scenes' is not an option without --methods"),
        (("scenes", "scenes"), "RECIPE: 'scenes' is given twice"),
        (("--methods", "edf,edf", "--data", "scenes"), "--methods: 'edf' is given twice"),
        (("--methods", ",", "--data", "scenes"), "--methods: ',' is not one or more methods"),
        (("--methods", "edf"), "--data: is missing"),
        (("--methods", "edf", "--data", "photos/"), "--data: there is no recipe for 'edf' on 'photos/'; name one to start from"),
        (("--methods", "edv", "--data", "scenes"), "method: 'edv' is not one of"),
        (("scenes", "ipc=3"), "ipc: is what a comparison runs over; use --ipc"),
        (("scenes", "seed=3"), "seed: is what a comparison runs over; use --seeds"),
        (("scenes", "output=a"), "output: is what a comparison runs over; use --output"),
        (("--methods", "edf", "--data", "scenes", "method=mtt"), "method: is what a comparison runs over"),
        (("scenes", "--data", "a", "data.source=b"), "data.source: is given twice"),
        (("scenes", "--seeds", "0,0"), "--seeds: '0,0' is not one or more different whole numbers"),
        (("scenes", "--seeds", ""), "--seeds: '' is not one or more"),
        (("scenes", "--ipc", "0"), "--ipc: '0' is not one or more different whole numbers from 1"),
        (("scenes", "--vary", "ipc=1,3"), "ipc: is what a comparison runs over; use --ipc"),
        (("scenes", "--vary", "seed=1,3"), "seed: is what a comparison runs over; use --seeds"),
        (("scenes", "--vary", "match.drop_ratio"), "'match.drop_ratio' is not of the form key=value"),
        (("scenes", "--vary", "match.drop_ratio="), "--vary: 'match.drop_ratio=' is not of the form key=value,… with"),
        (("scenes", "--vary", "match.drop_ratio=0,0"), "--vary: 'match.drop_ratio=0,0' is not of the form"),
        (("scenes", "--vary", "match.drop=0,1"), "match.drop: is not a key"),
        (("scenes", "--vary", "match.drop_ratio=0,1"), "match.drop_ratio: 1.0 is not in [0, 1)"),
        (("scenes", "--vary", "data.size=16,32"), "data.size 32 in size=32 is not data.size 16 in size=16"),
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

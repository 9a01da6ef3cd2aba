"""The table by numbers worked out by hand, its text and figure, and what may be compared."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from studies.fake_cells import accuracy, cell, results

from limbeck.accuracy import Comparison
from limbeck.evaluation.scores import Doubt
from limbeck.evaluation.settings import EvalSettings
from limbeck.figures.comparisons import comparison_figure
from limbeck.figures.style import BLUE, GREEN
from limbeck.matching.settings import MatchSettings
from limbeck.report import of_grids
from limbeck.report.of_grids import methods
from limbeck.report.of_runs import BEST
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import write_json
from limbeck.saliency.settings import EnhanceSettings
from limbeck.studies import table as tables_of
from limbeck.studies.cells import Cell, CellFolder, CellRecord, doubts_of
from limbeck.studies.compare import check_alike
from limbeck.studies.cost import Cost
from limbeck.studies.entrants import has_parts
from limbeck.studies.table import Section, Table

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
NO_PARTS = DistillSettings(enhance=EnhanceSettings(weighting="none"))


def record(method: str, seed: int, mean: float, ipc: int = 1, **more: Any) -> dict[str, Any]:
    facts = {"method": method, "ipc": ipc, "seed": seed}
    return {**results(mean, **more), "recipe": f"scenes/{method}-ipc1", "facts": facts}


def three(method: str, *means: float, **more: Any) -> list[dict[str, Any]]:
    return [record(method, seed, mean, **more) for seed, mean in enumerate(means)]


def tabulate(records: list[dict[str, Any]], pairs: Sequence[tuple[str, str]] = ()) -> list[dict[str, Any]]:
    """In JSON's types."""
    return [section.to_dict() for section in tables_of.tabulate(list(map(CellRecord.from_dict, records)), pairs)]


def markdown(results: dict[str, Any]) -> str:
    return Table.from_dict({"data": "scenes", "seeds": [0], **results}).markdown


def cost(records: list[dict[str, Any]]) -> dict[str, Any]:
    return Cost.of(list(map(CellRecord.from_dict, records))).to_dict()


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
    assert Comparison.from_dict(one).judgement == "undecided"  # and no number of seeds follows from no spread


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


def test_nothing_is_compared_with_itself() -> None:
    with pytest.raises(UsageError, match=r"^pairs: \('edf', 'edf'\) is not a pair of two different methods$"):
        tabulate(three("edf", 0.5, 0.6), [("edf", "edf")])


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
    assert f"| full data | 80.0 | 1 |{'  |' * 7}" in lines
    assert all(line.count("|") == 11 for line in lines if line.startswith("|"))
    assert text.endswith("- failed: c: why\ncells to be run yet (2): d, e\n")


def test_tables_say_how_step_sizes_were_come_by_and_what_is_no_measure(tmp_path: Path) -> None:
    def measured(method: str, seed: int, origin: str, *kinds: str) -> CellRecord:
        one = {"mean": 0.5, "n": 1, "lr": 0.1, "lr_from": origin, "lr_tried": [0.1, 0.2]}
        made = cell(method, seed=seed)
        doubts = [{"kind": kind, "text": f"{kind} {seed}"} for kind in kinds]
        networks = {"MLP": {"accuracy": {"distilled": one}, "doubts": doubts}}
        accuracy = {"distilled": one, "random": {**one, "lr_from": "validation"}, "full": {**one, "lr_from": "given"}}
        held = results(accuracy=accuracy, doubts=doubts, networks=networks)
        return CellFolder(tmp_path).write(made, CellRecord.from_dict(held))

    methods = (("edf", "own", ()), ("dm", "validation", ("chance",)))
    records = {f"{name}{n}": measured(name, n, origin, *kinds) for name, origin, kinds in methods for n in (0, 1)}
    doubts = doubts_of(records)
    assert doubts == (Doubt(kind="chance", text="chance 0", where=("dm0", "dm1", "dm0, MLP", "dm1, MLP")),)
    table = Table(title="x", data="y", sections=tables_of.tabulate(list(records.values())), doubts=doubts)
    said = "step sizes: edf: its own; dm, random real images: the best of 2 on validation images; full data: given"
    assert f"- {said}" in table.markdown and said in " ".join(str(table).split())
    assert "- warning: chance 0 (dm0, dm1 and 2 more)" in table.markdown and "warning: chance 0 (dm0, dm1 and 2 more)" in str(table)
    assert Table.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_networks_that_diverged_are_counted_over_seeds(tmp_path: Path) -> None:
    def measured(method: str, seed: int, mean: float, failed: int | None) -> dict[str, Any]:
        held = record(method, seed, mean)
        held["accuracy"]["distilled"] |= {"n": 2, "values": [mean] * 2, "failed": failed}
        held["accuracy"]["full"] |= {"n": 2, "failed": 1}  # the same networks in every cell
        return held

    cells = [measured("edf", seed, 0.5, seed or None) for seed in range(3)]
    cells += [measured("datm", seed, 0.0, 2) for seed in range(3)]
    (section,) = tables_of.tabulate(list(map(CellRecord.from_dict, cells)))
    edf, datm = section.rows
    assert (edf.accuracy.failed, edf.accuracy.failed_of, edf.accuracy.n) == (3, 6, 3) and not edf.accuracy.all_failed
    assert (datm.accuracy.failed, datm.accuracy.failed_of, datm.accuracy.n) == (6, 6, 3) and datm.accuracy.all_failed
    table = Table(title="t", data="d", sections=(section,))
    said = [
        "edf: training failed of 3 of 6 networks, which diverged and count as 0 %",
        "datm: training failed of 6 of 6 networks, which diverged and count as 0 %",
        "full data: training failed of 1 of 2 networks, which diverged and count as 0 %",
    ]
    assert list(section.failures) == said
    assert "| datm | failed | 3 |" in table.markdown and "| edf | 50.0 ± 0.0 | 3 |" in table.markdown
    for one in said:
        assert f"- warning: {one}\n" in table.markdown
        assert f"warning: {one}" in " ".join(str(table).split()) and f"warning: {one}" in table._repr_html_()
    held = json.loads(json.dumps(table.to_dict()))
    assert [row["accuracy"]["failed"] for row in held["tables"][0]["rows"]] == [3, 6] and Table.from_dict(held) == table
    write_json(tmp_path / "comparison.json", table, tables_of.COMPARISON)
    assert {f"1 image per class, ConvNetD3-w16: {one}" for one in said} <= {*of_grids.comparison(tmp_path).warnings}
    assert "failed" not in tabulate(three("edf", 0.5, 0.6))[0]["rows"][0]["accuracy"]


def test_what_is_best_on_test_is_said_and_decides_nothing() -> None:
    def measured(method: str, seed: int, mean: float, best: float | None) -> CellRecord:
        one = {"mean": mean, "n": 2, **({} if best is None else {"best_on_test": {"mean": best, "n": 2}})}
        held = results(accuracy={"distilled": one, "random": {"mean": 0.2, "best_on_test": {"mean": 0.25}}, "full": {"mean": 0.8}})
        return CellRecord.from_dict({**held, "facts": {"method": method, "ipc": 1, "seed": seed}})

    shown = [
        measured("ncfm", 0, 0.5, 0.7),
        measured("ncfm", 1, 0.5, 0.9),
        measured("edf", 0, 0.6, 0.6),
        measured("edf", 1, 0.6, None),
    ]
    (section,) = tables_of.tabulate(shown)
    ncfm, edf = section.rows
    assert ncfm.accuracy.mean == 0.5 and ncfm.accuracy.best_on_test is not None
    assert ncfm.accuracy.best_on_test.mean == pytest.approx(0.8) and edf.accuracy.best_on_test is None
    assert section.differences[0].mean == pytest.approx(0.1)
    (said,) = [one for one in section.said if one.startswith("best on test (optimistic")]
    assert "ncfm 80.0 ± 127.1, random real images 25.0" in said and "edf" not in said
    table = Table(title="x", data="y", sections=(section,))
    assert said in table.markdown and said in " ".join(str(table).split()) and said in table._repr_html_()
    assert Table.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    cells = methods((section,))
    (at,) = [k for k, column in enumerate(cells.columns) if column.title == BEST]
    assert [row.cells[at].text for row in cells.rows] == ["80.0", "–", "25.0", "–"]


def test_cells_that_fail_for_one_reason_are_one_line() -> None:
    failed = {f"c{n}": f"expert {n} diverged (status 1; logs/c{n}.log has all it said)" for n in range(9)}
    failed["d"] = "its process was killed"
    text = markdown({"title": "a", "tables": [], "notes": [], "failed": failed, "left": []})
    lines = [line for line in text.splitlines() if "failed" in line]
    assert lines == ["- failed: c0, c1 and 7 more: " + failed["c0"], "- failed: d: its process was killed"]


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
        figure = comparison_figure(list(map(Section.from_dict, tabulate([record(name, 0, 0.5)]))))
        assert figure is not None
        figure.canvas.draw()
        box = figure.axes[0].xaxis.label.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        widths.append(figure.get_figwidth())
    assert widths[0] < widths[1]


def test_figure_shows_means_intervals_and_references() -> None:
    tables = tabulate([*three("edf", 0.5, 0.6, 0.7), *three("datm", 0.4, 0.45, 0.5), record("edf", 0, 0.9, ipc=3)])
    figure = comparison_figure(list(map(Section.from_dict, tables)))
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


def test_a_table_shows_itself_and_survives_its_file() -> None:
    rows = [*three("edf", 0.5, 0.6, 0.7), *three("<b>[red]", 0.4, 0.45, 0.5)]
    table = Table.from_dict({"title": "t", "data": "d", "seeds": [0, 1, 2], "tables": tabulate(rows, [("<b>[red]", "edf")])})
    assert table.table() is table and table["edf"].accuracy.mean == pytest.approx(0.6)
    assert (table.ipc, table.network, table.rows[1].method) == (1, "ConvNetD3-w16", "<b>[red]")
    for one in (table, Table(title="none finished", data="d", sections=())):
        with pytest.raises(KeyError, match="edv"):
            one["edv"]
    shown = str(table)
    assert "│ <b>[red] " in shown and "45.0 ± 12.4" in shown
    assert "asked for: <b>[red] − edf: −15.0 [−27.4, −2.6] points, 3 seeds, p" in shown
    page = table._repr_html_()
    assert "<td>&lt;b&gt;[red]</td><td>45.0 ± 12.4</td><td>3</td><td>−15.0 [−27.4, −2.6]</td>" in page
    assert Table.from_dict(json.loads(json.dumps(table.to_dict()))) == table


@pytest.mark.parametrize("name", ["compare-cifar10-ipc1", "compare-scenes-medium"])
def test_kept_comparisons_are_read(name: str) -> None:
    held = json.loads((RESULTS / name / "comparison.json").read_text())
    table = Table.read(RESULTS / name)
    again = table.to_dict()
    for one, other in zip(held["tables"], again["tables"], strict=True):
        assert {"pairs": [], **one} == other
    text = (RESULTS / name / "comparison.md").read_text()
    assert table.markdown.replace("  |", " |") == text.replace("  |", " |")


# What may be compared


def alike(**changes: Any) -> list[Cell]:
    settings = DistillSettings.of(**changes)
    return [cell("a"), cell("b", settings=settings)]


def test_other_data_or_evaluation_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^eval.epochs 300 in b is not eval.epochs None in a; eval.epochs=… sets it for all$"):
        check_alike(alike(eval=EvalSettings(epochs=300)))
    with pytest.raises(UsageError, match="^data.zca True in b"):
        check_alike(alike(data=replace(DistillSettings().data, zca=True)))
    assert check_alike(alike(eval=EvalSettings(every=7, networks="ResNet18"), ipc=1)) == []


def test_other_experts_are_noted_where_both_read_them() -> None:
    gsam = {"optimiser": "gsam"}
    said = ["experts.optimiser 'gsam' in b, experts.optimiser 'sgd' in a", "experts.alpha 0.4 in b, experts.alpha 0.3 in a"]
    crop = ["augment.crop_ratio 0.125 in b, augment.crop_ratio 0.25 in a"]
    assert check_alike(alike(method="ftd")) == crop + said
    assert check_alike(alike(experts=gsam, method="random")) == crop
    assert check_alike(alike(network="ConvNetD4")) == ["network 'ConvNetD4' in b, network 'ConvNetD3' in a"]
    wide = DistillSettings(network="ConvNetD3-w64")
    three = [cell("a"), *(cell(name, settings=wide) for name in "bcd"), cell("e", settings=DistillSettings(network="ConvNetD4"))]
    many = ["network 'ConvNetD3-w64' in b and c and d, network 'ConvNetD4' in e, network 'ConvNetD3' in a"]
    assert check_alike(three) == many  # a sentence for a key, however many methods there are
    assert check_alike([cell("a"), cell("b", seed=1, settings=DistillSettings(network="ConvNetD4"))]) == []  # never side by side


def test_which_methods_change_the_gradient() -> None:
    assert has_parts(DistillSettings())
    assert not has_parts(NO_PARTS)
    assert has_parts(replace(NO_PARTS, match=MatchSettings(drop_ratio=0.25)))
    assert not has_parts(replace(NO_PARTS, match=MatchSettings(drop_ratio=0.25, criterion="none")))

"""Recovery ratios and what they decide by numbers worked out by hand, in tables, text and figure."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from limbeck.evaluation.statistics import compare_unpaired, seeds_needed, summarise
from limbeck.figures.comparisons import recovery_figure
from limbeck.figures.style import BLUE, ORANGE
from limbeck.studies import recovery
from limbeck.studies.cells import CellRecord
from limbeck.studies.recovery import Levels, Order, Recovery

LEVELS = ("easy", "medium", "hard")
FULL = {"easy": [0.7, 0.9], "medium": [0.5], "hard": [0.4]}  # means 0.8, 0.5, 0.4


def record(level: str, seed: int, mean: float, *, method: str = "edf", category: str = "bird", ipc: int = 1) -> dict[str, Any]:
    facts = {"subset": f"{category}-{level}", "category": category, "level": level, "method": method, "ipc": ipc, "seed": seed}
    accuracy = {"distilled": summarise([mean]), "random": summarise([0.1 + 0.01 * seed]), "full": summarise(FULL[level])}
    return {"facts": facts, "accuracy": {name: found.to_dict() for name, found in accuracy.items()}}


def tabulate(levels: tuple[str, ...], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In JSON's types."""
    return [table.to_dict() for table in recovery.tabulate(levels, list(map(CellRecord.from_dict, records)))]


def figure_of(tables: list[dict[str, Any]], levels: tuple[str, ...]) -> Any:
    return recovery_figure(list(map(Levels.from_dict, tables)), levels)


def verdict_text(one: dict[str, Any]) -> str:
    return str(Order.from_dict(one))


def seeds(level: str, *means: float, **more: Any) -> list[dict[str, Any]]:
    return [record(level, seed, mean, **more) for seed, mean in enumerate(means)]


def two_sided_p(t: float) -> float:
    """Of Student's t with two degrees of freedom, in closed form."""
    return 1 - abs(t) / math.sqrt(t * t + 2)


def only(records: list[dict[str, Any]]) -> dict[str, Any]:
    (table,) = tabulate(LEVELS, records)
    return table


def test_cells_and_columns_by_hand() -> None:
    # The harder level comes first, as it may where it is finished first.
    table = only([*seeds("hard", 0.1, 0.2, 0.3), *seeds("easy", 0.4, 0.48, 0.56), *seeds("easy", 0.2, method="random")])
    assert [column["subset"] for column in table["columns"]] == ["bird-easy", "bird-hard"]
    easy, hard = table["columns"]
    assert easy["full"] == {"mean": pytest.approx(0.8), "std": pytest.approx(0.2 / math.sqrt(2)), "n": 2}
    assert hard["full"] == {"mean": 0.4, "std": None, "n": 1}
    assert easy["random"]["mean"] == pytest.approx(0.11) and easy["random"]["n"] == 3  # once a seed, whatever the methods
    edf, random = table["rows"]
    assert edf["cells"]["bird-easy"]["recovery_ratio"]["values"] == pytest.approx([0.5, 0.6, 0.7])
    half = 4.302653 * 0.1 / math.sqrt(3)  # t_{0.975, 2}
    assert edf["cells"]["bird-easy"]["recovery_ratio"]["ci95"] == pytest.approx([0.6 - half, 0.6 + half], abs=1e-6)
    assert edf["cells"]["bird-hard"]["accuracy"]["mean"] == pytest.approx(0.2)
    assert random["cells"].keys() == {"bird-easy"} and random["cells"]["bird-easy"]["seeds"] == [0]


def test_an_order_is_a_paired_difference_adjusted_for_all_of_the_table() -> None:
    # r: 0.5, 0.6, 0.7 − 0.25, 0.35, 0.5: 0.25, 0.25, 0.2; and of datm 0.1, 0.0, −0.1.
    records = [*seeds("easy", 0.4, 0.48, 0.56), *seeds("hard", 0.1, 0.14, 0.2)]
    records += [*seeds("easy", 0.4, 0.4, 0.4, method="datm"), *seeds("hard", 0.16, 0.2, 0.24, method="datm")]
    edf, datm = only(records)["verdicts"]
    (step,) = edf["steps"]
    t = (0.7 / 3) * math.sqrt(3) / (0.05 / math.sqrt(3))
    assert (step["a"], step["b"], step["paired"], step["n"]) == ("easy", "hard", True, 3)
    assert step["mean"] == pytest.approx(0.7 / 3) and step["p"] == pytest.approx(two_sided_p(t))
    assert edf["p_adjusted"] == pytest.approx(2 * two_sided_p(t)) and 0 < edf["p_adjusted"] < 0.05
    assert (edf["levels"], edf["verdict"], edf["p"]) == (["easy", "hard"], "holds", step["p"])
    assert edf["means"] == {"easy": pytest.approx(0.6), "hard": pytest.approx(1.1 / 3)}
    assert datm["steps"][0]["mean"] == pytest.approx(0, abs=1e-12) and datm["verdict"] == "undecided"


def test_all_steps_must_be_decided_and_in_one_direction() -> None:
    def verdict(*levels: list[dict[str, Any]]) -> str:
        (one,) = only([record for found in levels for record in found])["verdicts"]
        return str(one["verdict"])

    def ratios(level: str, start: float) -> list[dict[str, Any]]:
        full = summarise(FULL[level]).mean
        return seeds(
            level, *((start + wiggle) * full for wiggle in {"easy": (0, 0.01, 0.02), "hard": (0.02, 0, 0.01)}.get(level, [0] * 3))
        )

    assert verdict(ratios("easy", 0.9), ratios("medium", 0.6), ratios("hard", 0.3)) == "holds"
    assert verdict(ratios("easy", 0.3), ratios("medium", 0.6), ratios("hard", 0.9)) == "reversed"
    assert verdict(ratios("easy", 0.9), ratios("medium", 0.3), ratios("hard", 0.6)) == "undecided"  # up and down
    assert verdict(ratios("easy", 0.9), ratios("medium", 0.31), ratios("hard", 0.3)) == "undecided"
    assert verdict(ratios("easy", 0.9), ratios("hard", 0.3)) == "holds"  # medium is not there yet


def test_of_several_steps_the_weakest_counts_and_says_what_it_would_take() -> None:
    # Of 0.8, 0.5 and 0.4: r 0.9, 0.8, 0.85 − 0.5, 0.45, 0.4 = 0.4, 0.35, 0.45, and then − 0.4, 0.45, 0.3 = 0.1, 0, 0.1.
    records = [*seeds("easy", 0.72, 0.64, 0.68), *seeds("medium", 0.25, 0.225, 0.2), *seeds("hard", 0.16, 0.18, 0.12)]
    (one,) = only(records)["verdicts"]
    first, second = one["steps"]
    assert first["p"] == pytest.approx(two_sided_p(0.4 * math.sqrt(3) / 0.05)) and first["p"] < 0.05
    assert second["p"] == pytest.approx(two_sided_p(2.0)) and one["p"] == second["p"] == one["p_adjusted"]
    assert one["verdict"] == "undecided" and first["seeds_needed"] <= 3 < second["seeds_needed"]
    said = verdict_text(one)
    assert said.startswith("bird, edf: recovery ratio easy > medium > hard: undecided, p 0.184 (Holm) (easy − medium +40.0 [")
    assert said.endswith(f"points, 3 seeds); {second['seeds_needed']} seeds would decide")


def test_no_number_of_seeds_decides_steps_that_point_both_ways() -> None:
    # r: 0.9, 0.8, 0.85 − 0.5, 0.45, 0.4, and then − 0.6, 0.7, 0.5.
    records = [*seeds("easy", 0.72, 0.64, 0.68), *seeds("medium", 0.25, 0.225, 0.2), *seeds("hard", 0.24, 0.28, 0.2)]
    (one,) = only(records)["verdicts"]
    assert one["p"] == 1 and one["steps"][1]["mean"] < 0 and one["steps"][1]["seeds_needed"] > 3
    assert verdict_text(one).endswith("points, 3 seeds)")


def test_the_number_of_orders_asks_for_more_seeds() -> None:
    # r of each: 0.25, 0.25 and 0.2 from level to level: p 0.005, of twelve orders 0.06.
    records = []
    for number in range(12):
        method = f"m{number}"
        records += [*seeds("easy", 0.4, 0.48, 0.56, method=method), *seeds("hard", 0.1, 0.14, 0.2, method=method)]
    one = only(records)["verdicts"][0]
    assert one["p_adjusted"] == pytest.approx(12 * two_sided_p(14.0)) and one["verdict"] == "undecided"
    (step,) = one["steps"]
    assert step["seeds_needed"] == seeds_needed([0.5, 0.6, 0.7], [0.125, 0.175, 0.25], level=0.05 / 12) > 3
    assert verdict_text(one).endswith(f"points, 3 seeds); {step['seeds_needed']} seeds would decide")


def test_equal_differences_are_no_proof() -> None:
    (one,) = only([*seeds("easy", 0.4, 0.4, 0.4), *seeds("hard", 0.1, 0.1, 0.1)])["verdicts"]
    assert one["steps"][0]["p"] == 0 and one["p_adjusted"] == 0.25 and one["verdict"] == "undecided"
    assert verdict_text(one).endswith("points, 3 seeds)")  # and no number of seeds follows from no spread


def test_other_seeds_are_compared_unpaired_and_single_ones_not_at_all() -> None:
    easy, hard = seeds("easy", 0.4, 0.48), [record("hard", 5, 0.1), record("hard", 6, 0.12), record("hard", 7, 0.14)]
    (one,) = only([*easy, *hard])["verdicts"]
    (step,) = one["steps"]
    expected = compare_unpaired([0.5, 0.6], [0.25, 0.3, 0.35])
    assert (step["paired"], step["n"]) == (False, [2, 3])
    assert (step["p"], step["ci95"]) == (pytest.approx(expected.p), pytest.approx(expected.ci95))
    assert one["p_adjusted"] == step["p"] and "2/3 seeds unpaired" in verdict_text(one)
    (one,) = only([record("easy", 0, 0.4), record("hard", 1, 0.1)])["verdicts"]
    assert one["steps"][0]["p"] is None and one["steps"][0]["mean"] == pytest.approx(0.25) and one["verdict"] == "undecided"
    assert verdict_text(one).endswith("(easy − hard +25.0 points, 1/1 seeds unpaired)")
    (one,) = only([record("easy", 0, 0.4), record("hard", 0, 0.1)])["verdicts"]
    assert one["steps"][0]["p"] is None and verdict_text(one).endswith("undecided (easy − hard +25.0 points, 1 seed)")
    same = [record("easy", seed, 0.4) for seed in (0, 1)] + [record("hard", seed, 0.1) for seed in (2, 3)]
    assert only(same)["verdicts"][0]["steps"][0]["p"] is None  # two equal accuracies are no certainty


def test_without_the_full_data_there_is_no_ratio() -> None:
    bare = record("easy", 0, 0.4)
    del bare["accuracy"]["full"]
    nothing = record("hard", 0, 0.0)
    nothing["accuracy"]["full"] = summarise([0.0]).to_dict()
    table = only([bare, nothing])
    cells = table["rows"][0]["cells"]
    assert cells["bird-easy"]["recovery_ratio"] is None and cells["bird-hard"]["recovery_ratio"] is None
    assert table["verdicts"] == [] and table["columns"][0]["full"] is None
    assert figure_of([table], LEVELS) is None and figure_of([], LEVELS) is None
    assert tabulate(LEVELS, []) == []


def test_markdown_says_it_all() -> None:
    records = [*seeds("easy", 0.4, 0.48, 0.56), *seeds("hard", 0.1, 0.14, 0.2), *seeds("easy", 0.2, ipc=10)]
    results = {"title": "edf", "tables": tabulate(LEVELS, records), "notes": ["x"], "failed": {"c": "why"}, "left": ["d"]}
    lines = Recovery.from_dict({"benchmark": "b", "levels": LEVELS, "seeds": [0], **results}).markdown.splitlines()
    assert lines[0] == "# edf" and lines[-2:] == ["- failed: c: why", "cells to be run yet (1): d"]
    assert [line for line in lines if line.startswith("## ")] == [
        "## 1 image per class: accuracy, %",
        "## 1 image per class: recovery ratio, %",
        "## 10 images per class: accuracy, %",
        "## 10 images per class: recovery ratio, %",
    ]
    assert "| method | bird easy | bird hard |" in lines
    assert "| edf | 48.0 ± 19.9 | 14.7 ± 12.5 |" in lines
    assert "| edf | 60.0 ± 24.8 | 36.7 ± 31.3 |" in lines
    assert "| (full data) | 80.0 | 40.0 |" in lines and "| (random real images) | 11.0 | 11.0 |" in lines
    (verdict,) = [line for line in lines if line.startswith("- bird")]
    assert verdict == (
        "- bird, edf: recovery ratio easy > hard: holds, p 0.00506 (Holm) (easy − hard +23.3 [+16.2, +30.5] points, 3 seeds)"
    )


def test_tables_are_cut_between_categories_to_the_width() -> None:
    categories = ("bird", "dog", "insect", "music")
    records = [one for category in categories for level in ("easy", "hard") for one in seeds(level, 0.1, 0.2, category=category)]
    table = Levels.from_dict(only(records))
    made = list(table.blocks("accuracy", 80))
    assert [rows[0][1:] for rows in made] == [
        ["bird easy", "bird hard", "dog easy", "dog hard"],
        ["insect easy", "insect hard", "music easy", "music hard"],
    ]
    assert [len(list(table.blocks("accuracy", width))) for width in (10, 1000)] == [4, 1]
    whole = table.words("accuracy")
    assert [len(row) for row in whole] == [9] * 4
    assert [row[0] for row in made[1]] == ["method", "edf", "(random real images)", "(full data)"]


def test_figure_shows_levels_side_by_side() -> None:
    records = [
        *seeds("easy", 0.4, 0.48, 0.56),
        *seeds("hard", 0.1, 0.14, 0.2),
        *seeds("easy", 0.2, category="dog"),
        record("hard", 0, 0.3, ipc=10),
    ]
    tables = tabulate(("easy", "hard"), records)
    figure = figure_of(tables, ("easy", "hard"))
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "bird, 1 image per class",
        "dog, 1 image per class",
        "bird, 10 images per class",
    ]
    first = figure.axes[0]
    means = {}
    for found in first.collections:
        if not hasattr(found, "get_segments") and len(found.get_offsets()) == 1:
            means[to_hex(found.get_facecolor()[0])] = np.asarray(found.get_offsets())[0].tolist()
    assert means[BLUE] == [pytest.approx(60), 0] and means[ORANGE] == [pytest.approx(110 / 3), 1]
    segments = [np.asarray(found.get_segments()[0]) for found in first.collections if hasattr(found, "get_segments")]
    ends = tables[0]["rows"][0]["cells"]["bird-easy"]["recovery_ratio"]["ci95"]
    assert segments[0][:, 0] == pytest.approx([100 * end for end in ends])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["easy", "hard"]


def test_the_kept_benchmark_is_read_and_shows_itself() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "comp-dd-scenes"
    held = json.loads((folder / "comp-dd.json").read_text())
    found = Recovery.from_dict(held)
    assert found.to_dict() == {**found.to_dict(), **held, "levels": found.to_dict()["levels"]}
    assert found.markdown == (folder / "comp-dd.md").read_text()
    assert max(len(line) for line in str(found).splitlines() if line[:1] in "┃│┏└┡") <= 80
    assert "<th>scenes easy</th>" in found._repr_html_() and "recovery ratio easy &gt; medium &gt; hard" in found._repr_html_()


def test_networks_that_diverged_are_said_of_methods_and_of_what_stands_beside() -> None:
    """Two of three cells lost one of two networks each, and the full data, the same in all of them, one."""
    held = [record("easy", seed, 0.3) for seed in range(3)]
    for one, failed in zip(held, (1, 1, None), strict=True):
        one["accuracy"]["distilled"] |= {"n": 2, "values": [0.3, 0.3], "failed": failed}
        one["accuracy"]["full"] |= {"failed": 1}
    (table,) = recovery.tabulate(LEVELS, list(map(CellRecord.from_dict, held)))
    said = [
        "1 image per class: edf, bird-easy: training failed of 2 of 6 networks, which diverged and count as 0 %",
        "1 image per class: full data, bird-easy: training failed of 1 of 2 networks, which diverged and count as 0 %",
    ]
    assert list(table.failures) == said
    found = Recovery(title="t", benchmark="b", tables=(Levels.from_dict(table.to_dict()),))
    for text in (found.markdown, " ".join(str(found).split()), found._repr_html_()):
        assert all(f"warning: {one}" in text for one in said)

"""The page of complexities."""

import json
from pathlib import Path

import pytest
from report.tables import cells, table

from limbeck.report.of_complexity import complexities
from limbeck.runtime.errors import UsageError


def measured(folder: Path, source: str, shift: float = 0.0, network: str = "ResNet18", blank: int = 0) -> Path:
    """A `complexity.json` of two classes."""
    rows = [
        {
            "index": k,
            "name": name,
            "images": 10,
            "complexity_0.5": value + shift,
            "complexity_0.9": 99.0,
            "std": 1.0,
            "ci95": [value + shift - 30, value + shift + 30],
            "mean_activation": 20.0,
            "area": 30.0,
            "blank": 0,
        }
        for k, (name, value) in enumerate((("owl", 60.0), ("mole", 80.0)))
    ]
    spread = {"mean": 70 + shift, "std": 14.1, "ci95": [70 + shift - 8, 70 + shift + 8], "n": 2, "values": [60 + shift, 80 + shift]}
    held = {
        "complexity": 70 + shift,
        "spread": spread,
        "by_threshold": {"0.5": 70 + shift, "0.9": 99.0},
        "reliability": 0.2,
        "mean_activation": 20.0,
        "area": 30.0,
        "images": 20,
        "blank": blank,
        "without_blank": 65.0 if blank else None,
        "accuracy": 0.5,
        "classes": rows,
        "histograms": {name: [0] * 49 + [20] for name in ("mean_activation", "area", "complexity")},
        "network": {"name": network, "layers": ["layer4"]},
        "data": {"fingerprint": "f", "splits": ["train"], "source": source},
        "settings": {"network": network, "thresholds": [0.5, 0.9]},
        "environment": {},
    }
    folder.mkdir(parents=True)
    (folder / "complexity.json").write_text(json.dumps(held))
    return folder


def test_complexities_of_the_same_classes_stand_together(tmp_path: Path) -> None:
    shown = complexities([measured(tmp_path / "a", "photos/easy"), measured(tmp_path / "b", "photos/hard", 5.0, blank=4)])
    whole, held = table(shown, "measurements"), table(shown, "classes")
    assert [(one.number, one.ends) for one in cells(whole, "Complexity at 0.5, %")] == [(70, (62, 78)), (75, (67, 83))]
    assert [one.text for one in cells(held, "Class")] == ["owl", "owl", "mole", "mole"]
    found = cells(held, "Complexity at 0.5, %")
    assert [one.number for one in found] == [60, 65, 80, 85] and found[2].ends == (50, 100), "no complexity is above 100 %"
    assert found[2].text == "80.0 ± 30.0", "the margin is that of the whole interval"
    assert [one.number for one in cells(held, "at 0.9, %")] == [99] * 4
    assert shown.title == "Complexity of easy · hard" and "40 images" in shown.facts and "ResNet18" in shown.facts
    assert "b: 4 maps (20.0 %) show no preference and count as 100 %; without them the complexity is 65.0 %" in shown.warnings
    assert any(one.startswith("a, b: the order of the classes is mostly chance: a correlation of 0.20") for one in shown.warnings)
    assert not any("do not compare" in one for one in shown.warnings)


def test_complexities_to_different_networks_do_not_compare(tmp_path: Path) -> None:
    shown = complexities([measured(tmp_path / "a", "x"), measured(tmp_path / "b", "x", network="MLP")])
    assert "do not compare" in shown.warnings[0]


def test_a_threshold_has_the_figures_of_that_threshold_whichever_a_measurement_has_first(tmp_path: Path) -> None:
    folders = [measured(tmp_path / name, name) for name in "abc"]
    for folder, kept in zip(folders[1:], (["0.9", "0.5"], ["0.9"]), strict=True):
        held = json.loads((folder / "complexity.json").read_text())
        held["by_threshold"] = {name: held["by_threshold"][name] for name in kept}
        held |= {"complexity": 99.0, "settings": {**held["settings"], "thresholds": list(map(float, kept))}}
        for row in held["classes"]:
            own = {f"complexity_{name}": row.pop(f"complexity_{name}") for name in ("0.5", "0.9")}
            row |= {key: own[key] for key in own if key.partition("_")[2] in kept}
        (folder / "complexity.json").write_text(json.dumps(held))
    shown = complexities(folders)
    whole, of_classes = table(shown, "measurements"), table(shown, "classes")
    assert [(one.number, one.ends) for one in cells(whole, "Complexity at 0.5, %")] == [(70, (62, 78)), (70, None), (None, None)]
    assert [(one.number, one.ends) for one in cells(whole, "at 0.9, %")] == [(99, None), (99, (62, 78)), (99, (62, 78))]
    first = [(one.number, one.ends is None) for one in cells(of_classes, "Complexity at 0.5, %")]
    assert first == [(60, False), (60, True), (None, True), (80, False), (80, True), (None, True)]


@pytest.mark.parametrize("key", ["maps", "classes", "split"])
def test_complexities_of_other_maps_or_splits_do_not_compare(key: str, tmp_path: Path) -> None:
    a, b = (measured(tmp_path / name, "x") for name in "ab")
    held = json.loads((b / "complexity.json").read_text())
    held["settings"][key] = {"maps": "layer", "classes": "predicted", "split": "test"}[key]
    (b / "complexity.json").write_text(json.dumps(held))
    assert "do not compare" in complexities([a, b]).warnings[0]


def test_the_subsets_of_a_benchmark_that_was_built(tmp_path: Path) -> None:
    folder = measured(tmp_path / "a", "x")
    entries = [{"index": 0, "name": "owl", "complexity": 60.0}]
    subsets = {"bird-easy": {"category": "bird", "level": "easy", "complexity": 60.0, "classes": entries}}
    (folder / "benchmark.json").write_text(json.dumps({"subsets": subsets}))
    held = table(complexities([folder]), "subsets")
    assert [value.text for value in held.rows[0].cells] == ["bird-easy", "bird", "easy", "60.0", "1", "owl"]
    (folder / "benchmark.json").write_text("[]")
    assert "a: benchmark.json could not be read" in complexities([folder]).warnings


def test_a_broken_complexity_is_one_line(tmp_path: Path) -> None:
    folder = measured(tmp_path / "a", "x")
    (folder / "complexity.json").write_text('{"settings": {}}')
    with pytest.raises(UsageError, match=r"complexity\.json' is no result of complexity \(.*\); `limbeck complexity`"):
        complexities([folder])

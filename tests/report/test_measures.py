"""Recovery, the map of features and the data card on the page: figures by hand, and what earlier, broken and hostile runs show."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from report.fake_run import make_run
from report.kept_files import a_card, a_map

from limbeck.accuracy import Accuracies, Accuracy
from limbeck.evaluation.results import SetResult
from limbeck.report import landscape as module
from limbeck.report.contents import read_run
from limbeck.report.data import data
from limbeck.report.html import write_report
from limbeck.report.landscape import HEIGHT, LOWEST, MARGIN, WIDTH, landscape
from limbeck.report.outcome import headline
from limbeck.report.recovery import recovery
from limbeck.runs import data_card, feature_map
from limbeck.runs.data_card import DataCard
from limbeck.runs.feature_map import FeatureMap
from limbeck.runs.folder import RESULTS
from limbeck.runs.results import RunResult
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.sealed import Damaged

HOSTILE = "<img src=x onerror=alert(1)> \u202e\ud800'\"&"


def results(run: Path, **accuracies: Accuracy) -> None:
    found = SetResult(accuracy=Accuracies(**accuracies))
    write_json(run / "results.json", RunResult(evaluation=found), RESULTS)


def test_recovery_is_in_percent_of_the_full_data(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    full = Accuracy(mean=0.8, n=2)
    results(run, distilled=Accuracy(mean=0.4, n=5, ci95=(0.36, 0.44)), random=Accuracy(mean=0.2, n=5), full=full)
    gauge = recovery(read_run(run))
    assert gauge is not None and gauge.random is not None
    assert gauge.distilled.value == pytest.approx(50) and gauge.distilled.ends == pytest.approx((45, 55))
    assert (gauge.random.value, gauge.random.ends, gauge.top) == (25, None, 100)
    assert gauge.ticks == [0, 25, 50, 75, 100]
    assert [gauge.at(value) for value in (-3, 0, 50, 100, 130)] == [0, 0, 50, 100, 100]
    assert gauge.text == (
        "Recovered: 50.0 %, 95 % interval 45.0 % to 55.0 %. As many random real images: 25.0 %. "
        "100 % is the full training data's accuracy, 80.0 %."
    )
    assert [tile["more"] for tile in headline(read_run(run))] == ["95 % interval 36.0 … 44.0 %", "random images: 20.0 %"]
    page = write_report(run).read_text()
    assert 'style="left: 45.0%; width: 10.0%"' in page and 'class="gauge-random" style="left: 25.0%"' in page
    assert f'aria-label="{gauge.text}"' in page.replace("&#39;", "'")


def test_what_is_better_than_the_full_data_has_room_and_what_is_unknown_no_gauge(tmp_path: Path) -> None:
    run, full = make_run(tmp_path / "run"), Accuracy(mean=0.5, n=2)
    results(run, distilled=Accuracy(mean=0.6, n=5, ci95=(0.5, 1.3)), full=full)
    gauge = recovery(read_run(run))
    assert gauge is not None and gauge.random is None
    assert gauge.distilled.value == pytest.approx(120) and gauge.distilled.ends == pytest.approx(
        (100, 200)
    )  # no accuracy is above 1
    assert gauge.top == 200 and gauge.at(100) == 50 and gauge.ticks == [0, 50, 100, 150, 200]
    assert replace(gauge, top=3000.0).ticks == [0, 600, 1200, 1800, 2400, 3000]
    assert replace(gauge, top=400.0).ticks == [0, 100, 200, 300, 400]
    for accuracies in (
        {"distilled": Accuracy(mean=0.6, n=5)},
        {"distilled": Accuracy(mean=0.6, n=5), "full": Accuracy(mean=0.0, n=2)},
        {"distilled": Accuracy(mean=0.1, n=5, failed=5), "full": full},
        {"random": Accuracy(mean=0.1, n=5), "full": full},
    ):
        results(run, **accuracies)
        assert recovery(read_run(run)) is None
    (run / "results.json").unlink()
    assert recovery(read_run(run)) is None


def test_the_card_counts_and_shows_examples(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    a_card(("cats", HOSTILE, "none"), (40, 10, 0), [0, 0, 1]).write(run, "")
    found = data(read_run(run))
    assert found is not None
    assert [(row.counts, row.share, row.shown) for row in found.rows] == [
        ((40, 0, 0), 100, 2),
        ((10, 0, 10), 25, 1),
        ((0, 0, 40), 0, 0),
    ]
    assert found.facts == "100 images of 3 classes, 8 × 8 pixels, colour"
    assert found.splits == [("training", 50), ("validation", 0), ("test", 50)]
    assert (found.height, found.width, found.is_long) == (40, 40, False)  # enlarged by a whole number
    page = write_report(run).read_text(encoding="utf-8")
    assert "100 images of 3 classes" in page and "onerror=alert" not in re.sub("&lt;.*?&gt;", "", page)
    assert page.count('class="strip"') == 2 and 'alt="2 real images of cats"' in page
    a_card(tuple(f"class {k}" for k in range(300)), (1,) * 300, []).write(run, "")
    found = data(read_run(run))
    assert found is not None and found.is_long and not found.has_examples and len(found.rows) == 300
    assert (
        "Examples" not in write_report(run).read_text()[write_report(run).read_text().index('id="data"') :].split("</section>")[0]
    )


def test_the_map_lies_in_its_picture_and_marks_the_result(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    a_map().write(run, "")
    found = landscape(read_run(run))
    assert found is not None and found.moves and found.named
    names = read_run(run).distilled.class_names  # type: ignore[union-attr]
    assert [one.name for one in found.classes] == list(names[:2])
    points = [point for one in found.classes for point in (*one.real, *(p for path in one.paths for p in (path.start, path.end)))]
    assert all(MARGIN <= x <= WIDTH - MARGIN and MARGIN <= y <= found.height - MARGIN for x, y in points)
    # Between 0 and 120 to the right, and one scale in both directions.
    scale = (WIDTH - 2 * MARGIN) / 120
    first, second = found.classes
    assert first.real == ((MARGIN, pytest.approx(found.height / 2 - 10 * scale, abs=0.56)),)
    assert second.real[0][0] - first.real[0][0] == pytest.approx(100 * scale, abs=0.1)
    (path,) = second.paths
    assert path.position == 2 and path.start == second.real[0]
    assert path.end[0] - path.start[0] == pytest.approx(10 * scale, abs=0.11)  # after 200 iterations, not after 400
    assert path.way.count("L") == 2
    assert "by t-SNE" in found.caption and "0, 200, 400, and a mark is at iteration 200" in found.caption
    page = write_report(run).read_text()
    assert page.count('data-position="2"') == 1 and '<option value="1">' in page


def test_a_map_by_pca_and_of_a_set_without_a_loop(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    a_map("PCA", (), None, classes=40).write(run, "")
    found = landscape(read_run(run))
    assert found is not None and not found.moves and not found.named
    assert "which shows 62.5 % of their variance" in found.caption and "iteration" not in found.caption
    assert len({(one.colour, one.shape) for one in found.classes[:32]}) == 32  # none is like another
    assert not found.told_apart and "choose one above" in write_report(run).read_text()
    assert found.classes[39].name == "class 39"  # beyond those that the set names
    assert "ways over the iterations" not in write_report(run).read_text()


@pytest.mark.parametrize("count", [2, 10, 12])
@pytest.mark.parametrize("far", [0.0, 10.0, 200.0])
def test_names_do_not_lie_over_each_other(count: int, far: float) -> None:
    """However near their classes lie, all are named, and where one gives way a line leads to its place."""
    generator = torch.Generator().manual_seed(count)
    middles = {k: (x, y) for k, (x, y) in enumerate((300 + far * torch.rand(count, 2, generator=generator)).tolist())}
    names = {k: f"a name of {k}" + " letters" * (k % 3) for k in range(count)}
    found = module.placed(names, middles, list(middles.values()), 460)
    assert found.keys() == names.keys()
    boxes = [(found[k].x - module._width(names[k]) / 2, found[k].y, module._width(names[k])) for k in names]
    for k, (left, level, wide) in enumerate(boxes):
        assert left >= 0 and left + wide <= WIDTH and 0 <= level <= 460
        for other, at, width in boxes[:k]:
            assert left >= other + width or other >= left + wide or abs(level - at) >= module.LINE - 0.11
    for k, name in found.items():
        x, y = middles[k]
        if name.leader is not None:
            assert name.leader[:2] == middles[k]
        else:
            assert abs(name.y - y) < module.LINE and abs(name.x - x) < module._width(names[k]) / 2 + 4.1


def test_points_at_one_place_are_in_the_middle() -> None:
    real, paths, height = module._placed(torch.ones(2, 2), torch.ones(1, 3, 2))
    assert real.tolist() == [[WIDTH / 2, LOWEST / 2]] * 2 and paths.shape == (1, 3, 2) and height == LOWEST


def test_what_is_higher_than_wide_lies() -> None:
    real, paths, height = module._placed(torch.tensor([[0.0, 0.0], [1.0, 100.0]]), torch.zeros(1, 1, 2))
    assert float(real[1, 0] - real[0, 0]) == pytest.approx(WIDTH - 2 * MARGIN) and height == LOWEST
    _, _, height = module._placed(torch.tensor([[0.0, 0.0], [70.0, 100.0]]), torch.zeros(1, 1, 2))
    assert height == HEIGHT


def test_runs_from_before_have_neither_and_broken_files_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = write_report(run).read_text()
    assert 'id="landscape"' not in page and 'id="data"' not in page and "could not be shown" not in page
    a_map().write(run, "")
    a_card(("a", "b"), (1, 1), [0]).write(run, "")
    for file, read in ((feature_map.FILE, FeatureMap.read), (data_card.FILE, DataCard.read)):
        content = bytearray((run / file).read_bytes())
        content[-1] ^= 1
        (run / file).write_bytes(content)
        with pytest.raises(Damaged):
            read(run)
    page = write_report(run).read_text()
    assert 'id="landscape"' not in page and 'id="data"' not in page
    assert all(f"{part} could not be shown: " in page for part in ("the map of features", "the data"))
    assert read_json(run / "results.json")  # and the rest is there

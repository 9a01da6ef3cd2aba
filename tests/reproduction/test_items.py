"""The declarations are whole: every item, every claim of the paper with a test, every row that a claim speaks of."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reproduction.toy import TOY

from limbeck.accuracy import Accuracies, Accuracy
from limbeck.evaluation.statistics import summarise
from limbeck.figures.reproduction import ENLARGED, FRAME, _framed
from limbeck.reproduction.claims import judge
from limbeck.reproduction.item import Item
from limbeck.reproduction.items import ITEMS, chosen
from limbeck.reproduction.measures import MEASURES, Measured
from limbeck.reproduction.published import published
from limbeck.reproduction.reading import Grid, Read
from limbeck.reproduction.results import ItemResult
from limbeck.reproduction.run import Asked
from limbeck.reproduction.scales import SCALES, Spot, spots
from limbeck.reproduction.values import OF_RECORD, title_of, value_of
from limbeck.reproduction.write import figure_of
from limbeck.runtime.errors import UsageError
from limbeck.studies.cells import CellRecord
from limbeck.studies.comp_dd import Part

NAMES = "fig1a fig1b fig2 table1 table2 table3 fig4 table4 table5a table5b table6a table6b fig5 table7 table9 table10 fig6 fig7"
SECTIONS = set("abcdefghijkl")
PAGE = Path(__file__).parents[2] / "docs" / "reproduction.md"


def test_all_items_are_there_in_the_papers_order() -> None:
    assert list(ITEMS) == [*NAMES.split(), "fig8", "fig9", "fig10"]
    assert {claim.section for item in ITEMS.values() for claim in item.claims} >= SECTIONS


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_an_item_is_whole(item: Item) -> None:
    rows = {row.label for row in item.rows}
    assert item.claims and len(rows) == len(item.rows)
    assert len({claim.name for claim in item.claims}) == len(item.claims)
    assert {*item.measures} <= MEASURES.keys()
    for claim in item.claims:
        assert claim.text.endswith(".") and claim.parts
        for part in claim.parts:
            assert {at.row for _, at in part.terms} <= rows, part
            for _, at in part.terms:
                assert at.value in OF_RECORD or at.value.partition(".")[0] in item.measures, at
                assert item.places == "levels" or at.place in ("each", "mean")
            if len(part.terms) > 1:  # of one a growth or an excess is claimed, which has its own zero
                assert sum(weight for weight, _ in part.terms) == pytest.approx(0)
    for name in item.shown:
        assert name in OF_RECORD or name.partition(".")[0] in item.measures
        assert title_of(name)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("fig1b", ["mean activation, %", "share of high activation, %"]),
        ("fig8", ["complexity, %"]),
        ("fig9", ["complexity of the most complex class, %"]),
        ("fig10", ["complexity of the least complex class, %"]),
        ("table1", ["accuracy, %", "accuracy under knowledge distillation, %"]),
    ],
)
def test_a_figure_shows_what_its_claims_are_about(item: str, said: list[str]) -> None:
    held = ITEMS[item]
    values = {name: summarise([0.1, 0.2]) for name in held.shown}
    lines = tuple(SimpleNamespace(row=row.label, place="scenes", ipc=1, values=values) for row in held.rows)
    one: Any = SimpleNamespace(item=item, shown=held.shown, lines=lines, published=(), series={})
    assert [axes.get_xlabel() for axes in figure_of(one).axes] == said


@pytest.fixture(scope="module")
def grids() -> dict[str, list[Spot]]:
    """The grids at CPU scale, of one seed."""
    asked = Asked.of(["all"], "cpu", seeds=[0])
    return {item.name: asked.grid(item) for item in asked.items}


def test_every_row_of_edf_that_changes_the_gradient_has_its_control(grids: dict[str, list[Spot]]) -> None:
    for grid in grids.values():
        controls = {(spot.control, spot.ipc, spot.place): spot.cell.settings for spot in grid if spot.control}
        for spot in grid:
            s = spot.cell.settings
            changes = s.method == "edf" and (
                s.enhance.weighting != "none" or (s.match.criterion != "none" and s.match.drop_ratio > 0)
            )
            if changes and not spot.control:
                control = controls.pop((spot.row, spot.ipc, spot.place))
                assert control.match.match_norm and not s.match.match_norm
        assert not controls


def test_equal_settings_are_one_cell_whichever_item_asks(grids: dict[str, list[Spot]]) -> None:
    by_name = {spot.cell.name: spot.cell for grid in grids.values() for spot in grid}
    for grid in grids.values():
        for spot in grid:
            assert spot.cell.changed == by_name[spot.cell.name].changed
    one = {spot.ipc: spot.cell.name for spot in grids["table1"] if spot.row == "edf"}
    assert {*one.values()} <= {spot.cell.name for spot in grids["table5a"]}
    assert {one[1], one[3]} <= {spot.cell.name for spot in grids["fig5"]}
    assert len(by_name) < sum(map(len, grids.values()))


def test_the_page_says_what_items_judge_and_run(grids: dict[str, list[Spot]]) -> None:
    """Of three seeds; what an item above has already is not new."""
    scale, known, rows = SCALES["cpu"](), set[str](), {}
    for item in ITEMS.values():
        own = {spot.cell.name for spot in grids[item.name]}
        rows[item.name] = [len(Grid(scale, item, grids[item.name]).claims), 3 * len(own), 3 * len(own - known)]
        known |= own
    text = PAGE.read_text()
    written = {
        name: [int(claims), int(cells), int(new)]
        for name, claims, cells, new in re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \| (\d+) \| [^|]+ \| (\d+) \|$", text, re.M)
    }
    assert written == rows
    assert f"All items together are {3 * len(known)} cells" in text


def test_cells_are_named_alike_whatever_the_seed_and_the_words() -> None:
    item = ITEMS["table6a"]
    zero, one = spots(item, TOY, [0, 1])[:2], spots(item, TOY, [1])[:2]
    assert {spot.cell.name for spot in one} <= {spot.cell.name for spot in spots(item, TOY, [0, 1])}
    assert len({spot.cell.name for spot in (*zero, *one)}) == 4
    assert zero[0].cell.overrides["seed"] == "0" and zero[0].cell.settings.seed == 0


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_the_published_settings_are_those_of_the_subset(scale: str) -> None:
    whole = SCALES[scale]()
    made = replace(whole, places={"main": whole.places["main"][:1]})
    found = [spot for spot in spots(ITEMS["fig5"], made, [0]) if spot.row == "edf" and spot.place.name == "imagenette"]
    assert [spot.cell.recipe for spot in found] == [f"imagenette/ConvNetD5/edf-ipc{spot.ipc}" for spot in found]
    assert {spot.cell.settings.data.source for spot in found} == {"imagenet:imagenette"}


def test_other_images_stand_for_all_that_have_no_levels() -> None:
    asked = Asked.of(["all"], "cpu", data="cifar10.npz")
    names = {item.name for item in asked.items}
    assert "table1" in names and "fig4" not in names
    (first, *_) = asked.grid(ITEMS["table6b"])
    assert (first.cell.recipe, first.cell.settings.data.source) == ("cifar10/edf-ipc1", "cifar10.npz")
    assert {*asked.left_out} == ITEMS.keys() - names and "fig4" in asked.notes[0]
    with pytest.raises(UsageError, match="--data: fig4 runs over images of different levels"):
        Asked.of(["fig4"], "cpu", data="cifar10.npz")
    with pytest.raises(UsageError, match="--data: fig1a, fig4 run over images of different levels"):
        Asked.of(["table4", "fig4", "fig1a", "all"], "cpu", data="cifar10.npz")
    assert not Asked.of(["table4"], "cpu", data="cifar10.npz").notes


def test_images_without_recipes_take_those_that_are_named() -> None:
    with pytest.raises(UsageError, match=r"no recipe for 'datm' on 'photos.npz'; name one to start from with --base RECIPE"):
        asked = Asked.of(["table4"], data="photos.npz")
        asked.grid(ITEMS["table4"])
    asked = Asked.of(["table4"], data="photos.npz", base="scenes/edf-ipc3", seeds=[0])
    found = {spot.row: spot.cell for spot in asked.grid(ITEMS["table4"])}
    assert {cell.recipe for cell in found.values()} == {"scenes/edf-ipc3"}
    assert {cell.settings.data.source for cell in found.values()} == {"photos.npz"}
    assert {row: cell.settings.method for row, cell in found.items()}["neither"] == "datm"
    assert asked.command("table4").split()[5:] == ["--data", "photos.npz", "--base", "scenes/edf-ipc3", "--seeds", "0"]
    with pytest.raises(UsageError, match="--base: 'moon'"):
        asked = Asked.of(["table4"], base="moon")
        asked.grid(ITEMS["table4"])


def test_what_is_not_accepted_is_said_in_a_line_with_what_is() -> None:
    with pytest.raises(UsageError, match=r"ITEM: 'table8' is not one of all, fig1a, .*fig10$"):
        chosen(["table8"])
    with pytest.raises(UsageError, match="--scale: 'huge' is not one of cpu, gpu, paper"):
        Asked.of(["fig5"], "huge")
    with pytest.raises(UsageError, match=r"match.drop_ratio: '0.3' is not accepted by table5a, whose rows set match.drop_ratio"):
        Asked.of(["table5a"], settings={"match.drop_ratio": "0.3"}).grid(ITEMS["table5a"])
    with pytest.raises(UsageError, match="ipc: is what a reproduction runs over"):
        Asked.of(["fig5"], settings={"ipc": "3"})


def test_published_figures_are_read() -> None:
    table = {(one.dataset, one.ipc, one.row): one for one in published("table1")}
    assert table["imagenette", 10, "edf"].figure == "71.0 ± 0.8"
    assert table["imagenette", 10, "edf"].mean == 71.0
    assert not published("fig7")
    assert {one.dataset for one in published("fig8")} >= {"bird-easy", "music-hard"}


def of_the_paper(name: str, scale: str) -> Read:
    """The grid of an item on the sources that its figures are printed of, where every cell has measured what is printed of it."""
    item = ITEMS[name]
    printed = {(one.dataset, one.ipc, one.row): one.mean / 100 for table in ("table1", name) for one in published(table)}
    places = dict.fromkeys(one.dataset for one in published(name))
    sources = tuple((Part(place, place, "", f"imagenet:{place}"),) for place in places)
    wide = replace(SCALES[scale](), places={"main": sources})
    grid = spots(item, wide, [0])
    results, measured = {}, {}
    for spot in grid:
        key, cell = (spot.place.name, spot.ipc, spot.row), spot.cell.name
        if key in printed:
            results[cell] = CellRecord(name=cell, accuracy=Accuracies(distilled=Accuracy(mean=printed[key])))
            taught = printed.get((*key[:2], f"{spot.row} (KD)"))
            held = {} if taught is None else {"kd": Measured(cell=cell, measure="kd", values={"accuracy": taught})}
            measured[cell] = held
    return Read(Grid(wide, item, grid), results, measured)


@pytest.mark.parametrize("scale", ["gpu", "paper"])
@pytest.mark.parametrize(("item", "parts"), [("table1", None), ("table6a", 12), ("table6b", 1), ("table10", None)])
def test_the_published_figures_speak_against_no_claim(item: str, parts: int | None, scale: str) -> None:
    read = of_the_paper(item, scale)
    assert len(read.grid.claims) == len(ITEMS[item].claims)
    sums = {f"{claim.name}: {said}": found for claim in read.grid.claims for said, found in read.sums(claim)}
    known = {said: found[0] for said, found in sums.items() if found}
    assert {said: value for said, value in known.items() if value <= 0} == {}
    if parts is None:  # all that the claims speak of is printed
        assert known.keys() == sums.keys()
    else:
        assert len(known) == parts


def test_a_claim_is_tested_at_the_sizes_that_the_paper_prints(grids: dict[str, list[Spot]]) -> None:
    read = of_the_paper("table1", "gpu")
    (many,) = [claim for claim in read.grid.claims if claim.name == "kd-wins-many"]
    ((said, found),) = read.sums(many)  # 84.8, 61.6, 58.2, 76.2, 56.4, 77.8 with, 77.8, 48.4, 59.5, 73.6, 50.5, 74.8 without
    assert said == "edf with − without, mean, ipc 50" and found[0] == pytest.approx((415.0 - 384.6) / 600)
    (middle,) = [claim for claim in read.grid.claims if claim.name == "kd-loses-middle"]
    ((said, found),) = read.sums(middle)  # −6.5, 0.5, −4.2, −7.4, 2.2 and −6.0: "mostly"
    assert said == "edf without − with, mean, ipc 10" and found[0] == pytest.approx(21.4 / 600)
    sizes = {row: {spot.ipc for spot in grids["table1"] if spot.row == row} for row in ("edf", "datm", "ftd")}
    assert sizes == {"edf": {1, 3, 10}, "datm": {1, 3, 10}, "ftd": {1, 3}}
    few = replace(SCALES["cpu"](), sizes={"small": 1, "middle": 3})
    grid = Grid(few, ITEMS["table1"], spots(ITEMS["table1"], few, [0]))
    assert {claim.name for claim in ITEMS["table1"].claims} - {claim.name for claim in grid.claims} == {
        "gain-grows",
        "kd-wins-many",
    }


def test_a_claim_on_each_size_is_tested_at_those_that_its_rows_run_at_besides() -> None:
    scale = SCALES["gpu"]()
    grid = Grid(scale, ITEMS["table1"], spots(ITEMS["table1"], scale, [0]))
    sizes = {claim.name: [case.terms[0].sizes[0] for case in grid.cases(claim)] for claim in grid.claims}
    assert sizes["edf-above-datm"] == [1, 10, 50]
    assert sizes["datm-above-ftd"] == sizes["ftd-above-mtt"] == sizes["mtt-above-random"] == [1, 10]


def of_growths(growths: dict[str, float]) -> dict[str, str]:
    """The verdicts of figure 2 where the mean activation has grown by as many points, and by a little more with every seed."""
    item, seeds = ITEMS["fig2"], range(5)
    grid = spots(item, TOY, seeds)
    results, measured = {}, {}
    for spot in grid:
        cell, grown = spot.cell.name, (growths[spot.control or spot.row] + 0.1 * spot.seed) / 100
        results[cell] = CellRecord(name=cell)
        values = {"activation_growth": grown, "separation_growth": grown}
        measured[cell] = {"course": Measured(cell=cell, measure="course", values=values)}
    read = Read(Grid(TOY, item, grid), results, measured)
    return {one.claim: one.verdict for one in judge([(claim, read.sums(claim)) for claim in read.grid.claims])}


def test_lowering_and_raising_are_told_from_the_start() -> None:
    found = of_growths({"all": 5.0, "low losses": 2.0, "high losses": 8.0})
    assert found["low-lowers-activation"] == "contradicted" and found["high-raises-activation"] == "confirmed"
    found = of_growths({"all": -5.0, "low losses": -8.0, "high losses": -2.0})
    assert found["low-lowers-activation"] == "confirmed" and found["high-raises-activation"] == "contradicted"


@pytest.mark.parametrize(("item", "what"), [("table1", "accuracy, %"), ("fig8", "complexity, %")])
def test_what_is_published_is_called_what_it_is(item: str, what: str) -> None:
    held = ITEMS[item]
    one = ItemResult(item=item, title=held.title, scale="cpu", shown=held.shown, published=published(item))
    assert f"Published ({what}; ImageNet subsets at 128×128):" in one.markdown


def test_what_is_lost_to_the_full_data_is_not_known_without_its_spread() -> None:
    def read(name: str, **full: Any) -> float | None:
        accuracies = Accuracies(distilled=Accuracy(mean=0.4), full=Accuracy(**full))
        return value_of(name, CellRecord(name="a", accuracy=accuracies), {})

    assert read("above_full", mean=0.5, std=0.125) == pytest.approx(0.025)
    assert read("above_full", mean=0.5) is None
    assert read("recovery", mean=0.5) == pytest.approx(0.8)
    assert read("recovery") is read("recovery", mean=0.0) is read("above_full") is None
    assert value_of("recovery", CellRecord(name="a", accuracy=Accuracies(full=Accuracy(mean=0.5))), {}) is None


def test_a_frame_lies_along_the_box_and_hides_nothing_else() -> None:
    images, box = np.zeros((1, 4, 4, 3), dtype=np.uint8), np.array([[1, 0, 3, 2]])
    framed = _framed(images, box)[0]
    top, left, bottom, right = ENLARGED * box[0]
    green = (framed == FRAME).all(axis=2)
    assert green[top, left:right].all() and green[bottom - 1, left:right].all() and green[top:bottom, left].all()
    assert green.sum() == 2 * (bottom - top + right - left) - 4

"""Pages of several as a reader uses them: sorting by keyboard, filters that the address keeps, classes, curves, downloads."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser.visits import PHONE, Visits, overflow, violations
from distilled.samples import sample_set
from report.fake_run import make_run
from report.test_several import CIFAR, changed, predicted

from limbeck.report.write import write_report
from limbeck.studies.table import Table

CLEARED = "all => all.forEach((one) => { one.value = ''; one.dispatchEvent(new Event('input')); })"
LED = """(fragment) => {
  history.replaceState(null, "", location.pathname + fragment);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}"""


@pytest.fixture(scope="module")
def comparison_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(CIFAR, output=tmp_path_factory.mktemp("page") / "comparison.html")


@pytest.fixture(scope="module")
def runs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    names = tuple(f"class {k}" for k in range(30))
    a = make_run(folder / "a", names=names, ipc=1, iterations=40, every=20, shape=(3, 8, 8))
    b = changed(make_run(folder / "b", names=names, ipc=1, iterations=40, every=20, shape=(3, 8, 8)), method="mtt", seed=3)
    for run in (a, b):
        predicted(run, [0.01 * k for k in range(30)])
    other = sample_set(names=("class 0", "=cmd()"), metadata={"method": "dm"}).save(folder / "c")
    return write_report(a, b, other, output=folder / "page.html")


@pytest.fixture(scope="module")
def pages() -> dict[Path, Any]:
    """Those that have been opened already, by their files."""
    return {}


@pytest.fixture
def opened(visits: Visits, pages: dict[Path, Any]) -> Callable[..., Any]:
    """Gives the page of a file at that place in it, which is what all of its state is by: it is loaded once, and led there."""

    def led(file: Path, fragment: str = "") -> Any:
        if file not in pages:
            pages[file] = visits.open(file, accept_downloads=True)
        page = pages[file]
        page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = false; })")
        page.locator("input[type=search]").evaluate_all(CLEARED)
        page.locator('.legend [aria-pressed="true"]').evaluate_all("all => all.forEach((one) => one.click())")
        page.evaluate(LED, fragment)
        return page

    return led


def column(page: Any, name: str, title: str) -> list[str]:
    """The texts of a column, of the rows that are shown."""
    script = """([name, title]) => {
      const table = document.getElementById(`${name}-table`);
      const number = [...table.tHead.rows[0].cells].findIndex((cell) => cell.querySelector("button").textContent === title);
      return [...table.tBodies[0].rows].filter((row) => row.offsetParent).map((row) => row.cells[number].textContent.trim());
    }"""
    found: list[str] = page.evaluate(script, [name, title])
    return found


def head(page: Any, name: str, title: str) -> Any:
    return page.locator(f"#{name}-table th[scope=col]").filter(has=page.get_by_role("button", name=title, exact=True))


def test_sorting_by_keyboard_goes_by_numbers_with_what_is_missing_last(opened: Callable[..., Any], comparison_file: Path) -> None:
    page = opened(comparison_file)
    rows = Table.read(CIFAR).rows
    up = [row.accuracy.with_margin for row in sorted(rows, key=lambda row: row.accuracy.mean)]
    own = column(page, "methods", "Accuracy, %")
    button = page.locator("#methods-table").get_by_role("button", name="Accuracy, %")
    button.focus()
    page.keyboard.press("Enter")
    assert head(page, "methods", "Accuracy, %").get_attribute("aria-sort") == "ascending"
    assert [text for text in column(page, "methods", "Accuracy, %") if text in up] == up
    page.keyboard.press("Space")
    assert head(page, "methods", "Accuracy, %").get_attribute("aria-sort") == "descending"
    assert [text for text in column(page, "methods", "Accuracy, %") if text in up] == up[::-1]
    assert page.evaluate("document.activeElement.textContent") == "Accuracy, %", "the focus stays"
    for direction in ("ascending", "descending"):
        page.keyboard.press("Tab")
        page.keyboard.press("Shift+Tab")
        page.locator("#methods-table").get_by_role("button", name="p (Holm)").click()
        assert head(page, "methods", "p (Holm)").get_attribute("aria-sort") == direction
        found = column(page, "methods", "p (Holm)")
        known = [float(text) for text in found if text != "–"]
        assert known == sorted(known, reverse=direction == "descending") and found[len(known) :] == ["–"] * 3
    assert page.locator("#methods-table th[aria-sort]").count() == 1
    page.goto(comparison_file.as_uri())
    assert column(page, "methods", "Accuracy, %") == own


def test_words_are_sorted_as_people_do(opened: Callable[..., Any], runs_file: Path) -> None:
    page = opened(runs_file, "#class=class+2&class=class+10")
    assert page.locator(".shelves th[scope=col]").all_inner_texts() == ["Set", "class 2", "class 10"]
    page.locator("#runs-table").get_by_role("button", name="Method").click()
    assert column(page, "runs", "Method") == ["dm", "edf", "mtt"]


def test_filters_hide_rows_and_the_address_keeps_them(opened: Callable[..., Any], comparison_file: Path) -> None:
    page = opened(comparison_file)
    whole = column(page, "cells", "Cell")
    methods = page.get_by_role("group", name="Method")
    methods.get_by_role("button", name="none").click()
    assert column(page, "cells", "Cell") == []
    methods.get_by_label("mtt", exact=True).check()
    page.get_by_role("group", name="Seed").get_by_label("1", exact=True).uncheck()
    assert column(page, "cells", "Cell") == ["mtt-ipc1-seed0", "mtt-ipc1-seed2"]
    assert column(page, "methods", "Method") == ["mtt", "random real images", "full data"], "means have no seed of their own"
    assert page.locator(".count[data-table=cells]").inner_text() == "2 of 25 rows are shown."
    assert [text.split()[0] for text in page.locator("#verdicts li:visible").all_inner_texts()] == ["mtt", *["asked"] * 3]
    shown = page.locator("#settings th[data-any]").evaluate_all(
        "(heads) => heads.filter((one) => !one.hidden).map((one) => one.textContent)"
    )
    assert shown == ["mtt, IPC 1 (3 runs)"]
    assert page.evaluate("location.hash") == "#method=mtt&seed=0&seed=2&seed=3&seed=4"
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    again = page
    assert column(again, "cells", "Cell") == ["mtt-ipc1-seed0", "mtt-ipc1-seed2"]
    assert again.get_by_role("group", name="Method").get_by_label("dm", exact=True).is_checked() is False
    again.evaluate("location.hash = '#sort-cells=3-descending'")
    again.wait_for_function("document.querySelector('#cells-table [aria-sort]')")
    means = [float(text.partition(" ")[0]) for text in column(again, "cells", "Accuracy, %")]
    assert means == sorted(means, reverse=True) and len(means) == len(whole)


def test_an_address_of_nonsense_is_obeyed_as_far_as_it_goes(opened: Callable[..., Any], comparison_file: Path) -> None:
    page = opened(comparison_file, "#sort-cells=99-descending&sort-methods=x&method=nothing&other=%3Cscript%3E")
    assert column(page, "cells", "Cell") == [] and page.locator("[aria-sort]").count() == 0


def test_a_download_has_what_is_shown_in_its_order(opened: Callable[..., Any], comparison_file: Path) -> None:
    page = opened(comparison_file, "#method=mtt&method=dm&sort-methods=1-descending")
    with page.expect_download() as caught:
        page.locator("#methods").get_by_role("button", name="Download CSV").click()
    assert caught.value.suggested_filename == "edf-datm-mtt-dm-dc-random-on-cifar10.npz-methods.csv"
    rows = list(csv.DictReader(io.StringIO(Path(caught.value.path()).read_text(encoding="utf-8"))))
    assert [row["Method"] for row in rows] == column(page, "methods", "Method")
    mtt, found = (
        next(row for row in Table.read(CIFAR).rows if row.method == "mtt"),
        next(row for row in rows if row["Method"] == "mtt"),
    )
    assert mtt.accuracy.ci95 is not None
    ends = (float(found["Accuracy, %, low"]), float(found["Accuracy, %, high"]))
    assert float(found["Accuracy, %"]) == 100 * mtt.accuracy.mean and ends == tuple(100 * end for end in mtt.accuracy.ci95)
    assert found["Cosine to plain gradient"] == "", "what is missing is empty"


def test_settings_that_differ_are_a_file_too(opened: Callable[..., Any], comparison_file: Path) -> None:
    page = opened(comparison_file)
    with page.expect_download() as caught:
        page.locator("#settings").get_by_role("button", name="Download CSV").click()
    head, *rows = csv.reader(io.StringIO(Path(caught.value.path()).read_text(encoding="utf-8")))
    assert head == ["Key", *page.locator("#settings th[data-any]").all_inner_texts()]
    assert ["outer.lr_img", "5000", "1", "1", "5000", "5000", "5000", ""] in rows


def test_words_that_a_spreadsheet_would_run_are_disarmed(opened: Callable[..., Any], tmp_path: Path) -> None:
    metadata = {"method": "=HYPERLINK(1)", "settings": {"network": 'a "b", c'}}
    paths = [sample_set(metadata=metadata).save(tmp_path / "a"), sample_set().save(tmp_path / "b")]
    page = opened(write_report(*paths, output=tmp_path / "page.html"))
    with page.expect_download() as caught:
        page.locator("#runs").get_by_role("button", name="Download CSV").click()
    first = next(csv.DictReader(io.StringIO(Path(caught.value.path()).read_text(encoding="utf-8"))))
    assert (first["Method"], first["Network"]) == ("'=HYPERLINK(1)", 'a "b", c')


def test_classes_of_sets_stand_side_by_side(opened: Callable[..., Any], runs_file: Path) -> None:
    page = opened(runs_file)
    heads = page.locator(".shelves th[scope=col]")
    assert heads.all_inner_texts() == ["Set", *(f"class {k}" for k in range(10))]
    assert page.locator(".shelves th .name").all_inner_texts() == ["a", "b", "c"]
    third = page.locator(".shelves tbody tr").nth(2)
    assert third.locator("canvas").count() == 2 and third.locator("td").nth(1).inner_text() == "–"
    page.get_by_text("Choose classes").click()
    page.locator("#find-class").fill("class 1")
    assert page.locator("#set-classes label:visible").count() == 11
    page.locator("#no-classes").click()
    page.locator("#find-class").fill("=cmd")
    page.get_by_label("=cmd()").check()
    assert heads.all_inner_texts() == ["Set", *(f"class {k}" for k in (0, *range(2, 10))), "=cmd()"]
    assert "class=%3Dcmd%28%29" in page.evaluate("location.hash")
    page.get_by_role("group", name="Method").get_by_label("mtt", exact=True).uncheck()
    assert page.locator(".shelves tbody tr:visible .name").all_inner_texts() == ["a", "c"]
    lit = "(tile) => tile.getContext('2d').getImageData(0, 0, tile.width, tile.height).data.some((level) => level > 0)"
    page.wait_for_function(f"({lit})(document.querySelector('.shelves canvas'))")


def test_a_curve_is_brought_forward_and_filtered(opened: Callable[..., Any], runs_file: Path) -> None:
    page = opened(runs_file)
    lines = page.locator("#loss .plane .line")
    assert lines.count() == 2
    button = page.locator("#loss .legend").get_by_role("button", name="mtt")
    button.press("Enter")
    dim = "(lines) => lines.map((line) => line.classList.contains('dim'))"
    assert button.get_attribute("aria-pressed") == "true" and lines.evaluate_all(dim) == [True, False]
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "false" and lines.evaluate_all(dim) == [False, False]
    page.get_by_role("group", name="Method").get_by_label("edf", exact=True).uncheck()
    assert [one.is_visible() for one in lines.all()] == [False, True]
    assert page.locator("#loss .legend li:visible span").all_inner_texts() == ["mtt"]


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (1200, "light")])
@pytest.mark.parametrize("kind", ["comparison_file", "runs_file"])
def test_nothing_is_wider_than_the_window_and_nothing_fails_axe(
    request: pytest.FixtureRequest, visits: Visits, kind: str, width: int, scheme: str
) -> None:
    page = visits.open(request.getfixturevalue(kind), width=width, scheme=scheme)
    assert violations(page) == [] and overflow(page) == 0
    page.context.close()


def test_looking_for_a_class_in_the_table_leaves_the_images_as_they_are(opened: Callable[..., Any], runs_file: Path) -> None:
    page = opened(runs_file)
    heads = page.locator(".shelves th[scope=col]")
    page.locator("#classes").get_by_label("Find").fill("class 2")
    page.locator("#classes").get_by_label("Find").blur()
    assert set(column(page, "classes", "Class")) == {"class 2", *(f"class {k}" for k in range(20, 30))}
    assert heads.all_inner_texts() == ["Set", *(f"class {k}" for k in range(10))]


def test_a_long_title_keeps_the_ending_of_a_download(visits: Visits, tmp_path: Path) -> None:
    long = "a rather long name of a folder with images in it that somebody has chosen " * 2
    page = visits.open(write_report(make_run(tmp_path / long.strip(), iterations=40, every=20), output=tmp_path / "page.html"))
    with page.expect_download() as caught:
        page.evaluate("limbeck.save(`${'x'.repeat(120)}-sets.csv`, limbeck.csv([['a']]))")
    assert caught.value.suggested_filename == f"{'x' * 60}-{'x' * 30}-sets.csv"


def test_words_with_a_bar_stay_one_field(visits: Visits, tmp_path: Path) -> None:
    page = visits.open(write_report(make_run(tmp_path / "run", iterations=40, every=20), output=tmp_path / "page.html"))
    page.evaluate("document.querySelector('#accuracies tbody td, #accuracies tbody th').textContent = 'cat|dog'")
    with page.expect_download() as caught:
        page.locator("button[data-csv-of=accuracies]").click()
    head, first, *_ = csv.reader(io.StringIO(Path(caught.value.path()).read_text(encoding="utf-8")))
    assert first[0] == "cat|dog" and len(first) == len(head)

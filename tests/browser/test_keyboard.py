"""Pages by keyboard alone: Tab reaches everything once, in order and in sight, nothing holds it, and other keys do the rest."""

from pathlib import Path
from typing import Any

import pytest
from browser.visits import PHONE, Visits
from report.fake_run import make_run
from report.kept_files import a_card, a_map
from report.test_several import CIFAR

from limbeck.report.write import write_report

# What is there for the keyboard: of radio buttons, of images and whatever else moves by arrow keys, one is in the order.
EXPECTED = """() => {
  const all = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")];
  return all.filter((one) => one.tabIndex >= 0 && one.checkVisibility({ contentVisibilityAuto: false }) && !one.disabled)
    .map((one) => { one.dataset.walk ??= String(all.indexOf(one)); return one.dataset.walk; });
}"""
# Notes, whenever Tab is pressed, where one has been until then: its number; whether it is in sight, and says that one is there.
NOTED = """() => {
  window.walked = [];
  document.addEventListener("keydown", ({ key }) => {
    const one = document.activeElement;
    if (key !== "Tab") return;
    if (one === document.body) return window.walked.push(null);
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    window.walked.push({
      walk: one.dataset.walk ?? null, what: `${one.tagName} ${one.id} ${one.textContent.trim().slice(0, 30)}`,
      seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
      marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
    });
  }, true);
}"""
MOST, MORE = 400, 4


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("walk") / "run", iterations=40, every=10)
    a_map(classes=3).write(run, "")
    a_card(tuple(f"class {k}" for k in range(20)), (9,) * 20, [0, 0, 3]).write(run, "")
    return write_report(run)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(CIFAR, output=tmp_path_factory.mktemp("walk") / "comparison.html")


def walk(page: Any, presses: int, key: str = "Tab") -> list[dict[str, Any]]:
    """Everything that has had the focus before each of so many presses of the key."""
    page.evaluate("window.walked.length = 0")
    for _ in range(presses):
        page.keyboard.press(key)
    return [here for here in page.evaluate("window.walked") if here is not None]


def once(found: list[dict[str, Any]], first: str) -> list[str]:
    """The numbers of a walk from its first one on, until it begins again."""
    numbers = [here["walk"] for here in found if here["walk"] is not None]
    rest = numbers[numbers.index(first) :]
    return rest[: rest.index(first, 1)] if first in rest[1:] else rest


def reach(page: Any, selector: str) -> None:
    """Go on by Tab until one is there."""
    for _ in range(MOST):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector}")


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.id"))


@pytest.mark.parametrize(("kind", "width"), [("report", 1280), ("report", PHONE), ("comparison", 1280)])
def test_tab_leads_through_the_whole_page_and_back(request: pytest.FixtureRequest, visits: Visits, kind: str, width: int) -> None:
    page = visits.open(request.getfixturevalue(kind), width)
    page.evaluate(NOTED)
    expected = page.evaluate(EXPECTED)
    found = walk(page, len(expected) + MORE)
    assert once(found, expected[0]) == expected
    assert not [here["what"] for here in found if not here["seen"]], "what has the focus is in sight"
    assert not [here["what"] for here in found if not here["marked"]], "and says so"
    if width == PHONE:
        assert once(walk(page, len(expected) + 3 * MORE, "Shift+Tab"), expected[-1]) == expected[::-1]
    page.context.close()


def test_an_image_opens_and_closes_and_leads_back(visits: Visits, report: Path) -> None:
    page = visits.open(report)
    reach(page, "button.look")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    panel = page.locator("#panel")
    assert panel.is_visible() and focused(page) == "panel-name"
    stops = set()
    for _ in range(30):  # nothing outside of it, round and round
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.querySelector('#panel').contains(document.activeElement)"
        )
        stops.add(focused(page))
    assert {"panel-previous", "panel-next", "panel-close", "panel-time", "panel-save"} <= stops
    reach(page, "#panel input[name=panel-layer]")
    for layer in ("map", "change", "weights"):
        page.keyboard.press("ArrowRight")
        assert page.locator(f"#panel input[value={layer}]").is_checked() and panel.is_visible()
    reach(page, "#panel-strength")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#panel-strength").input_value() == "99"
    reach(page, "#panel-time")
    page.keyboard.press("Home")
    assert page.locator("#panel-time").input_value() == "0"
    page.wait_for_function("document.querySelector('#panel-told').textContent.startsWith('As it was')")
    reach(page, "#panel-close")
    page.keyboard.press("Enter")
    assert not panel.is_visible()
    assert page.evaluate("document.activeElement === document.querySelectorAll('button.look')[1]")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert not panel.is_visible() and page.evaluate("document.activeElement === document.querySelectorAll('button.look')[1]")
    page.context.close()


def test_film_map_data_and_settings_are_used(visits: Visits, report: Path) -> None:
    page = visits.open(report)
    reach(page, "#play")
    page.keyboard.press("Home")
    assert page.locator("#time").input_value() == "0"
    for at in ("1", "2"):
        page.keyboard.press("ArrowRight")
        assert page.locator("#time").input_value() == at
    reach(page, "#overlay")
    page.keyboard.press("Space")
    assert page.locator("#overlay").is_checked()
    reach(page, "#landscape-class")
    page.keyboard.press("ArrowDown")
    assert page.locator("#landscape .place:visible").count() == 1
    reach(page, ".data-long")
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('.data-long').scrollTop > 0")
    reach(page, "#settings > summary")
    page.keyboard.press("Enter")
    assert page.locator("#settings").evaluate("one => one.open")
    page.context.close()


def test_tables_are_sorted_filtered_and_searched(visits: Visits, comparison: Path) -> None:
    page = visits.open(comparison)
    reach(page, "fieldset[data-fact=method] input")
    page.keyboard.press("Space")
    rows = page.locator("#cells-table tbody tr:visible")
    few = rows.count()
    assert 0 < few < 25 and "of 25 rows" in page.locator(".count[data-table=cells]").inner_text()
    page.keyboard.press("Space")
    assert rows.count() == 25
    reach(page, "#methods-table th button")
    for direction in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert page.locator("#methods-table th").first.get_attribute("aria-sort") == direction
    reach(page, "input.find-row[data-table=cells]")
    page.keyboard.type("MTT-ipc1")
    assert rows.count() == 3 and "3 of 25 rows" in page.locator(".count[data-table=cells]").inner_text()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert rows.count() == 25
    page.context.close()

"""The map of features, the data card and the gauge in a browser: what can be chosen, and that nobody is kept from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from browser.visits import PHONE, Visits, overflow, violations
from report.fake_run import make_run
from report.kept_files import a_card, a_map

from limbeck.report.html import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("measures") / "run")
    a_map(classes=3).write(run, "")
    a_card(tuple(f"class number {k}" for k in range(40)), (9,) * 40, [0, 0, 3]).write(run, "")
    return write_report(run)


@pytest.fixture(scope="module")
def desk(visits: Visits, report: Path) -> Any:
    return visits.open(report)


def shown(page: Any, selector: str) -> list[bool]:
    """Of every mark that the selector finds, whether it is to be seen at full strength."""
    strength = "mark => [getComputedStyle(mark.closest('g[data-class]') ?? mark).opacity, mark.getClientRects().length]"
    found: list[list[Any]] = page.locator(selector).evaluate_all(f"marks => marks.map({strength})")
    return [opacity == "1" and rectangles > 0 for opacity, rectangles in found]


def test_one_class_is_told_from_the_others(desk: Any) -> None:
    assert shown(desk, "#landscape .ends path") == [True] * 3
    desk.select_option("#landscape-class", label="owl")
    first = desk.locator("#landscape g[data-class='0'] .ends path").count()
    assert first == 1 and shown(desk, "#landscape g[data-class='0'] .ends path") == [True]
    assert shown(desk, "#landscape g[data-class='1'] .ends path, #landscape g[data-class='2'] .ends path") == [False] * 2
    assert desk.locator("#landscape .place:visible").all_text_contents() == ["owl"]
    desk.select_option("#landscape-class", "")
    assert shown(desk, "#landscape .ends path") == [True] * 3


@pytest.mark.parametrize(("box", "marks"), [("landscape-real", ".real"), ("landscape-ways", ".starts")])
def test_real_images_and_ways_can_be_left_out(desk: Any, box: str, marks: str) -> None:
    assert shown(desk, f"#landscape-map {marks}") == [True] * 3
    desk.locator(f"#{box}").focus()
    desk.keyboard.press("Space")
    assert shown(desk, f"#landscape-map {marks}") == [False] * 3 and shown(desk, "#landscape .ends path") == [True] * 3
    desk.keyboard.press("Space")
    assert shown(desk, f"#landscape-map {marks}") == [True] * 3


def test_a_distilled_image_on_the_map_opens_once(desk: Any) -> None:
    """And after that it is the one among the images that Tab comes to."""
    desk.evaluate("opened = []; document.getElementById('panel-name').focus = () => opened.push(1); 0")
    desk.locator("#landscape [data-position='2']").click()
    assert desk.locator("#panel").is_visible() and desk.evaluate("opened.length") == 1
    desk.keyboard.press("Escape")
    assert not desk.locator("#panel").is_visible()
    desk.evaluate("delete document.getElementById('panel-name').focus")
    places = desk.locator("button.look").evaluate_all("all => all.map((one) => one.tabIndex)")
    assert places == [-1, -1, 0, -1, -1, -1] and desk.evaluate("document.activeElement.tabIndex") == 0


@pytest.mark.parametrize("classes", [10, 100])
def test_names_on_the_map_do_not_lie_over_each_other(visits: Visits, tmp_path: Path, classes: int) -> None:
    """As they are drawn; of many classes only the one that is pointed at, or chosen, is named."""
    run = make_run(tmp_path / "run", tuple(f"a class, number {k}" for k in range(classes)), 1, (3, 4, 4), iterations=20, every=20)
    held = a_map(classes=classes, iterations=(0, 10, 20), best=10)
    near = torch.rand(classes, 2, generator=torch.Generator().manual_seed(0)) * 3
    replace(held, real=near, paths=near + torch.tensor([0.0, 5.0, 20.0])[:, None, None]).write(run, "")
    page = visits.open(write_report(run))
    boxes = "all => all.filter((one) => one.checkVisibility()).map((one) => one.getBoundingClientRect().toJSON())"
    found = page.locator("#landscape .place").evaluate_all(boxes)
    assert len(found) == (classes if classes == 10 else 0)
    for number, one in enumerate(found):
        for other in found[:number]:
            apart = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert apart or one["bottom"] <= other["top"] + 4 or other["bottom"] <= one["top"] + 4, (
                one,
                other,
            )  # lines have some room
    if classes == 100:
        page.locator("#landscape [data-position]").last.hover(force=True)
        assert page.locator("#landscape .place:visible").count() == 1
        page.mouse.move(0, 0)
        page.select_option("#landscape-class", label="a class, number 7")
        assert page.locator("#landscape .place:visible").all_text_contents() == ["a class, number 7"]
    page.context.close()


def test_many_classes_scroll_by_keyboard(desk: Any) -> None:
    table = desk.get_by_role("region", name="Classes of the data")
    table.focus()  # which brings it into sight
    tall = "({ scrollHeight, clientHeight }) => scrollHeight > clientHeight && clientHeight < 480"
    desk.wait_for_function(f"({tall})(document.querySelector('.data-long'))")
    desk.keyboard.press("End")
    desk.wait_for_function("document.querySelector('.data-long').scrollTop > 0")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (PHONE, "dark")])
def test_nobody_is_kept_from_a_page_that_has_everything(visits: Visits, report: Path, scheme: str, width: int) -> None:
    page = visits.open(report, width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert violations(page) == [] and overflow(page) == 0
    gauge = page.locator("#recovery .gauge")
    assert gauge.get_attribute("role") == "img" and "Recovered:" in gauge.get_attribute("aria-label")
    page.context.close()

"""The report of a run, clicked through."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.pages import SHOTS
from browser.shots import difference, unlike
from browser.visits import PHONE, Visits, overflow
from PIL import Image
from report.fake_run import make_run

from limbeck.report.html import write_report

PIXELS = "tile => [...tile.getContext('2d').getImageData(0, 0, tile.width, tile.height).data]"
SHEETS = "({ ...limbeck.data('film-data'), frames: limbeck.data('film-data').frames.map((_, k) => limbeck.frame(k)) })"
ITERATIONS = (0, 100, 200, 300, 400)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def desk(visits: Visits, report: Path) -> Any:
    """The page on a desk, opened once; a test that turns something turns it back."""
    return visits.open(report)


def sheets(page: Any) -> dict[str, Any]:
    """What the page's script was handed."""
    found: dict[str, Any] = page.evaluate(SHEETS)
    return found


def tile(page: Any, number: int, frame: int, kind: str = "image") -> np.ndarray:
    """That tile of a frame as (height, width, 4) levels, read from the data URI without the browser."""
    held = sheets(page)
    height, width, columns = held["height"], held["width"], held["columns"]
    picture = Image.open(io.BytesIO(base64.b64decode(held["frames"][frame][kind].partition(",")[2]))).convert("RGBA")
    left, top = number % columns * width, number // columns * height
    return np.asarray(picture.crop((left, top, left + width, top + height)), dtype=float)


def drawn(page: Any, number: int) -> np.ndarray:
    """What the canvas of that tile shows."""
    canvas = page.locator("#film canvas.tile").nth(number)
    levels = canvas.evaluate(PIXELS)
    return np.array(levels, dtype=float).reshape(int(canvas.get_attribute("height")), int(canvas.get_attribute("width")), 4)


def shows(page: Any, number: int, levels: np.ndarray, apart: float = 0) -> bool:
    """Whether that tile shows these levels, at once or within five seconds: pictures are decoded beside the script."""
    for _ in range(50):
        if np.abs(drawn(page, number) - levels).max() <= apart:
            return True
        page.wait_for_timeout(100)
    return False


def test_the_slider_shows_every_snapshot(desk: Any) -> None:
    time = desk.locator("#time")
    before = time.input_value()
    time.focus()
    desk.keyboard.press("Home")
    for frame, iteration in enumerate(ITERATIONS):
        said = desk.locator("#moment").inner_text()
        assert said.startswith("before the first iteration" if iteration == 0 else f"after {iteration} iterations")
        assert time.get_attribute("aria-valuetext") == said
        for number in (0, 5):
            assert shows(desk, number, tile(desk, number, frame))
        desk.keyboard.press("ArrowRight")
    time.fill(before)


def test_the_film_begins_with_the_best_snapshot(visits: Visits, report: Path) -> None:
    page = visits.open(report)
    assert "the best" in page.locator("#moment").inner_text()
    page.context.close()


def test_playing_ends_with_the_last_snapshot_and_can_be_stopped(visits: Visits, report: Path) -> None:
    page = visits.open("about:blank")
    page.clock.install()
    page.goto(report.as_uri())
    play, moment = page.locator("#play"), page.locator("#moment")
    page.locator("#time").fill("0")
    play.click()
    assert play.inner_text() == "Stop"
    page.clock.run_for(1000)
    assert 0 < int(page.locator("#time").input_value()) < len(ITERATIONS) - 1
    play.click()
    held = moment.inner_text()
    page.clock.run_for(5000)
    assert play.inner_text() == "Play" and moment.inner_text() == held
    play.press("Enter")
    page.clock.run_for(5000)
    assert play.inner_text() == "Play" and moment.inner_text().startswith(f"after {ITERATIONS[-1]} iterations")
    page.context.close()


def test_maps_lie_over_the_images(desk: Any) -> None:
    frame = int(desk.locator("#time").input_value())
    overlay, image, over = desk.locator("#overlay"), tile(desk, 1, frame), tile(desk, 1, frame, "map")
    share = over[..., 3:] / 255
    laid = np.concatenate([share * over[..., :3] + (1 - share) * image[..., :3], image[..., 3:]], axis=2)
    assert np.abs(laid - image).max() > 20
    for turn in (overlay.check, lambda: overlay.press("Space")):
        turn()
        assert overlay.is_checked() and shows(desk, 1, laid, apart=2)
        overlay.uncheck()
        assert shows(desk, 1, image)


@pytest.mark.parametrize("name", ("settings", "environment"))
def test_what_is_folded_opens_with_mouse_and_keyboard(desk: Any, name: str) -> None:
    folded = desk.locator(f"#{name}")
    summary, inside = folded.locator("> summary"), folded.locator("> :not(summary)").last
    assert not inside.is_visible()
    summary.click()
    assert inside.is_visible()
    summary.press("Enter")
    assert not inside.is_visible()


def test_parts_lie_below_each_other_and_none_is_cut_off(visits: Visits, report: Path) -> None:
    for width in (1280, PHONE):
        page = visits.open(report, width)
        boxes = page.evaluate("[...document.querySelectorAll('main > section')].map(one => one.getBoundingClientRect().toJSON())")
        main = page.locator("main").evaluate("one => one.getBoundingClientRect().width")
        inner = boxes[0]["width"]
        assert len(boxes) >= 8 and all(box["width"] == inner <= main for box in boxes)
        assert all(above["bottom"] <= below["top"] for above, below in zip(boxes, boxes[1:], strict=False))
        page.context.close()


def test_a_page_without_scripts_says_what_is_missing(visits: Visits, report: Path) -> None:
    page = visits.open(report, java_script_enabled=False)
    assert "need JavaScript" in page.locator("#film .notice").inner_text() and page.locator("h1").is_visible()
    page.context.close()


def test_a_hundred_classes_can_be_looked_at(visits: Visits, tmp_path: Path) -> None:
    names = tuple(f"a class with a long name, number {k}" for k in range(100))
    page = visits.open(write_report(make_run(tmp_path / "run", names, ipc=1, shape=(3, 8, 8), iterations=20, every=10)), PHONE)
    assert page.locator("#film canvas.tile").count() == 100 and overflow(page) == 0
    read = "[...limbeck.known.keys()].filter((id) => id.startsWith('film-frame-')).length"
    assert page.evaluate(read) == 1, "of the film only what is shown is read when the page opens"
    assert page.evaluate("document.querySelectorAll('*').length") < 3600
    assert shows(page, 99, tile(page, 99, int(page.locator("#time").input_value())))
    page.context.close()


@pytest.mark.parametrize("scheme", SHOTS)
def test_it_looks_as_it_did(visits: Visits, report: Path, scheme: str) -> None:
    page = visits.open(report, scheme=scheme)
    apart = {name: unlike(page, selector, f"{name}-{scheme}") for name, selector in SHOTS[scheme].items()}
    assert not any(apart.values()), apart
    page.context.close()


def test_another_look_is_noticed(visits: Visits, report: Path) -> None:
    """The tolerance does not swallow another frame, the other scheme's colours, or the curve of another figure."""
    page = visits.open(report)
    page.locator("#time").fill("0")
    assert unlike(page, "#film .class .images", "film-light")
    assert unlike(page, "#loss svg", "loss-dark") and unlike(page, "#loss svg", "accuracy-light")
    page.context.close()


def test_pictures_that_differ_differ() -> None:
    grey, line = Image.new("RGB", (40, 40), "grey"), Image.new("RGB", (40, 40), "grey")
    assert difference(grey, line) == ""
    line.paste("white", (0, 0, 1, 40))
    assert "2.5%" in difference(grey, line) and "size" in difference(grey, grey.crop((0, 0, 20, 40)))

"""The image panel, classes by name, themes and downloads, as a reader uses them."""

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.test_report import SHEETS
from browser.visits import PHONE, Visits, overflow, violations
from distilled.samples import NAMES
from PIL import Image
from reliability.test_browser import HOSTILE, hostile_run
from report.fake_run import make_run
from report.test_looks import near_file

from limbeck.distilled.contrast import shown
from limbeck.distilled.set import DistilledSet
from limbeck.report.html import write_report

ACTIVE = "document.activeElement === document.querySelectorAll('button.look')[{}]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("runs") / "run", iterations=40, every=10)
    near_file(path)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def desk(visits: Visits, run: Path) -> Any:
    """The page, opened once; a test that opens the panel closes it."""
    return visits.open(run / "report.html", accept_downloads=True)


@pytest.fixture
def panel(desk: Any) -> Any:
    """The panel of the first image."""
    desk.locator("button.look").first.focus()
    desk.keyboard.press("Enter")
    yield desk.locator("#panel")
    if desk.locator("#panel").is_visible():
        desk.keyboard.press("Escape")


def levels(page: Any, name: str) -> np.ndarray:
    """What a canvas of the panel shows, (height, width, 4)."""
    picture = page.locator(f"#panel canvas.{name}").evaluate("one => one.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).convert("RGBA")).astype(int)


def becomes(page: Any, name: str, expected: np.ndarray, apart: int = 0) -> bool:
    """Whether a canvas shows these levels (height, width, channels) enlarged, at once or within five seconds."""
    for _ in range(50):
        found = levels(page, name)
        scale = found.shape[0] // expected.shape[0]
        if np.abs(found[..., : expected.shape[2]] - np.kron(expected.astype(int), np.ones((scale, scale, 1)))).max() <= apart:
            return True
        page.wait_for_timeout(100)
    return False


def title(page: Any) -> str:
    return str(page.locator("#panel-name").inner_text())


def test_enter_opens_the_image_and_escape_leads_back(desk: Any, run: Path) -> None:
    images, panel = desk.locator("button.look"), desk.locator("#panel")
    assert not panel.is_visible()
    images.nth(0).focus()
    desk.keyboard.press("Enter")
    assert panel.is_visible() and title(desk) == f"{NAMES[0]}, image 1"
    assert desk.evaluate("document.activeElement.id") == "panel-name"
    assert becomes(desk, "picture", shown(DistilledSet.load(run / "distilled"))[0][0])
    desk.keyboard.press("Escape")
    assert not panel.is_visible() and desk.evaluate(ACTIVE.format(0))


def test_a_click_opens_and_arrows_go_on(desk: Any, run: Path) -> None:
    pixels = shown(DistilledSet.load(run / "distilled"))[0]
    desk.locator("button.look").nth(2).click()
    assert title(desk) == f"{NAMES[1]}, image 1"
    desk.keyboard.press("ArrowRight")
    assert title(desk) == f"{NAMES[1]}, image 2" and becomes(desk, "picture", pixels[3])
    desk.locator("#panel-previous").click()
    desk.locator("#panel-previous").click()
    assert title(desk) == f"{NAMES[0]}, image 2" and becomes(desk, "picture", pixels[1])
    for _ in range(2):
        desk.keyboard.press("ArrowLeft")
    assert title(desk) == f"{NAMES[-1]}, image 2"  # round the end
    desk.locator("#panel-close").click()
    assert desk.evaluate(ACTIVE.format(5))


def test_a_click_beside_the_panel_closes_it(panel: Any, desk: Any) -> None:
    desk.mouse.click(3, 3)
    assert not panel.is_visible()


def test_labels_are_bars_as_long_as_their_shares(panel: Any, run: Path) -> None:
    shares = DistilledSet.load(run / "distilled").probabilities()[0]
    order = shares.argsort(descending=True).tolist()
    rows = panel.locator("#panel-label li")
    said = [row.split("\n") for row in rows.all_inner_texts()]
    assert [one[0] for one in said] == [NAMES[k] for k in order]
    assert [one[-1] for one in said] == [f"{100 * shares[k]:.1f} %" for k in order]
    widths = rows.locator(".fill").evaluate_all("all => all.map(one => one.clientWidth / one.parentElement.clientWidth)")
    assert widths == pytest.approx(shares[order].tolist(), abs=0.01)
    assert panel.locator("#panel-label li.own").inner_text().startswith(NAMES[0])


def sheet_of(page: Any, layer: str) -> np.ndarray:
    """The first tile of a layer as the page has it, (height, width, 4)."""
    held = page.evaluate("limbeck.data('looks').layers")
    sheet = Image.open(io.BytesIO(base64.b64decode(held[layer]["image"].partition(",")[2]))).convert("RGBA")
    return np.asarray(sheet.crop((0, 0, held["width"], held["height"])))


@pytest.mark.parametrize(
    ("layer", "says"), [("map", "map network"), ("change", "brighter than at the start"), ("weights", "multiplied")]
)
def test_layers_lie_over_the_image_as_strongly_as_is_asked_for(panel: Any, desk: Any, layer: str, says: str) -> None:
    strength = desk.locator("#panel-strength")
    assert not strength.is_visible() and levels(desk, "over")[..., 3].max() == 0
    panel.locator(f"input[value={layer}]").check()
    expected = sheet_of(desk, layer)
    desk.wait_for_function("document.querySelector('#panel-strength').checkVisibility()")
    found = levels(desk, "over")
    scale = found.shape[0] // expected.shape[0]
    middle = found[scale // 2 :: scale, scale // 2 :: scale, 3].astype(int)  # shades are smoothed between the middles of pixels
    assert np.abs(middle - expected[..., 3]).mean() < 8 and middle.max() > 100
    assert says in desk.locator("#panel-told").inner_text()
    strength.fill("40")
    assert desk.locator("#panel canvas.over").evaluate("one => getComputedStyle(one).opacity") == "0.4"
    panel.locator("input[value=none]").check()
    desk.wait_for_function("!document.querySelector('#panel-strength').checkVisibility()")
    assert levels(desk, "over")[..., 3].max() == 0


def test_the_slider_of_the_panel_shows_the_image_as_it_was(panel: Any, desk: Any) -> None:
    film = desk.evaluate(SHEETS)
    time = desk.locator("#panel-time")
    assert time.input_value() == str(film["start"])
    time.focus()
    desk.keyboard.press("Home")
    sheet = Image.open(io.BytesIO(base64.b64decode(film["frames"][0]["image"].partition(",")[2])))
    assert becomes(desk, "picture", np.asarray(sheet.crop((0, 0, film["width"], film["height"]))))
    assert desk.locator("#panel-told").inner_text() == "As it was, before the first iteration."
    assert title(desk) == f"{NAMES[0]}, image 1"  # arrows and the like move the slider, not the panel
    panel.locator("input[value=weights]").check()
    desk.wait_for_function("document.querySelector('#panel-strength').checkVisibility()")
    assert time.input_value() == "0"  # those of this snapshot
    sheet = Image.open(io.BytesIO(base64.b64decode(film["frames"][0]["weights"].partition(",")[2]))).convert("RGBA")
    expected, found = np.asarray(sheet.crop((0, 0, film["width"], film["height"]))), levels(desk, "over")
    scale = found.shape[0] // expected.shape[0]
    middle = found[scale // 2 :: scale, scale // 2 :: scale, 3].astype(int)
    assert np.abs(middle - expected[..., 3]).mean() < 8 and "multiplied" in desk.locator("#panel-told").inner_text()
    panel.locator("input[value=change]").check()
    desk.wait_for_function(f"document.querySelector('#panel-time').value === '{film['start']}'")  # known of the set's images alone
    panel.locator("input[value=none]").check()


def test_the_area_is_drawn_and_told(panel: Any, desk: Any) -> None:
    look = desk.evaluate("limbeck.data('looks').images[0]")
    first, last = (f"{100 * look['area'][k]:.1f} %" for k in (0, -1))
    words = f"{first} of the image before the first iteration, {last} after 40 iterations."
    assert words in panel.locator("#panel-area .caption").inner_text()
    plot = desk.locator("#panel-plot")
    assert plot.get_attribute("aria-label") == words and plot.locator("circle").count() == 1
    points = plot.locator("polyline").get_attribute("points").split()
    x = [float(point.split(",")[0]) for point in points]
    assert len(points) == 5 and np.diff(x) == pytest.approx(np.full(4, np.diff(x)[0]))


def test_near_images_stand_there_where_they_are_known(panel: Any, desk: Any) -> None:
    assert not panel.locator("#panel-near").is_visible()
    desk.keyboard.press("ArrowRight")
    assert panel.locator("#panel-near li").all_inner_texts() == ["newt\nat 0.5", "owl\nat 0.75"]
    assert [one.get_attribute("aria-label") for one in panel.locator("#panel-near canvas").all()] == [
        "a real image of newt",
        "a real image of owl",
    ]
    assert "50 of 60 training images" in panel.locator("#panel-near .caption").inner_text()


def test_one_tab_stop_leads_to_the_images_and_arrows_go_between_them(desk: Any) -> None:
    images = desk.locator("button.look")
    assert sorted(images.evaluate_all("all => all.map(one => one.tabIndex)")) == [-1] * 5 + [0]
    images.nth(0).focus()
    for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 5), ("Home", 0)):
        desk.keyboard.press(key)
        assert desk.evaluate(ACTIVE.format(at)), key


def test_an_image_of_the_film_opens_as_it_is_there(desk: Any) -> None:
    time = desk.locator("#time")
    before = time.input_value()
    time.fill("1")
    desk.locator("#film canvas.tile").nth(4).click()
    assert title(desk) == f"{NAMES[2]}, image 1" and desk.locator("#panel-time").input_value() == "1"
    desk.keyboard.press("Escape")
    time.fill(before)


def test_the_film_runs_by_keyboard(desk: Any) -> None:
    time, overlay = desk.locator("#time"), desk.locator("#overlay")
    before = time.input_value()
    desk.locator("#play").focus()
    for key, at in (("Home", "0"), ("ArrowRight", "1"), ("End", "4"), ("ArrowLeft", "3")):
        desk.keyboard.press(key)
        assert time.input_value() == at
    desk.keyboard.press("m")
    assert overlay.is_checked()
    desk.keyboard.press("m")
    time.focus()
    desk.keyboard.press(" ")
    assert desk.locator("#play").inner_text() == "Stop"
    desk.keyboard.press(" ")
    assert desk.locator("#play").inner_text() == "Play"
    time.fill(before)


def downloaded(page: Any, button: str) -> tuple[str, bytes]:
    """The name and content of the file that a button gives."""
    with page.expect_download() as waiting:
        page.locator(button).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_files_hold_what_the_page_shows(desk: Any, run: Path) -> None:
    held = DistilledSet.load(run / "distilled")
    pixels = shown(held)[0]
    name, content = downloaded(desk, "#save-grid")
    grid = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert name == "EDF-scenes-images.png" and grid.shape == (3 * 18 - 2, 2 * 18 - 2, 3)
    for k in range(6):
        top, left = k // 2 * 18, k % 2 * 18
        assert np.array_equal(grid[top : top + 16, left : left + 16], pixels[k])
    name, content = downloaded(desk, "#save-tensors")
    assert name == "EDF-scenes.npz" and np.array_equal(np.load(io.BytesIO(content))["images_float"], held.images.numpy())
    name, content = downloaded(desk, "#save-labels")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    shares = {(int(row["position"]), row["label"]): float(row["share"]) for row in rows}
    assert len(rows) == 18 and shares[3, NAMES[2]] == pytest.approx(held.probabilities()[3, 2].item(), abs=1e-5)
    name, content = downloaded(desk, "button[data-csv-of=accuracies]")
    rows = list(csv.reader(io.StringIO(content.decode())))
    assert rows[0] == ["Trained on", "mean", "standard deviation", "low", "high", "n"]
    assert rows[1][0] == "Distilled images" and [float(value) for value in rows[1][1:]] == pytest.approx(
        [0.3725, 0.0081, 0.3725 - 1.24 * 0.0081, 0.3725 + 1.24 * 0.0081, 5]
    )


def test_the_open_image_is_saved_as_it_is(panel: Any, desk: Any, run: Path) -> None:
    name, content = downloaded(desk, "#panel-save")
    assert name == "EDF-scenes-owl-image-1.png"
    saved = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(saved, shown(DistilledSet.load(run / "distilled"))[0][0])


def test_the_pixels_own_contrast_is_a_choice(desk: Any) -> None:
    own, image = desk.locator("#own-contrast"), desk.locator("button.look img").first
    look = "one => getComputedStyle(one).filter"
    assert image.evaluate(look) == "none"
    own.check()
    assert "own-levels" in image.evaluate(look)
    slope, low = (float(desk.locator("#own-levels feFuncR").get_attribute(name)) for name in ("slope", "intercept"))
    said = re.search(r"from −?([\d.]+) to ([\d.]+);", desk.locator("#images > .caption").inner_text())
    assert said and (-low, low + slope) == pytest.approx((float(said[1]), float(said[2])), abs=0.006)
    own.uncheck()
    assert image.evaluate(look) == "none"


def test_colours_are_chosen_and_remembered(visits: Visits, run: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(245, 246, 248)", "rgb(17, 20, 26)"
    page = visits.open(run / "report.html", scheme="dark")
    assert page.evaluate(ground) == dark
    for way, expected in (("light", light), ("dark", dark), ("light", light)):
        page.locator("#theme").select_option(way)
        assert page.evaluate(ground) == expected
    page.reload()
    assert page.evaluate(ground) == light and page.locator("#theme").input_value() == "light"
    page.locator("#theme").select_option("auto")
    assert page.evaluate(ground) == dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == light
    page.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", PHONE)])
def test_nothing_keeps_anybody_from_the_panel(visits: Visits, run: Path, scheme: str, width: int) -> None:
    page = visits.open(run / "report.html", width, scheme=scheme)
    page.locator("button.look").nth(1).click()
    page.locator("#panel-layers input[value=map]").check()
    assert violations(page) == [] and overflow(page) == 0
    inside = page.locator("#panel").evaluate("one => one.scrollWidth - one.clientWidth")
    assert inside == 0 and page.locator("#panel-near").is_visible()
    page.context.close()


def test_classes_are_found_by_name(visits: Visits, tmp_path: Path) -> None:
    names = tuple(f"animal {k}" for k in range(100))
    page = visits.open(write_report(make_run(tmp_path / "run", names, ipc=1, shape=(3, 8, 8), iterations=20, every=10)))
    find = page.locator("input.find").first
    find.fill("L 9")
    assert page.locator("#images .class:visible").count() == page.locator("#film .class:visible").count() == 11
    assert page.locator("#images output").inner_text() == "11 of 100 classes"
    find.press("Tab")
    page.locator("button.look:visible").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert title(page) == "animal 90, image 1"
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert title(page) == "animal 9, image 1"  # among those that were found
    assert page.locator("#panel-label li").last.inner_text().startswith("the 92 other classes together")
    page.keyboard.press("Escape")
    page.locator("input.find").last.fill("")
    assert page.locator("#images .class:visible").count() == 100
    page.context.close()


def test_names_of_any_kind_stay_text_in_the_panel(visits: Visits, tmp_path: Path) -> None:
    path = hostile_run(tmp_path)
    near_file(path)
    page = visits.open(write_report(path), accept_downloads=True)
    page.locator("button.look").nth(1).click()
    page.wait_for_timeout(200)
    assert title(page) == f"{HOSTILE[0]}, image 2"
    assert set(page.locator("#panel-label .name").all_inner_texts()) == {HOSTILE[0], HOSTILE[1], HOSTILE[4]}
    page.keyboard.press("Escape")
    name, content = downloaded(page, "#save-labels")
    assert "/" not in name and "<" not in name
    assert {row["class"] for row in csv.DictReader(io.StringIO(content.decode()))} == {HOSTILE[0], HOSTILE[1], HOSTILE[4]}
    assert page.evaluate("document.documentElement.dataset.run") is None
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every(one => one.getAttributeNames().every(name => !name.startsWith('on')))"
    )
    page.context.close()


def test_cells_that_begin_like_a_formula_are_no_formula(desk: Any) -> None:
    lines = [["=1+1", "@x", "-a", -0.5, 'say "hi", you', None], ["+5", "-3e-2", "\tx", 7, "a\nb", ""]]
    found = desk.evaluate("lines => limbeck.csv(lines).text()", lines)
    assert list(csv.reader(io.StringIO(found, newline=""))) == [
        ["'=1+1", "'@x", "'-a", "-0.5", 'say "hi", you', ""],
        ["+5", "-3e-2", "'\tx", "7", "a\nb", ""],
    ]


def test_who_wants_little_motion_gets_a_slower_film(visits: Visits, run: Path) -> None:
    page = visits.open("about:blank", reduced_motion="reduce")
    page.clock.install(time=0)
    page.goto((run / "report.html").as_uri())
    page.clock.pause_at(600_000)  # from here on time goes by as is said below
    page.locator("#time").fill("0")
    page.locator("#play").click()
    page.clock.run_for(1400)
    assert page.locator("#time").input_value() == "0"
    page.clock.run_for(200)
    assert page.locator("#time").input_value() == "1"
    page.context.close()

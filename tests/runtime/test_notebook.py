"""What a notebook shows of values; the example notebook, executed."""

import base64
import io
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled.samples import sample_set, summary
from PIL import Image
from report.fake_run import make_run

import limbeck
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity
from limbeck.distilled.preview import preview
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.experts.store import TrajectoryStore
from limbeck.methods.snapshots import Snapshot
from limbeck.runs.results import RunResult

NOTEBOOK = Path(__file__).parents[2] / "examples" / "distil.ipynb"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pictures(html: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(found))) for found in re.findall(r"data:image/png;base64,([^\"]+)", html)]


def test_an_image_set_shows_counts_and_examples_of_every_class() -> None:
    x = np.arange(24 * 64 * 3, dtype=np.uint64).astype(np.uint8).reshape(24, 8, 8, 3)
    made = ImageSet.from_arrays(x, np.arange(24) % 2, x[:4], [0, 1, 0, 1], class_names=("<b>", "cat"))
    assert repr(made) == "ImageSet('arrays', 22 + 2 + 4 images 3×8×8, 2 classes)"
    html = made._repr_html_()
    assert "<td>&lt;b&gt;</td><td>11</td><td>1</td><td>2</td>" in html and "<b>" not in html
    first, second = pictures(html)
    assert first.size == second.size == (80, 8)
    shown = made.train.images(made.train.of_class(1)[:2]).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(np.asarray(second)[:, :16], np.concatenate(list(shown.numpy()), axis=1))
    many = ImageSet.from_arrays(x[..., 0], np.arange(24) % 12, x[:12, ..., 0], np.arange(12), val_fraction=0)
    assert "… and 2 more" in many._repr_html_() and len(pictures(many._repr_html_())) == 10


def test_a_distilled_set_shows_its_images_and_accuracies() -> None:
    held = sample_set(
        names=("<i>", "mole", "newt"), metadata={"method": "edf", "evaluation": {"accuracy": {"distilled": summary(0.4)}}}
    )
    assert repr(held) == "DistilledSet(6 images 3×8×10, logits of 3 classes, η = 0.01235, method 'edf')"
    html = held._repr_html_()
    (sheet,) = pictures(html)
    assert sheet.size == preview(held).size
    assert "<td>Distilled images</td><td>40.0 ± 1.2 %</td>" in html
    assert "<table>" not in sample_set()._repr_html_()


def test_a_small_set_shows_its_images_from_the_darkest_to_the_brightest() -> None:
    x = torch.linspace(-2, 3, 4 * 3 * 8 * 8).view(4, 3, 8, 8)
    small = SmallSet.of_classes(x, torch.tensor([0, 1, 1, 1]), 2)
    html = small._repr_html_()
    assert "SmallSet(4 images 3×8×8, hard of 2 classes)" in html and "Black is -2, white 3." in html
    first, second = pictures(html)
    assert first.size == (8, 8) and second.size == (24, 8)
    levels = (255 * (x + 2) / 5).round()
    assert np.abs(np.asarray(second)[:, 16:] - levels[3].permute(1, 2, 0).numpy()).max() <= 1


def test_a_store_draws_the_curves_of_its_experts(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, {"network": "<b>", "num_parameters": 2})
    assert "<svg" not in store._repr_html_()
    for expert, curve in enumerate(([0.2, 0.4, 0.6], [0.4, None, 0.6])):
        store.write(expert, {epoch: torch.full((2,), float(epoch)) for epoch in range(4)}, curve)
    html = store._repr_html_()
    assert "<td>&lt;b&gt;</td>" in html and "<td>0-3</td>" in html and "<td>60.0 %</td>" in html and "<script" not in html
    lines = re.findall(r'points="([^"]*)" stroke="([^"]*)"', html)
    assert [colour for _, colour in lines] == ["currentColor", "currentColor", "#3366ee"]
    one, other, mean = ([tuple(map(float, point.split(","))) for point in points.split()] for points, _ in lines)
    assert [x for x, _ in one] == [x for x, _ in mean] and [x for x, _ in other] == [one[0][0], one[2][0]]
    low, middle, high = (y for _, y in one)
    assert middle - high == pytest.approx(low - middle, abs=0.2) and middle < low
    assert [y for _, y in mean] == pytest.approx([(low + middle) / 2, middle, high], abs=0.2)
    assert repr(store) == f"TrajectoryStore({str(tmp_path)!r}, 2 experts)"


def test_a_result_shows_its_images_while_they_are_there(tmp_path: Path) -> None:
    held = sample_set()
    result = RunResult.from_dict({"accuracy": {"distilled": summary(0.4)}})
    assert not pictures(result._repr_html_())
    html = result.at(distilled=str(held.save(tmp_path / "set")))._repr_html_()
    assert pictures(html)[0].size == preview(held).size and "40.0 ± 1.2 %" in html


def snapshots(count: int) -> list[Snapshot]:
    """Every image of one brightness, which grows."""
    x = torch.linspace(0.1, 0.4, 4).view(4, 1, 1, 1).expand(4, 3, 6, 6)
    rest = (torch.zeros(4, 6, 6), torch.ones(4, 1, 6, 6))
    labels = torch.eye(2).repeat_interleave(2, dim=0)
    return [Snapshot(k, x + 0.1 * k, labels, 0.1, *rest, 0.1 * k, k <= 1, None if k == 0 else 0.5, 0) for k in range(count)]


def test_a_film_of_snapshots() -> None:
    names = ("<b>", "cat")
    small = SmallSet.of_classes(snapshots(4)[-1].images, torch.tensor([0, 0, 1, 1]), 2, syn_lr=0.1)
    held = DistilledSet(set=small, preprocessing=Identity(), class_names=names)
    shown = limbeck.film(snapshots(4), held)
    assert repr(shown) == "Film(4 snapshots, iterations 0 to 3)"
    assert [frame.said for frame in shown.frames] == [
        "after 0 iterations, validation accuracy 0.0 %",
        "after 1 iteration, validation accuracy 10.0 %, loss 0.5, the result",
        "after 2 iterations, validation accuracy 20.0 %, loss 0.5",
        "after 3 iterations, validation accuracy 30.0 %, loss 0.5",
    ]
    html = shown._repr_html_()
    assert "from row to row: &lt;b&gt;, cat." in html and "<script" not in html and "<b>" not in html
    assert re.findall(r"<input[^>]*checked>", html) == [
        f'<input type="radio" name="frame" aria-label="{s}" title="{s}" checked>' for s in [shown.frames[1].said]
    ]
    for k, picture in enumerate(pictures(html)):
        assert picture.size == (4 * 7 - 1, 6)
        assert [picture.getpixel((7 * at, 0))[0] for at in range(4)] == pytest.approx(
            [25.5 * (1 + at + k) for at in range(4)], abs=0.6
        )
        assert picture.getpixel((6, 0))[3] == 0


def test_a_film_without_a_set_and_of_many_snapshots() -> None:
    shown = limbeck.film(snapshots(40))
    assert len(shown.frames) == 12 and [shown.frames[0].iteration, shown.frames[-1].iteration] == [0, 39]
    assert [frame.iteration for frame in shown.frames if frame.result] == [1]
    assert "class 0, class 1. Shown from the darkest value to the brightest." in shown.note


def test_a_film_of_a_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shown = limbeck.film(RunResult.from_dict({"accuracy": {}}).at(run=str(run)))
    assert [frame.iteration for frame in shown.frames] == [0, 100, 200, 300, 400]
    assert [frame.iteration for frame in shown.frames if frame.result] == [300]
    assert "owl, mole, newt" in shown.note and "less contrast" in shown.note
    with pytest.raises(limbeck.UsageError, match="source: 'a run without output' is not a RunResult with a run folder"):
        limbeck.film(RunResult.from_dict({"accuracy": {}}))
    with pytest.raises(limbeck.UsageError, match="source: 'list' is not a RunResult"):
        limbeck.film([])


def test_a_figure_shows_itself_without_pyplot() -> None:
    figure = limbeck.figures.image_grid(limbeck.figures.strips_of(sample_set()))
    wide, high = figure.get_size_inches()
    assert Image.open(io.BytesIO(figure._repr_png_())).size == (int(wide * 120), int(high * 120))
    assert repr(figure).startswith("<Figure size")


@pytest.fixture(scope="module")
def executed() -> str:
    """The notebook's outputs, as a page that shows notebooks has them."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    torch.set_num_threads(1)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return "".join(map(shown_by, (output for cell in notebook.cells for output in cell.get("outputs", ()))))


def shown_by(output: Any) -> str:
    """The best that an output has to show."""
    data = output.get("data", {})
    if "text/html" in data:
        return f"<section>{data['text/html']}</section>"
    if "image/png" in data:
        return f'<section><img class="figure" src="data:image/png;base64,{data["image/png"].strip()}"></section>'
    return f"<pre>{escape(data.get('text/plain', output.get('text', '')))}</pre>"


def test_the_notebook_runs(executed: str) -> None:
    assert executed.count("<section>") == 5 and executed.count("<table") >= 3
    assert executed.count("data:image/png") >= 10 + 1 + 1 + 4 + 1, "digits, the result, the set, the film, a figure"
    assert executed.count('<form class="limbeck-film"') == 1 and '<img class="figure"' in executed
    assert "distilled " in executed and "<script" not in executed


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look at the notebook with")
def test_a_film_in_a_browser_needs_no_script(executed: str, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    bare = re.sub(r"<style>.*?</style>|<input[^>]*>", "", executed, flags=re.DOTALL)  # as some pages make it
    for name, page in (("all.html", executed), ("bare.html", bare)):
        (tmp_path / name).write_text(f"<!doctype html><meta charset=utf-8><body>{page}", encoding="utf-8")
    with sync_api.sync_playwright() as found:
        browser = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(java_script_enabled=False)
        page.goto(f"file://{tmp_path}/all.html")
        figures = page.locator(".reel > figure")
        buttons = page.locator(".limbeck-film > input:not(.play)")

        def seen() -> list[int]:
            return [k for k in range(figures.count()) if figures.nth(k).is_visible()]

        assert figures.count() == buttons.count() == 4 and len(seen()) == 1
        buttons.nth(0).check()
        assert seen() == [0]
        page.keyboard.press("ArrowRight")
        assert seen() == [1] and "after 10 iterations" in figures.nth(1).inner_text()
        page.locator(".play").check()
        assert figures.nth(2).evaluate("one => getComputedStyle(one).animationName") == "limbeck-film-4"
        page.goto(f"file://{tmp_path}/bare.html")
        assert seen() == [0, 1, 2, 3]
        browser.close()

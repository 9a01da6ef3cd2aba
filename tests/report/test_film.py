"""The film of a run's snapshots, and how large pictures become."""

from pathlib import Path

import numpy as np
import pytest
import torch
from distilled.samples import normalise
from report.fake_run import make_run
from report.page import Page, film_of, page, pixels_of, unpack

from limbeck.methods import snapshots
from limbeck.report import film as film_module
from limbeck.report import pictures, sheets
from limbeck.runtime.files import read_tensors, write_tensors


def test_film_shows_every_snapshot(report: Page, finished: Path) -> None:
    film = film_of(report)
    assert [frame["iteration"] for frame in film["frames"]] == [0, 100, 200, 300, 400]
    assert [frame["best"] for frame in film["frames"]] == [False, False, False, True, False]
    assert len(report.attributes("canvas")) == 6 and film["positions"] == [0, 1, 2, 3, 4, 5] and film["start"] == 3
    for frame in film["frames"]:
        tensors, header = read_tensors(finished / "snapshots" / f"iteration-{frame['iteration']:06d}.safetensors")
        assert frame["accuracy"] == header["accuracy"]["mean"] and frame["loss"] == header["loss"]
        sheet, heat = np.asarray(unpack(frame["image"])), np.asarray(unpack(frame["map"]).convert("RGBA"))
        expected = pixels_of(finished, tensors)
        for k in range(6):
            top, left = k // film["columns"] * 16, k % film["columns"] * 16
            assert np.array_equal(sheet[top : top + 16, left : left + 16], expected[k])
            clear = heat[top : top + 16, left : left + 16, 3] / 255
            assert np.abs(clear - 0.8 * tensors["maps"][k].clamp(0, 1).numpy()).max() < 0.8 / 62 + 1 / 255


@pytest.mark.usefixtures("no_figures")
def test_many_images_are_capped_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_module, "MOST_FRAMES", 4)
    monkeypatch.setattr(film_module, "BUDGET", 8 * 8 * 3 * 4 * 2)
    run = make_run(tmp_path / "run", names=("a", "b"), ipc=30, shape=(3, 8, 8), iterations=100, every=10)
    content = page(run)
    assert len(content.attributes("img")) == 20
    film = film_of(content)
    assert len(film["frames"]) == 4
    iterations = [frame["iteration"] for frame in film["frames"]]
    assert iterations[0] == 0 and iterations[-1] == 100 and any(frame["best"] for frame in film["frames"])
    captions = " ".join(content.texts("p", class_="caption"))
    assert "Shown are 10 of up to 30 images of a class." in captions and "Shown are 4 of 11 snapshots." in captions


def test_a_page_stays_small() -> None:
    random = np.arange(1000 * 50) // 50
    for side in (32, 64, 128):
        shown = pictures.choose(random, [str(k) for k in range(1000)], 3 * side * side, pictures.BUDGET)
        assert len(shown.names) == min(100, pictures.BUDGET // (3 * side * side))
        assert sum(len(row) for row in shown.positions) * 3 * side * side <= pictures.BUDGET
    assert sheets.within(256, 128, 64) == (64, 32) and sheets.within(28, 20, 64) == (28, 20)


@pytest.mark.usefixtures("no_figures")
def test_large_and_grey_images(tmp_path: Path) -> None:
    content = page(make_run(tmp_path / "run", shape=(1, 160, 80), iterations=20, every=10))
    assert {unpack(str(held["src"])).size for held in content.attributes("img")} == {(64, 128)}
    film = film_of(content)
    assert (film["width"], film["height"]) == (32, 64)
    assert {held["width"] for held in content.attributes("canvas")} == {"32"}


@pytest.mark.usefixtures("no_figures")
def test_snapshots_with_few_images_show_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large sets, snapshots on the way keep some images: classes of which they have none are left out."""
    run = make_run(tmp_path / "run", names=("a", "b", "c", "d"), ipc=4, iterations=40, every=10)
    monkeypatch.setattr(snapshots, "LOOKED_AT", 3 * 4 * 3 * 16 * 16)
    for file in sorted((run / "snapshots").iterdir())[1:-1]:
        write_tensors(file, *snapshots.thinned(*read_tensors(file)), snapshots.SNAPSHOT)
    content = page(run)
    assert "Snapshots on the way keep 3 of 16 images." in " ".join(content.texts("p"))
    film = film_of(content)
    for frame in film["frames"]:
        tensors, header = read_tensors(run / "snapshots" / f"iteration-{frame['iteration']:06d}.safetensors")
        assert ("positions" in header) == (frame["iteration"] not in (0, 40))
        expected = pixels_of(run, tensors, *(() if "positions" in header else (0, 5, 10)))
        sheet = np.asarray(unpack(frame["image"]))
        for k in range(3):  # the images 0, 5 and 10, of a, b and c
            top, left = k // film["columns"] * 16, k % film["columns"] * 16
            assert np.array_equal(sheet[top : top + 16, left : left + 16], expected[k])


def test_snapshots_without_maps(tmp_path: Path) -> None:
    content = page(make_run(tmp_path / "run", iterations=20, every=10, maps=False))
    assert [frame["map"] for frame in film_of(content)["frames"]] == [None, None, None]
    assert not [held for held in content.attributes("input") if held.get("id") == "overlay"]


@pytest.mark.usefixtures("no_figures")
def test_weights_on_the_gradient_are_those_of_every_snapshot(tmp_path: Path) -> None:
    """As clear and bright as their size among all snapshots says."""
    run = make_run(tmp_path / "run", iterations=20, every=10)
    file = run / "snapshots" / "iteration-000010.safetensors"
    tensors, header = read_tensors(file)
    write_tensors(file, {**tensors, "weights": 2 * tensors["weights"]}, header, snapshots.SNAPSHOT)
    film, every = film_of(page(run)), []
    for frame in film["frames"]:
        tensors, _ = read_tensors(run / "snapshots" / f"iteration-{frame['iteration']:06d}.safetensors")
        every.append(tensors["weights"][:, 0])
    low, high = torch.stack(every).aminmax()
    assert film["weights"] == {"height": 16, "width": 16}
    for frame, weights in zip(film["frames"], every, strict=True):
        sheet = np.asarray(unpack(frame["weights"]).convert("RGBA"))
        for k in range(len(weights)):
            top, left = k // film["columns"] * 16, k % film["columns"] * 16
            opacity = 0.8 * 255 * (weights[k] - low) / (high - low)
            assert np.abs(sheet[top : top + 16, left : left + 16, 3] - opacity.numpy()).max() <= 0.8 * 255 / 31 / 2 + 1


@pytest.mark.usefixtures("no_figures")
def test_what_the_contrast_of_the_set_cuts_off_other_snapshots_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", iterations=20, every=10)
    file = run / "snapshots" / "iteration-000020.safetensors"
    tensors, header = read_tensors(file)
    x = normalise(3).forward(torch.full_like(tensors["X"], 0.5))
    x[:3] = normalise(3).forward(torch.full_like(x[:3], 9.0))  # half of the values are far too bright
    write_tensors(file, {**tensors, "X": x}, header, snapshots.SNAPSHOT)
    said = " ".join(page(run).texts("p", class_="caption"))
    assert "50.0 % of the values of the last one are darker or brighter than that, and cut off." in said

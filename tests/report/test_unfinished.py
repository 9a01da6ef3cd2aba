"""The report is written of whatever a run has left, or has made so far."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distilled.samples import normalise, summary
from report.fake_run import make_run
from report.kept_files import a_card
from report.page import data_of, figures_of, film_of, page, unpack

from limbeck.distilled.contrast import Contrast
from limbeck.methods import snapshots
from limbeck.report.html import write_report
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, read_tensors, write_json, write_tensors
from limbeck.runtime.metrics import read_metrics


def remove(*names: str) -> object:
    def change(run: Path) -> None:
        for name in names:
            shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()

    return change


def spoil(name: str, content: bytes = b"{") -> object:
    return lambda run: (run / name).write_bytes(content)


def without_numbers(run: Path) -> None:
    rows = read_metrics(run / "metrics.jsonl")
    empty = [{key: value if key in ("kind", "iteration") else None for key, value in row.items()} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in empty))


def one_row(run: Path) -> None:
    (run / "metrics.jsonl").write_text(
        '{"kind": "iteration", "iteration": 0, "loss": 0.5, "syn_lr": 0.1, "skipped": false}\n{"kind": "iter'
    )


SPOILED = {
    "results": (remove("results.json"), "400 of 10000 iterations", 8),
    "all but metrics": (
        remove("results.json", "distilled", "snapshots", "settings.json", "state.json"),
        "400 iterations are done",
        5,
    ),
    "all but settings": (
        remove("results.json", "distilled", "snapshots", "metrics.jsonl", "state.json"),
        "0 of 10000 iterations",
        0,
    ),
    "snapshots": (remove("snapshots"), "", 5),
    "set": (remove("distilled"), "", 8),
    "spoiled set": (spoil("distilled/distilled.safetensors"), "does not match the checksum", 8),
    "spoiled results": (spoil("results.json"), "results.json could not be read", 8),
    "list for settings": (spoil("settings.json", b"[]"), "settings.json could not be read", 8),
    "spoiled snapshot": (
        spoil("snapshots/iteration-000100.safetensors"),
        "snapshots/iteration-000100.safetensors could not be read",
        8,
    ),
    "nulls": (without_numbers, "", 3),
    "one row": (one_row, "", 5),
    "spoiled metrics": (spoil("metrics.jsonl", b"\xff"), "metrics.jsonl could not be read", 3),
}


@pytest.mark.parametrize("case", SPOILED)
def test_whatever_is_left_is_shown(tmp_path: Path, finished: Path, case: str) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    settings = read_json(run / "settings.json")
    settings["outer"]["iterations"] = 10000
    write_json(run / "settings.json", settings)
    change, says, figures = SPOILED[case]
    change(run)
    content = page(run)
    assert says in " ".join(content.texts("p", class_="notice"))
    assert len(figures_of(content)) == figures
    assert bool(content.attributes("img")) == ("all but" not in case)
    assert any("no set that can be read" in one for one in content.texts("p", class_="moment")) == case.endswith("set")
    assert bool(content.attributes("canvas")) == (case != "snapshots" and "all but" not in case)
    assert bool(content.texts("table", class_="accuracy")) == (not case.endswith("results") and "all but" not in case)


@pytest.mark.usefixtures("no_figures")
def test_results_without_intervals_or_partners(tmp_path: Path, finished: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    single = {"mean": 0.5, "std": None, "ci95": None, "n": 1, "values": [0.5]}
    write_json(run / "results.json", {"accuracy": {"distilled": single}, "recovery_ratio": None, "experts": {}, "seconds": {}})
    content = page(run)
    assert content.texts("p", class_="number") == ["50.0 %"]
    assert content.texts("td")[1:5] == ["", "50.0 %", "–", "1"]
    wide = {"mean": 0.01, "std": 0.02, "ci95": [-0.01, 0.03], "n": 5}
    write_json(run / "results.json", {"accuracy": {"distilled": wide, "random": summary(0.0)}})
    content = page(run)
    assert "0.0 … 3.0 %" in content.texts("td")
    assert "left: 0.0%; width: 3.0%" in [held.get("style") for held in content.attributes("div")]


def test_no_run_no_report(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "thesis.txt"):
        with pytest.raises(UsageError, match="run: .* is not a run folder"):
            write_report(path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_goes_on_shows_the_images_of_its_newest_snapshot(tmp_path: Path) -> None:
    """As pixels, by what its data card says of their preparation, with everything that is known of each."""
    run = make_run(tmp_path / "run", iterations=40, every=10, finished=False)
    way = normalise(3)
    card = a_card(("owl", "newt", "toad"), (4, 4, 4), [0, 1])
    replace(card, about=replace(card.about, preprocessing=way.kind), preprocessing=way).write(run, "")
    content = page(run)
    tensors, _ = read_tensors(run / "snapshots" / "iteration-000040.safetensors")
    pixels = way.inverse(tensors["X"])
    expected = Contrast.of(pixels).levels(pixels)
    shown = [np.asarray(unpack(held["src"])) for held in content.attributes("img") if ", image " in held.get("alt", "")]
    assert len(shown) == 6 and all(np.array_equal(*pair) for pair in zip(shown, expected, strict=True))
    assert content.texts("figcaption", dir="auto") == ["owl", "newt", "toad"] * 2
    assert "After iteration 40 of 40, unfinished" in content.texts("p", class_="moment")
    known = data_of(content, "looks")
    assert known["own"] == "As it is in the snapshot" and known["layers"]["iteration"] == 40
    assert all(known["layers"][name] for name in ("map", "change", "weights")) and known["near"] is None
    shares = tensors["Y"].double().softmax(1)
    assert [dict(look["label"])[look["of"]] for look in known["images"]] == pytest.approx(
        [float(shares[k, k // 2]) for k in range(6)], abs=1e-5
    )
    assert len(known["iterations"]) == len(known["images"][0]["area"]) == 5
    assert film_of(content)["start"] == 4 and "contrast is stretched" not in " ".join(content.texts("p", class_="caption"))


@pytest.mark.usefixtures("no_figures")
def test_where_the_newest_snapshots_keep_some_images_the_newest_whole_one_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", iterations=40, every=10, finished=False)
    monkeypatch.setattr(snapshots, "LOOKED_AT", 3 * 4 * 3 * 16 * 16)
    for iteration in (10, 30, 40):
        file = run / "snapshots" / f"iteration-{iteration:06d}.safetensors"
        write_tensors(file, *snapshots.thinned(*read_tensors(file)), snapshots.SNAPSHOT)
    content = page(run)
    assert "After iteration 20 of 40, unfinished" in content.texts("p", class_="moment")
    film = film_of(content)
    assert film["frames"][film["start"]]["iteration"] == 20


@pytest.mark.usefixtures("no_figures")
def test_images_without_a_set_are_stretched_not_lost(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", iterations=20, every=10, finished=False)
    content = page(run)
    sheet = np.asarray(unpack(film_of(content)["frames"][-1]["image"]))  # all snapshots have the contrast of the last
    assert sheet.min() == 0 and sheet.max() == 255
    assert "contrast is stretched" in " ".join(content.texts("p", class_="caption"))
    assert content.texts("figcaption", dir="auto") == ["class 0", "class 1", "class 2"] * 2

"""The report holds the run's values, needs nothing else, and is written of whatever a run has left."""

import base64
import io
import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from distilled.samples import normalise, summary
from PIL import Image
from report.fake_run import KEPT, make_run
from report.kept_files import a_card

from limbeck.distilled.contrast import Contrast
from limbeck.distilled.set import DistilledSet
from limbeck.methods import snapshots
from limbeck.report import film as film_module
from limbeck.report import numbers, pictures, sheets
from limbeck.report.contents import read_run
from limbeck.report.html import write_report
from limbeck.report.setup import text
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, read_tensors, write_json, write_tensors
from limbeck.runtime.metrics import read_metrics
from limbeck.runtime.tables import duration

NAMES = ("owl", "<script>alert('x')</script>", "猫 & קטן")
VOID = {"meta", "img", "input", "br", "link", "wbr"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes and the text inside each."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(content)
        self.close()
        assert not self.open, f"not closed: {[tag for tag, *_ in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, inside in self.open:
            inside.append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """The text of every such element, spaces collapsed."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            " ".join("".join(inside).split())
            for found, held, inside in self.elements
            if found == tag and wanted.items() <= held.items()
        ]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [held for found, held, _ in self.elements if found == tag]


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "finished", names=NAMES)


@pytest.fixture(scope="module")
def report(finished: Path) -> Page:
    return page(finished)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time, and most tests are about something else."""
    monkeypatch.setattr("limbeck.report.html.figures", lambda run: [])


def unpack(source: str) -> Image.Image:
    kind, content = source.split(",", 1)
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def data_of(report: Page, name: str) -> dict:
    (data,) = ("".join(inside) for tag, held, inside in report.elements if held.get("id") == name)
    return json.loads(data)


def film_of(report: Page) -> dict:
    """The film with the pictures of its snapshots, which lie apart."""
    film = data_of(report, "film-data")
    return film | {"frames": [frame | data_of(report, f"film-frame-{k}") for k, frame in enumerate(film["frames"])]}


def figures_of(report: Page) -> list[dict[str, str | None]]:
    return [held for held in report.attributes("svg") if held.get("class") == "figure"]


def pixels_of(run: Path, tensors: dict, *rows: int) -> np.ndarray:
    """What of a snapshot is to be seen: by the inverse of the preprocessing, with the contrast of the set."""
    held = DistilledSet.load(run / "distilled")
    contrast = Contrast.of(held.preprocessing.inverse(held.images))
    return contrast.levels(held.preprocessing.inverse(tensors["X"][list(rows)] if rows else tensors["X"]))


def test_accuracies_are_in_the_table(report: Page) -> None:
    cells = [*report.texts("th", scope="row")[:4], *report.texts("td")[1:21]]  # after the head of the bars
    assert cells[:4] == ["Distilled images", "Initial images", "Random real images, as many", "Full training data"]
    rows = [cells[4 + 4 * k : 8 + 4 * k] for k in range(4)]
    assert rows == [
        ["", "37.2 ± 0.8 %", "36.2 … 38.3 %", "5"],
        ["", "14.2 ± 1.2 %", "12.7 … 15.7 %", "5"],
        ["", "13.1 ± 1.5 %", "11.2 … 15.0 %", "5"],
        ["", "88.1 ± 0.3 %", "87.8 … 88.5 %", "2"],
    ]
    assert report.texts("p", class_="number") == ["37.2 %", "2.84 ×", "42.3 %"]


def test_what_else_is_told(report: Page) -> None:
    assert report.texts("h1") == ["EDF · scenes"]
    pairs = dict(zip(report.texts("dt"), report.texts("dd"), strict=True))
    assert pairs["Experts"] == "3" and pairs["Validation accuracy, last epoch"] == "87.8 % (87.1 % to 88.4 %)"
    assert pairs["torch"] == "2.13.0+cpu" and pairs["compiled"] == "true" and pairs["device"] == "x86_64"
    assert pairs["fingerprint of experts"] == "fedcba9876543210"
    everything = " ".join(report.texts("main"))
    for words in ("1 min 35 s", "2 h 02 min", "8 of 400 iterations (2.0 %) were skipped", "The best is that after 300 iterations"):
        assert words in everything
    assert not report.texts("p", class_="notice")[1:]  # only the one inside <noscript>


def test_all_settings_are_in_the_tree_and_changed_ones_marked(report: Page, finished: Path) -> None:
    settings = read_json(finished / "settings.json")
    leaves = [(key, value) for branch in settings.values() if isinstance(branch, dict) for key, value in branch.items()]
    leaves += [(key, value) for key, value in settings.items() if not isinstance(value, dict)]
    shown = Counter(zip(report.texts("span", class_="key"), report.texts("span", class_="text"), strict=True))
    assert shown == Counter((key, text(value)) for key, value in leaves)
    assert report.texts("li", class_="changed") == ["network ConvNetD3-w32", "ipc 2", "drop_ratio 0.25", "iterations 400"]


def test_needs_nothing_from_elsewhere(report: Page, finished: Path) -> None:
    for tag, held, inside in report.elements:
        if held == {"rel": "icon", "href": "data:,"}:
            continue  # without which a browser asks whoever serves the page for an icon
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = held.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
        if tag == "style":
            assert "url(" not in "".join(inside) and "@import" not in "".join(inside)
    content = (finished / "report.html").read_text(encoding="utf-8")
    assert "http://" not in content and "https://" not in content


def test_ids_are_unique_and_references_lead_somewhere(report: Page, finished: Path) -> None:
    ids = Counter(held["id"] for _, held, _ in report.elements if "id" in held)
    assert set(ids.values()) == {1}
    used = {held["href"] for tag, held, _ in report.elements if "href" in held and tag != "link"}
    used |= {held["clip-path"][4:-1] for _, held, _ in report.elements if "clip-path" in held}
    used |= {f"#{held[name]}" for _, held, _ in report.elements for name in ("aria-labelledby", "data-csv-of") if name in held}
    assert used and used <= {f"#{name}" for name in ids}


def test_names_in_any_script_stay_text(report: Page) -> None:
    captions = report.texts("figcaption", dir="auto")
    assert captions == [*NAMES, *NAMES]  # of the set, of the snapshots
    scripts = [(held.get("type"), held.get("src")) for held in report.attributes("script")]
    assert [source for _, source in scripts] == [None] * len(scripts)
    # Of the images, the tensors, the snapshots and the pictures of each of five, two tables.
    assert Counter(kind for kind, _ in scripts)["application/json"] == 10
    assert not [name for _, held, _ in report.elements for name in held if name.startswith("on")]
    assert report.attributes("img")[2]["alt"] == "<script>alert('x')</script>, image 1"


def test_images_are_those_of_the_set(report: Page, finished: Path) -> None:
    held = DistilledSet.load(finished / "distilled")
    sources = [attributes["src"] for attributes in report.attributes("img")]
    shown = np.stack([np.asarray(unpack(str(source))) for source in sources])
    assert np.array_equal(shown, pixels_of(finished, {"X": held.images}))
    top = held.labels[0].softmax(0).max().item()
    assert f"{100 * top:.1f} %" in str(report.attributes("img")[0]["title"])


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


def test_all_figures_are_there(report: Page) -> None:
    titles = ["Validation accuracy", "Matching loss", "Learned step size η", "Gradient norms"]
    titles += [
        "What dropout and enhancement change",
        "Parameters kept",
        "What is left out, over the iterations",
        "Discriminative area over the iterations",
    ]
    assert report.texts("h3", class_="title") == titles
    assert [held["aria-label"] for held in figures_of(report)] == titles
    drawn = set(report.texts("text"))
    assert {"skipped (8)", "37.9 %", *KEPT} <= drawn


def test_same_folder_same_bytes(report: Page, finished: Path) -> None:
    first = (finished / "report.html").read_bytes()
    assert write_report(finished).read_bytes() == first


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


@pytest.mark.usefixtures("no_figures")
def test_what_is_no_measure_and_how_step_sizes_were_come_by_is_shown(tmp_path: Path, finished: Path) -> None:
    run, one = shutil.copytree(finished, tmp_path / "run"), summary(0.5)
    sides = {"distilled": {**one, "lr": 0.02, "lr_from": "own"}, "random": {**one, "lr": 0.1, "lr_from": "validation"}}
    doubts = [{"kind": "recovery", "text": "no measure: networks of the full data lose to the set"}]
    other = {
        "accuracy": {**sides, "distilled": {**one, "lr": 0.3, "lr_from": "given"}},
        "doubts": [{"kind": "chance", "text": "so bad"}],
    }
    write_json(run / "results.json", {"accuracy": sides, "doubts": doubts, "networks": {"MLP": other}})
    content = page(run)
    assert content.texts("p", class_="notice")[0].startswith(doubts[0]["text"] + "; eval.full_epochs, ")
    shown = " ".join(content.texts("dd") + content.texts("td"))
    assert "distilled 0.02 (its own), random 0.1 (the best on validation images)" in shown
    assert "distilled 0.3 (given), random 0.1 (the best on validation images); so bad" in shown


def test_no_run_no_report(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "thesis.txt"):
        with pytest.raises(UsageError, match="run: .* is not a run folder"):
            write_report(path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


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
def test_the_same_images_with_two_accuracies_are_explained(tmp_path: Path) -> None:
    """Where the initial images are the result, and networks take another step size on them as such."""
    run = make_run(tmp_path / "run", iterations=20, every=10)
    held = read_json(run / "results.json")
    held["accuracy"]["distilled"] |= {"lr": 0.05, "lr_from": "own"}
    held["accuracy"]["initial"] |= {"lr": 0.2, "lr_from": "validation", "lr_tried": [0.05, 0.2]}
    write_json(run / "results.json", held | {"best_iteration": 0})
    content = page(run)
    (notice,) = [one for one in content.texts("p", class_="notice") if "initial images" in one]
    assert notice.endswith(
        "they have two test accuracies by two step sizes: 0.05, its own, as the distilled ones and 0.2, the best of 2 on "
        "validation images, as the initial ones."
    )
    said = "step sizes of their own on each: distilled 0.05 (its own), initial 0.2 (the best of 2 on validation images)."
    assert said in " ".join(content.texts("p", class_="caption"))
    held["accuracy"]["initial"]["lr"] = 0.05
    write_json(run / "results.json", held | {"best_iteration": 0})
    (notice,) = [one for one in page(run).texts("p", class_="notice") if "initial images" in one]
    assert notice.endswith("than the initial images, which are the result.")


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
def test_images_without_a_set_are_stretched_not_lost(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", iterations=20, every=10, finished=False)
    content = page(run)
    sheet = np.asarray(unpack(film_of(content)["frames"][-1]["image"]))  # all snapshots have the contrast of the last
    assert sheet.min() == 0 and sheet.max() == 255
    assert "contrast is stretched" in " ".join(content.texts("p", class_="caption"))
    assert content.texts("figcaption", dir="auto") == ["class 0", "class 1", "class 2"] * 2


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4123, "0.41 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7625, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_settings_are_written_as_in_a_recipe() -> None:
    values = [None, True, 1, 1.0, 1e-5, 0.1, "mean", [32, 64], {"a": [None]}]
    assert [text(value) for value in values] == ["null", "true", "1", "1", "1e-05", "0.1", "mean", "[32, 64]", "a: [null]"]


def test_numbers_behind_the_curves_are_in_the_page(report: Page, finished: Path) -> None:
    rows = [row for row in read_metrics(finished / "metrics.jsonl") if row["kind"] == "iteration"]
    titles, *lines = data_of(report, "iterations")
    assert titles == ["iteration", "loss", "grad_norm_images", "grad_norm_labels", "grad_lr", "syn_lr", "skipped"]
    assert [line[0] for line in lines] == list(range(400)) and lines[57][1] is None and lines[7][6] == 1
    assert lines[100][1:6] == pytest.approx([rows[100][name] for name in titles[1:6]], rel=1e-5)
    titles, *lines = data_of(report, "evaluations")
    assert titles == ["iteration", "accuracy", "std", "n"] and [line[0] for line in lines] == [0, 100, 200, 300, 400]
    assert lines[3] == pytest.approx([300, 0.14 + 0.24 * math.sin(1.5), 0.012, 5], rel=1e-5)


def test_of_many_iterations_some_are_told_evenly(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "MOST_LINES", 150)
    found = numbers.numbers(read_run(finished))
    assert found.step == 3 and [line[0] for line in found.iterations[1:]] == list(range(0, 400, 3))
    assert numbers.numbers(replace(read_run(finished), metrics={})) == numbers.Numbers((), (), 1)


@pytest.mark.usefixtures("no_figures")
def test_what_speaks_against_a_run_stands_at_its_top(tmp_path: Path, finished: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    held = {
        **read_json(run / "results.json"),
        "best_iteration": 0,
        "skipped_share": 0.25,
        "skipped": {"the loss was not finite": 100},
    }
    write_json(run / "results.json", held)
    notes = page(run).texts("p", class_="notice")
    assert notes[0].startswith("25.0 % of the iterations changed nothing: ") and "the loss was not finite" in notes[0]
    assert notes[1] == "No iteration was better on the validation images than the initial images, which are the result."
    (run / "results.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "return", "iteration": 40, "to": 20, "step": 0.25, "why": "X grew by iteration 40"}) + "\n")
    assert page(run).texts("p", class_="notice")[1] == "At iteration 40 the loop went back: X grew by iteration 40."


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

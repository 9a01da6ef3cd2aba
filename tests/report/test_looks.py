"""What the panel tells of an image is what the run's files hold of it."""

import base64
import html
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from distilled.samples import changed
from PIL import Image
from report.fake_run import make_run

from limbeck.cli.main import main
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.areas import discriminative_area
from limbeck.methods import snapshots
from limbeck.report import film as film_module
from limbeck.report import looks as looks_module
from limbeck.report import pictures
from limbeck.report.contents import Images, read_run
from limbeck.report.film import film
from limbeck.report.html import page_of
from limbeck.report.looks import Layers, looks
from limbeck.report.pictures import gallery
from limbeck.report.sheets import Sheet, signed
from limbeck.runs.feature_map import FILE, FeatureMap, MapAbout
from limbeck.runtime.files import read_tensors, write_tensors

NAMES = ("owl", "mole", "newt")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", names=NAMES, iterations=40, every=10)


def tiles(source: str, held: Layers) -> np.ndarray:
    """The tiles of a sheet as levels (n, H, W, 4)."""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGBA"))
    places = [(k // held.columns * held.height, k % held.columns * held.width) for k in range(len(held.positions))]
    return np.stack([sheet[top : top + held.height, left : left + held.width] for top, left in places]).astype(int)


def snapshot(run: Path, iteration: int) -> dict[str, torch.Tensor]:
    return read_tensors(run / "snapshots" / f"iteration-{iteration:06d}.safetensors").tensors


def test_labels_are_those_of_the_set_the_likeliest_first(run: Path) -> None:
    held = read_run(run)
    found = looks(held, held.images, [0, 3, 5])
    assert [(look.position, look.of, look.number) for look in found.images] == [(0, 0, 1), (3, 1, 1), (5, 2, 1)]
    assert found.classes == NAMES
    for look in found.images:
        p = held.distilled.labels[look.position].double().softmax(0)
        assert [k for k, _ in look.label] == p.argsort(descending=True).tolist()
        assert [share for _, share in look.label] == pytest.approx(p.sort(descending=True).values.tolist(), abs=1e-5)


def test_long_labels_are_cut_where_they_are_nothing(run: Path) -> None:
    held = read_run(run)
    names = tuple(map(str, range(50)))
    y = torch.arange(50.0).mul(-0.1).expand(6, 50)
    wide = Images(changed(held.distilled, labels=y, class_names=names), held.images.snapshot)
    (label,) = (look.label for look in looks(held, wide, [2]).images)
    assert [k for k, _ in label] == list(range(looks_module.MOST_LABELS))
    sure = Images(changed(held.distilled, labels=20 * torch.eye(3).repeat_interleave(2, dim=0)), held.images.snapshot)
    assert [look.label for look in looks(held, sure, [0, 2]).images] == [((0, 1.0),), ((1, 1.0),)]


def test_areas_are_those_of_the_maps_of_every_snapshot(run: Path) -> None:
    held = read_run(run)
    found = looks(held, held.images, [4, 1])
    assert found.iterations == (0, 10, 20, 30, 40)
    for k, iteration in enumerate(found.iterations):
        area = discriminative_area(snapshot(run, iteration)["maps"].clamp(0, 1))
        assert [look.area[k] for look in found.images] == pytest.approx([area[4].item(), area[1].item()], abs=1e-4)


def test_layers_are_maps_change_and_weights_of_the_snapshot_that_is_the_set(run: Path) -> None:
    held = read_run(run)
    found = looks(held, held.images, range(6))
    first, best, layers = snapshot(run, 0), snapshot(run, 30), found.layers
    assert layers.iteration == 30 and layers.positions == tuple(range(6)) and (layers.height, layers.width) == (16, 16)
    # Opacity follows the value; a shade is 1/31 of all.
    opacity = {name: tiles(getattr(layers, name).image, layers)[..., 3] / 255 for name in ("map", "change", "weights")}
    assert np.abs(opacity["map"] - 0.8 * best["maps"].clamp(0, 1).numpy()).max() < 0.8 / 62 + 1 / 255
    weights = best["weights"][:, 0]
    part = (weights - weights.min()) / (weights.max() - weights.min())
    assert np.abs(opacity["weights"] - 0.8 * part.numpy()).max() < 0.8 / 62 + 1 / 255
    assert f"clear is {weights.min():.3g}, bright {weights.max():.3g}" in layers.weights.told
    inverse = held.distilled.preprocessing.inverse
    change = inverse(best["X"]).double() - inverse(first["X"]).double()
    scale = change.mean(1).abs().flatten().quantile(0.99)
    assert np.abs(opacity["change"] - (change.mean(1).abs() / scale).clamp(max=1).numpy()).max() < 1 / 30 + 1 / 255
    assert f"{100 * scale:.2g} % of the range" in layers.change.told
    for look in found.images:
        assert look.change == pytest.approx(change[look.position].abs().mean().item(), abs=1e-4)
        assert look.weights == pytest.approx([end.item() for end in weights[look.position].aminmax()], abs=1e-4)


def test_signed_numbers_are_blue_below_and_orange_above() -> None:
    painted = signed(torch.tensor([[[-1.0, 0.0, 1.0, 5.0]]]), Sheet((0,), (1, 4), 1)).convert("RGBA")
    low, none, high, more = (painted.getpixel((x, 0)) for x in range(4))
    assert none[3] == 0 and low[3] == high[3] == 255 and more == high
    assert low[2] > low[0] and high[0] > high[2]


def test_what_a_run_does_not_have_is_left_out(tmp_path: Path) -> None:
    plain = read_run(make_run(tmp_path / "plain", iterations=20, every=10, maps=False))
    found = looks(plain, plain.images, [0])
    assert found.iterations == () and found.layers.map is None and found.layers.weights is None
    assert found.images[0].area == () and found.images[0].weights is None and found.near is None
    for file in (tmp_path / "plain" / "snapshots").iterdir():
        file.unlink()
    none = read_run(tmp_path / "plain")
    assert looks(none, none.images, [0]).layers is None
    assert gallery(none).panel.images[0].label


def test_maps_of_zeros_are_none(tmp_path: Path) -> None:
    """A loop writes zeros where it makes no maps."""
    path = make_run(tmp_path / "run", iterations=20, every=10)
    for file in (path / "snapshots").iterdir():
        tensors, header = read_tensors(file)
        write_tensors(file, {**tensors, "maps": torch.zeros_like(tensors["maps"])}, header, snapshots.SNAPSHOT)
    held = read_run(path)
    assert not film(held).has_maps and looks(held, held.images, [0]).layers.map is None
    assert all(snapshot.area == () for snapshot in held.snapshots)


def test_thinned_snapshots_tell_of_the_images_that_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(tmp_path / "run", names=NAMES, ipc=4, iterations=40, every=10)
    monkeypatch.setattr(snapshots, "LOOKED_AT", 3 * 4 * 3 * 16 * 16)
    for iteration in (10, 20, 40):
        file = path / "snapshots" / f"iteration-{iteration:06d}.safetensors"
        write_tensors(file, *snapshots.thinned(*read_tensors(file)), snapshots.SNAPSHOT)
    held = read_run(path)
    found = looks(held, held.images, range(12))
    assert [held.snapshots[1].positions, held.snapshots[0].positions] == [[0, 4, 8], None]
    assert [value is None for value in found.images[1].area] == [False, True, True, False, True]
    assert None not in found.images[4].area
    assert found.layers.iteration == 30 and len(found.layers.positions) == 12


def near_file(path: Path) -> None:
    """What a run keeps of real images near those of a set of six."""
    pictures = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 8, 8) * 60
    tensors = {
        "real": torch.rand(4, 2),
        "real_classes": torch.tensor([0, 1, 2, 2]),
        "paths": torch.rand(1, 2, 2),
        "positions": torch.tensor([1, 4]),
        "classes": torch.tensor([0, 2]),
        "asked": torch.tensor([1, 4]),
        "near": torch.tensor([[3, 0], [1, 3]]),
        "distances": torch.tensor([[0.5, 0.75], [1.25, 2.0]]),
        "pictures": pictures.contiguous(),
        "picture_classes": torch.tensor([0, 1, 2, 2]),
        "picture_positions": torch.tensor([5, 6, 7, 8]),
    }
    about = MapAbout(
        network="ConvNet, trained on the full data",
        dimensions=8,
        way="PCA",
        share=0.5,
        iterations=(),
        best=None,
        searched=50,
        real=60,
        typical=0.25,
    )
    FeatureMap(about=about, **tensors).write(path, "")


def test_near_images_are_those_that_the_run_keeps(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", names=NAMES, iterations=20, every=10)
    near_file(path)
    held = read_run(path)
    found = looks(held, held.images, [0, 1, 2]).near
    assert found.to_dict()["images"] == [{"position": 1, "near": [[1, 0.5], [0, 0.75]]}]  # of the images that are shown
    assert found.of == (0, 2)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.image.partition(",")[2]))))
    assert [sheet[k // found.columns * 8, k % found.columns * 8].tolist() for k in range(2)] == [[0] * 3, [180] * 3]
    assert "among 50 of 60 training images" in found.told and "0.25 from the nearest" in found.told
    (path / FILE).write_bytes(b"spoiled")
    assert looks(held, held.images, [1]).near is None


def test_the_file_of_the_tensors_is_that_of_the_export(run: Path) -> None:
    held = DistilledSet.load(run / "distilled")
    found = np.load(io.BytesIO(base64.b64decode(gallery(read_run(run)).archive)), allow_pickle=False)
    assert np.array_equal(found["images_float"], held.images.numpy()) and found["class_names"].tolist() == list(NAMES)


def test_large_tensors_are_not_in_the_page_which_says_how_to_get_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "ARCHIVE", 1000)
    found = gallery(read_run(run))
    assert found.archive is None
    told = re.search(
        r"The tensors, [\d.]+ MB, are not in this page. They become a file by <code>(.*?)</code>", page_of(read_run(run))
    )
    command = shlex.split(html.unescape(told[1]))
    monkeypatch.chdir(tmp_path)
    assert command[0] == "limbeck" and main(command[1:]) == 0
    written = np.load(tmp_path / f"{run.name}.npz", allow_pickle=False)
    assert np.array_equal(written["images_float"], DistilledSet.load(run / "distilled").images.numpy())
    assert sum(written[name].nbytes for name in written) <= found.size * 1.2


def test_films_that_would_be_too_large_are_kept_with_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(tmp_path / "run", names=NAMES, ipc=2, shape=(3, 32, 32), iterations=40, every=10)
    exact = film(read_run(path))
    assert all(frame.image.startswith("data:image/png") for frame in exact.sheets.frames) and "JPEG" not in exact.note
    monkeypatch.setattr(film_module, "BUDGET", 6 * 5 * 3 * 32 * 32 - 1)
    lossy = film(read_run(path))
    assert lossy.sheets.positions == exact.sheets.positions and len(lossy.sheets.frames) == 5 and "JPEG" in lossy.note
    assert all(frame.image.startswith("data:image/jpeg") for frame in lossy.sheets.frames)
    before, after = (
        np.stack(
            [np.asarray(Image.open(io.BytesIO(base64.b64decode(frame.image.partition(",")[2])))) for frame in one.sheets.frames]
        )
        for one in (exact, lossy)
    )
    assert np.abs(before.astype(float) - after).mean() < 9  # of 256 levels, noise
    small = (one.reshape(5, -1, 4, one.shape[2] // 4, 4, 3).astype(float).mean((2, 4)) for one in (before, after))
    assert np.abs(np.subtract(*small)).mean() < 2.5  # of spots of four by four pixels


def test_ten_images_of_ten_classes_fit_into_the_page() -> None:
    """Of 128×128 pixels: all of the set without a loss, and all of them in twenty-five snapshots of 64×64 pixels with one."""
    classes, names = np.arange(100) // 10, [str(k) for k in range(10)]
    of_set = pictures.choose(classes, names, 3 * 128 * 128, pictures.OF_SET)
    assert of_set.whole and sum(map(len, of_set.positions)) * 3 * 128 * 128 < 5_000_000
    in_film = pictures.choose(classes, names, 25 * 3 * 64 * 64, film_module.LOSSY)
    assert in_film.whole


def test_looks_are_json_that_a_script_reads(run: Path) -> None:
    held = read_run(run)
    text = json.dumps(looks(held, held.images, range(6)).to_dict(), allow_nan=False)
    assert len(json.loads(text)["images"]) == 6

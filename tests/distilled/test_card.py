"""The card is valid for the Hub, tells the numbers, and its code runs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from distilled.samples import sample_set, summary

from limbeck.distilled.card import card
from limbeck.distilled.preview import picture, preview, quantise
from limbeck.distilled.set import DistilledSet

METADATA = {
    "method": "edf",
    "settings": {"data": {"source": "/home/somebody/pets & more"}, "network": "ConvNetD3-w32", "match": {"drop_ratio": 0.25}},
    "evaluation": {
        "accuracy": {"full": summary(0.881), "random": summary(0.131), "distilled": summary(0.3725, std=0.008)},
        "recovery_ratio": 0.42284,
    },
}


def parts(text: str) -> tuple[dict, str]:
    _, head, body = re.split("^---$", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(head), body


def test_head_is_what_the_hub_accepts() -> None:
    head, _ = parts(card(sample_set(metadata=METADATA)))
    assert head == {
        "pretty_name": "pets & more, distilled to 6 images",
        "tags": ["dataset-distillation", "dataset-condensation", "limbeck"],
        "task_categories": ["image-classification"],
        "size_categories": ["n<1K"],
        "license": "unknown",
        "viewer": False,
    }


def test_size_category_follows_the_number_of_images() -> None:
    head, _ = parts(card(sample_set(ipc=500, shape=(1, 2, 2))))
    assert head["size_categories"] == ["1K<n<10K"]


def test_results_settings_and_facts_are_told() -> None:
    _, body = parts(card(sample_set(metadata=METADATA)))
    lines = body.splitlines()
    assert "| Distilled images | 37.2 ± 0.8 % | 36.3 … 38.2 % | 5 |" in lines
    assert "| Random real images, as many | 13.1 ± 1.2 % | 11.6 … 14.6 % | 5 |" in lines
    order = [next(k for k, line in enumerate(lines) if line.startswith(f"| {name}")) for name in ("Distilled", "Random", "Full")]
    assert order == sorted(order)
    assert "Recovery ratio (distilled / full): **42.3 %**." in lines
    assert "| Images | 6, 2 per class |" in lines and "| Size | 8 × 10 pixels, 3 channels |" in lines
    assert '    "drop_ratio": 0.25' in [line[2:] for line in lines] and "/home/somebody" not in body.split("## Settings")[0]


@pytest.mark.parametrize(("channels", "said"), [(1, "1 channel"), (2, "2 channels")])
def test_channels_are_counted(channels: int, said: str) -> None:
    assert f"| Size | 4 × 6 pixels, {said} |" in parts(card(sample_set(shape=(channels, 4, 6))))[1].splitlines()


def test_the_network_is_named() -> None:
    assert "| Network it was made for | ConvNetD3-w32 |" in parts(card(sample_set(metadata=METADATA)))[1].splitlines()


def test_card_of_a_set_about_which_nothing_is_known() -> None:
    head, body = parts(card(sample_set()))
    assert head["pretty_name"] == "Images, distilled to 6 images"
    assert "## Results" not in body and "## Settings" not in body and "| Method | unknown |" in body


def test_names_are_text_and_nothing_else() -> None:
    names = ("<script>alert(1)</script>", "a | b", "`c` *d* [e](f)", "two\nlines", "猫", "قطة")
    _, body = parts(card(sample_set(names=names)))
    listed = re.findall(r"^\d+\. (.*)$", body, flags=re.MULTILINE)
    expected = ["&lt;script&gt;alert(1)&lt;/script&gt;", r"a \| b", r"\`c\` \*d\* \[e\](f)", "two lines", "猫", "قطة"]
    assert listed == expected


def test_code_in_the_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = sample_set()
    monkeypatch.chdir(held.save(tmp_path / "set"))
    blocks = re.findall("```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert torch.equal(names["distilled"].images, held.images) and torch.equal(names["tensors"]["images"], held.images)
    assert names["pixels"].shape == held.images.shape and names["probabilities"].shape == (6, 3)


def test_preview_shows_each_image_enlarged_without_smoothing() -> None:
    held = sample_set(names=("one", "two"), ipc=3, shape=(3, 8, 10))
    sheet = torch.from_numpy(np.array(preview(held)))
    tiles = torch.from_numpy(quantise(held.to_pixels())).repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    assert tiles.shape == (6, 64, 80, 3)
    top_left = [find(sheet, tile) for tile in tiles]
    assert None not in top_left
    assert [place[0] for place in top_left[:3]] == [top_left[0][0]] * 3  # a class is a row
    assert [place[1] for place in top_left[:3]] == sorted({place[1] for place in top_left[:3]})


def find(sheet: torch.Tensor, tile: torch.Tensor) -> tuple[int, int] | None:
    height, width, _ = tile.shape
    corners = (sheet[: len(sheet) - height + 1, : sheet.shape[1] - width + 1] == tile[0, 0]).all(dim=2).nonzero().tolist()
    return next(((y, x) for y, x in corners if torch.equal(sheet[y : y + height, x : x + width], tile)), None)


@pytest.mark.parametrize(("side", "factor"), [(16, 4), (33, 2), (63, 2), (64, 1), (70, 1)])
def test_images_are_enlarged_to_64_pixels_at_least_by_a_whole_number(side: int, factor: int) -> None:
    """In one line of two images, the second begins a gap after the first; what is above them is a gap, too."""
    held = sample_set(names=("a",), ipc=2, shape=(3, side, side + 2), preprocessing="identity")
    sheet = np.array(preview(held))
    tile = np.kron(quantise(held.to_pixels())[0], np.ones((factor, factor, 1), np.uint8))
    height, width = tile.shape[:2]
    places = [
        left for left in range(sheet.shape[1] - width + 1) if np.array_equal(sheet[4 : 4 + height, left : left + width], tile)
    ]
    assert len(places) == 1


def test_preview_stays_of_a_sensible_size() -> None:
    few = preview(sample_set(names=tuple("abcdefghij"), ipc=1, shape=(3, 32, 32)))
    assert 1 < few.width / few.height < 4
    many = preview(sample_set(names=tuple(f"class number {k}" for k in range(300)), ipc=30, shape=(1, 4, 4)))
    assert many.width * many.height < 40_000_000


@pytest.mark.parametrize("name", ["<script>", "Ünïcödé", "猫", "🐱", "קטן", "", "\x00", "x" * 500])
def test_preview_bears_any_name(name: str) -> None:
    sheet = preview(sample_set(names=(name, "other"), ipc=1))
    assert sheet.width < 1000


def test_quantise_rounds_to_the_nearest_level() -> None:
    pixels = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 100.5 / 255 + 1e-5, 1.0, 2.0]).view(1, 1, 1, 7)
    assert quantise(pixels).flatten().tolist() == [0, 0, 0, 1, 101, 255, 255]
    assert picture(quantise(pixels)[0]).mode == "L"


def test_preview_is_saved_with_the_set(tmp_path: Path) -> None:
    from PIL import Image

    path = sample_set().save(tmp_path / "set")
    with Image.open(path / "preview.png") as image:
        assert image.size == preview(DistilledSet.load(path)).size

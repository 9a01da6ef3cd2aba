from pathlib import Path

import numpy as np
import pytest
from data.pictures import load, picture, refused

IDS = ["n01443537", "n01629819", "n02056570"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Tiny-ImageNet's layout with three classes, whose list is not sorted; the pixels of validation images carry their class."""
    root = tmp_path / "tiny-imagenet-200"
    for wnid in IDS:
        for i in range(4):
            picture(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG.png")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    lines = []
    for i in range(6):
        picture(root / "val" / "images" / f"val_{i}.png")
        lines.append(f"val_{i}.png\t{IDS[i % 3]}\t0\t32\t44\t62\n")
    picture(root / "test" / "images" / "test_0.png")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join([IDS[2], IDS[0], IDS[1]]))
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn01629819\tking\nn02056570\tking, penguin\n")
    return root


def test_layout(tiny: Path) -> None:
    made = load(tiny, val_fraction=0)
    assert made.class_names == ("goldfish", "n01629819", "n02056570")  # two are called "king"
    assert np.bincount(made.train.labels).tolist() == [4] * 3
    assert made.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    chosen = load(tiny, val_fraction=0, classes=("penguin", "Carassius auratus"))
    assert chosen.class_names == ("n02056570", "goldfish")
    np.testing.assert_array_equal(chosen.test.images(chosen.test.of_class(1)), made.test.images(np.array([0, 1])))


def test_what_is_missing_is_named(tiny: Path) -> None:
    (tiny / "val" / "images" / "val_4.png").unlink()
    assert refused(tiny).endswith("names 1 images that are not there, such as 'val_4'")
    (tiny / "wnids.txt").write_text("n01443537")
    assert refused(tiny) == f"data.source: '{tiny / 'wnids.txt'}' names 1 classes; at least two are needed"

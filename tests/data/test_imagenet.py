"""ImageNet's layouts, on a tree of 1000 classes whose images say which class they are of."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.imagenet_tree import index_of, val_name
from data.pictures import Said, load, refused

from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.registry import find_subset, imagenet_classes, subsets, wnids
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split

SMALL = "imagenet:imagefruit"


def indices(split: Split) -> list[int]:
    """The ImageNet index that every image of the split shows."""
    return [index_of(image) for image in split.images().numpy()]


def expect(made: ImageSet, order: list[int]) -> None:
    """Two training images and one to test on of every class, labelled in that order."""
    assert np.bincount(made.train.labels).tolist() == [2] * len(order)
    assert np.bincount(made.test.labels).tolist() == [1] * len(order)
    for split in (made.train, made.test):
        assert indices(split) == [order[k] for k in split.labels]


@pytest.mark.parametrize("name", list(subsets()))
def test_every_subset_loads_in_its_published_order(imagenet: Path, name: str) -> None:
    made = load(f"imagenet:{name.removeprefix('comp-dd/')}", root=str(imagenet), val_fraction=0)
    published = list(dict.fromkeys(entry.index for entry in find_subset(name).published))
    assert made.class_names == tuple(entry.name for entry in find_subset(name).classes)
    assert made.num_classes == (9 if name == "comp-dd/music-hard" else 10)
    expect(made, published)


def test_music_hard_says_that_it_has_nine_classes(imagenet: Path) -> None:
    said = Said()
    load_data(DataSettings(source="imagenet:music-hard", root=str(imagenet), workers=1), said)
    assert any("comp-dd/music-hard: published with banjo (420) twice: nine distinct classes" in line for line in said.lines)


def test_all_thousand_classes(imagenet: Path) -> None:
    made = load("imagenet", root=str(imagenet), val_fraction=0, size=8)
    assert made.class_names == tuple(entry.name for entry in imagenet_classes())
    expect(made, list(range(1000)))


def test_classes_by_index_wordnet_id_and_name(imagenet: Path) -> None:
    made = load("imagenet", root=str(imagenet), val_fraction=0, classes=(999, "n01443537", "tench"))
    assert made.class_names == ("toilet tissue", "goldfish", "tench")
    expect(made, [999, 1, 0])
    within = load(SMALL, root=str(imagenet), val_fraction=0, classes=(2, "banana"))
    assert within.class_names == ("strawberry", "banana")
    expect(within, [949, 954])
    message = refused(SMALL, root=str(imagenet), classes=(2, "tench"))
    assert message.startswith("data.classes: 'tench' is not a class of 'imagenet:imagefruit'")


def test_names_that_are_in_no_published_list(imagenet: Path) -> None:
    made = load("imagenet", root=str(imagenet), val_fraction=0, classes=("zebra", "volcano", "Cardigan", "n03126707"))
    assert made.class_names == ("zebra", "volcano", "n02113186", "n03126707")
    expect(made, [340, 980, 264, 517])


@pytest.mark.parametrize(
    ("name", "could"),
    [
        ("crane", "134 (n02012849) or 517 (n03126707)"),
        ("maillot", "638 (n03710637) or 639 (n03710721)"),
        ("missile", "657 (n03773504) or 744 (projectile, n04008634)"),
    ],
)
def test_a_name_of_two_classes_is_refused(imagenet: Path, name: str, could: str) -> None:
    message = refused("imagenet", root=str(imagenet), classes=(name, 0))
    assert message == f"data.classes: {name!r} could be {could} of 'imagenet'; give an index"


def test_the_root_is_a_key_or_a_variable(imagenet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIMBECK_IMAGENET", raising=False)
    message = refused(SMALL)
    assert message.startswith("data.root: None names no folder, and 'imagenet:imagefruit' needs ")
    assert message.endswith("set data.root, or the environment variable LIMBECK_IMAGENET")
    monkeypatch.setenv("LIMBECK_IMAGENET", str(imagenet))
    by_variable = load(SMALL, val_fraction=0)
    assert refused(SMALL, root=str(tmp_path)) == f"data.root: '{tmp_path}' has no folder train/ with a folder of images per class"
    monkeypatch.setenv("LIMBECK_IMAGENET", str(tmp_path / "gone"))
    assert refused(SMALL) == f"$LIMBECK_IMAGENET: '{tmp_path / 'gone'}' is not a folder that exists"
    assert load(SMALL, root=str(imagenet), val_fraction=0).fingerprint == by_variable.fingerprint


def test_a_root_that_another_source_does_not_read_is_said(tmp_path: Path) -> None:
    said = Said()
    load_data(DataSettings(root=str(tmp_path), per_class=2, size=8), said)
    assert said.lines == ["data.root: is not read, for 'scenes' is not imagenet or imagenet:SUBSET"]


def test_what_is_missing_is_named(imagenet: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for entry in find_subset("imagefruit").classes[1:]:
        (tmp_path / "train" / entry.wnid).symlink_to(imagenet / "train" / entry.wnid)
    message = f"data.root: '{tmp_path / 'train'}' has no folder of n07753275 (class 953, pineapple)"
    assert refused(SMALL, root=str(tmp_path)) == message
    assert refused("imagenet", root=str(tmp_path)).endswith("has no folder of n01440764 (class 0, tench) nor of 990 others")
    keys = {"root": str(tmp_path), "classes": ("banana", "fig")}
    assert refused(SMALL, **keys) == f"data.root: '{tmp_path}' has train/ but no val/ beside it"
    (tmp_path / "val").mkdir()
    message = f"data.root: the images in '{tmp_path / 'val'}' are not in class folders, and none of LOC_val_solution.csv, "
    assert refused(SMALL, **keys).startswith(message)


def kaggle(root: Path) -> None:
    """`LOC_val_solution.csv`, without suffixes and with boxes."""
    lines = [f"{val_name(i).removesuffix('.JPEG')},{wnid} 85 1 499 272 {wnid} 1 2 3 4 " for i, wnid in enumerate(wnids())]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(lines) + "\n")
    (root / "LOC_synset_mapping.txt").write_text("n07753592 banana\nn07753275 pineapple, ananas\n")


def pairs(root: Path) -> None:
    (root / "val_annotations.txt").write_text("".join(f"{val_name(i)}\t{wnid}\t0\t0\t62\t62\n" for i, wnid in enumerate(wnids())))


def caffe(root: Path) -> None:
    (root / "val" / "val.txt").write_text("".join(f"{val_name(i)} {i}\n" for i in range(1000)))


def in_order(root: Path) -> None:
    """The classes alone, in the order of the files."""
    ordered = sorted(range(1000), key=val_name)
    (root / "imagenet_2012_validation_synset_labels.txt").write_text("".join(f"{wnids()[i]}\n" for i in ordered))


def kit_id(index: int) -> int:
    """An ILSVRC2012_ID, which is not the index plus one."""
    return (index * 7 + 123) % 1000 + 1


def ground_truth(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = [f"{kit_id(i)}\n" for i in sorted(range(1000), key=val_name)]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(lines))
    return folder


def kit_with_text(root: Path) -> None:
    folder = ground_truth(root / "ILSVRC2012_devkit_t12" / "data")
    (folder / "map_clsloc.txt").write_text("".join(f"{wnid} {kit_id(i)} name_{i}\n" for i, wnid in enumerate(wnids())))


def kit_with_matrix(root: Path) -> None:
    from scipy.io import savemat

    folder = ground_truth(root / "ILSVRC2012_devkit_t12" / "data")
    rows = [(float(kit_id(i)), wnid, "words", "gloss", 0.0) for i, wnid in enumerate(wnids())]
    rows += [(float(1001 + i), f"n9{i:07}", "a node above", "gloss", 3.0) for i in range(5)]
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object), ("num_children", object)]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})


@pytest.fixture
def flat(imagenet: Path, tmp_path: Path) -> Path:
    """A root with flat validation images and no list yet."""
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    root.mkdir(parents=True)
    (root / "train").symlink_to(imagenet / "train")
    shutil.copytree(imagenet / "flat", root / "val")
    return root


@pytest.mark.parametrize("write", [kaggle, pairs, caffe, in_order, kit_with_text, kit_with_matrix])
def test_flat_validation_images(flat: Path, write: Callable[[Path], None]) -> None:
    write(flat)
    expect(load(SMALL, root=str(flat), val_fraction=0), [entry.index for entry in find_subset("imagefruit").classes])


def test_kaggles_layout_and_synonyms(flat: Path, tmp_path: Path) -> None:
    kaggle(tmp_path)
    made = load("imagenet", root=str(tmp_path), val_fraction=0, classes=("ananas", "banana"))
    assert made.class_names == ("pineapple", "banana")
    expect(made, [953, 954])


def test_lists_that_do_not_fit(flat: Path) -> None:
    root = {"root": str(flat)}
    ground_truth(flat / "data")
    assert "gives classes by ILSVRC2012_ID: meta.mat or map_clsloc.txt of the development kit" in refused(SMALL, **root)
    (flat / "data" / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert "meta.mat' cannot be read as the development kit's meta.mat (" in refused(SMALL, **root)
    in_order(flat)
    (flat / "val" / val_name(0)).unlink()
    assert refused(SMALL, **root).endswith("imagenet_2012_validation_synset_labels.txt' has 1000 lines for 999 images")
    pairs(flat)
    assert len(load(SMALL, **root).test) == 10  # the tench is missing, but not asked for
    (flat / "val" / val_name(953)).unlink()
    assert refused(SMALL, **root).endswith(f"names 1 images that are not there, such as '{val_name(953)[:-5]}'")
    (flat / "val" / "extra.JPEG").write_bytes(b"")
    assert f"does not name the image '{flat / 'val' / 'extra.JPEG'}'" in refused(SMALL, **root)
    (flat / "val_annotations.txt").write_text("a b\nc\n")
    assert refused(SMALL, **root).endswith("is not a list of files with their classes, nor of classes alone")
    (flat / "val_annotations.txt").write_bytes(b"\xff\xfe\x00")
    assert refused(SMALL, **root).endswith("cannot be read: it is not UTF-8 text")


def test_a_class_that_is_none_is_refused(flat: Path) -> None:
    pairs(flat)
    path = flat / "val_annotations.txt"
    path.write_text(path.read_text().replace(f"{val_name(3)}\t{wnids()[3]}", f"{val_name(3)}\tshark"))
    assert f"says that '{val_name(3)}' is of the class 'shark', which is no WordNet id" in refused(SMALL, root=str(flat))


def test_what_a_list_does_not_tell_apart_is_refused(flat: Path) -> None:
    pairs(flat)
    path = flat / "val_annotations.txt"
    line = f"{val_name(3)}\t{wnids()[3]}"
    whole = path.read_text()
    for told, word in (("is of the class '000", "0" * 20 + "9" * 5000), ("is of the class '1000'", "1000")):
        path.write_text(whole.replace(line, f"{val_name(3)}\t{word}"))
        message = refused(SMALL, root=str(flat))
        assert told in message and len(message) < 500
    path.write_text(whole.replace(line, f"{val_name(3)}\t0003"))
    assert len(load(SMALL, root=str(flat)).test) == 10
    path.write_text(f"{whole}\n{val_name(3)}\t{wnids()[4]}\n")
    assert refused(SMALL, root=str(flat)).endswith(f"gives '{val_name(3)[:-5]}' two classes, '{wnids()[3]}' and '{wnids()[4]}'")
    path.write_text(whole)
    first = flat / "val" / val_name(953)
    other = first.with_suffix(".png")
    other.write_bytes(first.read_bytes())
    assert refused(SMALL, root=str(flat)) == f"data.source: the file '{path}' does not tell '{first}' and '{other}' apart"

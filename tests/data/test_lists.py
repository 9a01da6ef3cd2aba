"""Images whose classes stand in a list beside them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import Said, fill, load, picture, refused

from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split

NAMES = [f"im{i:02}.png" for i in range(24)]
KINDS = ["cat", "dog", "ünïcode, quoted"]


def pictures(folder: Path, names: list[str] = NAMES) -> dict[str, bytes]:
    return {name: picture(folder / name).tobytes() for name in names}


def kind(name: str) -> str:
    return KINDS[int(Path(name).stem[-2:]) % 3]


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if "," in value or '"' in value else value


def listed(path: Path, rows: list[tuple[str, ...]], head: str = "file_name,label", end: str = "\n", mark: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [head, *(",".join(map(quoted, row)) for row in rows)] if head else [",".join(map(quoted, row)) for row in rows]
    path.write_bytes(mark + (end.join(lines) + end).encode())
    return path


def shown(split: Split, made: ImageSet) -> dict[str, tuple[bytes, str]]:
    """Pixels and class of every image by its name."""
    images = split.images().permute(0, 2, 3, 1).contiguous().numpy()
    return {str(split.name(i)): (image.tobytes(), made.class_names[split.labels[i]]) for i, image in enumerate(images)}


def every(made: ImageSet) -> dict[str, tuple[bytes, str]]:
    return shown(made.train, made) | shown(made.val, made) | shown(made.test, made)


@pytest.mark.parametrize(
    ("name", "head", "end", "mark"),
    [
        ("labels.csv", "file_name,label", "\n", b""),
        ("labels.csv", "image,class", "\r\n", b"\xef\xbb\xbf"),
        ("metadata.csv", "file_name,label", "\n", b""),
        ("train.csv", "Image_ID,Breed", "\r\n", b""),
        ("Labels.CSV", "", "\n", b"\xef\xbb\xbf"),
        ("labels.csv", "what,of", "\n", b""),
    ],
)
@pytest.mark.parametrize("spelled", ["path", "name", "stem", "windows"])
def test_a_list_beside_a_folder(tmp_path: Path, name: str, head: str, end: str, mark: bytes, spelled: str) -> None:
    pixels = pictures(tmp_path / "images")
    called = {"path": "images/{}", "name": "{}", "stem": "{}", "windows": ".\\images\\{}"}[spelled]
    rows = [(called.format(Path(one).stem if spelled == "stem" else one), kind(one)) for one in NAMES]
    listed(tmp_path / name, rows, head, end, mark)
    made = load(tmp_path)
    assert made.class_names == tuple(KINDS)
    assert every(made) == {f"images/{one}": (pixels[one], kind(one)) for one in NAMES}
    assert load(tmp_path / name).fingerprint == made.fingerprint


def test_the_folder_itself_and_a_list_above_it(tmp_path: Path) -> None:
    pictures(tmp_path / "photos")
    listed(tmp_path / "labels.csv", [(one, kind(one)) for one in NAMES])
    assert load(tmp_path / "photos").fingerprint == load(tmp_path).fingerprint
    (tmp_path / "labels.csv").rename(tmp_path / "photos.csv")
    assert load(tmp_path / "photos").class_names == tuple(KINDS)
    (tmp_path / "photos.csv").unlink()
    assert "has no class folders" in refused(tmp_path / "photos")


def test_folders_of_images_as_the_hub_has_them(tmp_path: Path) -> None:
    for part, names in (("train", NAMES[:18]), ("test", NAMES[18:])):
        pictures(tmp_path / part, names)
        listed(tmp_path / part / "metadata.csv", [(one, kind(one), "a caption") for one in names], "file_name,label,text")
    made = load(tmp_path, val_fraction=0)
    assert (len(made.train), len(made.test)) == (18, 6)
    assert {name.split("/")[0] for name in shown(made.test, made)} == {"test"}
    for part in ("train", "test"):
        (tmp_path / part / "metadata.csv").unlink()
    rows = [{"file_name": f"{'train' if i < 18 else 'test'}/{one}", "label": kind(one)} for i, one in enumerate(NAMES)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert load(tmp_path, val_fraction=0).fingerprint == made.fingerprint


def test_lists_of_splits_as_competitions_have_them(tmp_path: Path) -> None:
    for part in ("train", "test"):
        pictures(tmp_path / part, NAMES[:12])  # of the same names
    listed(tmp_path / "train.csv", [(Path(one).stem, str(i % 3)) for i, one in enumerate(NAMES[:12])], "id,target")
    listed(tmp_path / "test.csv", [(Path(one).stem,) for one in NAMES[:12]], "id")
    said = Said()
    made = load_data(DataSettings(source=str(tmp_path), workers=1, val_fraction=0), said)
    assert (len(made.train), len(made.test), made.class_names) == (9, 3, ("0", "1", "2"))
    assert {name.split("/")[0] for name in every(made)} == {"train"}
    assert said.lines == [
        f"{tmp_path}: test.csv is left out, for it has no column of classes",
        f"{tmp_path}: 12 images are left out, for no list gives them a class (test/im00.png, test/im01.png, test/im02.png, …)",
    ]
    listed(tmp_path / "test.csv", [(Path(one).stem, str(i % 3)) for i, one in enumerate(NAMES[:12])], "id,target")
    assert len(load(tmp_path, val_fraction=0).test) == 12


def test_a_column_of_splits(tmp_path: Path) -> None:
    pictures(tmp_path)
    parts = ["train"] * 12 + ["valid"] * 6 + ["TEST"] * 6
    listed(tmp_path / "labels.csv", [(one, kind(one), part) for one, part in zip(NAMES, parts, strict=True)], "file,class,split")
    made = load(tmp_path)
    assert [sorted(shown(split, made)) for split in (made.train, made.val, made.test)] == [NAMES[:12], NAMES[12:18], NAMES[18:]]


def test_numbers_are_classes_in_their_order_and_may_have_names(tmp_path: Path) -> None:
    pictures(tmp_path)
    listed(tmp_path / "labels.csv", [(one, f"{1 + i % 3 * 5}.0") for i, one in enumerate(NAMES)])
    assert load(tmp_path).class_names == ("1", "6", "11")
    listed(tmp_path / "labels.csv", [(one, str(1 + i % 3)) for i, one in enumerate(NAMES)])
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    said = Said()
    assert load_data(DataSettings(source=str(tmp_path), workers=1), said).class_names == ("ant", "bee", "cat")
    assert said.lines == [f"note: {tmp_path}: labels count from 1 to 3: 1 is the first name in 'classes.txt'"]


@pytest.mark.parametrize("beside", [[("0", "Stop"), ("1", "Go")], [("a/000.png", "x")], []])
def test_class_folders_go_on_being_classes_beside_other_lists(tmp_path: Path, beside: list[tuple[str, str]]) -> None:
    """Such as GTSRB's labels.csv, which names the classes."""
    fill(tmp_path, a=6, b=6)
    before = load(tmp_path)
    listed(tmp_path / "labels.csv", beside, "ClassId,Name")
    said = Said()
    made = load_data(DataSettings(source=str(tmp_path), workers=1), said)
    assert made.fingerprint == before.fingerprint
    assert len(said.lines) == 1
    assert said.lines[0].startswith(f"note: {tmp_path}: the list labels.csv has ")
    assert said.lines[0].endswith("; classes are the folders' names")


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("", [], "the list labels.csv is empty"),
        ("file,label", [], "the list labels.csv has a header and no lines"),
        ("file,text", [(one, f"a picture of {one}") for one in NAMES], "the list labels.csv has no column of classes"),
        ("name,size", [("x", "1")] * 4, "has no column that names the images; its columns are name, size"),
        (
            "file,red,blue",
            [(one, "1", "0") for one in NAMES],
            "has no column of classes; data.label_field=red would take one of red, blue",
        ),
        ("file,label", [(one, kind(one)) for one in NAMES] + [(NAMES[0], "dog")], "im00.png' two classes, 'cat' and 'dog'"),
        ("file,label", [(one, "cat") for one in NAMES], "has one class, 'cat'; at least two are needed"),
        ("file,label", [(one, "") for one in NAMES], "the list labels.csv names no image with a class to train on"),
        (
            "file,label",
            [(one, kind(one)) for one in (*NAMES, "gone99.png")],
            "gone99.png': No such file or directory; data.skip_bad=true",
        ),
        ("file,label", [(f"/gone/{i}.png", "ab"[i % 2]) for i in range(6)], "cannot read 6 of 6 images ("),
        ("file,label,split", [(one, kind(one), "test") for one in NAMES], "names no image with a class to train on"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, head: str, rows: list[tuple[str, ...]], message: str) -> None:
    pictures(tmp_path)
    listed(tmp_path / "labels.csv", rows, head)
    if not head:
        (tmp_path / "labels.csv").write_bytes(b"")
    assert message in refused(tmp_path, val_fraction=0)


def test_what_a_list_leaves_out_is_said(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(one, kind(one)) for one in NAMES[:20]] + [(NAMES[0], kind(NAMES[0])), (NAMES[20], ""), ("gone.png", "cat")]
    listed(tmp_path / "labels.csv", rows)
    said = Said()
    made = load_data(DataSettings(source=str(tmp_path), workers=1, skip_bad=True), said)
    assert sorted(every(made)) == NAMES[:20]
    assert said.lines[:3] == [
        f"{tmp_path}: 1 of 23 images to train on are left out, for they have no class",
        f"{tmp_path}: 1 lines name an image to train on for the second time",
        f"{tmp_path}: 4 images are left out, for no list gives them a class (im20.png, im21.png, im22.png, …)",
    ]
    assert said.lines[3].startswith("skipped 1 of ")


def test_the_ways_that_messages_name(tmp_path: Path) -> None:
    pictures(tmp_path)
    listed(tmp_path / "labels.csv", [(one, f"{i % 2}", f"{i % 3}") for i, one in enumerate(NAMES)], "photo,red,blue")
    assert load(tmp_path, label_field="Red").class_names == ("0", "1")
    assert load(tmp_path, label_field="blue", image_field="photo").class_names == ("0", "1", "2")
    assert refused(tmp_path, label_field="x") == "data.label_field: 'x' is no column of the list, which has red, blue"
    two = pictures(tmp_path / "deep", [NAMES[0]])
    assert two
    path = listed(tmp_path / "labels.csv", [(f"im0{i}.png", "ab"[i % 2]) for i in range(8)])
    assert load(tmp_path).num_classes == 2  # the path from the list goes before the name
    for folder in ("deep", "deeper"):
        pictures(tmp_path / folder, ["im99.png"])
    listed(path, [(f"im0{i}.png", "ab"[i % 2]) for i in range(8)] + [("im99.png", "a")])
    assert "names 'im99.png', which could be '" in refused(tmp_path)
    listed(path, [(f"im0{i}.png", "ab"[i % 2]) for i in range(8)] + [("deeper/im99.png", "a")])
    assert "deeper/im99.png" in every(load(tmp_path))


@pytest.mark.parametrize("name", ["猫.png", "cafe\u0301.png", "a b, c.png", "#1.png"])
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, [*NAMES[:9], name])
    rows = [(one, kind(one)) for one in NAMES[:9]] + [(name.replace("e\u0301", "é"), "cat")]
    listed(tmp_path / "labels.csv", rows)
    assert name in every(load(tmp_path))


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    pictures(tmp_path)
    for content in ("file,label\nä,b".encode("utf-16"), b"\xff\xfe\x00", b"file;label\n" + b'"' * 200_000):
        (tmp_path / "labels.csv").write_bytes(content)
        assert refused(tmp_path).startswith("data.source: ")
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": ')
    assert "metadata.jsonl' cannot be read" in refused(tmp_path)


def test_other_delimiters(tmp_path: Path) -> None:
    pictures(tmp_path)
    expected = None
    for suffix, mark in ((".csv", ","), (".csv", ";"), (".csv", "\t"), (".tsv", "\t")):
        text = mark.join(("file", "label")) + "\n" + "".join(f"{one}{mark}{kind(one)[:3]}\n" for one in NAMES)
        (path := tmp_path / f"labels{suffix}").write_text(text, encoding="utf-8")
        made: Any = load(tmp_path).fingerprint
        expected = expected or made
        assert made == expected
        path.unlink()


def test_lists_lead_nowhere_else_unless_they_say_where(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "images", NAMES[:12])
    away = pictures(tmp_path / "away", NAMES[12:])
    rows = [(one, kind(one)) for one in NAMES[:12]] + [(f"../away/{one}", kind(one)) for one in NAMES[12:]]
    listed(tmp_path / "set" / "labels.csv", rows)
    made = load(tmp_path / "set")
    assert len(every(made)) == 24
    assert {np.frombuffer(pixels, np.uint8).tobytes() for pixels in away.values()} <= {pixels for pixels, _ in every(made).values()}


@pytest.mark.parametrize(
    ("column", "others", "word"),
    [("split", ["train", "dev"], "dev"), ("partition", ["0", "1"], "0"), ("set", ["train", "eval"], "eval")],
)
def test_words_for_splits_that_nobody_knows_are_not_trained_on(tmp_path: Path, column: str, others: list[str], word: str) -> None:
    pictures(tmp_path)
    rows = [(one, kind(one), others[i // 12]) for i, one in enumerate(NAMES)]
    listed(tmp_path / "labels.csv", rows, f"file,class,{column}")
    known = "train, training, test, val, valid, validation"
    said = f"data.source: the list '{tmp_path / 'labels.csv'}' has {word!r} in its column {column!r}, which is none of {known}"
    assert refused(tmp_path) == said


def test_a_column_that_may_be_of_something_else_divides_nothing(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(one, kind(one), "red" if i % 2 else "blue") for i, one in enumerate(NAMES)]
    listed(tmp_path / "labels.csv", rows, "file,class,set")
    assert len(every(load(tmp_path))) == 24


@pytest.mark.parametrize("gone", ["train/7.png", "train/cat/7.png"])
def test_a_file_that_is_gone_is_not_replaced_by_another_of_its_name(tmp_path: Path, gone: str) -> None:
    """Not by one to test on, nor by one of another class's folder."""
    for i in range(6):
        picture(tmp_path / f"train/cat/{i}.png")
        picture(tmp_path / f"train/dog/{i}.png")
    for name in ("test/7.png", "train/dog/7.png"):
        picture(tmp_path / name)
    rows = [(f"train/{one}/{i}.png", one) for i in range(6) for one in ("cat", "dog")]
    listed(tmp_path / "train.csv", [*rows, (gone, "cat")])
    assert gone.rpartition("/")[2] in refused(tmp_path)
    made = load(tmp_path, skip_bad=True)
    assert {name: label for name, (_, label) in every(made).items()} == dict(rows)


def test_a_folder_and_a_name_without_suffix_are_a_path_too(tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / f"cat/{i}.png")
        picture(tmp_path / f"dog/{i}.png")
    rows = [(f"{one}/{i}", one) for i in range(6) for one in ("cat", "dog")]
    listed(tmp_path / "labels.csv", rows, "file,label")
    assert {name.partition(".")[0]: label for name, (_, label) in every(load(tmp_path)).items()} == dict(rows)


def test_a_name_alone_is_sought_in_its_own_split(tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / f"train/{i}.png")
        picture(tmp_path / f"test/{i + 6}.png")
    listed(tmp_path / "train.csv", [(f"{i}.png", KINDS[i % 2]) for i in range(7)])  # the last is one to test on
    listed(tmp_path / "test.csv", [(f"{i + 6}.png", KINDS[i % 2]) for i in range(6)])
    made = load(tmp_path, skip_bad=True)
    assert set(shown(made.test, made)) == {f"test/{i + 6}.png" for i in range(6)}
    assert len(every(made)) == 12


def test_names_of_numbers_begin_at_nought_where_one_is_left_over_which_is_said(tmp_path: Path) -> None:
    pictures(tmp_path)
    listed(tmp_path / "labels.csv", [(one, str(1 + i % 3)) for i, one in enumerate(NAMES)])
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    said = Said()
    assert load_data(DataSettings(source=str(tmp_path), workers=1), said).class_names == ("bee", "cat", "dog")
    assert said.lines == [f"note: {tmp_path}: labels count from 0, which is 'ant' in 'classes.txt' and has no image"]


@pytest.mark.parametrize(
    "text", ["a cat on a mat " * 20 + "and/or a dog. ", "data:image/png;base64," + "iVBORw0KGgo/AAAANSUhEUgAA" * 400]
)
def test_long_text_names_no_image(tmp_path: Path, text: str) -> None:
    pictures(tmp_path)
    listed(tmp_path / "labels.csv", [(f"{text}{i}", one, kind(one)) for i, one in enumerate(NAMES)], "image,photo,label")
    assert set(every(load(tmp_path))) == set(NAMES)
    listed(tmp_path / "labels.csv", [(f"{text}{i}", kind(one)) for i, one in enumerate(NAMES)], "image,label")
    assert "the list labels.csv has no column that names the images; its columns are image, label" in refused(tmp_path)


def test_a_class_that_cannot_be_written_is_refused_before_anything_is_decoded(tmp_path: Path, cache: Path) -> None:
    pictures(tmp_path / "set")
    rows = [{"file_name": one, "label": "\ud800" if i % 2 else "cat"} for i, one in enumerate(NAMES)]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    told = f"data.source: '{tmp_path / 'set'}' has the label '\\ud800', which is no Unicode text"
    assert refused(tmp_path / "set") == told
    assert list(cache.iterdir()) == []


def test_an_image_whose_name_cannot_be_written_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [{"file_name": one, "label": kind(one)} for one in (*NAMES, "\ud80000.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert "cannot read the image" in refused(tmp_path)
    assert len(every(load(tmp_path, skip_bad=True))) == 24

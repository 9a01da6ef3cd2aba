import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import load, png, refused

from limbeck.data import shards
from limbeck.data.shards import expanded, index, split_of
from limbeck.runtime.errors import UsageError

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (24, 9, 11, 3), dtype=np.uint8)


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def samples(rows: range, label: Any = lambda i: ("cls", str(i % 3).encode())) -> dict[str, bytes]:
    """KEY.png and KEY.cls (or what `label` says) for those images."""
    members = {}
    for i in rows:
        kind, content = label(i)
        members |= {f"{i:04}.png": png(IMAGES[i]), f"{i:04}.{kind}": content}
    return members


def standard(root: Path) -> Path:
    shard(root / "train-0000.tar", samples(range(9)))
    shard(root / "train-0001.tar", samples(range(9, 18)))
    shard(root / "val-0000.tar", samples(range(18, 24)))
    return root


def test_a_folder_of_shards(tmp_path: Path) -> None:
    made = load(standard(tmp_path), val_fraction=0)
    assert made.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(made.train.images(), IMAGES[:18].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(made.test.images(), IMAGES[18:].transpose(0, 3, 1, 2))
    assert made.train.labels.tolist() == [i % 3 for i in range(18)]
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    named = load(tmp_path, classes=("cat", "ant"), val_fraction=0, workers=2)
    assert named.class_names == ("cat", "ant")
    assert named.train.labels.tolist() == [{2: 0, 0: 1}[i % 3] for i in range(18) if i % 3 != 1]


def test_one_archive_is_a_source_too(tmp_path: Path) -> None:
    made = load(shard(tmp_path / "all.tar", samples(range(24))), val_fraction=0)
    assert (len(made.train), len(made.test)) == (18, 6)


@pytest.mark.parametrize(
    "label",
    [
        lambda i: ("cls", [b"ant", b"bee", "猫".encode()][i % 3]),
        lambda i: ("json", json.dumps({"width": 11, "label": ["ant", "bee", "猫"][i % 3]}).encode()),
        lambda i: ("JSON", json.dumps({"class": ["ant", "bee", "猫"][i % 3]}).encode()),
    ],
)
def test_labels_that_are_text(tmp_path: Path, label: Any) -> None:
    made = load(shard(tmp_path / "x.tar", samples(range(24), label)), val_fraction=0)
    assert made.class_names == ("ant", "bee", "猫")
    assert np.bincount(made.train.labels).tolist() == [6, 6, 6]


def test_a_class_number_goes_before_its_description(tmp_path: Path) -> None:
    members = samples(range(24)) | {f"{i:04}.json": b'{"label": 7, "caption": "x"}' for i in range(24)}
    members |= {"0000.txt": b"a caption", "0000.seg.png": b"a mask, which is not read"}
    assert load(shard(tmp_path / "x.tar", members)).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("imagenet-train-000001.tar", "train"),
        ("imagenet1k-validation-01.tar", "val"),
        ("test/0001.tar", "test"),
        ("val/train-of-thought.tar", "train"),
        ("0001.tar", "train"),
        ("latest-0001.tar", "train"),
    ],
)
def test_the_split_is_a_word_of_the_path(path: str, split: str) -> None:
    assert split_of(Path(path)) == split


@pytest.mark.parametrize("extra", [{}, {"im.v2.0003.json": b'{"caption": "x"}'}])
def test_keys_with_dots(tmp_path: Path, extra: dict[str, bytes]) -> None:
    members = {f"im.v2.{name}": content for name, content in samples(range(12)).items()}
    members |= {f"{name}": content for name, content in samples(range(12, 24)).items()} | extra
    members |= {"0012.seg.png": b"a mask, which is not read", "0012.meta.json": b'{"label": 2}', "0013.1.cls": b"2"}
    made = load(shard(tmp_path / "x.tar", members), val_fraction=0)
    assert len(made.train) + len(made.test) == 24
    images = [*made.train.images().numpy(), *made.test.images().numpy()]
    labels = [*made.train.labels.tolist(), *made.test.labels.tolist()]
    found = sorted((image.tolist(), label) for image, label in zip(images, labels, strict=True))
    expected = sorted((image.transpose(2, 0, 1).tolist(), i % 3) for i, image in enumerate(IMAGES))
    assert found == expected


def test_two_images_with_dots_and_no_label_are_named(tmp_path: Path) -> None:
    members = samples(range(6)) | {"a.rgb.png": png(IMAGES[0]), "a.cls": b"1"}
    assert refused(shard(tmp_path / "x.tar", members)).endswith("has no a.rgb.cls, nor a label in a.rgb.json")


def fields(*suffixes: str, label: Any = lambda i: str(i % 3).encode()) -> dict[str, bytes]:
    """Samples of those images under each suffix, an image's as another of the set, and labels."""
    members = {}
    for i in range(12):
        for number, suffix in enumerate(suffixes):
            members[f"{i:04}.{suffix}"] = png(IMAGES[i + number]) if suffix.endswith("png") else label(i)
    return members


@pytest.mark.parametrize(
    ("suffixes", "keys"),
    [
        (("input.png", "output.cls"), {}),
        (("png", "output.cls"), {}),
        (("input.png", "cls"), {}),
        (("input.png", "output.json"), {}),
        (("input.png", "mask.png", "cls"), {"image_field": "input"}),
        (("input.png", "mask.png", "cls"), {"image_field": "INPUT.png"}),
        (("input.png", "a.cls", "b.cls"), {"label_field": "b"}),
        (("png", "mask.png", "label.txt"), {"label_field": "label.txt", "image_field": "png"}),
        (("png", "json"), {"label_field": "kind"}),
        (("png", "cls", "other.cls"), {}),
    ],
)
def test_fields_of_samples(tmp_path: Path, suffixes: tuple[str, ...], keys: dict[str, str]) -> None:
    def label(i: int) -> bytes:
        said = {"kind": i % 3, "label": i % 2} if keys else i % 3
        return json.dumps(said).encode() if "json" in suffixes[-1] else str(i % 3).encode()

    made = load(shard(tmp_path / "x.tar", fields(*suffixes, label=label)), val_fraction=0, **keys)
    assert made.class_names == ("0", "1", "2")
    for split in (made.train, made.test):
        number = [int(str(split.name(i)).split(": ")[1][:4]) for i in range(len(split))]
        np.testing.assert_array_equal(split.images(), IMAGES[number].transpose(0, 3, 1, 2))
        assert split.labels.tolist() == [n % 3 for n in number]


def test_fields_that_leave_a_doubt_or_are_not_there(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", fields("input.png", "mask.png", "cls"))
    message = f"data.source: the shard '{path}' has input and mask, which could be the image; data.image_field=input takes one"
    assert refused(path) == message
    assert refused(path, image_field="photo") == (
        f"data.image_field: 'photo' is no field of the shard '{path}', which has input.png, mask.png"
    )
    assert refused(path, image_field="mask", label_field="y") == (
        f"data.label_field: 'y' is no field of the shard '{path}', which has cls"
    )
    masks = load(path, image_field="mask").train
    number = int(str(masks.name(0)).split(": ")[1][:4])
    np.testing.assert_array_equal(masks.images()[0], IMAGES[number + 1].transpose(2, 0, 1))


def test_a_pattern_names_several_shards(tmp_path: Path) -> None:
    whole = load(standard(tmp_path), val_fraction=0)
    pattern = f"{tmp_path}/{{train,val}}-{{0000..0000}}.tar"
    some = load(pattern, val_fraction=0)
    assert (len(some.train), len(some.test)) == (9, 6)
    shard(tmp_path / "val-0001.tar", samples(range(18, 24)))
    made = load(f"{tmp_path}/{{train,val}}-{{0000..0001}}.tar", val_fraction=0)
    np.testing.assert_array_equal(made.train.images(), whole.train.images())
    assert len(made.test) == 12
    message = refused(f"{tmp_path}/train-{{0000..0009}}.tar")
    assert message.endswith(f"names 10 shards, of which '{tmp_path / 'train-0002.tar'}' is not there")
    assert refused(f"{tmp_path}/{{0..99999999999}}.tar").endswith("names more than 100000 shards")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("{x}", ["{x}"]),
    ],
)
def test_braces(tmp_path: Path, pattern: str, names: list[str]) -> None:
    for name in names:
        (tmp_path / f"{name}.tar").write_bytes(b"")
    assert expanded(f"{tmp_path}/{pattern}.tar") == [tmp_path / f"{name}.tar" for name in names]
    assert expanded(f"{tmp_path}/{pattern}.png") == []


def test_nothing_leaves_the_archive(tmp_path: Path) -> None:
    """Names that lead elsewhere are only names."""
    members = {f"../../outside/{name}": content for name, content in samples(range(12)).items()}
    members |= {f"/etc/{name}": content for name, content in samples(range(12, 24)).items()}
    path = shard(tmp_path / "deep" / "x.tar", members)
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("9999.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        file.addfile(link)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert len(index(path)) == 24
    assert len(load(path).train.storage) == 24
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_the_index_is_kept_and_follows_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = standard(tmp_path)
    first = load(root)
    read = []
    original = shards._samples
    monkeypatch.setattr(shards, "_samples", lambda archive, fields: read.append(archive.name) or original(archive, fields))
    assert load(root).fingerprint == first.fingerprint
    assert read == []
    shard(root / "val-0000.tar", samples(range(18, 22)))
    os.utime(root / "val-0000.tar", ns=(0, 0))
    assert len(load(root).test) == 4
    assert read == ["val-0000.tar"]


def test_an_image_that_cannot_be_read_is_named_by_archive_and_member(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", samples(range(24)) | {"0003.png": b"no image"})
    assert refused(path).startswith(f"data.source: cannot read the image '{path}: 0003.png': it holds no image")
    made = load(path, skip_bad=True, val_fraction=0)
    assert len(made.train) + len(made.test) == 23


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (samples(range(6)) | {"0009.png": b""}, "has no 0009.cls, nor a label in 0009.json"),
        (samples(range(6)) | {"0003.jpg": b""}, "has two images of the sample '0003'"),
        (samples(range(6), lambda i: ("json", b"{")), "has a broken 0000.json"),
        (samples(range(6), lambda i: ("json", b'{"label": [1]}')), "has no 0000.cls, nor a label in 0000.json"),
        (samples(range(6), lambda i: ("cls", b"\xff")), "has a broken 0000.cls"),
        (samples(range(6), lambda i: ("cls", b"5")), "has one class, 5; at least two are needed"),
        (samples(range(6), lambda i: ("cls", b"5" if i else b"five")), "has labels that are numbers, and others that are text"),
        ({"notes.txt": b"no images"}, "has no shards to train on that hold images"),
    ],
)
def test_refusals(tmp_path: Path, members: dict[str, bytes], told: str) -> None:
    assert told in refused(shard(tmp_path / "x.tar", members))


def test_a_test_split_without_the_chosen_classes_is_not_replaced(tmp_path: Path) -> None:
    root = standard(tmp_path)
    shard(root / "val-0000.tar", samples(range(18, 24), lambda i: ("cls", b"1")))
    assert refused(root, classes=(0, 2)).endswith("has no image of its classes to test on that can be read")


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"no archive" * 100)
    assert refused(path).startswith(f"data.source: the shard '{path}' cannot be read as a tar archive (")
    with tarfile.open(path, "w:gz") as file:
        file.addfile(tarfile.TarInfo("a"))
    assert refused(path).endswith("; compressed archives must be unpacked to plain .tar first")
    whole = shard(path, samples(range(24))).read_bytes()
    for end in (len(whole) // 2, 512 * 8, 512 * 8 + 100, 512 * 9 + 10, 512 * 96):
        path.write_bytes(whole[:end])
        os.utime(path, ns=(end, end))
        message = refused(path)
        assert "it is cut short" in message or "cannot be read as a tar archive (unexpected end of data)" in message


def test_classes_to_evaluate_on_must_be_trained_on(tmp_path: Path) -> None:
    root = standard(tmp_path)
    shard(root / "val-0001.tar", samples(range(18, 24), lambda i: ("cls", b"8")))
    assert refused(root).endswith("has images of the class 8 to evaluate on but none to train on")
    (root / "val-0001.tar").unlink()
    (root / "classes.txt").write_text("ant\nbee\n")
    assert refused(root).endswith("classes.txt' has 2 names, none for the class 2")
    (root / "classes.txt").write_text("ant\nbee\nant\n")
    assert refused(root).endswith("classes.txt' names a class twice")


@pytest.mark.parametrize("other", ["dev-0000.tar", "testing/0000.tar"])
def test_a_shard_of_an_unknown_split_is_not_trained_on(tmp_path: Path, other: str) -> None:
    shard(tmp_path / "train-0000.tar", samples(range(18)))
    shard(tmp_path / other, samples(range(18, 24)))
    assert refused(tmp_path) == (
        f"data.source: {str(tmp_path)!r} has 'train-0000.tar', and {other!r} of no known split; "
        "archives to evaluate on have test, val or validation in their names"
    )


def described(*said: Any, cls: bytes | None = b"3") -> dict[str, bytes]:
    """KEY.png beside KEY.json, and KEY.cls unless it is None."""
    members = {
        f"{i:04}.{kind}": content for i, one in enumerate(said) for kind, content in (("png", png(IMAGES[i])), ("json", one))
    }
    return members | {f"{i:04}.cls": cls for i in range(len(said)) if cls is not None}


def spoken(**keys: Any) -> bytes:
    return json.dumps(keys).encode()


def test_a_key_in_json_goes_before_the_class_number(tmp_path: Path) -> None:
    said = [spoken(label=i % 2, species=("cat", "dog", "emu")[i % 3]) for i in range(12)]
    made = load(shard(tmp_path / "x.tar", described(*said)), label_field="species", val_fraction=0)
    assert made.class_names == ("cat", "dog", "emu")


@pytest.mark.parametrize(
    ("said", "cls", "field", "told"),
    [
        (
            [spoken(species="cat", label="x"), spoken(label="x")],
            None,
            "species",
            "'0001' in the shard '{}', whose JSON has 'label'",
        ),
        ([spoken(species="cat"), spoken(label="x")], b"3", "speceis", "'0000' in the shard '{}', whose JSON has 'species'"),
        ([spoken(species="cat"), spoken(species=[1])], b"3", "species", "'0001' in the shard '{}', whose JSON has 'species'"),
        ([spoken(species="cat"), b"7"], b"3", "species", "'0001' in the shard '{}'"),
    ],
)
def test_a_sample_without_the_key_is_refused(tmp_path: Path, said: list[bytes], cls: bytes | None, field: str, told: str) -> None:
    path = shard(tmp_path / "x.tar", described(*said, cls=cls))
    assert refused(path, label_field=field) == f"data.label_field: {field!r} is no label of the sample {told.format(path)}"


def test_a_sample_without_json_is_refused_where_a_key_is_named(tmp_path: Path) -> None:
    members = described(*[spoken(species="ab"[i % 2]) for i in range(6)])
    del members["0005.json"]
    path = shard(tmp_path / "x.tar", members)
    told = f"data.label_field: 'species' is no label of the sample '0005' in the shard '{path}'"
    assert refused(path, label_field="species") == told


def test_a_field_that_is_a_member_is_read_by_the_usual_keys(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", fields("png", "cls", "output.json", label=lambda i: spoken(label=i % 3)))
    assert load(path, label_field="output", val_fraction=0).class_names == ("0", "1", "2")


def test_two_members_that_say_different_classes_under_the_key_are_refused(tmp_path: Path) -> None:
    members = described(*[spoken(kind=i % 2) for i in range(6)], cls=None) | {"0003.more.json": spoken(kind=5)}
    assert refused(shard(tmp_path / "x.tar", members), label_field="kind").endswith("has two labels of the sample '0003', 1 and 5")


def test_a_label_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", described(*[b'{"label": "\\ud800"}', spoken(label="x")] * 3, cls=None))
    with pytest.raises(UsageError) as caught:
        index(path)
    assert str(caught.value) == (
        f"data.source: the shard '{path}' has the label '\\ud800' of the sample '0000', which is no Unicode text"
    )

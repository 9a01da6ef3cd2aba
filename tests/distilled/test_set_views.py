"""Labels of views in a distilled set: they come back with it, verified, whole or not at all; a set without them is as ever."""

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from distilled.samples import changed, sample_set
from torch import nn

from limbeck.distilled.card import card
from limbeck.distilled.label_coding import LabelCoding
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.view_labels import StoredViews, label_views
from limbeck.runtime.errors import UsageError
from limbeck.training.images import TensorImages
from limbeck.views import Views


def teacher(num_classes: int = 3) -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(240, num_classes))
    module[1].weight.data = torch.randn(num_classes, 240, generator=torch.Generator().manual_seed(1))
    return module


def labelled(held: DistilledSet, path: Path, **changes: Any) -> StoredViews:
    values: dict[str, Any] = {"epochs": 4, "batch_size": 4, "seed": 0, "key": ("views",), "name": "Linear_1 <b>", **changes}
    return label_views(path, values.pop("teacher", None) or teacher(), TensorImages(held.images), Views(mix="cutmix"), **values)


@pytest.fixture
def held(tmp_path: Path) -> DistilledSet:
    bare = sample_set(metadata={"method": "rded"})
    return changed(bare, views=labelled(bare, tmp_path / "made" / "mine.safetensors"))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def kept(views: StoredViews | None) -> list[torch.Tensor]:
    assert views is not None
    return [views.labels(epoch) for epoch in range(views.epochs)]


def same(one: StoredViews | None, other: StoredViews | None) -> bool:
    return all(torch.equal(a, b) for a, b in zip(kept(one), kept(other), strict=True))


def test_they_come_back_with_the_set(held: DistilledSet, tmp_path: Path) -> None:
    path = held.save(tmp_path / "set")
    assert names(path) == ["README.md", "distilled.safetensors", "metadata.json", "preview.png", "views.safetensors"]
    assert names(tmp_path) == ["made", "set"]
    back = DistilledSet.load(path)
    assert same(back.views, held.views)
    assert back.views is not None and back.views.path == path / "views.safetensors"
    back.views.verify()
    assert back.metadata == {"method": "rded"}
    for (x, y), (index, draw) in zip(back.view_batches(2), back.views.draws(2), strict=True):
        assert x.shape == (len(index), 3, 8, 10) and y.shape == (len(index), 3)
        assert len(draw.boxes) == len(index)  # type: ignore[arg-type]
    description = json.loads((path / "metadata.json").read_text())["views"]
    assert description["bytes"] == (path / "views.safetensors").stat().st_size
    assert description["about"]["coding"] == {"dtype": "bf16", "top": None, "temperature": 1.0}


def test_a_set_without_them_is_what_it_was(tmp_path: Path) -> None:
    path = sample_set().save(tmp_path / "set")
    assert "views" not in json.loads((path / "metadata.json").read_text())
    back = DistilledSet.load(path)
    assert back.views is None
    with pytest.raises(UsageError, match="this set has no labels of views"):
        back.view_batches(0)
    assert "augmented views" not in (path / "README.md").read_text()


def test_saving_again_replaces_keeps_and_drops_them(held: DistilledSet, tmp_path: Path) -> None:
    path = held.save(tmp_path / "set")
    again = DistilledSet.load(path)
    assert same(DistilledSet.load(again.save(path)).views, held.views)  # from the very folder that is replaced
    few = changed(again, views=labelled(again, tmp_path / "few.safetensors", epochs=1))
    assert len(kept(DistilledSet.load(few.save(path)).views)) == 1
    changed(again, views=None).save(path)
    assert "views.safetensors" not in names(path)
    assert DistilledSet.load(path).views is None


def test_a_disk_without_links_gets_a_copy(held: DistilledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linked = held.save(tmp_path / "linked") / "views.safetensors"
    assert held.views is not None
    assert linked.samefile(held.views.path)

    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copied = held.save(tmp_path / "copied") / "views.safetensors"
    assert not copied.samefile(held.views.path)
    assert copied.read_bytes() == linked.read_bytes()
    assert names(copied.parent) == names(linked.parent)


def test_loading_reads_no_labels_and_verifying_finds_every_flipped_byte(held: DistilledSet, tmp_path: Path) -> None:
    path = held.save(tmp_path / "set") / "views.safetensors"
    content = path.read_bytes()
    path.unlink()  # the other name of the file stays as it is
    begin = 8 + int.from_bytes(content[:8], "little")  # of the numbers, behind the header
    for position in (begin, (begin + len(content)) // 2, len(content) - 10):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        back = DistilledSet.load(path.parent)
        assert back.views is not None
        with pytest.raises(UsageError, match="is not what was saved: its checksum is another") as caught:
            back.views.verify()
        assert str(path) in str(caught.value)
        with pytest.raises(UsageError, match="its checksum is another"):
            back.save(tmp_path / "copy")
        assert not (tmp_path / "copy").exists()


def test_a_file_that_is_not_the_one_described_is_refused(held: DistilledSet, tmp_path: Path) -> None:
    path = held.save(tmp_path / "set")
    views = path / "views.safetensors"
    content = views.read_bytes()
    views.unlink()
    with pytest.raises(UsageError, match="it has no views.safetensors"):
        DistilledSet.load(path)
    for bad, message in (
        (content[:-1], f"views.safetensors has {len(content) - 1} bytes, not {len(content)}"),
        (b"\x00" * len(content), "is not a sound file of labelled views"),
        (labelled(held, tmp_path / "other.safetensors", seed=1).path.read_bytes(), "another one than its metadata describe"),
    ):
        views.write_bytes(bad)
        with pytest.raises(UsageError, match=message) as caught:
            DistilledSet.load(path)
        assert "\n" not in str(caught.value)
    views.write_bytes(content)
    for described in ([], {}, {"bytes": len(content)}, "views", 3):
        metadata = json.loads((path / "metadata.json").read_text())
        (path / "metadata.json").write_text(json.dumps(metadata | {"views": described}))
        with pytest.raises(UsageError, match="is not a sound distilled set"):
            DistilledSet.load(path)


def test_parts_must_fit_together(held: DistilledSet) -> None:
    with pytest.raises(ValueError, match=r"views must be of images and classes \[9, 3, 8, 10, 3\], not \[6, 3, 8, 10, 3\]"):
        changed(sample_set(ipc=3), views=held.views)
    with pytest.raises(ValueError, match="metadata must not use the key 'views'"):
        sample_set(metadata={"views": {}})


def test_they_are_added_to_a_set_that_stays_as_it_is(tmp_path: Path) -> None:
    bare = sample_set(metadata={"method": "rded"})
    path = bare.save(tmp_path / "set")
    (path / "notes.txt").write_text("mine")
    before = (path / "distilled.safetensors").read_bytes()
    views = labelled(bare, tmp_path / "made.safetensors", coding=LabelCoding(top=2))
    DistilledSet.add_views(path, views)
    back = DistilledSet.load(path)
    assert same(back.views, views)
    assert (path / "distilled.safetensors").read_bytes() == before
    assert (path / "notes.txt").read_text() == "mine"
    # 2 · 3 + 2 bytes of a label, and 4 + 16 + 1 + 1 of an image, its box, flip and partner; two batches of 16 bytes for six images.
    row = "logits of Linear\\_1 &lt;b&gt; for 4 epochs in batches of 4 (bf16, the 2 likeliest classes, 35 bytes a view)"
    assert f"| Labels of augmented views | {row}: `distilled" in (path / "README.md").read_text() == card(back)
    DistilledSet.append_evaluation(path, {"accuracy": {}})
    assert same(DistilledSet.load(path).views, views)
    with pytest.raises(UsageError, match="is not a set without labels of views"):
        DistilledSet.add_views(path, views)


def test_labels_of_other_images_are_not_added(tmp_path: Path) -> None:
    path = sample_set().save(tmp_path / "set")
    other = sample_set(images=sample_set().images + 1e-3)
    with pytest.raises(UsageError, match="their pixels differ"):
        DistilledSet.add_views(path, labelled(other, tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="views must be of images and classes"):
        DistilledSet.add_views(path, labelled(sample_set(), tmp_path / "four.safetensors", teacher=teacher(4)))
    assert DistilledSet.load(path).views is None
    assert "views.safetensors" not in names(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kill needs a child process")
def test_a_kill_adds_nothing(tmp_path: Path) -> None:
    bare = sample_set()
    path = bare.save(tmp_path / "set")
    views = labelled(bare, tmp_path / "made.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking beside torch's threads: the child uses none of them
        child = os.fork()
    if child == 0:
        put = StoredViews.put

        def die(*arguments: Any) -> None:
            put(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        StoredViews.put = die  # type: ignore[method-assign,assignment]
        DistilledSet.add_views(path, views)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert DistilledSet.load(path).views is None
    DistilledSet.add_views(path, views)  # over the file that nobody knows of
    assert same(DistilledSet.load(path).views, views)

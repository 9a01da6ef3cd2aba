"""Labelled views against the trainer's own, written, killed and read."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from limbeck.distilled.epoch_file import EpochFile
from limbeck.distilled.label_coding import LabelCoding
from limbeck.distilled.view_labels import VIEW_LABELS, StoredViews, evaluating, label_views, stored_error
from limbeck.losses import Divergence
from limbeck.parametrisations.multi_formation import MultiFormation
from limbeck.parametrisations.parametrisation import Code, Decoder
from limbeck.runtime.errors import UsageError
from limbeck.training.images import TensorImages
from limbeck.training.optimisers import Sgd
from limbeck.training.targets import Teacher
from limbeck.training.train import Member, Training, _batches
from limbeck.views import Views

SHAPE = (3, 8, 8)


class Asked(nn.Module):
    """A linear teacher that counts how many images it is asked about, and may fail."""

    def __init__(self, num_classes: int = 4, fails_after: int | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(192, num_classes)
        self.head.weight.data = torch.randn(num_classes, 192, generator=torch.Generator().manual_seed(7))
        self.head.bias.data.zero_()
        self.asked, self.fails_after = 0, fails_after

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        if self.fails_after is not None and self.asked >= self.fails_after:
            raise InterruptedError
        self.asked += len(x)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def images(count: int = 7, seed: int = 0) -> TensorImages:
    return TensorImages(torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)))


def label(path: Path, teacher: nn.Module | None = None, count: int = 7, **changes: Any) -> StoredViews:
    how = changes.pop("how", Views(mix="cutmix"))
    values: dict[str, Any] = {"epochs": 3, "batch_size": 3, "seed": 2, "key": ("run",), **changes}
    return label_views(path, teacher or Asked(), images(count), how, **values)


KINDS = {
    "rded": Views(crop_scale=(0.5, 1.0), patches=2, mix="cutmix"),
    "sre2l": Views(mix="cutmix"),
    "mixup": Views(mix="mixup", alpha=0.8, roll=3),
    "patches": Views(crop_scale=None, flip=False, patches=4),
    "nothing": Views(crop_scale=None, flip=False),
}


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("name", KINDS)
def test_views_are_those_that_the_trainer_draws(tmp_path: Path, name: str, count: int) -> None:
    stored = label(tmp_path / "views.safetensors", how=KINDS[name], count=count)
    how = Training(optimiser=Sgd(0.1), loss=Divergence(20), epochs=3, batch_size=3, augment=KINDS[name])
    member = Member(images(count), Teacher(Asked().eval()), ("run",))
    for epoch in range(3):
        expected, found = list(_batches(member, how, 2, epoch)), list(stored.batches(images(count), epoch))
        assert len(found) == len(expected) == -(-count // 3)
        for (x, y), (own_x, own_y) in zip(found, expected, strict=True):
            torch.testing.assert_close(x, own_x, rtol=0, atol=1e-5)
            torch.testing.assert_close(y, own_y - own_y.amax(1, keepdim=True), rtol=2.0**-7, atol=1e-3)
    labels = torch.cat([y for _, y in stored.batches(images(count), 1)])
    assert torch.equal(stored.labels(1), labels)
    exact = label(tmp_path / "exact.safetensors", how=KINDS[name], count=count, coding=LabelCoding(dtype="fp32"))
    for epoch in range(3):
        pairs = zip(exact.batches(images(count), epoch), _batches(member, how, 2, epoch), strict=True)
        assert all(torch.equal(x, own_x) and torch.equal(y, own_y) for (x, y), (own_x, own_y) in pairs)


def test_the_teacher_was_asked_about_the_very_views(tmp_path: Path) -> None:
    path, teacher = tmp_path / "views.safetensors", Asked(9)
    stored = label(path, teacher.train())
    assert teacher.training
    assert stored_error(stored, teacher, images(), 2)["kl"] < 1e-3
    exact = torch.cat([teacher.head(x.flatten(1)) for x, _ in stored.batches(images(), 2)])
    kept = {"logits": exact.double() - exact.double().amax(1, keepdim=True)}
    assert torch.equal(kept["logits"].bfloat16().float(), stored.labels(2))
    top = label(path, teacher, coding=LabelCoding(top=3, dtype="fp16"))
    error = stored_error(top, teacher, images(), 1)
    assert error["top1_agreement"] == 1
    assert error["bytes_per_label"] == 4 * 2 + 3


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, done: int) -> None:
    whole, path = tmp_path / "whole.safetensors", tmp_path / "views.safetensors"
    label(whole)
    with pytest.raises(InterruptedError):
        label(path, Asked(fails_after=1 + 7 * done + 3))
    assert not path.exists()
    with pytest.raises(UsageError):
        StoredViews.open(path)
    counted: list[int] = []
    teacher = Asked()
    label(path, teacher, after_epoch=counted.append)
    assert counted == list(range(done + 1, 4))
    assert teacher.asked == 1 + 7 * (3 - done)
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["views.safetensors", "whole.safetensors"]


def test_a_pool_of_all_epochs_is_what_is_kept_without_one(tmp_path: Path) -> None:
    whole, pool = tmp_path / "whole.safetensors", tmp_path / "pool.safetensors"
    label(whole)
    for count in (3, 5):
        teacher = Asked()
        stored = label(pool, teacher, pool=count)
        assert stored.pool is None and stored.epochs == 3
        assert pool.read_bytes() == whole.read_bytes()
        pool.unlink()


def test_a_pool_goes_round(tmp_path: Path) -> None:
    path, teacher = tmp_path / "pool.safetensors", Asked()
    whole, pool = label(tmp_path / "whole.safetensors", epochs=5), label(path, teacher, epochs=5, pool=2)
    assert teacher.asked == 1 + 2 * 7
    assert (pool.epochs, pool.pool) == (5, 2) and pool.summary().to_dict()["pool"] == 2
    assert pool.bytes_per_view == whole.bytes_per_view
    for epoch in range(5):
        pairs = zip(pool.batches(images(), epoch), whole.batches(images(), epoch % 2), strict=True)
        assert all(torch.equal(x, own_x) and torch.equal(y, own_y) for (x, y), (own_x, own_y) in pairs)
    held, tensors = load_file(path), load_file(tmp_path / "whole.safetensors")
    assert all(torch.equal(held[name], value[:2]) for name, value in tensors.items())
    sizes = [sum(value.numel() * value.element_size() for value in of.values()) for of in (held, tensors)]
    assert 5 * sizes[0] == 2 * sizes[1]
    label(path, teacher, epochs=5, pool=2)
    assert teacher.asked == 1 + 2 * 7 + 1
    with pytest.raises(UsageError, match="below the 5 epochs"):
        next(pool.batches(images(), 5))
    assert label(path, epochs=4, pool=2).epochs == 4


def test_a_pool_for_no_more_epochs_than_it_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.safetensors"
    label(path, epochs=5, pool=2)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["json"])
    for trained in (4, 2, 0):
        path.write_bytes(serialise(tensors, {"json": json.dumps(about | {"trained": trained})}))
        if trained == 4:
            assert StoredViews.open(path).epochs == 4
            continue
        with pytest.raises(UsageError, match="a complete file of labelled views"):
            StoredViews.open(path)


@pytest.mark.parametrize("num_classes", [255, 256, 257])
def test_as_many_classes_as_the_smallest_numbers_have(tmp_path: Path, num_classes: int) -> None:
    """256 itself is no such number: what is compared with it must be of a larger type."""
    held = label(tmp_path / "views.safetensors", Asked(num_classes), coding=LabelCoding(top=5, temperature=20.0))
    assert held.labels(0).shape == (7, num_classes)


def test_what_is_there_is_not_made_again_unless_it_is_other(tmp_path: Path) -> None:
    path, teacher = tmp_path / "views.safetensors", Asked()
    label(path, teacher)
    label(path, teacher)
    assert teacher.asked == 1 + 21 + 1
    first = path.read_bytes()
    for changes in ({"seed": 3}, {"epochs": 2}, {"coding": LabelCoding(dtype="fp16")}, {"how": Views()}, {"batch_size": 4}):
        label(path, teacher, **changes)
        assert path.read_bytes() != first
    assert len(label(path, Asked(5)).labels(0)[0]) == 5
    # What another run had begun is no part of this one.
    with pytest.raises(InterruptedError):
        label(path, Asked(fails_after=12), seed=8)
    label(path)
    assert path.read_bytes() == first


def test_the_file_is_an_ordinary_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "views.safetensors"
    label(path, how=KINDS["rded"])
    tensors = load_file(path)
    assert {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()} == {
        "index": ((3, 7), torch.int32),
        "draw.order": ((3, 7, 4), torch.uint8),
        "draw.boxes": ((3, 7, 4), torch.float32),
        "draw.flipped": ((3, 7), torch.bool),
        "draw.partner": ((3, 7), torch.uint8),
        "draw.weight": ((3, 3), torch.float64),
        "draw.pasted": ((3, 3, 4), torch.int16),
        "label.logits": ((3, 7, 4), torch.bfloat16),
        "digests": ((3, 8), torch.uint8),
        "written": ((3,), torch.uint8),
    }


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "views.safetensors"
    label(path)
    content = path.read_bytes()
    with pytest.raises(UsageError, match="path: .*missing"):
        StoredViews.open(tmp_path / "missing.safetensors")
    for bad in (b"", content[:50], content[:-1], b"\x00" * 100, content[:-1] + b"\x00"):
        path.write_bytes(bad)
        with pytest.raises(UsageError, match="path: .*labelled views"):
            StoredViews.open(path)
    path.write_bytes(content)
    stored = StoredViews.open(path)
    assert content.endswith(b"\x01\x01\x01")  # which of the epochs are written
    tensors = load_file(path)
    first = tensors["index"][0].numpy().tobytes()
    path.write_bytes(content.replace(first, first[:4] * 7))  # one image seven times
    with pytest.raises(UsageError, match="what was written: epoch 0 has changed"):
        next(stored.batches(images(), 0))
    tensors["index"][0] = tensors["index"][0, 0]
    as_before(path, tensors)
    with pytest.raises(UsageError, match="sound in epoch 0"):
        next(StoredViews.open(path).batches(images(), 0))


def test_a_file_of_another_format_is_told_which_are_read(tmp_path: Path) -> None:
    path = tmp_path / "views.safetensors"
    label(path)
    as_before(path, load_file(path), 3)
    with pytest.raises(UsageError, match=r"is not a complete file of labelled views in format 1 or 2$"):
        StoredViews.open(path)


def test_views_of_which_a_share_is_mixed_cannot_be_stored(tmp_path: Path) -> None:
    for mix in ("cutmix", "mixup"):
        with pytest.raises(UsageError, match=r"^mix_share: 0.5 is not 0 or 1 where views are labelled beforehand$"):
            label(tmp_path / "views.safetensors", how=Views(mix=mix, mix_share=0.5))
    assert not any(tmp_path.iterdir())
    for share in (0, 1):
        stored = label(tmp_path / f"{share}.safetensors", how=Views(mix="cutmix", mix_share=share))
        assert all((draw.partner is not None) == bool(share) for _, draw in stored.draws(0))


def test_no_epoch_is_written_into_the_next_one(tmp_path: Path) -> None:
    with EpochFile(tmp_path / "views", {"index": torch.zeros(4)}, {"epochs": 2}, VIEW_LABELS) as file:
        for other in ({"index": torch.zeros(5)}, {"index": torch.zeros(3)}, {"index": torch.zeros(4), "more": torch.zeros(1)}):
            with pytest.raises(AssertionError, match="same sizes"):
                file.write(0, other)
        assert file.missing() == [0, 1]


def as_before(path: Path, tensors: dict[str, Tensor], number: int = 1) -> None:
    """Write the file anew, as the first format was, in which nothing had a checksum."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["json"])
    rest = {name: value for name, value in tensors.items() if name != "digests" or number == 2}
    path.write_bytes(serialise(rest, {"json": json.dumps(about | {"format": number})}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("draw.partner", 6),
        ("draw.order", 4),
        ("label.classes", 9),
        ("label.logits", math.nan),
        ("draw.boxes", math.nan),
        ("draw.boxes", 8.01),
        ("draw.boxes", -0.5),
        ("draw.boxes", torch.tensor([4.0, 0.0, 4.01, 8.0])),
        ("draw.weight", 1.5),
        ("draw.weight", math.nan),
        ("draw.pasted", 9),
        ("draw.shifts", -4),
    ],
)
def test_what_points_nowhere_is_refused(tmp_path: Path, name: str, value: float | Tensor) -> None:
    path = tmp_path / "views.safetensors"
    label(path, how=replace(KINDS["rded"], roll=3), coding=LabelCoding(top=2))
    tensors = load_file(path)
    tensors[name][1, -1] = value
    as_before(path, tensors)
    stored = StoredViews.open(path)
    assert len(list(stored.batches(images(), 0))) == 3
    with pytest.raises(UsageError, match="sound in epoch 1"):
        next(stored.batches(images(), 1))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("label.logits", None, "label.logits is missing"),
        ("draw.boxes", lambda held: held[..., :3], "draw.boxes is floats (3, 7, 3), where its header says floats (3, 7, 4)"),
        ("label.logits", lambda held: held[..., :3], "label.logits is floats (3, 7, 3), where its header says floats (3, 7, 4)"),
        ("label.logits", lambda held: held[:, :5], "label.logits is floats (3, 5, 4), where its header says floats (3, 7, 4)"),
        ("draw.weight", lambda held: held[:, :2], "draw.weight is floats (3, 2), where its header says floats (3, 3)"),
        ("draw.partner", lambda held: held / 2, "draw.partner is floats (3, 7), where its header says whole numbers (3, 7)"),
        (
            "draw.flipped",
            lambda held: held.byte(),
            "draw.flipped is whole numbers (3, 7), where its header says truth values (3, 7)",
        ),
        ("draw.more", lambda held: torch.zeros(3), "draw.more is no part of it"),
    ],
)
def test_tensors_are_those_that_the_header_says(tmp_path: Path, name: str, change: Any, said: str) -> None:
    path, teacher = tmp_path / "views.safetensors", Asked()
    label(path, teacher)
    whole, tensors = path.read_bytes(), load_file(path)
    tensors = {key: value for key, value in tensors.items() if key != name}
    if change is not None:
        tensors[name] = change(load_file(path).get(name)).contiguous()
    as_before(path, tensors, 2)
    with pytest.raises(UsageError) as caught:
        StoredViews.open(path)
    assert str(caught.value) == f"path: {str(path)!r} is not a sound file of labelled views ({said})"
    label(path, teacher)  # it is not taken for what is finished
    assert path.read_bytes() == whole


def test_views_of_other_images_are_refused(tmp_path: Path) -> None:
    stored = label(tmp_path / "views.safetensors")
    stored.check(images())
    with pytest.raises(UsageError, match="their pixels differ"):
        stored.check(images(seed=1))
    with pytest.raises(UsageError, match="made for images with shape"):
        next(stored.batches(images(6), 0))
    for epoch in (-1, 3):
        with pytest.raises(UsageError, match="below the 3 epochs"):
            next(stored.batches(images(), epoch))
    for changes in ({"epochs": 0}, {"batch_size": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            label(tmp_path / "none.safetensors", **changes)
    with pytest.raises(UsageError, match="labels.top: 4"):
        label(tmp_path / "none.safetensors", coding=LabelCoding(top=4))
    assert not (tmp_path / "none.safetensors").exists()


class Own(MultiFormation):
    """One of somebody's own."""


def test_decoded_images_are_those_of_what_is_stored_however_a_machine_rounds(tmp_path: Path) -> None:
    decoder = Decoder(MultiFormation(2), (1, 8, 8))
    code, other = (Code(decoder, torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed))) for seed in (0, 1))
    asked = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    values: dict[str, Any] = {"epochs": 1, "batch_size": 8, "seed": 0, "key": ("run",)}
    stored = label_views(tmp_path / "views.safetensors", asked, TensorImages(code.images()), Views(), **values, code=code)
    assert stored.about.images == code.fingerprint == code.to("cpu").fingerprint
    elsewhere = TensorImages(code.images() * (1 + 1e-6))
    stored.check(elsewhere, code)
    with pytest.raises(UsageError, match="their pixels differ"):
        stored.check(elsewhere)
    with pytest.raises(UsageError, match="their pixels differ"):
        stored.check(elsewhere, other)
    before = label_views(tmp_path / "before.safetensors", asked, TensorImages(code.images()), Views(), **values)
    before.check(TensorImages(code.images()), code)  # an earlier version went by pixels
    # Of a parametrisation that no file can say, a set stores the images.
    own = Code(Decoder(Own(2), (1, 8, 8)), code.stored)
    made = label_views(tmp_path / "own.safetensors", asked, TensorImages(own.images()), Views(), **values, code=own)
    made.check(TensorImages(own.images()))


def test_modes_come_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout()).train()
    module[1].eval()
    with pytest.raises(InterruptedError), evaluating(module):
        assert not module[0].training
        raise InterruptedError
    assert module.training and module[0].training and not module[1].training

"""Stored labels of views in the place of a live teacher: the same networks to the bit where nothing is lost, or refused."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.augmentation import Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity
from limbeck.data.split import whole
from limbeck.distilled.label_coding import LabelCoding
from limbeck.distilled.settings import ViewLabelSettings
from limbeck.distilled.small_set import SmallSet
from limbeck.distilled.view_labels import StoredViews
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.settings import EvalSettings
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError

EXACT = ViewLabelSettings(store=True, dtype="fp32")


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of four colours."""
    labels = np.arange(4).repeat(count)
    images = np.random.default_rng(seed).integers(0, 120, (4 * count, 3, 8, 8))
    images[labels < 3, labels[labels < 3]] += 100
    return images.astype(np.uint8), labels


def evaluator(**changes: Any) -> Evaluator:
    splits = (whole(*colours(count, seed)) for seed, count in enumerate((20, 5, 20)))
    data = ImageSet(*splits, ("red", "green", "blue", "grey"), "colours", "fingerprint")
    values: dict[str, Any] = {"protocol": "kd-rded", "epochs": 6, "batch_size": 5, "full_epochs": 5, "full_batch_size": 10}
    settings = EvalSettings(**values | {"full_lr": 0.05} | changes)
    network = flat_network("ConvNetD1-w8-nonorm", data.shape, 4)
    return Evaluator(data, Identity(), network, settings, Dsa("flip"), 0, torch.device("cpu"), factor=2)


def subset(judge: Evaluator, ipc: int = 3) -> SmallSet:
    return judge.random_subset(ipc, 0.05, 0)


def stored(judge: Evaluator, path: Path, settings: ViewLabelSettings = EXACT) -> SmallSet:
    """The subset with its labels of views."""
    small = subset(judge)
    return dataclasses.replace(small, views=judge.label_views(small, path / "views.safetensors", settings))


def teacherless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluator, "trained", lambda *_: pytest.fail("the teacher was asked for"))


@pytest.mark.parametrize("protocol", ["kd", "kd-rded", "kd-sre2l"])
def test_exact_labels_are_a_live_teacher_to_the_bit(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = evaluator(protocol=protocol)
    small = stored(judge, tmp_path)
    live = judge.live_logits(small, range(2))
    with monkeypatch.context() as patched:
        teacherless(patched)
        found = dataclasses.replace(judge).logits(small, range(2))
    assert all(torch.equal(a, b) for a, b in zip(found, live, strict=True))
    assert not torch.equal(found[0], found[1])  # another start
    # Live, every network sees views of its own.
    own = judge.logits(dataclasses.replace(small, views=None), range(1))
    assert not torch.equal(own[0], found[0])
    asked = evaluator(protocol=protocol, view_labels="live")
    assert torch.equal(asked.logits(small, range(1))[0], own[0])


def test_few_bytes_change_a_little_and_fewer_change_more(tmp_path: Path) -> None:
    judge = evaluator(epochs=12)
    exact = torch.stack(list(judge.logits(stored(judge, tmp_path), range(2))))
    lost = []
    for number, (dtype, top) in enumerate([("fp16", None), ("bf16", None), ("bf16", 1)]):
        folder = tmp_path / str(number)
        small = stored(judge, folder, ViewLabelSettings(store=True, dtype=dtype, top=top))  # type: ignore[arg-type]
        lost.append((torch.stack(list(judge.logits(small, range(2)))) - exact).abs().max().item())
    assert 0 < lost[0] < lost[1] < lost[2]
    assert lost[1] < 0.05 * exact.abs().max()


def test_they_can_be_sent_to_workers(tmp_path: Path) -> None:
    judge = evaluator()
    small = stored(judge, tmp_path)
    assert small.views is not None
    sent = pickle.loads(pickle.dumps(small.views))
    assert torch.equal(sent.labels(5), small.views.labels(5))


def test_other_protocols_and_images_without_labels_of_views_are_as_ever(tmp_path: Path) -> None:
    judge = evaluator()
    small = stored(judge, tmp_path)
    dd = evaluator(protocol="dd-hard")
    bare = dataclasses.replace(small, views=None)
    assert torch.equal(dd.logits(small, range(1))[0], dd.logits(bare, range(1))[0])
    assert dd.stored_views(small) is None
    assert judge.stored_views(bare) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 7}, "eval.epochs: 7 is not at most 6, for which the set has labels of views"),
        ({"batch_size": 4}, "eval.batch_size: 4 is not 5, as in the set's labels of views"),
        ({"protocol": "kd"}, r"views.crop_scale: \[0.08, 1.0\] is not \[0.5, 1.0\], as in the set's labels of views"),
        (
            {"teacher": "ConvNetD1-w4"},
            "eval.teacher: 'ConvNetD1-w4' is not 'ConvNetD1-w8-nonorm', who gave the set's labels of views",
        ),
    ],
)
def test_a_training_that_needs_other_labels_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    small = stored(evaluator(), tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        evaluator(**changes).logits(small, range(1))
    assert "\n" not in str(caught.value)
    assert "eval.view_labels=live" in str(caught.value)
    evaluator(**changes, view_labels="live").logits(small, range(1))


def test_what_is_not_refused(tmp_path: Path) -> None:
    small = stored(evaluator(), tmp_path)
    assert len(evaluator(epochs=4).logits(small, range(1))) == 1  # the first four epochs of them
    evaluator(teacher="ConvNetD1-w8-nonorm").logits(small, range(1))
    evaluator(teacher="ConvNetD1-nonorm-w8-avgpool").logits(small, range(1))  # the same network
    # Batches that hold all twelve images are one and the same.
    wide = stored(evaluator(batch_size=12), tmp_path / "wide")
    evaluator(batch_size=1024).logits(wide, range(1))


def test_the_rest_was_spread_for_one_temperature(tmp_path: Path) -> None:
    warm, cold = tmp_path / "warm.yaml", tmp_path / "cold.yaml"
    warm.write_text("base: kd-rded\n")
    cold.write_text("base: kd-rded\ntemperature: 2\n")
    few = stored(evaluator(protocol=str(warm)), tmp_path / "few", ViewLabelSettings(store=True, top=2))
    all_of_them = stored(evaluator(protocol=str(warm)), tmp_path / "all")
    with pytest.raises(UsageError, match=r"protocol.temperature: 2.0 is not 20.0, for which the set's labels are kept"):
        evaluator(protocol=str(cold)).logits(few, range(1))
    evaluator(protocol=str(cold)).logits(all_of_them, range(1))


def test_images_that_were_not_labelled_are_refused(tmp_path: Path) -> None:
    judge = evaluator()
    small = stored(judge, tmp_path)
    other = small.images.clone()
    other[3, 0, 2, 2] += 1e-6
    with pytest.raises(UsageError, match="made for these images: their pixels differ"):
        judge.logits(dataclasses.replace(small, images=other), range(1))
    with pytest.raises(ValueError, match="views must be of images and classes"):
        judge.logits(dataclasses.replace(subset(judge, 2), views=small.views), range(1))


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        (
            {"protocol": "dd"},
            EXACT,
            "view_labels.store: True is not possible with eval.protocol=dd, which asks no teacher about views",
        ),
        ({"protocol": "soft-ce"}, EXACT, r"\(kd, kd-rded, kd-sre2l, rded, sre2l do\)"),
        ({}, ViewLabelSettings(store=True, top=4), r"view_labels.top: 4 is not below the number of classes \(4\)"),
    ],
)
def test_labels_that_cannot_be_kept(changes: dict[str, Any], settings: ViewLabelSettings, message: str, tmp_path: Path) -> None:
    judge = evaluator(**changes)
    with pytest.raises(UsageError, match=message):
        judge.label_views(subset(judge), tmp_path / "views.safetensors", settings)
    assert not list(tmp_path.iterdir())


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="view_labels.dtype: 'fp8' is not one of fp32, bf16, fp16"):
        ViewLabelSettings(dtype="fp8")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="view_labels.top: 0"):
        ViewLabelSettings(top=0)
    with pytest.raises(UsageError, match="eval.view_labels: 'never' is not one of stored, live"):
        EvalSettings(view_labels="never")  # type: ignore[arg-type]


def test_what_is_kept_says_where_it_comes_from(tmp_path: Path) -> None:
    judge = evaluator(teacher="ConvNetD1-w4")
    views = stored(judge, tmp_path, ViewLabelSettings(store=True, top=2)).views
    assert views is not None
    assert views.about.teacher_name == "ConvNetD1-w4"
    assert views.about.coding == LabelCoding(dtype="bf16", top=2, temperature=20.0)
    assert (views.epochs, views.about.batch_size, views.about.draws) == (6, 5, (0, "evaluation", "views"))
    # Two classes and three numbers; the image, four patches, a box, a flip, the partner, and per batch of 5, 5, 2 what is pasted.
    assert views.bytes_per_view == {"labels": 2 * 3 + 2, "draws": 4 + 4 + 16 + 1 + 1 + 3 * (8 + 8) / 12}
    assert StoredViews.open(views.path).about == views.about

"""The start of the synthetic set against plain loops over the experts' logits; another set as a start."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from distilled.foreign_files import save_npz, save_pt
from distilled.samples import changed, sample_set

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity, fit_normalise, fit_whiten
from limbeck.data.split import whole
from limbeck.distilled.export import export_npz, export_research
from limbeck.distilled.initial import (
    INITIALISATIONS,
    Centre,
    Continued,
    Correct,
    Initial,
    Noise,
    Real,
    class_orders,
    content_of,
    read_start,
    real_subset,
)
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress

CLASSES, PER_CLASS, EXPERTS = 3, 8, 3


class Lookup(torch.nn.Module):
    """A network whose logits are read from its parameters by the image's number, which is its only pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(CLASSES * PER_CLASS, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[(x[:, 0, 0, 0] * 255).round().long()]


def made(tmp_path: Path, tables: torch.Tensor, ipc: int, label_experts: int = EXPERTS) -> Initial:
    labels = np.arange(CLASSES).repeat(PER_CLASS)
    split = whole(np.arange(CLASSES * PER_CLASS, dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    data = ImageSet(split, split, split, ("a", "b", "c"), "test", "f")
    network = FlatNetwork(Lookup(), "lookup")
    store = TrajectoryStore(tmp_path, {"num_parameters": network.num_parameters, "dtype": "float32"})
    for expert, table in enumerate(tables):
        store.write(expert, {5: table.flatten()})
    parts = (data, Identity(), network, lambda: store, label_experts, 5, ipc, 0, torch.device("cpu"), 0.01)
    return Initial(*parts, lambda: FEATURES)


# The images 2 and 3 of every class lie in the middle of four, 5 and 6 in that of three; 7 and 0 lie apart.
FEATURES = torch.tensor([[30.0], [0.0], [1.1], [2.0], [1.3], [11.0], [11.1], [12.0]]).repeat(CLASSES, 1)


def random_tables(right: float) -> torch.Tensor:
    """Logits of every expert for every image, correct for about the share `right` of the images."""
    draws = torch.Generator().manual_seed(0)
    tables = torch.randn(EXPERTS, CLASSES * PER_CLASS, CLASSES, generator=draws)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    boost = (torch.rand(EXPERTS, len(labels), generator=draws) < right).float() * 9
    return tables + boost.unsqueeze(2) * torch.eye(CLASSES)[labels]


@pytest.mark.parametrize("right", [0.0, 0.3, 0.9])
def test_correct_images_and_mean_logits(tmp_path: Path, right: float) -> None:
    tables, ipc = random_tables(right), 6
    initial = made(tmp_path, tables, ipc)
    result = Correct()(initial, "logits")
    for k, order in enumerate(class_orders(initial.data.train, CLASSES, 0, "initial")):
        chosen: list[int] = []
        for expert in range(EXPERTS):  # the first expert's correct images, then the next one's
            chosen += [i for i in order.tolist() if i not in chosen and tables[expert, i].argmax() == k]
        chosen += [i for i in order.tolist() if i not in chosen]
        for place, i in enumerate(chosen[:ipc]):
            row = k * ipc + place
            assert round(result.images[row].item() * 255) == i
            assert result.classes[row] == k
            voters = [tables[e, i] for e in range(EXPERTS) if tables[e, i].argmax() == k] or list(tables[:, i])
            assert torch.allclose(result.labels[row], torch.stack(voters).mean(0))
    assert result.labels.isfinite().all()


def test_experts_see_all_images_only_until_every_class_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = Lookup.forward

    def counts(self: Lookup, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return forward(self, x)

    tables = random_tables(1.0)
    tables[0, 0] = torch.tensor([-99.0, 0.0, 0.0])  # the first expert is wrong about one of class a
    for ipc, expected in ((7, [24, 21, 21, 21]), (8, [24, 24, 24, 24, 24])):
        initial = made(tmp_path / str(ipc), tables, ipc)
        monkeypatch.setattr(Lookup, "forward", counts)
        seen.clear()
        Correct()(initial, "logits")
        assert seen == expected
        monkeypatch.setattr(Lookup, "forward", forward)


def test_images_that_no_expert_knows_are_one_warning_however_many_classes_they_are_in(tmp_path: Path) -> None:
    said: list[str] = []

    class Said(NoProgress):
        def say(self, message: str) -> None:
            said.append(message)

    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    wrong = torch.eye(CLASSES)[(labels + 1) % CLASSES].expand(EXPERTS, -1, -1).clone()
    wrong[0, labels == 1] = torch.eye(CLASSES)[1]
    Correct()(dataclasses.replace(made(tmp_path, wrong, 2), progress=Said()), "logits")
    assert said == ["warning: no expert classifies 4 of the 6 initial images, in 2 of 3 classes, correctly ('a' 2, 'c' 2)"]
    said.clear()
    initial = made(tmp_path / "right", torch.eye(CLASSES)[labels].expand(EXPERTS, -1, -1), 2)
    Correct()(dataclasses.replace(initial, progress=Said()), "logits")
    assert said == []


def test_fewer_label_experts(tmp_path: Path) -> None:
    tables = random_tables(0.9)
    result = Correct()(made(tmp_path, tables, 2, label_experts=1), "logits")
    numbers = (result.images.flatten() * 255).round().long()
    assert torch.allclose(result.labels, tables[0, numbers])


def test_real_images_have_the_logits_of_one_expert(tmp_path: Path) -> None:
    tables = random_tables(0.5)
    initial = made(tmp_path, tables, 4)
    result = Real()(initial, "logits")
    numbers = (result.images.flatten() * 255).round().long()
    assert numbers.tolist() == real_subset(initial.data.train, CLASSES, 4, 0, "initial").tolist()
    assert (numbers // PER_CLASS).tolist() == result.classes.tolist()
    assert len(set(numbers.tolist())) == 12
    assert torch.allclose(result.labels, tables[0, numbers])


def test_noise_is_standard_normal_and_its_labels_favour_the_class(tmp_path: Path) -> None:
    result = Noise()(made(tmp_path, random_tables(1.0), 8), "logits")
    assert result.images.mean().abs() < 1
    assert 0.5 < result.images.std() < 1.5
    assert result.labels.argmax(1).tolist() == result.classes.tolist()
    assert torch.equal(result.labels[0], result.labels[7])


def test_more_than_a_class_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^ipc: 9 is not at most the 8 training images of class 'a'"):
        Correct()(made(tmp_path, random_tables(1.0), 9), "logits")


def mean_of_voters(tables: torch.Tensor, image: int, k: int) -> torch.Tensor:
    return torch.stack([table[image] for table in tables if table[image].argmax() == k] or list(tables[:, image])).mean(0)


@pytest.mark.parametrize("right", [0.0, 0.4, 1.0])
def test_centre_takes_the_middles_of_clusters_and_the_votes_of_experts(tmp_path: Path, right: float) -> None:
    tables = random_tables(right)
    result = Centre()(made(tmp_path, tables, 3), "logits")
    numbers = (result.images.flatten() * 255).round().long()
    # Means 1.1 of 0, 1.1, 1.3, 2 is 2 (the nearest); 11.1 is 6; 30 is 0; the largest cluster first.
    assert numbers.tolist() == [2, 6, 0, 10, 14, 8, 18, 22, 16]
    assert result.classes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    expected = [mean_of_voters(tables, i, k) for i, k in zip(numbers.tolist(), result.classes.tolist(), strict=True)]
    torch.testing.assert_close(result.labels, torch.stack(expected))


def test_only_centre_asks_for_features_and_with_hard_labels_for_no_expert(tmp_path: Path) -> None:
    def absent() -> None:
        raise AssertionError("was asked for")

    initial = made(tmp_path, random_tables(0.5), 2)
    for kind in ("correct", "real", "noise"):
        INITIALISATIONS[kind](dataclasses.replace(initial, features=absent), "logits")  # type: ignore[arg-type]
    result = Centre()(dataclasses.replace(initial, store=absent), "hard")  # type: ignore[arg-type]
    assert torch.equal(result.labels, torch.eye(CLASSES)[result.classes])


def held_set(hard: bool) -> DistilledSet:
    """Images 0 … 5 of `made`, whose classes alternate."""
    images = torch.arange(6.0).view(-1, 1, 1, 1) / 255
    classes = torch.tensor([2, 0, 1, 2, 0, 1])
    labels = torch.eye(3)[classes] if hard else torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    small = SmallSet(images, labels, classes, 0.02, "hard" if hard else "logits")
    return DistilledSet(set=small, preprocessing=Identity(), class_names=("a", "b", "c"))


def test_a_set_is_continued_class_by_class(tmp_path: Path) -> None:
    tables = random_tables(0.6)
    initial, order = made(tmp_path, tables, 2), [1, 4, 2, 5, 0, 3]
    soft, hard = held_set(hard=False), held_set(hard=True)
    for held in (soft, hard):
        for learned in ("hard", "logits"):
            result = Continued(held.set)(initial, learned)
            assert torch.equal(result.images, held.images[order])
            assert result.classes.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(Continued(soft.set)(initial, "logits").labels, soft.labels[order])
    assert torch.equal(Continued(soft.set)(initial, "hard").labels, torch.eye(3)[[0, 0, 1, 1, 2, 2]])
    assert all(Continued(soft.set)(initial, kind).syn_lr == soft.syn_lr for kind in ("logits", "hard"))
    assert torch.equal(Continued(hard.set)(initial, "hard").labels, torch.eye(3)[[0, 0, 1, 1, 2, 2]])
    # The table of an expert has the logits of image 0 … 5; those of the experts that are right count.
    expected = [mean_of_voters(tables, i, k) for i, k in zip(order, [0, 0, 1, 1, 2, 2], strict=True)]
    torch.testing.assert_close(Continued(hard.set)(initial, "logits").labels, torch.stack(expected))


# Sets in files.

SHAPE, NAMES = (3, 8, 10), ("owl", "mole", "newt")
rng = np.random.default_rng(1)
SPLIT = whole(rng.integers(0, 256, (12, *SHAPE), dtype=np.uint8), np.arange(12) % 3)
DATA = ImageSet(SPLIT, SPLIT, SPLIT, NAMES, "here", "0123456789abcdef")
NORMALISE = fit_normalise(SPLIT)


def fitting(hard: bool = False) -> DistilledSet:
    """Two images of each class of `DATA`."""
    images = NORMALISE.forward(torch.from_numpy(rng.random((6, *SHAPE), dtype=np.float32)))
    labels = {} if hard else {"labels": torch.eye(3).repeat_interleave(2, 0) * 4 + torch.rand(6, 3)}
    return changed(sample_set(hard=hard), images=images, preprocessing=NORMALISE, **labels)


def start(path: Path, ipc: int = 2, syn_lr: float = 0.5) -> DistilledSet:
    return read_start(path, ipc, syn_lr, DATA, NORMALISE)[0]


def refused(path: Path, message: str, ipc: int = 2, data: ImageSet = DATA, preprocessing: object = NORMALISE) -> None:
    with pytest.raises(UsageError) as caught:
        read_start(path, ipc, 0.5, data, preprocessing)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(message), str(caught.value)


@pytest.mark.parametrize("hard", [False, True])
def test_sets_in_every_form_are_taken_up(tmp_path: Path, hard: bool) -> None:
    held = fitting(hard)
    held.save(tmp_path / "run" / "distilled")
    (tmp_path / "run" / "state.json").write_text("{}")
    export_npz(held, tmp_path / "set.npz")
    export_research(held, tmp_path / "research")
    save_pt(tmp_path / "pair.pt", (held.images, held.classes if hard else held.labels))
    for name, rate in (("run", None), ("run/distilled", None), ("set.npz", None), ("research", None), ("pair.pt", 0.5)):
        found = start(tmp_path / name)
        for one, other in ((found.images, held.images), (found.labels, held.labels), (found.classes, held.classes)):
            assert torch.equal(one, other), name
        assert (found.label_kind, found.syn_lr) == (held.label_kind, pytest.approx(rate or held.syn_lr, rel=1e-7))


def test_what_had_to_be_assumed_is_told(tmp_path: Path) -> None:
    held = fitting()
    told = read_start(save_pt(tmp_path / "pair.pt", (held.images, held.labels)), 2, 0.5, DATA, NORMALISE)[1]
    assert any("taken as prepared like the data" in note for note in told)
    told = read_start(export_research(held, tmp_path / "research"), 2, 0.5, DATA, NORMALISE)[1]
    assert not any("step size" in note for note in told)  # that of the file is taken, nothing else was asked for
    for path in (
        export_npz(held, tmp_path / "set.npz"),
        save_pt(tmp_path / "rate.pt", {"images": held.images, "labels": held.labels, "lr": 0.25}),
    ):
        told = read_start(path, 2, 0.5, DATA, NORMALISE)[1]
        assert not any("syn_lr" in note or "step size" in note for note in told), told
    save_pt(tmp_path / "research" / "lr_best.pt", torch.tensor(0.125))  # as research code that went on from it writes
    told = read_start(tmp_path / "research", 2, 0.5, DATA, NORMALISE)[1]
    assert f"the step size 0.125 of lr_best.pt is taken, not the {held.syn_lr:.6g} of about.json" in told
    held = changed(held, metadata={"fingerprints": {"data": "f" * 16}, "assumed": None})
    assert [note.partition(":")[0] for note in read_start(held.save(tmp_path / "set"), 2, 0.5, DATA, NORMALISE)[1]] == ["data"]


def test_starts_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    held = fitting()
    path = held.save(tmp_path / "set")
    names = "one of correct, real, noise, centre, or the path of a distilled set"
    for absent in ("corect", "x" * 5000, "~nobody-of-that-name/set"):
        refused(Path(absent), f"init: {absent!r} is not {names}")
    refused(path, f"ipc: 3 is not 2, the number of images of a class in {str(path)!r}, which init starts from", ipc=3)
    uneven = changed(held, classes=torch.tensor([0, 0, 0, 1, 1, 2]))
    refused(uneven.save(tmp_path / "uneven"), "ipc: 2 is not 1 … 3, the number of images of a class in")
    other = dataclasses.replace(DATA, class_names=("owl", "mole", "vole"))
    refused(path, f"init: {str(path)!r}: classes: those of the set are not those of the data", data=other)
    small = whole(SPLIT.storage[:, :, :, :8], SPLIT.labels)
    refused(
        path,
        f"init: {str(path)!r}: images: shape (3, 8, 10) of the set is not (3, 8, 8)",
        data=ImageSet(*[small] * 3, NAMES, "here", "0"),
    )
    refused(path, f"init: {str(path)!r}: preprocessing: normalise", preprocessing=fit_whiten(SPLIT))
    slow = changed(held, syn_lr=1e-9).save(tmp_path / "slow")
    refused(slow, f"init: {str(slow)!r} is not a set with a step size in [1e-06, 1e+38]: it has 1e-09")
    run = tmp_path / "run"
    run.mkdir()
    refused(run, f"init: {str(run)!r} holds neither a set nor class folders")
    (run / "state.json").touch()
    refused(run, f"init: {str(run)!r} is a run that has not ended; finish it with `limbeck distill … --resume`")


def test_a_place_that_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fitting().save(tmp_path / "set")
    monkeypatch.setattr(Path, "is_dir", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    refused(path, f"init: {str(path)!r} cannot be read: Permission denied")


def test_options_of_another_command_are_not_advised(tmp_path: Path) -> None:
    coarse = save_npz(tmp_path / "coarse.npz", images=np.zeros((6, 3, 16, 20), dtype=np.uint8), labels=np.arange(6) // 2)
    with pytest.raises(UsageError, match="where the data have 8×10$"):
        start(coarse)
    doubtful = save_pt(tmp_path / "doubtful.pt", (torch.rand(6, *SHAPE) * 1.2, torch.arange(6) // 2))
    with pytest.raises(UsageError, match="which may be pixels or normalised$"):
        start(doubtful)


def test_notes_do_not_advise_them_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = "images are taken as normalised by cifar10; by mean (1, 2), which fits, they are grey (--normalised yes), and so on"
    held = changed(fitting(), metadata={"assumed": [note]})
    monkeypatch.setattr("limbeck.distilled.initial.check_fit", lambda *parts: ["images: were they so (--normalised imagenet), …"])
    told = read_start(held.save(tmp_path / "set"), 2, 0.5, DATA, NORMALISE)[1]
    assert told == [note.replace(" (--normalised yes)", ""), "images: were they so, …"]


def test_the_content_is_what_is_taken_up() -> None:
    held = fitting()
    same = [changed(held, metadata={"evaluations": [1]}), changed(held, images=held.images.clone())]
    other = [
        changed(held, images=held.images + 1e-6),
        changed(held, labels=held.labels.flip(0)),
        changed(held, classes=held.classes.flip(0)),
        changed(held, syn_lr=held.syn_lr * 2),
    ]
    assert {content_of(one) for one in same} == {content_of(held)}
    assert len({content_of(one) for one in (held, *other)}) == 5

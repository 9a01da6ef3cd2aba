"""What is stored in the outer loop, in runs and in saved sets."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import limbeck
from limbeck.accuracy import Accuracy
from limbeck.data.preprocessing import Identity
from limbeck.distilled.coded import images_of
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.matching.adjoint import Gradients
from limbeck.methods.objective import Objective, State, Update
from limbeck.methods.outer import OuterLoop
from limbeck.methods.settings import OuterSettings
from limbeck.methods.state import OuterState
from limbeck.parametrisations.dct import Dct
from limbeck.parametrisations.multi_formation import MultiFormation
from limbeck.parametrisations.parametrisation import Code, Decoder, Parametrisation
from limbeck.runs.checks import check
from limbeck.runs.needs import output_needs
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_tensors
from limbeck.runtime.progress import NoProgress

SHAPE = (3, 8, 6)
LABELS = torch.eye(2).repeat(4, 1)
QUICK: dict[str, Any] = {
    "network": "ConvNetD1-w4",
    "iterations": 3,
    "every": 2,
    "every_seeds": 1,
    "epochs": 1,
    "seeds": 2,
    "full_epochs": 1,
    "full_seeds": 2,
    "random_lr": 0.01,
    "compile": "no",
    "features": "none",
    "real.batch": 6,
}
IMAGES = np.random.default_rng(0).integers(0, 255, (36, 8, 8, 3)).astype(np.uint8), np.repeat(np.arange(3), 12)
TEST = np.random.default_rng(1).integers(0, 255, (9, 8, 8, 3)).astype(np.uint8), np.repeat(np.arange(3), 3)
DATA = (*IMAGES, *TEST)


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is trained for one test serves the others."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("shared")))
        yield


@pytest.fixture(autouse=True)
def cache() -> None:
    """In the place of the one that gives each test its own."""


class Pull(Objective):
    """L = ½ ‖X − T‖²."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        away = images - self.target
        still = torch.zeros_like(labels), torch.zeros_like(syn_lr)
        return Update(Gradients(0.5 * away.square().sum(), away, *still), plain=2 * away if plain else None)


class Half:
    """Weights that are two in the left half of an image and zero in the right one."""

    every, active = 1, True

    def weights(self, images: Tensor, iteration: int) -> Tensor:
        weights = torch.zeros_like(images[:, :1])
        weights[..., : images.shape[-1] // 2] = 2
        return weights

    def maps(self, images: Tensor, iteration: int) -> Tensor:
        return images.abs().mean(1)


def loop(folder: Path, one: Parametrisation, target: Tensor, **changes: Any) -> OuterLoop:
    return OuterLoop(
        objective=Pull(target),
        enhancement=Half(),  # type: ignore[arg-type]
        settings=OuterSettings(iterations=4, lr_img=0.05, lr_lr=0.0, lr_label=0.0, img_momentum=0.0, checkpoint_every=2),
        evaluate=lambda x, y, eta: Accuracy(mean=1 / (1 + (x - target).square().sum().item())),
        every=2,
        match_norm=False,
        folder=folder,
        decoder=Decoder(one, SHAPE),
        **changes,
    )


@pytest.mark.parametrize("one", [MultiFormation(2), Dct(2)], ids=str)
def test_the_loop_moves_what_is_stored_by_the_weighted_gradient_carried_back(tmp_path: Path, one: Parametrisation) -> None:
    draws = torch.Generator().manual_seed(0)
    decoder = Decoder(one, SHAPE)
    p = torch.randn(2, *decoder.slot_shape, generator=draws, dtype=torch.float64)
    target, labels = torch.randn(8, *SHAPE, generator=draws, dtype=torch.float64), LABELS.double()
    made = loop(tmp_path, one, target)
    state = made.run(p, labels, 0.01)
    wanted, weights = p.clone().requires_grad_(), Half().weights(target, 0)
    for _ in range(4):
        loss = 0.5 * (weights * (decoder(wanted) - target).square()).sum()
        wanted = (wanted - 0.05 * torch.autograd.grad(loss, wanted)[0]).detach().requires_grad_()
    assert torch.allclose(state.images, wanted, atol=1e-12)
    assert state.labels.shape == (8, 2) and state.weights.shape == (8, 1, 8, 6)
    tensors, _ = read_tensors(tmp_path / "snapshots" / "iteration-000004.safetensors")
    assert torch.equal(tensors["P"], state.images) and torch.equal(tensors["X"], decoder(state.images))
    assert tensors["maps"].shape == (8, 8, 6)
    small = made.best(state, SmallSet.of_classes(decoder(p), torch.arange(8) % 2, 2))
    assert small.code is not None and torch.equal(small.images, small.code.images())


def test_a_loop_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    one, draws = MultiFormation(2), torch.Generator().manual_seed(0)
    p, target = torch.randn(2, *SHAPE, generator=draws), torch.randn(8, *SHAPE, generator=draws)
    labels = LABELS
    whole = loop(tmp_path / "whole", one, target).run(p, labels, 0.01)
    begun = loop(tmp_path / "begun", one, target)
    replace(begun, settings=replace(begun.settings, iterations=2)).run(p, labels, 0.01)
    resumed = loop(tmp_path / "begun", one, target).run(torch.zeros(0), labels, 0.01)
    assert torch.equal(whole.images, resumed.images) and whole.best == resumed.best


def test_a_checkpoint_of_other_slots_is_refused(tmp_path: Path) -> None:
    one, p, labels = MultiFormation(2), torch.randn(2, *SHAPE), LABELS
    loop(tmp_path, one, torch.zeros(8, *SHAPE)).run(p, labels, 0.01)
    with pytest.raises(UsageError, match=r"what is stored has shape \(2, 3, 8, 6\), not \(N, 4, 3, 12\)"):
        loop(tmp_path, Dct(2), torch.zeros(8, *SHAPE)).run(p, labels, 0.01)


def test_norms_are_matched_in_what_is_moved(tmp_path: Path) -> None:
    one, p, target = MultiFormation(2), torch.randn(2, *SHAPE), torch.randn(8, *SHAPE)
    made = replace(loop(tmp_path, one, target), match_norm=True)
    state = OuterState.start(p, LABELS, 0.01, {}, made.decoder)
    update, weighted, rescaled = made.gradients(state)
    assert update.plain is not None and update.plain.shape == weighted.shape == p.shape
    assert rescaled.norm().item() == pytest.approx(update.plain.norm().item(), rel=1e-5)


def small_set(one: Parametrisation, slots: int = 2) -> DistilledSet:
    decoder = Decoder(one, SHAPE)
    code = Code(decoder, torch.randn(slots, *decoder.slot_shape, generator=torch.Generator().manual_seed(0)))
    images = code.images()
    classes = torch.arange(len(images)) * 2 // len(images)
    small = replace(SmallSet.of_classes(images, classes, 2, 0.01), code=code)
    return DistilledSet(set=small, preprocessing=Identity(), class_names=("ant", "bee"))


@pytest.mark.parametrize("one", [MultiFormation(2), Dct(2, 0.1)], ids=str)
def test_a_saved_set_holds_what_is_stored_and_loads_as_its_images(tmp_path: Path, one: Parametrisation) -> None:
    held = small_set(one)
    held.save(tmp_path / "set")
    tensors = load_file(tmp_path / "set" / "distilled.safetensors")
    assert "images" not in tensors and held.set.code is not None and torch.equal(tensors["stored"], held.set.code.stored)
    again = DistilledSet.load(tmp_path / "set")
    assert torch.equal(again.images, held.images) and again.set.code is not None
    assert again.set.code.bytes == held.set.code.bytes and again.set.code.decoder == held.set.code.decoder
    assert again.set.real_ipc == math.ceil(4 * held.set.stored.numel() / held.images.numel())


def test_sets_of_pixels_are_written_as_ever(tmp_path: Path) -> None:
    held = small_set(MultiFormation(2))
    held = replace(held, set=replace(held.set, code=None))
    held.save(tmp_path / "set")
    described = json.loads((tmp_path / "set" / "metadata.json").read_text())["set"]
    assert described["format"] == 1 and "parametrisation" not in described


class Own(MultiFormation):
    """One of the user's."""


def test_a_set_of_ones_own_is_saved_as_its_images(tmp_path: Path) -> None:
    held = small_set(Own(2))
    held.save(tmp_path / "set")
    again = DistilledSet.load(tmp_path / "set")
    assert again.set.code is None and torch.equal(again.images, held.images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "own", "factor": 2}, "none of pixels, multi, dct"),
        ({"kind": "multi", "factor": 3}, "what is stored decodes to"),
        ({"kind": "multi", "factor": 2, "more": 1}, "has other settings"),
        ({"kind": "multi", "factor": 9}, "parametrisation.factor: 9 is not at most 6"),
        ([], "'list' object has no attribute"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    held = small_set(MultiFormation(2))
    tensors = {"stored": held.set.stored}
    assert images_of(tensors, [8, *SHAPE], {"kind": "multi", "factor": 2})[1] is not None
    with pytest.raises((ValueError, AttributeError), match=message or None):
        images_of(tensors, [8, *SHAPE], change)


def test_what_decodes_to_more_than_the_memory_is_not_decoded() -> None:
    for shape in ([8, 3, 10**6, 1], [10**12, 3, 8, 6]):
        with pytest.raises(MemoryError):
            images_of({"stored": torch.zeros(2, 4, 3, 12)}, shape, {"kind": "dct", "factor": 2, "keep": None})


def test_frequencies_pass_through_a_run_and_a_set_can_be_continued(tmp_path: Path) -> None:
    first = limbeck.distill(DATA, "dm", init="real", parametrisation=Dct(2), output=tmp_path / "first", **QUICK)
    code = first.distilled.set.code
    assert code is not None and code.stored.shape == (3, 4, 3, 16)
    set_at = str(tmp_path / "first" / "distilled")
    limbeck.distill(DATA, "dm", init=set_at, parametrisation=Dct(2), output=tmp_path / "second", **QUICK)
    started, _ = read_tensors(tmp_path / "second" / "snapshots" / "iteration-000000.safetensors")
    assert torch.equal(started["P"], code.stored)
    found = limbeck.evaluate(
        set_at, DATA, networks=["ConvNetD1-w4"], epochs=1, seeds=2, full_epochs=1, full_seeds=2, random_lr=0.01
    )
    assert found.accuracy.distilled.n == 2
    limbeck.write_report(tmp_path / "first")


def workspace(**keys: Any) -> Workspace:
    return Workspace(DistillSettings.of({"data.source": "scenes:easy", "data.size": 8, "data.per_class": 12, **keys}), NoProgress())


def test_slots_begin_as_real_images_shrunk() -> None:
    made = workspace(method="dm", ipc=2, init="real", **{"parametrisation.kind": "multi", "network": "ConvNetD1-w4"})
    start, plain = made.initial(), workspace(method="dm", ipc=8, init="real", network="ConvNetD1-w4").initial()
    assert torch.equal(start.stored, made.decoder.encoded(plain.images)) and torch.equal(start.classes, plain.classes)
    assert (start.ipc, start.real_ipc, made.ipc) == (8, 2, 8)


def test_plans_count_the_images_that_are_decoded(tmp_path: Path) -> None:
    """A run of few slots takes the memory and the steps of its images, and between both on the disk."""
    common = {"method": "mtt", "network": "ConvNetD1-w4", "init": "real", "match.batch_syn": 7}
    stored = workspace(ipc=2, **{"parametrisation.kind": "multi"}, **common)
    slots, images = (workspace(ipc=ipc, **common) for ipc in (2, 8))
    assert stored.problem().shape == images.problem().shape and stored.problem().batches == images.problem().batches
    sizes = [output_needs(one, tmp_path / "run")[0].size for one in (slots, stored, images)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[1]
    assert not stored.shards and "parametrisation.kind='multi'" in stored.must_hold_all


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"parametrisation.kind": "tiles"}, "parametrisation.kind: 'tiles' is not one of pixels, multi, dct"),
        ({"parametrisation.factor": 0}, "parametrisation.factor: 0 is not at least 1"),
        ({"parametrisation.keep": 1.5}, r"parametrisation.keep: 1.5 is not in \(0, 1\]"),
        (
            {"method": "rded", "parametrisation.kind": "multi"},
            "parametrisation.kind: 'multi' is not pixels, which is all that rded",
        ),
        ({"parametrisation.kind": "multi", "parametrisation.factor": 9}, "parametrisation.factor: 9 is not at most 8"),
        ({"parametrisation.kind": "multi", "ipc": 5}, "ipc: 5 is not at most [0-9]: each slot begins as 4 of the"),
        ({"parametrisation.kind": "math:pi"}, "parametrisation.kind: 'math:pi' is not a Parametrisation"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_a_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(workspace(**{"method": "dm", "network": "ConvNetD1-w4", **keys}))

"""What holds of every method, of the registry's and of a user's: a small run of each on classes of which one has fewer images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.distilled.set import DistilledSet
from limbeck.distilled.settings import STARTS
from limbeck.experts.train import train_experts
from limbeck.methods.registry import METHODS, method_of
from limbeck.recipes import load_recipe, remarks, settings_from_plain
from limbeck.runs.distill import distill
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_tensors
from limbeck.runtime.progress import NoProgress, NoStage, Stage

OWN = "methods.own:METHOD"
ALL = (*METHODS, OWN)
LOOPS = tuple(name for name in ALL if method_of(name).kind == "objective")
RECOVERED = tuple(name for name in METHODS if METHODS[name].make == METHODS["sre2l"].make)
SOFT = tuple(name for name in ALL if method_of(name).labels == "soft")
COUNTS = (12, 12, 7)
SLOTS = {
    name: preset["parametrisation.factor"] ** 2 for name in METHODS if "parametrisation.factor" in (preset := METHODS[name].preset)
}
SMALL = {
    "data.val_fraction": "0.25",
    "augment.strategy": "crop_flip",
    "network": "ConvNetD1-w6",
    "experts.num_experts": "2",
    "experts.train_epochs": "3",
    "experts.batch_size": "8",
    "match.syn_steps": "2",
    "match.expert_epochs": "1",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "2",
    "outer.iterations": "5",
    "outer.checkpoint_every": "2",
    "outer.max_match_loss": "inf",
    "sre2l.iterations": "5",
    "real.batch": "6",
    "real.outer_loops": "3",
    "real.inner_loops": "1",
    "engine.compile": "no",
    "eval.every": "5",
    "eval.every_seeds": "1",
    "eval.epochs": "2",
    "eval.seeds": "2",
    "features": "none",
    "eval.full_epochs": "1",
    "eval.full_seeds": "2",
    "eval.random_lr": "0.01",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three classes, told apart by their brightest channel, of twelve, twelve and seven images; a quarter is for validation."""
    draws, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "images.npz"

    def images(labels: np.ndarray) -> np.ndarray:
        return draws.integers(0, 160, (len(labels), 8, 8, 3)) + 80 * np.eye(3, dtype=int)[labels][:, None, None]

    train, test = np.repeat(np.arange(3), COUNTS), np.repeat(np.arange(3), 4)
    arrays = {"x_train": images(train).astype(np.uint8), "x_test": images(test).astype(np.uint8)}
    np.savez(path, **arrays, y_train=train, y_test=test)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is trained for one test serves the others."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("shared")))
        yield


@pytest.fixture(autouse=True)
def cache() -> None:
    """In the place of the one that gives each test its own."""


def settings(method: str, source: str, **changes: str) -> Any:
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return load_recipe("scenes", SMALL | {"data.source": source, "method": method} | changed)


class Stopped(Exception):
    pass


@dataclass
class Stopping(NoProgress):
    """Raises in the middle of what makes the set."""

    name: str
    after: int

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        yield Counting(self.after) if name == self.name else NoStage()


@dataclass
class Counting(NoStage):
    left: int

    def advance(self, steps: int = 1, **facts: Any) -> None:
        self.left -= steps
        if self.left <= 0:
            raise Stopped


WHERE = {"images": ("rded", 2), "selection": ("evaluate", 1), "objective": ("distil", 4)}


@pytest.mark.parametrize("method", ALL)
def test_a_run_is_seeded_and_a_stopped_one_ends_with_the_same_bits(
    tmp_path: Path, source: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, made, trained = settings(method, source), list[DistilledSet](), list[object]()
    monkeypatch.setattr("limbeck.runs.workspace.train_experts", lambda *parts: trained.append(parts) or train_experts(*parts))
    stop = Stopping(*(("sre2l", 3) if method in RECOVERED else WHERE[method_of(method).kind]))
    results = []
    for number, name in enumerate(("whole", "again", "stopped")):
        torch.manual_seed(number)
        if name == "stopped":
            with pytest.raises(Stopped):
                distill(asked, tmp_path / name, progress=stop)
        results.append(distill(asked, tmp_path / name, resume=name == "stopped"))
        made.append(DistilledSet.load(tmp_path / name / "distilled"))
    for other, result in zip(made[1:], results[1:], strict=True):
        for tensor in ("images", "labels", "classes"):
            assert torch.equal(getattr(other, tensor), getattr(made[0], tensor)), tensor
        assert other.syn_lr == made[0].syn_lr
        assert result.accuracy == results[0].accuracy
    assert (results[0].experts is not None) == bool(trained) == method_of(method).experts  # nothing else may train any
    held = made[0]
    each = SLOTS.get(method, 1)
    assert held.images.shape == (3 * each, 3, 8, 8) and held.images.isfinite().all()
    assert held.classes.tolist() == [0] * each + [1] * each + [2] * each
    assert held.metadata["method"] == method and settings_from_plain(held.metadata["settings"]) == asked
    assert held.label_kind == ("hard" if asked.labels == "hard" else "logits")
    assert torch.equal(held.labels, torch.eye(3)) == (held.label_kind == "hard")
    if method in LOOPS:
        first, last = (read_tensors(tmp_path / "whole" / "snapshots" / f"iteration-{n:06d}.safetensors")[0] for n in (0, 5))
        assert not torch.equal(first["X"], last["X"])
        assert torch.equal(first["Y"], last["Y"]) == (asked.labels == "hard")
    distill(settings(method, source, seed="1"), tmp_path / "other")
    if method_of(method).kind != "selection" or method in ("random", OWN):
        assert not torch.equal(DistilledSet.load(tmp_path / "other" / "distilled").images, held.images)


@pytest.mark.parametrize("method", ALL)
def test_labels_are_of_either_kind_where_the_method_allows_both(tmp_path: Path, source: str, method: str) -> None:
    if method not in SOFT:
        with pytest.raises(UsageError) as error:
            distill(settings(method, source, labels="soft"), tmp_path / "run")
        assert str(error.value) == f"labels: 'soft' is not hard, which {method} needs"
        assert not (tmp_path / "run").exists()
        return
    kind = "hard" if settings(method, source).labels == "soft" else "soft"
    distill(settings(method, source, labels=kind, outer__lr_label="0", outer__iterations="1"), tmp_path / "run")
    held = DistilledSet.load(tmp_path / "run" / "distilled")
    assert held.label_kind == ("hard" if kind == "hard" else "logits")
    if kind == "hard":
        assert torch.equal(held.labels, torch.eye(3)[held.classes])


@pytest.mark.parametrize("method", LOOPS)
@pytest.mark.parametrize("init", STARTS)
def test_a_loop_goes_from_any_start(tmp_path: Path, source: str, method: str, init: str) -> None:
    ipc, each = (1, SLOTS[method]) if method in SLOTS else (2, 1)
    results = distill(settings(method, source, init=init, outer__iterations="1", ipc=str(ipc)), tmp_path / "run")
    assert results.accuracy.distilled.n == 2
    assert DistilledSet.load(tmp_path / "run" / "distilled").classes.tolist() == sorted([0, 1, 2] * ipc * each)


@pytest.mark.parametrize("method", ALL)
def test_a_loop_goes_on_from_another_set_and_what_has_none_refuses_it(tmp_path: Path, source: str, method: str) -> None:
    distill(settings("random", source, ipc=str(SLOTS.get(method, 1))), tmp_path / "first")
    asked = {"init": str(tmp_path / "first"), "outer__iterations": "1", "outer__lr_img": "0", "outer__ema_decay": "null"}
    if method in LOOPS:
        distill(settings(method, source, **asked), tmp_path / "run")
        first, second = (DistilledSet.load(tmp_path / name / "distilled") for name in ("first", "run"))
        same = second.images if second.set.code is None else second.set.code.decoder.encoded(first.images)
        stored = first.images if second.set.code is None else second.set.code.stored
        assert torch.equal(stored, same)
        return
    with pytest.raises(UsageError, match=r"^init: .* is not one of correct, .*: .* makes its set at once"):
        distill(settings(method, source, **asked), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ALL)
def test_slots_are_stored_in_the_place_of_images(tmp_path: Path, source: str, method: str) -> None:
    """A slot of every class, each of which four images are decoded from; a stopped run ends with the same bits."""
    if method not in LOOPS:
        with pytest.raises(UsageError, match=r"^parametrisation\.kind: 'multi' is not pixels, which is all that "):
            settings(method, source, parametrisation__kind="multi")
        return
    asked = settings(method, source, parametrisation__kind="multi", ipc="1", init="real")
    run = distill(asked, tmp_path / "whole")
    with pytest.raises(Stopped):
        distill(asked, tmp_path / "stopped", progress=Stopping("distil", 4))
    distill(asked, tmp_path / "stopped", resume=True)
    held, other = (DistilledSet.load(tmp_path / name / "distilled") for name in ("whole", "stopped"))
    assert held.set.code is not None and other.set.code is not None
    assert torch.equal(held.set.code.stored, other.set.code.stored) and torch.equal(held.labels, other.labels)
    assert held.set.code.stored.shape == (3, 3, 8, 8) and torch.equal(held.images, held.set.code.images())
    assert held.classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and held.labels.shape == (12, 3)
    first, last = (read_tensors(tmp_path / "whole" / "snapshots" / f"iteration-{n:06d}.safetensors")[0] for n in (0, 5))
    assert first["P"].shape == (3, 3, 8, 8) and first["X"].shape == last["X"].shape == (12, 3, 8, 8)
    assert not torch.equal(first["P"], last["P"]) and first["maps"].shape == (12, 8, 8)
    size, said = run.evaluation.compression, str(run.evaluation.stored)
    assert size is not None and (size.images.distilled, size.bytes.distilled) == (12, 4 * (3 * 3 * 8 * 8 + 12 * 3))
    assert said.endswith("2304 bytes; the random images beside them take as many: 1 of every class")


@pytest.mark.parametrize("method", ALL)
def test_a_key_that_is_not_read_is_said_and_one_that_is_not_there_refused(source: str, method: str) -> None:
    unread = {"rded.fit": "resize"} if method not in ("rded", "rded-hard") else {"sre2l.lr": "0.5"}
    given = SMALL | {"data.source": source, "method": method} | unread
    said = [line for line in remarks("scenes", given, load_recipe("scenes", given)) if "does not read" in line]
    key = next(iter(unread))
    assert (len(said), key in "".join(said)) == ((0, False) if method == OWN else (1, True))
    with pytest.raises(UsageError, match=r"^outer\.lr_imgs: is not a key"):
        settings(method, source, outer__lr_imgs="1")


def images_of(run: Path) -> torch.Tensor:
    """X after the last iteration."""
    snapshots = sorted((run / "snapshots").glob("*.safetensors"))
    return read_tensors(snapshots[-1])[0]["X"] if snapshots else DistilledSet.load(run / "distilled").images


@pytest.mark.parametrize("method", (*(name for name in LOOPS if not method_of(name).steps), "mtt", "sre2l", "fadrm"))
def test_what_goes_down_a_gradient_can_be_emphasised(tmp_path: Path, source: str, method: str) -> None:
    """Any method with any emphasis, which is off by default but in EDF; where it is on X is another."""
    short = {"outer__iterations": "2", "sre2l__iterations": "4", "eval__every": "2", "enhance__cam_every": "1"}
    kinds = ("activation", "constant", "shuffled") if method in ("dm", "fadrm") else ("activation",)
    found = []
    for kind in ("none", *kinds):
        distill(settings(method, source, enhance__weighting=kind, **short), tmp_path / kind)
        found.append(images_of(tmp_path / kind))
    assert not any(torch.equal(one, other) for number, one in enumerate(found) for other in found[:number])
    assert settings(method, source).enhance.weighting == "none"


def test_a_class_with_too_few_images_is_refused(tmp_path: Path, source: str) -> None:
    for method in ALL:
        accepted = "1: each slot begins as 4 of the 5" if method in SLOTS else "the 5"
        with pytest.raises(UsageError, match=rf"^ipc: 6 is not at most {accepted} training images of class '2'"):
            distill(settings(method, source, ipc="6"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

"""Statistics in closed form, and evaluation on images that can only be told apart one way."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save as serialise

from limbeck.augmentation import Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity, Normalise
from limbeck.data.split import whole
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import evaluator as evaluator_module
from limbeck.evaluation import trials as trials_module
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.predictions import accuracy
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.evaluation.settings import EvalSettings
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import read_tensors
from limbeck.training import compute
from limbeck.training.images import TensorImages


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy red, green and blue images."""
    labels = np.arange(3).repeat(count)
    images = np.random.default_rng(seed).integers(0, 100, (3 * count, 3, 8, 8))
    images[np.arange(3 * count), labels] += 120
    return images.astype(np.uint8), labels


@pytest.fixture
def evaluator() -> Evaluator:
    """Of images whose test labels are all wrong, so that val and test cannot be taken for each other."""
    train, val, test = (whole(*colours(count, seed)) for seed, count in enumerate((20, 5, 10)))
    splits = (train, val, dataclasses.replace(test, labels=(test.labels + 1) % 3))
    data = ImageSet(*splits, ("red", "green", "blue"), "colours", "fingerprint")
    settings = EvalSettings(seeds=3, epochs=40, batch_size=8, full_epochs=12, full_batch_size=10, full_lr=0.05)
    # No norm: an instance norm takes the colour away.
    network = flat_network("ConvNetD1-w8-nonorm", data.shape, 3)
    return Evaluator(data, Identity(), network, settings, Dsa("flip"), 0, torch.device("cpu"))


def test_the_right_set_scores_and_a_permuted_one_does_not(evaluator: Evaluator) -> None:
    images, labels = torch.full((3, 3, 8, 8), 0.2), torch.full((3, 3), -5.0)
    for k in range(3):
        images[k, k] = 0.7
        labels[k, k] = 5.0
    small = SmallSet(images, labels, torch.arange(3), 0.05, "logits")
    probable = dataclasses.replace(small, labels=labels.softmax(1), kind="probabilities")
    slow = dataclasses.replace(small, syn_lr=0.003)
    assert evaluator.distilled(small, seeds=range(3), split="val").mean == 1.0
    assert evaluator.distilled(small, seeds=range(3)).mean == 0.0
    assert evaluator.distilled(dataclasses.replace(small, labels=labels.roll(1, 1)), seeds=range(3)).mean == 1.0
    assert evaluator.distilled(probable, seeds=range(3), split="val").mean == 1.0
    again = [evaluator.distilled(slow, seeds=range(3), split=split).values for split in ("val", "val")]
    assert again[0] == again[1]


def test_random_takes_the_best_step_size_of_the_validation_split(evaluator: Evaluator) -> None:
    step = evaluator.random_step_size(2, 1e-9)
    assert step.value in evaluator_module.RATES  # the one that is best on val is the worst on this test split
    result = evaluator.accuracies(evaluator.random_logits(2, step.value, range(3)))
    assert result.n == 3
    assert result.mean < 0.2  # at the step size 1e-9 it would be a third


def test_every_random_subset_is_another_and_a_larger_one_holds_it(evaluator: Evaluator) -> None:
    subsets = [evaluator.random_subset(2, 0.05, number) for number in range(3)]
    assert not any(torch.equal(a.images, b.images) for i, a in enumerate(subsets) for b in subsets[:i])
    assert [subset.classes.tolist() for subset in subsets] == [[0, 0, 1, 1, 2, 2]] * 3
    more = evaluator.random_subset(3, 0.05, 0)
    assert all(any(torch.equal(image, other) for other in more.images) for image in subsets[0].images)


def test_hard_labels_are_the_classes_and_not_the_labels(evaluator: Evaluator) -> None:
    images, labels = torch.full((3, 3, 8, 8), 0.2), torch.zeros(3, 3)
    for k in range(3):
        images[k, k] = 0.7
        labels[k, (k + 1) % 3] = 9.0  # the labels say the next class, as the test split does
    hard = dataclasses.replace(evaluator, settings=dataclasses.replace(evaluator.settings, protocol="dd-hard"))
    subset = SmallSet(images, labels, torch.arange(3), 0.05, "logits")
    assert evaluator.accuracies(evaluator.logits(subset, range(3))).mean == 1.0
    assert hard.accuracies(hard.logits(subset, range(3))).mean == 0.0


def test_a_teachers_labels_do_not_look_at_the_set(evaluator: Evaluator, cache: Path) -> None:
    settings = dataclasses.replace(evaluator.settings, protocol="kd", epochs=300, full_epochs=30)
    taught = dataclasses.replace(evaluator, settings=settings)
    images, classes = evaluator.random_subset(4, 0.05, 0).images, torch.arange(3).repeat_interleave(4)
    found = [
        taught.distilled(SmallSet(images, labels, classes, 0.05, "logits"), seeds=range(2), split="val")
        for labels in (torch.zeros(12, 3), torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))
    ]
    assert found[0] == found[1]
    assert found[0].mean > 0.6  # chance is a third


def test_without_a_validation_split_the_step_size_is_chosen_on_spare_images(evaluator: Evaluator) -> None:
    data = evaluator.data
    bare = dataclasses.replace(evaluator, data=dataclasses.replace(data, val=data.val.take(np.arange(0))))
    assert bare.random_step_size(2, 1e-9).value in evaluator_module.RATES
    # Nor on images that are in the set itself, as a coreset's are.
    images = bare.preprocessing.prepare(data.train.images(np.arange(0, len(data.train), 2)))
    classes = torch.from_numpy(data.train.labels[::2])
    order = classes.argsort(stable=True)
    own = SmallSet.of_classes(images[order], classes[order], 3, 0.05)
    spare = bare._to_choose_on(1, own)
    known = {image.tobytes() for image in images.numpy()}
    assert len(spare) > 0 and not known & {image.tobytes() for image in bare.preprocessing.prepare(spare.images()).numpy()}


def test_a_network_that_diverges_after_a_look_has_diverged(evaluator: Evaluator) -> None:
    """Where nothing chooses a look the last one counts, and of a training that breaks off that is where it broke off."""
    images, labels = torch.zeros(1, 3, 8, 8), torch.tensor([0])
    asked = SimpleNamespace(outcome=lambda trial, theta, asked: trials_module.Outcome(theta, [theta.repeat(1, 3)]))
    watch = trials_module.Watch((1, 3), labels)
    shared = trials_module._Shared(asked, (TensorImages(images),), None, False, watch)  # type: ignore[arg-type]
    looks = trials_module._Looks(shared, None, lambda: None)  # type: ignore[arg-type]
    looks(1, torch.ones(1))
    assert looks.outcome(torch.tensor([torch.nan])).logits[0].isnan().all()
    looks = trials_module._Looks(shared, None, lambda: None)  # type: ignore[arg-type]
    looks(1, torch.zeros(1))
    looks(3, torch.ones(1))
    assert torch.equal(looks.outcome(torch.ones(1)).logits[0], torch.ones(1, 3))


def test_in_workers_and_in_this_process_to_the_bit(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = evaluator.random_subset(2, 0.05, 0)
    here = evaluator.logits(subset, range(3))
    monkeypatch.setattr(compute, "WORKERS_FROM_SECONDS", 0.0)
    monkeypatch.setattr(compute, "cores", lambda: 2)
    monkeypatch.setattr(trials_module, "cores", lambda: 2)
    there = evaluator.logits(subset, range(3))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_seeds_are_trained_in_step_where_that_pays(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = SmallSet(torch.rand(6, 3, 8, 8), torch.randn(6, 3), torch.arange(3).repeat_interleave(2), 0.01, "logits")
    alone, together, whole = list(evaluator.logits(subset, range(3))), list[int](), trials_module.train_together

    def counted(network, theta, members, how, **more):  # type: ignore[no-untyped-def]
        together.append(len(members))
        return whole(network, theta, members, how, **more)

    monkeypatch.setattr(trials_module, "train_together", counted)
    monkeypatch.setattr(compute.Compute, "together", lambda self, shape, batch: 2)  # as on a GPU with room for two
    found = list(evaluator.logits(subset, range(3)))
    assert together == [2, 1]
    for ours, theirs in zip(found, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def of_looks(evaluator: Evaluator, **changes: object) -> Evaluator:
    """Under a protocol that looks at networks after every epoch."""
    protocol = dataclasses.replace(PROTOCOLS["dd"], name="looked at", best="epoch", look_every=1, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(evaluator, settings=dataclasses.replace(evaluator.settings, protocol=protocol, epochs=6))


def test_validation_chooses_the_look_that_counts_and_the_best_on_test_stands_beside(evaluator: Evaluator) -> None:
    looked, subset = of_looks(evaluator), evaluator.random_subset(2, 0.05, 0)
    found = looked.accuracies(looked.logits(subset, range(3)))
    for seed in range(3):
        network, trial = looked.trials, looked._trial(subset, ("evaluation", seed))
        curve: list[tuple[float, float]] = []

        def look(epoch: int, theta: torch.Tensor) -> None:
            answers = network.answers(trial, theta, [looked.images_of("val"), looked.images_of("test")])  # noqa: B023
            labels = looked.labels_of("val"), looked.labels_of("test")
            val, test = (accuracy(logits, of) for logits, of in zip(answers, labels, strict=True))
            curve.append((val, test))  # noqa: B023

        network.trained(trial, look)
        val, test = zip(*curve, strict=True)
        assert found.values[seed] == test[val.index(max(val))]
        assert found.best_on_test is not None and found.best_on_test.values[seed] == max(test)
    # The test labels are all wrong, so that what is good on validation images is bad here, and the beginning was the best.
    assert found.best_on_test is not None and found.best_on_test.mean > found.mean
    assert looked.accuracies(looked.logits(subset, range(3), "val"), "val").best_on_test is None


def test_without_validation_images_the_last_look_counts(evaluator: Evaluator) -> None:
    data = dataclasses.replace(evaluator.data, val=evaluator.data.val.take(np.arange(0)))
    bare, subset = of_looks(dataclasses.replace(evaluator, data=data)), evaluator.random_subset(2, 0.05, 0)
    plain = dataclasses.replace(bare, settings=dataclasses.replace(bare.settings, protocol="dd"))
    found, last = bare.logits(subset, range(2)), plain.logits(subset, range(2))
    assert all(torch.equal(a, b) for a, b in zip(found, last, strict=True))
    assert last.best == ()
    best = bare.accuracies(found)
    assert best.best_on_test is not None
    assert all(most >= own for most, own in zip(best.best_on_test.values, best.values, strict=True))


def test_looks_in_step_are_those_of_each_network(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = of_looks(evaluator)
    subset = SmallSet(torch.rand(6, 3, 8, 8), torch.randn(6, 3), torch.arange(3).repeat_interleave(2), 0.01, "logits")
    alone = looked.logits(subset, range(3))
    monkeypatch.setattr(compute.Compute, "together", lambda self, shape, batch: 2)  # as on a GPU with room for two
    together = looked.logits(subset, range(3))
    assert together.best == pytest.approx(alone.best, abs=0.05)
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_network_that_diverges_before_it_is_looked_at_is_wrong(evaluator: Evaluator) -> None:
    looked = of_looks(evaluator, look_from=0.9, lr=1e20)
    found = looked.accuracies(looked.logits(evaluator.random_subset(2, None, 0), range(2)))
    assert found.failed == 2
    assert found.best_on_test is not None and found.best_on_test.mean == found.mean == 0


def test_checkpoints_are_looked_at_on_both_splits_by_the_same_networks(evaluator: Evaluator) -> None:
    subset = evaluator.random_subset(2, 0.05, 0)
    found = evaluator.looked_at(subset, range(2))
    assert found.values == evaluator.distilled(subset, seeds=range(2), split="val").values
    assert found.best_on_test == evaluator.distilled(subset, seeds=range(2))


def test_threads_of_the_caller_change_nothing_and_are_left_as_they_were(evaluator: Evaluator) -> None:
    subset, before = evaluator.random_subset(2, 0.05, 0), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(evaluator.logits(subset, range(2)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_full_is_cached_and_extended(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    first = evaluator.full()
    assert first.n == 2
    assert first.mean < 0.1
    assert first.epochs == 12
    assert len(list((cache / "full").glob("*.safetensors"))) == 1
    more = dataclasses.replace(evaluator, settings=dataclasses.replace(evaluator.settings, full_seeds=3))
    extended = more.full()
    assert extended.values[:2] == first.values
    with monkeypatch.context() as patched:
        patched.setattr(trials_module, "train", lambda *_, **__: pytest.fail("trained again"))
        assert evaluator.full() == first
        assert more.full() == extended
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    assert more.full() == extended  # three at once


def test_full_says_how_much_of_the_training_images_is_known(evaluator: Evaluator, cache: Path) -> None:
    first = evaluator.full()
    assert first.trained is not None and first.trained > 0.9 and first.mean < 0.1  # the test labels are wrong
    assert (first.lr, first.lr_from) == (0.05, "given")
    module = evaluator.full_data.teacher(lambda: evaluator.images_of("test"))
    train = evaluator.data.train
    logits = module(evaluator.preprocessing.prepare(train.images(np.arange(len(train)))))
    (file,) = (cache / "full").glob("*.safetensors")
    held = read_tensors(file)[0]
    assert held["trained"][0] == pytest.approx((logits.argmax(1) == torch.from_numpy(train.labels)).double().mean().item())
    file.write_bytes(serialise({name: held[name] for name in ("theta", "logits")}, {"json": "{}"}))  # as an earlier version left it
    assert evaluator.full() == dataclasses.replace(first, trained=None)
    more = dataclasses.replace(evaluator, settings=dataclasses.replace(evaluator.settings, full_seeds=3)).full()
    assert more.values[:2] == first.values and more.trained is None


def test_sets_of_every_size_share_the_networks_of_the_full_data(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        compute, "COMPILE_FROM_STEPS", 200
    )  # forty epochs are 40 steps for one image per class, 120 for ten, and count threefold
    few, many = (evaluator.decided(ipc) for ipc in (1, 10))
    assert (few.compile, many.compile) == ("no", "yes")
    assert few.full_data.kept.path == many.full_data.kept.path == evaluator.full_data.kept.path
    assert few.decided(10).full_data.kept.path == evaluator.full_data.kept.path


def test_full_under_another_preprocessing_is_another_figure(evaluator: Evaluator, cache: Path) -> None:
    evaluator.full()
    dataclasses.replace(evaluator, preprocessing=Normalise(torch.full((3,), 0.4), torch.ones(3))).full()
    dataclasses.replace(evaluator, preprocessing=Normalise(torch.full((3,), 0.5), torch.ones(3))).full()
    assert len(list((cache / "full").glob("*.safetensors"))) == 3


@pytest.mark.parametrize("broken", ["text", "empty", "half", "other"])
def test_a_broken_cache_is_measured_again(evaluator: Evaluator, cache: Path, broken: str) -> None:
    first = evaluator.full()
    (file,) = (cache / "full").glob("*.safetensors")
    content = file.read_bytes()
    other = serialise({"logits": torch.full((2, 30, 3), torch.nan), "theta": torch.zeros(3)})
    file.write_bytes({"text": b"{", "empty": b"", "half": content[: len(content) // 2], "other": other}[broken])
    assert evaluator.full() == first


def test_divergence_is_said_and_never_cached(evaluator: Evaluator, cache: Path) -> None:
    wild = dataclasses.replace(evaluator, settings=dataclasses.replace(evaluator.settings, full_lr=1e20))
    with pytest.raises(Failure, match=r"eval.full_lr \(1e\+20\) is too large"):
        wild.full()
    assert not list((cache / "full").glob("*.safetensors"))
    small = SmallSet(torch.randn(3, 3, 8, 8), torch.eye(3), torch.arange(3), 1e20, "logits")
    assert evaluator.distilled(small, seeds=[0]).values == (0.0,)
    with pytest.raises(UsageError, match="syn_lr: None is not a step size, which eval.protocol=dd takes from the set"):
        evaluator.distilled(dataclasses.replace(small, syn_lr=None), seeds=[0])

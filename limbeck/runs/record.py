"""What is measured of a small set, and of several side by side.

    full data → the set → random real images of as many bytes, all under one protocol and on the same seeds,
                          the last two with step sizes that were come by in the same way (`evaluation/evaluator.py`)

The full data come first, because a network trained on them notices labels that are permuted, which no metadata show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from limbeck.accuracy import Accuracies, StepSize
from limbeck.data.imageset import ImageSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import predictions, scores
from limbeck.evaluation.coresets import Coreset, beside
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.results import SetResult
from limbeck.evaluation.scores import Doubt
from limbeck.evaluation.statistics import compare
from limbeck.evaluation.trials import Answers
from limbeck.networks.factory import Factory
from limbeck.runs import coresets
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import environment
from limbeck.runtime.progress import Progress

FIRST_SEED = 1000  # not those that chose the checkpoint


@dataclass(frozen=True)
class Rates:
    """The step sizes of both sides of a comparison: the set's, and that of the random images beside it."""

    distilled: StepSize
    random: StepSize

    @classmethod
    def of(cls, evaluator: Evaluator, small: SmallSet, own: StepSize | None, progress: Progress) -> "Rates":
        """Those of a set that has its `own` there, or none."""
        random = evaluator.random_step_size(small.real_ipc, small.syn_lr, progress)
        return cls(evaluator.step_size(small, own, progress), random)


@dataclass(frozen=True, eq=False)
class Measured:
    """What networks, trained on a set and on random images with those step sizes, say of the test images, each (n, K)."""

    seeds: range
    distilled: Answers
    random: Answers
    rates: Rates

    def joined(self, other: "Measured") -> "Measured":
        """With those of the seeds that follow behind them."""
        seeds = range(self.seeds.start, other.seeds.stop)
        return Measured(seeds, self.distilled + other.distilled, self.random + other.random, self.rates)


def final_seeds(count: int) -> range:
    """The seeds of final figures."""
    return range(FIRST_SEED, FIRST_SEED + count)


def measure(evaluator: Evaluator, small: SmallSet, rates: Rates, seeds: range, progress: Progress) -> Measured:
    """Train the networks of one evaluation."""
    distilled = evaluator.logits(replace(small, syn_lr=rates.distilled.value), seeds, progress=progress)
    return Measured(seeds, distilled, evaluator.random_logits(small.real_ipc, rates.random.value, seeds, progress), rates)


def _few_random(data: ImageSet, ipc: int) -> tuple[Doubt, ...]:
    """That there are not `ipc` training images of every class to stand beside a set."""
    counts = np.bincount(data.train.labels, minlength=data.num_classes)
    least = int(counts.argmin())
    if counts[least] >= ipc:
        return ()
    there = f"of class {data.class_names[least]!r} there are {counts[least]} training images, not {ipc}"
    text = f"the random images are fewer than the set: {there}"
    return (Doubt(kind="few random", text=text),)


def record(
    evaluator: Evaluator, small: SmallSet, measured: Measured, progress: Progress, rows: Mapping[str, Coreset] | None = None
) -> SetResult:
    """One evaluation with one network, beside it the coresets, where there are any."""
    s, data = evaluator.settings, evaluator.data
    distilled, full = evaluator.accuracies(measured.distilled).at(measured.rates.distilled), evaluator.full(progress)
    random = evaluator.accuracies(measured.random).at(measured.rates.random)
    found = Accuracies(distilled=distilled, random=random, full=full)
    of_full = {
        "epochs": s.full_epochs,
        "seeds": s.full_seeds,
        "lr": s.full_lr,
        "batch_size": s.full_batch_size,
        "teacher": s.teacher,
    }
    return SetResult(
        accuracy=found,
        recovery_ratio=scores.recovery_ratio(distilled.mean, full.mean),
        doubts=(*scores.doubts(found, data.num_classes), *_few_random(data, small.real_ipc)),
        lossless=scores.lossless(distilled, full),
        compression=scores.compression(
            (len(small), *data.shape),
            small.num_classes,
            len(data.train),
            data.shape,
            None if small.code is None else small.code.bytes,
        ),
        gain=compare(distilled.values, random.values),
        coresets=beside(distilled, random, rows) if rows else None,
        predictions=predictions.describe(measured.distilled, evaluator.labels_of("test")),
        protocol={**evaluator.protocol.facts, **_chosen_on(evaluator), "seeds": list(measured.seeds), "full": of_full},
        network=evaluator.network.name,
        data={"source": data.source, "fingerprint": data.fingerprint, "split": "test"},
        environment=environment(evaluator.device),
        stored=None if small.code is None else _stored(small),
        view_labels=None if (stored := evaluator.stored_views(small)) is None else stored.summary(),
    )


def _chosen_on(evaluator: Evaluator) -> dict[str, str]:
    """That the look that counts was chosen on nothing, where there is a best one on the test images beside it."""
    return {} if evaluator.protocol.best == "none" or len(evaluator.data.val) else {"chosen_on": "none"}


def _stored(small: SmallSet) -> str:
    """What a set of slots is compared by."""
    return f"{small.code}; the random images beside them take as many: {small.real_ipc} of every class"


def networks_of(settings: DistillSettings) -> list[str]:
    """The names of the networks to evaluate with: those of `eval.networks`, or the one distilled for."""
    named = settings.eval.networks.split(",") if settings.eval.networks else [settings.network]
    return list(dict.fromkeys(name.strip() if isinstance(name, str) else name for name in named))


def across(
    workspace: Workspace,
    small: SmallSet,
    networks: Sequence[str | nn.Module | Factory],
    seeds: range,
    sets: Mapping[str, SmallSet] | None = None,
) -> dict[str, SetResult]:
    """The results with each of these architectures, by name, beside coresets; none is the one that the set was distilled for."""
    found, progress = {}, workspace.progress
    for network in networks:
        evaluator = workspace.evaluator_of(workspace.network_of(network)).decided(small.ipc)
        rates = Rates.of(evaluator, small, None, progress)
        rows = coresets.measured(evaluator, workspace, sets or {}, small.syn_lr, seeds, progress)
        result = record(evaluator, small, measure(evaluator, small, rates, seeds, progress), progress, rows)
        found[network if isinstance(network, str) else result.network] = result
    return found

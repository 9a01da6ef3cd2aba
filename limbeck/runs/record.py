"""What is measured of a small set, and of several side by side.

    full data → the set → as many random real images, all under one protocol and on the same seeds

The full data come first, because a network trained on them notices labels that are permuted, which no metadata show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import predictions, scores
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.statistics import compare
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import environment
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.progress import Progress

FIRST_SEED = 1000  # not those that chose the checkpoint


@dataclass(frozen=True, eq=False)
class Measured:
    """What networks trained on a set, and on random images, say of the test images, each (n, K), and the latter's step size."""

    distilled: list[Tensor]
    random: list[Tensor]
    random_lr: float

    def joined(self, other: "Measured") -> "Measured":
        """With those of further seeds behind them."""
        return Measured(self.distilled + other.distilled, self.random + other.random, self.random_lr)


def final_seeds(count: int) -> range:
    """The seeds of final figures."""
    return range(FIRST_SEED, FIRST_SEED + count)


def measure(evaluator: Evaluator, small: SmallSet, seeds: Sequence[int], progress: Progress) -> Measured:
    """Train the networks of one evaluation."""
    distilled = evaluator.logits(small, seeds, progress=progress)
    random, rate = evaluator.random_logits(small.ipc, small.syn_lr, seeds, progress)
    return Measured(distilled, random, rate)


def record(evaluator: Evaluator, small: SmallSet, measured: Measured, seeds: Sequence[int], progress: Progress) -> dict[str, Any]:
    """One evaluation with one network: everything that a reader needs to believe the figure.

    Returns:
        `accuracy` of `distilled`, `random` and `full`, `recovery_ratio`, `lossless`, `compression`, `gain` (distilled against
        random, paired by seed), `predictions` (per class, calibration), `protocol`, `network`, `seeds`, `data`, `environment`;
        `view_labels`, what the set holds of a teacher's labels, where it was trained on them.
    """
    labels = evaluator.labels_of("test")
    accuracy = {
        "distilled": evaluator.accuracies(measured.distilled).to_dict(),
        "random": replace(evaluator.accuracies(measured.random), lr=measured.random_lr).to_dict(),
        "full": evaluator.full(progress).to_dict(),
    }
    return {
        "accuracy": accuracy,
        **_scores(evaluator, small, accuracy),
        "predictions": predictions.average([predictions.describe(found, labels) for found in measured.distilled]),
        **circumstances(evaluator, seeds),
        **({} if (stored := evaluator.stored_views(small)) is None else {"view_labels": stored.summary()}),
    }


def circumstances(evaluator: Evaluator, seeds: Sequence[int]) -> dict[str, Any]:
    """What a figure was measured under."""
    return {
        "protocol": {**plain(evaluator.protocol), "seeds": list(seeds), "full": _full(evaluator)},
        "network": evaluator.network.name,
        "data": {"source": evaluator.data.source, "fingerprint": evaluator.data.fingerprint, "split": "test"},
        "environment": environment(evaluator.device),
    }


def _full(evaluator: Evaluator) -> dict[str, Any]:
    s = evaluator.settings
    return {"epochs": s.full_epochs, "seeds": s.full_seeds, "lr": s.full_lr, "batch_size": s.full_batch_size, "teacher": s.teacher}


def _scores(evaluator: Evaluator, small: SmallSet, accuracy: dict[str, Any]) -> dict[str, Any]:
    distilled, full = accuracy["distilled"], accuracy["full"]
    train = evaluator.data.train
    return {
        "recovery_ratio": scores.recovery_ratio(distilled["mean"], full["mean"]),
        "lossless": scores.lossless(distilled, full),
        "compression": scores.compression((len(small), *evaluator.data.shape), small.num_classes, len(train), evaluator.data.shape),
        "gain": compare(distilled["values"], accuracy["random"]["values"]).to_dict(),
    }


def networks_of(settings: DistillSettings) -> list[str]:
    """The names of the networks to evaluate with: those of `eval.networks`, or the one distilled for."""
    return [name.strip() for name in settings.eval.networks.split(",")] if settings.eval.networks else [settings.network]


def across(workspace: Workspace, small: SmallSet, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """`networks`: for each of these architectures the accuracies and the recovery ratio."""
    found = {}
    for name in names:
        evaluator = workspace.evaluator_of(workspace.network_of(name)).decided(small.ipc)
        measured = measure(evaluator, small, seeds, workspace.progress)
        whole = record(evaluator, small, measured, seeds, workspace.progress)
        found[name] = {key: whole[key] for key in ("accuracy", "recovery_ratio", "lossless", "gain")}
    return {"networks": found}

"""What is measured of a small set, and of several side by side.

    full data → the set → as many random real images, all under one protocol and on the same seeds

The full data come first, because a network trained on them notices labels that are permuted, which no metadata show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from limbeck.accuracy import Accuracies
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation import predictions, scores
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.results import SetResult
from limbeck.evaluation.statistics import compare
from limbeck.networks.factory import Factory
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import environment
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.progress import Progress

FIRST_SEED = 1000  # not those that chose the checkpoint


@dataclass(frozen=True, eq=False)
class Measured:
    """What networks, trained on a set and on random images with that step size, say of the test images, each (n, K)."""

    seeds: range
    distilled: list[Tensor]
    random: list[Tensor]
    random_lr: float

    def joined(self, other: "Measured") -> "Measured":
        """With those of the seeds that follow behind them."""
        seeds = range(self.seeds.start, other.seeds.stop)
        return Measured(seeds, self.distilled + other.distilled, self.random + other.random, self.random_lr)


def final_seeds(count: int) -> range:
    """The seeds of final figures."""
    return range(FIRST_SEED, FIRST_SEED + count)


def measure(evaluator: Evaluator, small: SmallSet, seeds: range, progress: Progress) -> Measured:
    """Train the networks of one evaluation."""
    distilled = evaluator.logits(small, seeds, progress=progress)
    random, rate = evaluator.random_logits(small.ipc, small.syn_lr, seeds, progress)
    return Measured(seeds, distilled, random, rate)


def record(evaluator: Evaluator, small: SmallSet, measured: Measured, progress: Progress) -> SetResult:
    """One evaluation with one network."""
    s, data = evaluator.settings, evaluator.data
    distilled, full = evaluator.accuracies(measured.distilled), evaluator.full(progress)
    random = replace(evaluator.accuracies(measured.random), lr=measured.random_lr)
    of_full = {
        "epochs": s.full_epochs,
        "seeds": s.full_seeds,
        "lr": s.full_lr,
        "batch_size": s.full_batch_size,
        "teacher": s.teacher,
    }
    return SetResult(
        accuracy=Accuracies(distilled=distilled, random=random, full=full),
        recovery_ratio=scores.recovery_ratio(distilled.mean, full.mean),
        lossless=scores.lossless(distilled, full),
        compression=scores.compression((len(small), *data.shape), small.num_classes, len(data.train), data.shape),
        gain=compare(distilled.values, random.values),
        predictions=predictions.describe(measured.distilled, evaluator.labels_of("test")),
        protocol={**plain(evaluator.protocol), "seeds": list(measured.seeds), "full": of_full},
        network=evaluator.network.name,
        data={"source": data.source, "fingerprint": data.fingerprint, "split": "test"},
        environment=environment(evaluator.device),
        view_labels=None if (stored := evaluator.stored_views(small)) is None else stored.summary(),
    )


def networks_of(settings: DistillSettings) -> list[str]:
    """The names of the networks to evaluate with: those of `eval.networks`, or the one distilled for."""
    return [name.strip() for name in settings.eval.networks.split(",")] if settings.eval.networks else [settings.network]


def across(
    workspace: Workspace, small: SmallSet, networks: Sequence[str | nn.Module | Factory], seeds: range
) -> dict[str, SetResult]:
    """The results with each of these architectures, by name."""
    found = {}
    for network in networks:
        evaluator = workspace.evaluator_of(workspace.network_of(network)).decided(small.ipc)
        result = record(evaluator, small, measure(evaluator, small, seeds, workspace.progress), workspace.progress)
        found[network if isinstance(network, str) else result.network] = result
    return found

"""How difficult training images are to networks, seen while these learn.

With p_t(x) = softmax(f_t(x)) after epoch t = 1 … T, y the one-hot label, and right_t(x) whether p_t is greatest at the label:

    EL2N         ‖p_e(x) − y‖₂ after an early epoch e
    forgetting   the number of t with right_t and not right_{t+1}; T where no right_t is: no image that was learned can have so many

both as means over networks, of images that are not augmented. The papers' counts of forgetting look at an image whenever it is in a
batch; here all are looked at after every epoch, so that two images of a batch are seen by the same network.

The networks are those of the full data (`full.py`), to the same bits: they are trained once more, and watched. Or they are experts,
at the epochs that a run's schedule reaches.

Paul, Ganguli and Dziugaite, 2021, arXiv:2107.07075 (EL2N). Toneva et al., 2019, arXiv:1812.05159 (forgetting).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from limbeck.evaluation.full import FullData
from limbeck.experts.curriculum import el2n
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.devices import one_thread
from limbeck.runtime.errors import Failure
from limbeck.runtime.kept import Kept, place
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.ranks import Ranks
from limbeck.training.images import Images, sample
from limbeck.training.train import logits_of

FORMAT = 1  # raised when scores come to be other ones


@dataclass(frozen=True, eq=False)
class Difficulties:
    """Of every training image, float64 with shape (N,)."""

    el2n: Tensor
    forgetting: Tensor


@dataclass
class Forgetting:
    """Counts forgetting events, an epoch after the other: `see` it with which of N images are right, bool."""

    epochs: int = 0
    before: Tensor | None = None
    counts: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    ever: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.bool))

    def see(self, right: Tensor) -> None:
        """Another epoch."""
        if self.before is not None:
            self.counts = self.counts + (self.before & ~right)
        self.epochs, self.before, self.ever = self.epochs + 1, right, self.ever | right

    @property
    def events(self) -> Tensor:
        """How often every image was forgotten, float64 with shape (N,); the number of epochs where it was never learned."""
        assert self.before is not None, "nothing was seen"
        never = torch.full(self.before.shape, float(self.epochs), dtype=torch.float64)
        return torch.where(self.ever, self.counts.expand(self.before.shape), never)


@dataclass
class Tally:
    """One network while it learns: EL2N after `epoch`, or the last one before it that is seen, and forgetting over all."""

    images: Images
    labels: Tensor
    epoch: int
    forgetting: Forgetting = field(default_factory=Forgetting)
    el2n: Tensor | None = None

    def see(self, epoch: int, module: nn.Module) -> None:
        """The network after that epoch.

        Raises:
            Failure: where it says something that is not finite.
        """
        logits = logits_of(module, self.images).cpu()
        if not bool(logits.isfinite().all()):
            raise Failure("a network diverged while images were scored; a smaller eval.full_lr or experts.expert_lr is better")
        self.forgetting.see(logits.argmax(1) == self.labels)
        if self.el2n is None or epoch <= self.epoch:
            self.el2n = el2n(logits.double(), self.labels)


def watched(full: FullData, epoch: int, progress: Progress | None = None) -> Difficulties:
    """What the `eval.full_seeds` networks of the full data found difficult; kept in the cache.

    Args:
        full: these networks.
        epoch: e; where they are trained for fewer, the last.
        progress: where to report.

    Raises:
        Failure: when one of them diverges.
    """
    count = full.settings.full_seeds
    about = {"format": FORMAT, "networks": count, "epoch": epoch, "made_with": full.made_with.to_dict()}
    size = (len(full.data.train),)

    def sound(held: dict[str, Tensor]) -> bool:
        return all(held[name].shape == size and bool(held[name].isfinite().all()) for name in ("el2n", "forgetting"))

    def make() -> dict[str, Tensor]:
        epochs = full.settings.full_epochs
        with one_thread(), (progress or NoProgress()).stage("difficulty of images", count * epochs) as stage:
            return _means(_watch(full, number, epoch, stage.advance) for number in range(count))

    kept = Kept.tensors(place("coresets", about), sound, about)
    held = Ranks.sharing().told(lambda: kept.get(make))
    return Difficulties(held["el2n"], held["forgetting"])


def of_experts(
    store: TrajectoryStore, count: int, epochs: Sequence[int], network: FlatNetwork, images: Images, labels: Tensor, epoch: int
) -> Difficulties:
    """What experts found difficult.

    Args:
        store: of them.
        count: how many of them are asked.
        epochs: which they are asked after; 0 is passed over.
        network: theirs.
        images: all training images, on the device that computes.
        labels: of those, int64 with shape (N,).
        epoch: e; where it is not among `epochs`, the last before it, or else the first.
    """
    watches = [Tally(images, labels, epoch) for _ in range(count)]
    for expert, watch in enumerate(watches):
        for done in sorted({*epochs} - {0}):
            theta = store.read(expert, done, images.device)
            watch.see(done, network.with_parameters(theta, lambda: sample(images)))
    held = _means(watches)
    return Difficulties(held["el2n"], held["forgetting"])


def _watch(full: FullData, number: int, epoch: int, tick: Callable[[], None]) -> Tally:
    trials, trial = full.trials, full.trial(number)
    found = Tally(trial.images, torch.from_numpy(full.data.train.labels), epoch)

    def after_epoch(done: int, theta: Tensor) -> None:
        found.see(done, trials.network.with_parameters(theta, lambda: sample(trial.images)))
        tick()

    trials.trained(trial, after_epoch)
    return found


def _means(watches: Iterable[Tally]) -> dict[str, Tensor]:
    errors, events = zip(*((watch.el2n, watch.forgetting.events) for watch in watches), strict=True)
    return {"el2n": torch.stack(errors).mean(0), "forgetting": torch.stack(events).mean(0)}

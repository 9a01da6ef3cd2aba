"""Matching distributions: the objective of DM.

    L = Σ_k ‖ mean φ_θ(A_k(R_k)) − mean φ_θ(A_k(X_k)) ‖²

with R_k real and X_k synthetic images of class k, φ_θ the features before the classifier of a network that is drawn anew in every
iteration and never trained, and A_k one augmentation, shared by all images of the class.

Zhao and Bilen, "Dataset Condensation with Distribution Matching" (DM), 2021, arXiv:2110.04181.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from limbeck.augmentation import Augmentation, Dsa
from limbeck.matching.adjoint import Gradients
from limbeck.matching.criteria import Criterion, KeepAll
from limbeck.matching.spread import Spread
from limbeck.methods.class_draws import ClassDraw, ClassDraws
from limbeck.methods.class_features import ClassFeatures, augmented
from limbeck.methods.materials import Materials
from limbeck.methods.objective import Engine, Objective, State, Update
from limbeck.methods.settings import RealSettings
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import require
from limbeck.runtime.random import generator
from limbeck.training.images import Images


@dataclass(frozen=True, eq=False)
class DistributionMatching(Objective):
    """DM.

    The labels are the classes: Y and η have no part in L, and their gradients are zero. There is no state. L sums over features, so
    that the published step size 1 belongs to their 2048.

    A criterion chooses per class among the D features: l_d = (difference of the two means)²_d, and κ, a constant in the gradient,
    is all but ⌊αD⌋ of them; L sums over κ alone. Batch norms use the statistics of all real images, or all synthetic ones, that
    the iteration takes.

    Args:
        images: real images, prepared.
        labels: of those, int64 with shape (number of real images,).
        classes: of the synthetic images, int64 with shape (N,).
        network: that φ is part of: its method `features`, or else the input of the linear layer that runs last.
        real: the keys `real.*`; only `batch` counts.
        criterion: chooses among the features.
        augmentation: gives A_k.
        seed: of the draws.
        spread: over which ranks the classes are shared, but for batch norm, which lets each compute all of them.

    Raises:
        UsageError: for a criterion of layers, and, at the first call, a network without such features.
    """

    images: Images
    labels: Tensor
    classes: Tensor
    network: FlatNetwork
    real: RealSettings = RealSettings()
    criterion: Criterion = KeepAll()
    augmentation: Augmentation = Dsa()
    seed: int = 0
    spread: Spread = Spread()
    _by_class: ClassFeatures = field(init=False, repr=False)

    def __post_init__(self) -> None:
        accepted = "loss, random or none: features have no layers"
        require(not self.criterion.layered, "match.criterion", self.criterion, accepted)
        spread = self.spread if self.shared else Spread()
        draws = ClassDraws(self.images, self.labels, self.classes, self.real.batch, self.augmentation, self.seed, spread)
        object.__setattr__(self, "_by_class", ClassFeatures.of(draws, self.network))

    @property
    def shared(self) -> bool:
        return not self.network.has_batch_norm

    @property
    def has_criterion(self) -> bool:
        return not isinstance(self.criterion, KeepAll)

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        theta = self.network.initial(generator(self.seed, "matched network", iteration)).to(images)
        own, both = self._by_class.draws.draws(iteration), plain and self.has_criterion
        real = dict(zip((draw.class_id for draw in own), self._real_means(theta, own, images), strict=True))
        total, by_images, by_images_plain = images.new_zeros(()), torch.zeros_like(images), torch.zeros_like(images)
        kept = torch.zeros((), dtype=torch.float64, device=images.device)
        for group in self._by_class.groups(own, lambda draw: len(draw.synthetic)):
            index = torch.cat([draw.synthetic for draw in group])
            x = images.detach()[index].requires_grad_()
            target = torch.stack([real[draw.class_id] for draw in group])
            squares = (self._synthetic_means(theta, group, x) - target).square()
            mask = torch.stack([self._keep(row, draw, iteration) for row, draw in zip(squares.detach(), group, strict=True)])
            loss = (squares * mask).sum()
            (by_images[index],) = torch.autograd.grad(loss, x, retain_graph=both)
            if both:
                (by_images_plain[index],) = torch.autograd.grad(squares.sum(), x)
            kept += mask.double().mean(1).sum()
            total += loss.detach()
        draws = self._by_class.draws
        draws.sum_([by_images, *([by_images_plain] if both else [])], total)
        draws.sum_([], kept)
        count = len(draws)
        return Update(
            gradients=Gradients(total, by_images, torch.zeros_like(labels), torch.zeros_like(syn_lr)),
            plain=(by_images_plain if both else by_images) if plain else None,
            facts={"class_distance": total.double() / count},
            kept_share={"features": kept / count},
        )

    def _real_means(self, theta: Tensor, draws: Sequence[ClassDraw], like: Tensor) -> list[Tensor]:
        """The mean features of A_k(R_k), with shape (D,), class by class."""
        means: list[Tensor] = []
        for group in self._by_class.groups(draws, lambda draw: len(draw.real)):
            features = self._by_class.real(theta, group, like)
            means += [part.mean(0) for part in features.split([len(draw.real) for draw in group])]
        return means

    def _synthetic_means(self, theta: Tensor, group: Sequence[ClassDraw], x: Tensor) -> Tensor:
        """The mean features of A_k(X_k), with shape (classes of the group, D), of their images x, class by class."""
        features = self._by_class.network(theta, augmented(group, x))
        return torch.stack([own.mean(0) for own in features.split([len(draw.synthetic) for draw in group])])

    def _keep(self, losses: Tensor, draw: ClassDraw, iteration: int) -> Tensor:
        return self.criterion.keep(losses, layers=(), generator=generator(self.seed, "criterion", iteration, draw.class_id))


def make(materials: Materials, classes: Tensor, engine: Engine | None) -> Objective:
    """The objective of a run."""
    m, real = materials, (materials.train_images, torch.from_numpy(materials.data.train.labels))
    own, criterion = m.own(RealSettings), m.matching.criterion
    return DistributionMatching(*real, classes, m.network, own, criterion, m.augmentation, m.seed, m.spread)

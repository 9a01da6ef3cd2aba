"""Matching characteristic functions: the objective of NCFM.

    θ = (1 − u) θ*_0 + u θ*_E            u ~ U(0, 1), of an expert that is drawn anew in every iteration
    f(x) = φ_θ(x) / ‖φ_θ(x)‖
    L = Σ_k s · D(Φ of f(A_k(R_k)), Φ of f(A_k(X_k))) + c · mean CE(f*_E(A_k(X_k)), k)

with R_k real and X_k synthetic images of class k, φ_θ the features before the classifier, A_k one augmentation, shared by all
images of the class, D the discrepancy of characteristic functions (`matching/characteristic.py`) at N_t frequencies, which are
drawn anew in every iteration, and f*_E the trained network of the same expert. Frequencies are

    t_i = z_i                            z_i ~ N(0, I)
    t_i = exp(ψ_{i mod C}) ∘ z_i         where they are learned: a mixture of C = ⌈N_t / 16⌉ normals

and ψ, 0 at first, goes up Σ_k D by a step of Adam in each iteration, while X goes down: the minmax of the title.

Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective" (NCFM), 2025, arXiv:2502.20653.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from limbeck.augmentation import Augmentation, Dsa
from limbeck.evaluation.distances import features_of
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.adjoint import Gradients
from limbeck.matching.characteristic import characteristic, discrepancy
from limbeck.matching.criteria import KeepAll
from limbeck.matching.spread import Spread
from limbeck.methods.class_draws import ClassDraw, ClassDraws
from limbeck.methods.class_features import ClassFeatures, augmented
from limbeck.methods.descent import adamw
from limbeck.methods.materials import Materials
from limbeck.methods.objective import Engine, Objective, State, Update
from limbeck.methods.settings import NcfmSettings, RealSettings
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import require
from limbeck.runtime.random import generator
from limbeck.training.images import Images

OF_A_COMPONENT = 16  # frequencies
SHORTEST = 1e-6  # features of that length and below are not made longer
ADAM = (0.9, 0.999)


@dataclass(frozen=True, eq=False)
class CharacteristicMatching(Objective):
    """NCFM.

    The labels are the classes: Y and η have no part in L, and their gradients are zero. The state is ψ with Adam's moments where
    frequencies are learned, else there is none. Batch norms use the statistics of all real images, or all synthetic ones, that
    the iteration takes.

    Args:
        images: real images, prepared.
        labels: of those, int64 with shape (number of real images,).
        classes: of the synthetic images, int64 with shape (N,).
        network: that φ is part of: its method `features`, or else the input of the linear layer that runs last.
        store: the experts.
        num_experts: how many of them to draw from.
        last: E, their last epoch.
        real: the keys `real.*`; only `batch` counts.
        ncfm: the keys `ncfm.*`.
        augmentation: gives A_k.
        seed: of the draws.
        spread: over which ranks the classes are shared, but for batch norm, which lets each compute all of them.
    """

    images: Images
    labels: Tensor
    classes: Tensor
    network: FlatNetwork
    store: TrajectoryStore
    num_experts: int
    last: int
    real: RealSettings = RealSettings(batch=1024)
    ncfm: NcfmSettings = NcfmSettings()
    augmentation: Augmentation = Dsa()
    seed: int = 0
    spread: Spread = Spread()
    _by_class: ClassFeatures = field(init=False, repr=False)

    def __post_init__(self) -> None:
        spread = self.spread if self.shared else Spread()
        draws = ClassDraws(self.images, self.labels, self.classes, self.real.batch, self.augmentation, self.seed, spread)
        object.__setattr__(self, "_by_class", ClassFeatures.of(draws, self.network))

    @property
    def shared(self) -> bool:
        return not self.network.has_batch_norm

    def init(self) -> State:
        if self.ncfm.sampling == "normal":
            return {}
        width = _width(self.network, self.images.shape, self.images.device)
        psi = torch.zeros(-(-self.ncfm.frequencies // OF_A_COMPONENT), width, device=self.images.device)
        return {"psi": psi, "first": psi.clone(), "second": psi.clone(), "steps": psi.new_zeros(())}

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        (theta, trained), own = self._networks(iteration, images), self._by_class.draws.draws(iteration)
        psi = state["psi"].to(images, copy=True).requires_grad_() if state else None
        t: Tensor | None = None
        by_images, found = torch.zeros_like(images), torch.zeros(2, dtype=torch.float64, device=images.device)
        total, by_t = images.new_zeros(()), images.new_zeros(())
        for group in self._by_class.groups(own, lambda draw: len(draw.real) + len(draw.synthetic)):
            real = self._real(theta, group, images)
            if t is None:  # not before the number of features is known
                t = self._frequencies(psi, iteration, real[0])
                at = t.detach().requires_grad_(psi is not None)
            index = torch.cat([draw.synthetic for draw in group])
            x = images.detach()[index].requires_grad_()
            apart, said = self._losses(theta, trained, at, group, real, x)
            loss = self.ncfm.scale * apart + self.ncfm.calibration * said
            (by_images[index],) = torch.autograd.grad(loss, x, retain_graph=psi is not None)
            if psi is not None:
                by_t = by_t + torch.autograd.grad(apart, at)[0]
            total += loss.detach()
            found += torch.stack([apart, said]).detach().double()
        by_psi = None
        if psi is not None:
            by_psi = torch.zeros_like(psi) if t is None else torch.autograd.grad(t, psi, by_t)[0]
        draws = self._by_class.draws
        draws.sum_([by_images], total, *([] if by_psi is None else [by_psi]))
        draws.sum_([], found)
        distance, calibration = found / len(draws)
        return Update(
            gradients=Gradients(total, by_images, torch.zeros_like(labels), torch.zeros_like(syn_lr)),
            plain=by_images if plain else None,
            state={} if by_psi is None else self._ascended(state, by_psi),
            facts={"class_distance": distance, "expert": self._drawn(iteration)[0], **self._calibrated(calibration)},
        )

    def broken(self, state: State, images: Tensor, iteration: int) -> str:
        expert, _ = self._drawn(iteration)
        if all(bool(self.store.read(expert, epoch).isfinite().all()) for epoch in (0, self.last)):
            return ""
        return f"expert {expert} in {str(self.store.path)!r} holds numbers that are not finite, and is to be trained anew"

    def _drawn(self, iteration: int) -> tuple[int, float]:
        """The expert of an iteration, and u."""
        draws = generator(self.seed, "network between", iteration)
        return int(torch.randint(self.num_experts, (), generator=draws)), float(torch.rand((), generator=draws))

    def _networks(self, iteration: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """θ, and θ*_E."""
        expert, share = self._drawn(iteration)
        start, end = (self.store.read(expert, epoch, like.device).to(like) for epoch in (0, self.last))
        return start + share * (end - start), end

    def _frequencies(self, psi: Tensor | None, iteration: int, features: Tensor) -> Tensor:
        """t with shape (N_t, D); it can be differentiated by ψ."""
        count = self.ncfm.frequencies
        drawn = torch.randn(count, features.shape[1], generator=generator(self.seed, "frequencies", iteration)).to(features)
        if psi is None:
            return drawn
        return drawn * psi.exp()[torch.arange(count, device=psi.device) % len(psi)]

    def _real(self, theta: Tensor, group: Sequence[ClassDraw], like: Tensor) -> list[Tensor]:
        """f(A_k(R_k)), with shape (images, D), class by class."""
        features = self._by_class.real(theta, group, like)
        return list(_of_length_1(features).split([len(draw.real) for draw in group]))

    def _losses(
        self, theta: Tensor, trained: Tensor, t: Tensor, group: Sequence[ClassDraw], real: Sequence[Tensor], x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Σ D over the classes of the group, and Σ of their mean cross-entropies, of their synthetic images x, class by class."""
        own, sizes = self.ncfm, [len(draw.synthetic) for draw in group]
        seen = augmented(group, x)
        synthetic = _of_length_1(self._by_class.network(theta, seen)).split(sizes)
        pairs = [(characteristic(ours, t), characteristic(theirs, t)) for ours, theirs in zip(real, synthetic, strict=True)]
        apart = torch.stack([discrepancy(ours, theirs, own.amplitude, own.phase) for ours, theirs in pairs]).sum()
        if not own.calibration:
            return apart, torch.zeros_like(apart)
        classes = torch.tensor([draw.class_id for draw in group for _ in draw.synthetic], device=x.device)
        said = cross_entropy(self.network(trained, seen), classes, reduction="none").split(sizes)
        return apart, torch.stack([part.mean() for part in said]).sum()

    def _ascended(self, state: State, by_psi: Tensor) -> State:
        """ψ a step further up."""
        new = {name: value.clone() for name, value in state.items()}
        moments = (new["first"], new["second"], new["steps"])
        adamw(new["psi"], moments, -by_psi.to(new["psi"]), self.ncfm.sampling_lr, ADAM, 0.0)
        return new

    def _calibrated(self, mean: Tensor) -> dict[str, Tensor]:
        return {"calibration": mean} if self.ncfm.calibration else {}


def _of_length_1(features: Tensor) -> Tensor:
    return normalize(features, dim=1, eps=SHORTEST)


def _width(network: FlatNetwork, shape: tuple[int, int, int], device: torch.device) -> int:
    """D, the number of features.

    Raises:
        UsageError: when the network has none.
    """
    return features_of(network.module, torch.zeros(1, *shape, device=device)).shape[1]


def check(materials: Materials) -> None:
    """Refuse a criterion, and a network without features, before experts are trained."""
    criterion = materials.matching.criterion
    accepted = "none: characteristic functions are compared, not parameters"
    require(isinstance(criterion, KeepAll), "match.criterion", criterion, accepted)
    _width(materials.network, materials.data.shape, materials.device)


def make(materials: Materials, classes: Tensor, engine: Engine | None) -> Objective:
    """The objective of a run."""
    m, real = materials, (materials.train_images, torch.from_numpy(materials.data.train.labels))
    last, own = m.own(ExpertSettings).train_epochs, (m.own(RealSettings), m.own(NcfmSettings))
    return CharacteristicMatching(*real, classes, m.network, m.experts, m.num_experts, last, *own, m.augmentation, m.seed, m.spread)

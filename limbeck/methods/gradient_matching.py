"""Matching gradients: the objective of DC, and with augmentation of DSA.

    g(θ, x, k) = ∇_θ of the mean cross-entropy of f(θ, x) with class k
    D_k = Σ over weight tensors and their output rows of 1 − ⟨a, b⟩ / (‖a‖ ‖b‖ + ε)
          a the row of g(θ, A_k(R_k), k), b that of g(θ, A_k(X_k), k)
    L = Σ_k D_k

with R_k real and X_k synthetic images of class k; parameters of one dimension, biases and norms, are left out; ε = 10⁻⁶, as in the
authors' code. A network is drawn for `outer_loops` iterations and trained on X for `inner_loops` epochs between two of them:

    θ drawn;   match, update X;   train θ on X;   match, update X;   …

Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching" (DC), 2020, arXiv:2006.05929; Zhao and Bilen, "Dataset
Condensation with Differentiable Siamese Augmentation" (DSA), 2021, arXiv:2102.08259.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from limbeck.augmentation import NO_AUGMENTATION, Augmentation
from limbeck.losses import cross_entropy
from limbeck.matching.adjoint import Gradients
from limbeck.matching.criteria import Criterion, KeepAll, layers_of
from limbeck.matching.spread import Spread, SpreadImages
from limbeck.methods.class_draws import ClassDraw, ClassDraws
from limbeck.methods.materials import Materials
from limbeck.methods.objective import Engine, Objective, State, Update
from limbeck.methods.settings import OuterSettings, RealSettings
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.micro_batches import automatic_micro_batch
from limbeck.runtime.random import generator
from limbeck.training.compute import Compute
from limbeck.training.gradient import Descent, Gradient, SharedGradient
from limbeck.training.images import Images
from limbeck.training.optimisers import Sgd
from limbeck.training.train import Training, train

EPS = 1e-6


@dataclass(frozen=True, eq=False)
class GradientMatching(Objective):
    """DC; DSA where `augmentation` says how.

    The labels are the classes: Y and η have no part in L, and their gradients are zero. One call is one matching of one network,
    so that the published 1000 iterations are 1000 · `outer_loops` calls. L sums over rows, so that the published step size 0.1
    belongs to their 128 channels; narrow networks ask for a greater one, by about the ratio of the rows.

    The state is θ as it was matched, the velocity of its SGD and the number of the network; a network's training on X stands at
    the head of the next call, after X has changed, and after its last matching there is no state at all. A call that the outer
    loop skips leaves the network as it was.

    A criterion chooses per class among the weights that D_k sees, of number P: l_p = (difference of the two gradients)²_p, κ all
    but ⌊αP⌋ of them, the dropped entries of both gradients being taken as zero; a row that is dropped entirely adds nothing to
    D_k. κ is a constant in the gradient. Of a criterion's layers each is one weight tensor. Batch norms use the statistics of the
    batch that is passed, R_k or X_k.

    Args:
        images: real images, prepared.
        labels: of those, int64 with shape (number of real images,).
        classes: of the synthetic images, int64 with shape (N,).
        network: f.
        real: the keys `real.*`.
        criterion: chooses among the weights.
        augmentation: A_k, and (each image for itself) that of the network's training; none is DC.
        seed: of the draws.
        gradient: how g of real batches and of the training is computed, for label probabilities; None: uncompiled.
        spread: over which ranks the classes are shared, and the batches of the training.
    """

    images: Images
    labels: Tensor
    classes: Tensor
    network: FlatNetwork
    real: RealSettings = RealSettings()
    criterion: Criterion = KeepAll()
    augmentation: Augmentation = NO_AUGMENTATION
    seed: int = 0
    gradient: Gradient | None = None
    spread: Spread = Spread()
    _draws: ClassDraws = field(init=False, repr=False)
    _gradient: Gradient = field(init=False, repr=False)
    _shared_gradient: Descent = field(init=False, repr=False)
    _weights: "Weights" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        draws = ClassDraws(self.images, self.labels, self.classes, self.real.batch, self.augmentation, self.seed, self.spread)
        size = automatic_micro_batch(self.network, self.images.shape, self.images.device)
        object.__setattr__(self, "_draws", draws)
        gradient = self.gradient or Gradient(self.network, cross_entropy, micro_batch=size)
        object.__setattr__(self, "_gradient", gradient)
        ranks = self.spread.ranks
        object.__setattr__(self, "_shared_gradient", gradient if ranks.alone else SharedGradient(gradient, ranks))
        object.__setattr__(self, "_weights", Weights(self.network))

    @property
    def shared(self) -> bool:
        return True

    @property
    def has_criterion(self) -> bool:
        return not isinstance(self.criterion, KeepAll)

    @property
    def loops(self) -> tuple[int, int]:
        """`outer_loops` and `inner_loops`."""
        return self.real.loops(self._draws.ipc)

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        number, position = divmod(iteration, self.loops[0])
        theta, velocity = self._network(state, images, labels.shape[1], iteration)
        total, by_images, by_images_plain = images.new_zeros(()), torch.zeros_like(images), torch.zeros_like(images)
        kept = torch.zeros(self._weights.count, dtype=torch.float64, device=images.device)
        draws, both = self._draws.draws(iteration), plain and self.has_criterion
        for draw in draws:
            x = images.detach()[draw.synthetic].requires_grad_()
            pair = self._pair(theta, x, draw, labels.shape[1])
            mask = self._keep((pair[0] - pair[1].detach()).square(), iteration, draw)
            loss = self._weights.distance(*pair, mask)
            kept += mask
            (by_images[draw.synthetic],) = torch.autograd.grad(loss, x, retain_graph=both)
            if both:
                (by_images_plain[draw.synthetic],) = torch.autograd.grad(self._weights.distance(*pair), x)
            total += loss.detach()
        self._draws.sum_([by_images, *([by_images_plain] if both else [])], total)
        self._draws.sum_([], kept)
        count = len(self._draws)
        going_on = {"theta": theta, "velocity": velocity, "network": torch.tensor(number)}
        return Update(
            gradients=Gradients(total, by_images, torch.zeros_like(labels), torch.zeros_like(syn_lr)),
            plain=(by_images_plain if self.has_criterion else by_images) if plain else None,
            state=going_on if position + 1 < self.loops[0] else {},
            facts={"network": number, "position": position, "class_distance": total.double() / count},
            kept_share=self._weights.shares(kept / count),
        )

    def broken(self, state: State, images: Tensor, iteration: int) -> str:
        theta, _ = self._network(state, images, int(self.labels.max()) + 1, iteration)
        if bool(theta.isfinite().all()):
            return ""
        return (
            f"a network that is matched diverged while it was trained on X: real.network_lr ({self.real.network_lr:g}) is too large"
        )

    def _pair(self, theta: Tensor, x: Tensor, draw: ClassDraw, num_classes: int) -> tuple[Tensor, Tensor]:
        """The weights' gradients for A_k(R_k) and for A_k(X_k), with shape (P,); the second can be differentiated by X_k = x."""
        real = self._draws.real(draw, x)
        target = one_hot(torch.tensor([draw.class_id]), num_classes).to(x)
        leaf = theta.detach().requires_grad_()
        value = cross_entropy(self.network(leaf, draw.augmentation(x)), target)
        (synthetic,) = torch.autograd.grad(value, leaf, create_graph=True)
        return self._weights.of(self._gradient(theta, real, target.expand(len(real), -1))), self._weights.of(synthetic)

    def _keep(self, losses: Tensor, iteration: int, draw: ClassDraw) -> Tensor:
        chance = generator(self.seed, "criterion", iteration, draw.class_id)
        return self.criterion.keep(losses, layers=layers_of(self._weights.slices), generator=chance)

    def _network(self, state: State, images: Tensor, num_classes: int, iteration: int) -> tuple[Tensor, Tensor]:
        """θ to match at, and the velocity of its SGD: drawn, or that of the state trained on X."""
        (outer, inner), s = self.loops, self.real
        number = iteration // outer
        if "network" not in state or int(state["network"]) != number:
            theta = self.network.initial(generator(self.seed, "matched network", number)).to(images)
            return theta, torch.zeros_like(theta)
        velocity = state["velocity"].clone()
        theta = train(
            self.network,
            state["theta"],
            SpreadImages(self.spread, images.detach()),
            one_hot(self.classes, num_classes).to(images),
            Training(
                optimiser=Sgd(s.network_lr, s.network_momentum, s.network_weight_decay),
                loss=cross_entropy,
                epochs=inner,
                batch_size=s.network_batch,
                augment=self.augmentation,
            ),
            seed=self.seed,
            key=("matched network", iteration),
            gradient=self._shared_gradient,
            state=(velocity,),
        )
        return theta, velocity


class Weights:
    """The parameters of two dimensions and more of a network, one after the other: P of them."""

    def __init__(self, network: FlatNetwork) -> None:
        shapes = {name: shape for name, shape in network.shapes.items() if len(shape) > 1}
        self.places = [network.slices[name] for name in shapes]
        self.rows = [shape[0] for shape in shapes.values()]
        self.sizes = [shape.numel() for shape in shapes.values()]
        ends = list(accumulate(self.sizes))
        self.slices = {name: slice(end - size, end) for name, size, end in zip(shapes, self.sizes, ends, strict=True)}

    @property
    def count(self) -> int:
        """P."""
        return sum(self.sizes)

    def of(self, gradient: Tensor) -> Tensor:
        """Their part, with shape (P,), of a vector over all parameters."""
        return torch.cat([gradient[place] for place in self.places])

    def distance(self, real: Tensor, synthetic: Tensor, kept: Tensor | None = None) -> Tensor:
        """D_k, a scalar, of gradients with shape (P,), of the entries in κ = `kept`, bool with shape (P,); None: all."""
        if kept is None:
            kept = torch.ones_like(real, dtype=torch.bool)
        parts = (self._rows(real * kept), self._rows(synthetic * kept), self._rows(kept))
        return torch.stack([_rows_apart(a, b, seen.any(1)) for a, b, seen in zip(*parts, strict=True)]).sum()

    def shares(self, kept: Tensor) -> dict[str, float | Tensor]:
        """The mean of `kept`, with shape (P,), in every tensor."""
        return {name: kept[place].mean() for name, place in self.slices.items()}

    def _rows(self, values: Tensor) -> Sequence[Tensor]:
        parts = values.split(self.sizes)
        return [part.view(rows, -1) for part, rows in zip(parts, self.rows, strict=True)]


def _rows_apart(a: Tensor, b: Tensor, counted: Tensor) -> Tensor:
    """Σ of 1 − cos over the rows that are counted."""
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    apart: Tensor = (1 - (a * b).sum(1) / (norms + EPS)) * counted
    return apart.sum()


def dc(materials: Materials, classes: Tensor, engine: Engine | None) -> Objective:
    """DC's objective of a run."""
    return _make(materials, classes, NO_AUGMENTATION)


def dsa(materials: Materials, classes: Tensor, engine: Engine | None) -> Objective:
    """DSA's objective of a run."""
    return _make(materials, classes, materials.augmentation)


def _make(materials: Materials, classes: Tensor, augmentation: Augmentation) -> Objective:
    m, real = materials, (materials.train_images, torch.from_numpy(materials.data.train.labels))
    criterion, gradient = m.matching.criterion, _gradient(m, classes)
    own = m.own(RealSettings)
    return GradientMatching(*real, classes, m.network, own, criterion, augmentation, m.seed, gradient, m.spread)


def _gradient(materials: Materials, classes: Tensor) -> Gradient | None:
    """g, compiled where there are steps enough; None leaves it to the objective."""
    data, real = materials.data, materials.own(RealSettings)
    compute = Compute(materials.network, materials.device, materials.compile)
    counts = torch.from_numpy(data.train.labels).bincount()[classes.unique()].clamp(max=real.batch)
    batch = int(counts.mode().values)
    steps = compute.weighed(materials.own(OuterSettings).iterations * data.num_classes, data.shape, batch)
    if not compute.compiles(steps):
        return None
    # Classes of other sizes are computed uncompiled: each size is compiled for some ten seconds.
    trained, ranks = min(len(classes), real.network_batch), materials.spread.ranks
    batches = {batch, len(range(trained)[ranks.share(trained)]) or 1}
    return compute.gradient(cross_entropy, data.shape, steps, batches)

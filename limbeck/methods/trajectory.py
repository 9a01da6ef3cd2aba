"""Matching training trajectories: the objective of MTT and everything that descends from it.

    draw an expert and a start epoch t;  θ_0 = θ*_t;  T student steps;  L = Σ_κ (θ_T − θ*_{t+M})² / Σ_κ (θ*_t − θ*_{t+M})²

TESLA's soft labels are constants of an iteration: Y = f(θ*_{t+M}, X), of X as it is, not augmented.

Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (MTT), 2022, arXiv:2203.11932. Cui, Wang, Si and
Hsieh, "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory" (TESLA), 2023, arXiv:2211.10586.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.augmentation import Augmentation
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.adjoint import Adjoint, Gradients, InnerLoop
from limbeck.matching.criteria import KeepAll, layers_of
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.spread import Spread
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.methods.materials import Matching, Materials
from limbeck.methods.objective import Engine, Objective, State, Update
from limbeck.runtime.errors import require
from limbeck.runtime.random import generator

AT_ONCE = 128  # images whose labels are asked for
FAR = 100.0  # a loss that says that students run away: where they stay it is 1


@dataclass(frozen=True)
class TrajectoryMatching(Objective):
    """The matching loss through T student steps.

    Args:
        store: the experts.
        num_experts: how many of them to draw from.
        step: the student's step.
        adjoint: the way to the gradient.
        matching: criterion, distance, schedule and the sizes of the inner loop.
        augmentation: of the student's mini-batches.
        seed: of the draws.
        spread: how batches lie on ranks; batch norm, whose statistics are those of a whole batch, lets none be cut, and each rank
            then computes all of it.
    """

    store: TrajectoryStore
    num_experts: int
    step: StudentStep
    adjoint: Adjoint
    matching: Matching
    augmentation: Augmentation
    seed: int
    spread: Spread = Spread()

    @property
    def shared(self) -> bool:
        return not self.step.network.has_batch_norm

    @property
    def has_criterion(self) -> bool:
        return not isinstance(self.matching.criterion, KeepAll)

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        m, (expert, epoch) = self.matching, self._drawn(iteration)
        start = self.store.read(expert, epoch, images.device)
        target = self.store.read(expert, epoch + m.expert_epochs, images.device)
        said = self._said(target, images) if m.relabel else None
        labels = labels if said is None else said
        spread, (c, h, w) = self.spread if self.shared else Spread(), images.shape[1:]
        draws = draw_steps(
            (spread.count(images), c, h, w), m.batch_syn, m.syn_steps, self.augmentation, self.seed, iteration, m.small_chunk
        )
        layers, chance = layers_of(self.step.network.slices), generator(self.seed, "criterion", iteration)
        losses = [MatchingLoss(start, target, m.criterion, m.distance, layers, chance)]
        if plain and self.has_criterion:
            losses.append(MatchingLoss(start, target, KeepAll(), m.distance, layers))
        results = self.adjoint(InnerLoop(self.step, start, draws, spread), images, labels, syn_lr, *losses)
        good = isinstance(results, Sequence) and [type(one) for one in results] == [Gradients] * len(losses)
        require(good, "engine.kind", type(self.adjoint).__name__, f"one that gives `Gradients` for each of {len(losses)} losses")
        return Update(
            gradients=results[0],
            plain=results[-1].images if plain else None,
            facts={"expert": expert, "start_epoch": epoch},
            kept_share=self._kept_share(losses[0].kept),
            labels=said,
        )

    def _drawn(self, iteration: int) -> tuple[int, int]:
        """The expert of an iteration, and its start epoch."""
        expert = int(torch.randint(self.num_experts, (), generator=generator(self.seed, "expert of", iteration)))
        return expert, self.matching.schedule.draw(iteration, generator(self.seed, "start epoch", iteration))

    def broken(self, state: State, images: Tensor, iteration: int) -> str:
        expert, epoch = self._drawn(iteration)
        start, target = (self.store.read(expert, one) for one in (epoch, epoch + self.matching.expert_epochs))
        place = str(self.store.path)
        if not bool((start + target).isfinite().all()):
            return f"expert {expert} in {place!r} holds numbers that are not finite, and is to be trained anew"
        still = f"expert {expert} in {place!r} does not move from epoch to epoch: experts.expert_lr is too small"
        return still if torch.equal(start, target) else ""

    def hint(self, loss: float | None, syn_lr: float) -> str:
        if loss is not None and loss <= FAR:
            return ""
        far = "" if loss is None else f"a loss of {loss:.2g}, where 1 is that of a student who stays, says that "
        return f"{far}students diverge from the first iteration on: outer.syn_lr_init ({syn_lr:g}) is too large"

    @torch.no_grad()
    def _said(self, theta: Tensor, images: Tensor) -> Tensor:
        """f(θ, X), logits."""
        network, ranks = self.step.network, self.spread.ranks
        if network.has_batch_norm:  # which takes its statistics from all images
            return network(theta, images)
        own = slice(None) if self.spread.sharded else ranks.share(len(images))
        said = torch.cat([network(theta, part) for part in images[own].split(AT_ONCE)])
        if ranks.alone or self.spread.sharded:
            return said
        found = said.new_zeros(len(images), *said.shape[1:])
        found[own] = said
        ranks.sum_(found)
        return found

    def _kept_share(self, kept: Tensor | None) -> dict[str, float | Tensor]:
        slices = self.step.network.slices
        return {name: 1.0 if kept is None else kept[part].double().mean() for name, part in slices.items()}


def make(materials: Materials, classes: Tensor, engine: Engine | None) -> Objective:
    """The objective of a run; Discriminative Area Enhancement comes with the outer loop."""
    m = materials
    assert engine is not None, "trajectory methods walk through student steps"
    return TrajectoryMatching(m.experts, m.num_experts, *engine, m.matching, m.augmentation, m.seed, m.spread)

"""The objective of trajectory methods by itself: which gradient is which, what is drawn, and what is said of experts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.augmentation import NO_AUGMENTATION
from limbeck.experts.store import TrajectoryStore
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Exact, Gradients
from limbeck.matching.criteria import KeepAll, LowLossDropout
from limbeck.matching.schedules import Uniform
from limbeck.matching.steps import StudentStep
from limbeck.methods.materials import Matching
from limbeck.methods.trajectory import FAR, TrajectoryMatching
from limbeck.networks.flat import FlatNetwork, flat_network

X = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(3))
Y, ETA = torch.eye(4).repeat(2, 1), torch.tensor(0.1)


class Counting(Exact):
    """How many losses it was asked for."""

    asked: list[int] = []

    def __call__(self, inner: Any, images: Tensor, labels: Tensor, syn_lr: Tensor, *losses: Any) -> list[Gradients]:
        self.asked.append(len(losses))
        return super().__call__(inner, images, labels, syn_lr, *losses)


def network_of(name: str = "ConvNetD1-w4") -> FlatNetwork:
    return flat_network(name, (3, 8, 8), 4)


def objective(
    folder: Path, trajectories: Mapping[int, Mapping[int, Tensor]], network: FlatNetwork, **matching: Any
) -> TrajectoryMatching:
    store = TrajectoryStore(folder / "store", {"network": network.name, "num_parameters": network.num_parameters})
    for expert, checkpoints in trajectories.items():
        store.write(expert, checkpoints)
    how = Matching(**{"schedule": Uniform(0, 2), "syn_steps": 2, "expert_epochs": 1, **matching})
    step = StudentStep(network, soft_cross_entropy)
    return TrajectoryMatching(store, len(trajectories), step, Counting(), how, NO_AUGMENTATION, seed=0)


def walks(network: FlatNetwork, experts: int = 3) -> dict[int, dict[int, Tensor]]:
    return {
        expert: {epoch: network.initial(torch.Generator().manual_seed(10 * expert + epoch)) for epoch in range(3)}
        for expert in range(experts)
    }


def test_the_plain_gradient_is_the_one_without_a_criterion(tmp_path: Path) -> None:
    network = network_of()
    dropped = objective(tmp_path, walks(network), network, criterion=LowLossDropout(0.3))
    whole = replace(dropped, matching=replace(dropped.matching, criterion=KeepAll()))
    with_both, with_one, of_all, alone = (
        method.gradients({}, X, Y, ETA, 4, plain=plain) for method in (dropped, whole) for plain in (True, False)
    )
    assert Counting.asked[-4:] == [2, 1, 1, 1]
    assert with_both.plain is not None and with_one.plain is alone.plain is None
    assert torch.equal(with_both.plain, alone.gradients.images) and torch.equal(of_all.plain, alone.gradients.images)
    assert torch.equal(with_both.gradients.images, with_one.gradients.images)
    assert not torch.equal(with_both.plain, with_both.gradients.images)
    kept = {name: float(share) for name, share in with_one.kept_share.items()}
    sizes = {name: part.stop - part.start for name, part in network.slices.items()}
    total = network.num_parameters
    assert sum(kept[name] * size for name, size in sizes.items()) == pytest.approx(total - int(0.3 * total))
    assert set(alone.kept_share.values()) == {1.0}


def test_draws_depend_on_seed_and_iteration_alone(tmp_path: Path) -> None:
    network = network_of()
    method = objective(tmp_path, walks(network), network)

    def drawn(seed: int) -> list[tuple[int, int]]:
        return [replace(method, seed=seed)._drawn(iteration) for iteration in range(60)]

    assert drawn(0) == drawn(0)
    assert all([one[k] for one in drawn(0)] != [one[k] for one in drawn(1)] for k in (0, 1))  # experts, and start epochs
    assert {expert for expert, _ in drawn(0)} == {0, 1, 2} and {epoch for _, epoch in drawn(0)} == {0, 1}
    update = method.gradients({}, X, Y, ETA, 7, plain=False)
    assert (update.facts["expert"], update.facts["start_epoch"]) == drawn(0)[7]


def test_an_expert_that_does_not_move_is_named_with_the_setting(tmp_path: Path) -> None:
    network = network_of()
    theta = network.initial(torch.Generator().manual_seed(0))
    still = objective(tmp_path / "a", {0: dict.fromkeys(range(3), theta)}, network)
    said = still.broken({}, X, 0)
    assert said == f"expert 0 in {str(still.store.path)!r} does not move from epoch to epoch: experts.expert_lr is too small"
    moving = objective(tmp_path / "b", walks(network, 1), network)
    assert moving.broken({}, X, 0) == ""


def test_an_expert_with_numbers_that_are_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of()
    method = objective(tmp_path, walks(network, 1), network)
    read = TrajectoryStore.read

    def damaged(self: TrajectoryStore, expert: int, epoch: int, *where: Any) -> Tensor:
        theta = read(self, expert, epoch, *where).clone()
        theta[5] = float("inf") if epoch == 0 else theta[5]
        return theta

    monkeypatch.setattr(TrajectoryStore, "read", damaged)
    from_zero = next(number for number in range(50) if method._drawn(number)[1] == 0)
    from_one = next(number for number in range(50) if method._drawn(number)[1] == 1)
    place = str(method.store.path)
    assert method.broken({}, X, from_zero) == f"expert 0 in {place!r} holds numbers that are not finite, and is to be trained anew"
    assert method.broken({}, X, from_one) == ""


def test_students_that_run_away_are_told_by_the_loss(tmp_path: Path) -> None:
    network = network_of()
    method = objective(tmp_path, walks(network, 1), network)
    assert method.hint(FAR, 0.5) == method.hint(1.0, 0.5) == ""
    ending = "students diverge from the first iteration on: outer.syn_lr_init (0.5) is too large"
    assert method.hint(1234.0, 0.5) == f"a loss of 1.2e+03, where 1 is that of a student who stays, says that {ending}"
    assert method.hint(None, 0.5) == ending


@pytest.mark.parametrize("name", ["ConvNetD1-w4", "ConvNetD1-w4-batchnorm"])
def test_labels_of_the_target_are_of_all_images_together_where_that_matters(tmp_path: Path, name: str, monkeypatch: Any) -> None:
    network = network_of(name)
    method = objective(tmp_path, walks(network, 1), network, relabel=True)
    theta = method.store.read(0, 1)
    sizes = []
    monkeypatch.setattr("limbeck.methods.trajectory.AT_ONCE", 3)
    plain = FlatNetwork.__call__

    def counted(self: FlatNetwork, theta: Tensor, x: Tensor) -> Tensor:
        sizes.append(len(x))
        return plain(self, theta, x)

    whole = network(theta, X)
    monkeypatch.setattr(FlatNetwork, "__call__", counted)
    found = method._said(theta, X)
    torch.testing.assert_close(found, whole)
    assert sizes == ([8] if "batchnorm" in name else [3, 3, 2])

"""EL2N and forgetting against plain oracles, on written sequences, and of networks that are watched while they learn."""

from pathlib import Path

import pytest
import torch
from reference import selection as oracle

from limbeck.evaluation.difficulty import Difficulties, Forgetting, Tally, of_experts, watched
from limbeck.evaluation.full import FullData
from limbeck.experts.curriculum import el2n
from limbeck.experts.store import TrajectoryStore
from limbeck.recipes import load_recipe
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import Failure
from limbeck.runtime.progress import NoProgress
from limbeck.training.train import logits_of

TINY = {"data.size": "8", "data.per_class": "5", "network": "ConvNetD1-w4", "engine.compile": "no", "eval.full_epochs": "4"}


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return Workspace(load_recipe("scenes", {**TINY, "method": "el2n", "eval.full_lr": "0.1"}), NoProgress())


def test_el2n_is_the_length_of_the_error_vector() -> None:
    logits = 3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(20) % 5
    torch.testing.assert_close(
        el2n(logits, labels), torch.tensor(oracle.el2n(logits.tolist(), labels.tolist()), dtype=torch.float64)
    )
    assert torch.equal(el2n(logits, labels), el2n(logits, torch.eye(5, dtype=torch.float64)[labels]))
    # Sure and right, knowing nothing of two classes, sure and wrong.
    known = torch.tensor([[100.0, 0.0], [0.0, 0.0], [0.0, 100.0]])
    torch.testing.assert_close(el2n(known, torch.zeros(3, dtype=torch.int64)), torch.tensor([0.0, 0.5**0.5, 2**0.5]))


def test_forgetting_events_of_a_written_sequence() -> None:
    # Learned and kept; forgotten twice; forgotten at the end; never learned; right once, by chance, at the start.
    sequences = ["00111", "10101", "01110", "00000", "10000"]
    right = [[sequence[epoch] == "1" for sequence in sequences] for epoch in range(5)]
    counted = Forgetting()
    for row in right:
        counted.see(torch.tensor(row))
    assert counted.events.tolist() == [0, 2, 1, 5, 1] == oracle.forgetting(right)


def by_hand(full: FullData, epoch: int) -> Difficulties:
    """What the oracles make of every epoch's logits."""
    labels, errors, events = torch.from_numpy(full.data.train.labels), [], []
    for number in range(full.settings.full_seeds):
        trial, seen = full.trial(number), list[torch.Tensor]()
        full.trials.trained(trial, lambda _, theta: seen.append(theta.clone()))  # noqa: B023
        logits = [logits_of(full.trials.network.with_parameters(theta), trial.images) for theta in seen]
        right = [(one.argmax(1) == labels).tolist() for one in logits]
        events.append(torch.tensor(oracle.forgetting(right), dtype=torch.float64))
        at = logits[min(epoch, len(logits)) - 1].tolist()
        errors.append(torch.tensor(oracle.el2n(at, labels.tolist()), dtype=torch.float64))
    return Difficulties(torch.stack(errors).mean(0), torch.stack(events).mean(0))


@pytest.mark.parametrize("epoch", [2, 9])
def test_networks_of_the_full_data_are_watched_once(
    workspace: Workspace, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    full = workspace.evaluator().full_data
    expected, found = by_hand(full, epoch), watched(full, epoch)
    torch.testing.assert_close(found.el2n, expected.el2n)
    assert torch.equal(found.forgetting, expected.forgetting) and found.forgetting.max() > 0
    # They are the networks whose accuracy stands beside every figure.
    theta = full.trials.trained(full.trial(0))
    held = full.teacher(lambda: workspace.evaluator().images_of("test"))
    assert torch.equal(torch.cat([part.flatten() for part in held.parameters()]), theta)
    monkeypatch.setattr("limbeck.evaluation.trials.train", None)  # and they are kept
    assert torch.equal(watched(workspace.evaluator().full_data, epoch).el2n, found.el2n)


def test_experts_tell_the_same_of_the_epochs_that_are_held(workspace: Workspace, tmp_path: Path) -> None:
    network, images = workspace.network, workspace.train_images
    labels = torch.from_numpy(workspace.data.train.labels)
    store = TrajectoryStore(tmp_path / "store", {"network": network.name, "num_parameters": network.num_parameters})
    thetas = [
        {epoch: network.initial(torch.Generator().manual_seed(10 * expert + epoch)) for epoch in range(4)} for expert in (0, 1)
    ]
    for expert, held in enumerate(thetas):
        store.write(expert, held)
    found = of_experts(store, 2, [0, 1, 2, 3], network, images, labels, epoch=2)
    logits = [[logits_of(network.with_parameters(held[epoch]), images) for epoch in (1, 2, 3)] for held in thetas]
    events = [oracle.forgetting([(one.argmax(1) == labels).tolist() for one in rows]) for rows in logits]
    assert found.forgetting.tolist() == torch.tensor(events, dtype=torch.float64).mean(0).tolist()
    errors = [torch.tensor(oracle.el2n(rows[1].tolist(), labels.tolist())) for rows in logits]
    torch.testing.assert_close(found.el2n, torch.stack(errors).mean(0).double(), rtol=1e-6, atol=1e-6)


def test_a_network_that_diverged_is_no_judge(workspace: Workspace) -> None:
    watch = Tally(workspace.train_images, torch.from_numpy(workspace.data.train.labels), 1)
    theta = torch.full((workspace.network.num_parameters,), float("nan"))
    with pytest.raises(Failure, match="a network diverged while images were scored"):
        watch.see(1, workspace.network.with_parameters(theta))

"""The start of the synthetic set against plain loops over the experts' logits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.data.imageset import ImageSet, whole
from limbeck.data.preprocessing import Identity
from limbeck.distilled.initial import Initial, class_orders, real_subset
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.errors import UsageError

CLASSES, PER_CLASS, EXPERTS = 3, 8, 3


class Lookup(torch.nn.Module):
    """A network whose logits are read from its parameters by the image's number, which is its only pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(CLASSES * PER_CLASS, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[(x[:, 0, 0, 0] * 255).round().long()]


def made(tmp_path: Path, tables: torch.Tensor, ipc: int, label_experts: int = EXPERTS) -> Initial:
    labels = np.arange(CLASSES).repeat(PER_CLASS)
    split = whole(np.arange(CLASSES * PER_CLASS, dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    data = ImageSet(split, split, split, ("a", "b", "c"), "test", "f")
    network = FlatNetwork(Lookup(), "lookup")
    store = TrajectoryStore(tmp_path, {"num_parameters": network.num_parameters, "dtype": "float32"})
    for expert, table in enumerate(tables):
        store.write(expert, {5: table.flatten()}, {})
    return Initial(data, Identity(), network, lambda: store, label_experts, 5, ipc, 0, torch.device("cpu"))


def random_tables(right: float) -> torch.Tensor:
    """Logits of every expert for every image, correct for about the share `right` of the images."""
    draws = torch.Generator().manual_seed(0)
    tables = torch.randn(EXPERTS, CLASSES * PER_CLASS, CLASSES, generator=draws)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    boost = (torch.rand(EXPERTS, len(labels), generator=draws) < right).float() * 9
    return tables + boost.unsqueeze(2) * torch.eye(CLASSES)[labels]


@pytest.mark.parametrize("right", [0.0, 0.3, 0.9])
def test_correct_images_and_mean_logits(tmp_path: Path, right: float) -> None:
    tables, ipc = random_tables(right), 6
    initial = made(tmp_path, tables, ipc)
    result = initial.make("correct")
    for k, order in enumerate(class_orders(initial.data.train, CLASSES, 0, "initial")):
        chosen: list[int] = []
        for expert in range(EXPERTS):  # the first expert's correct images, then the next one's
            chosen += [i for i in order.tolist() if i not in chosen and tables[expert, i].argmax() == k]
        chosen += [i for i in order.tolist() if i not in chosen]
        for place, i in enumerate(chosen[:ipc]):
            row = k * ipc + place
            assert round(result.images[row].item() * 255) == i
            assert result.classes[row] == k
            voters = [tables[e, i] for e in range(EXPERTS) if tables[e, i].argmax() == k] or list(tables[:, i])
            assert torch.allclose(result.labels[row], torch.stack(voters).mean(0))
    assert result.labels.isfinite().all()


def test_fewer_label_experts(tmp_path: Path) -> None:
    tables = random_tables(0.9)
    result = made(tmp_path, tables, 2, label_experts=1).make("correct")
    numbers = (result.images.flatten() * 255).round().long()
    assert torch.allclose(result.labels, tables[0, numbers])


def test_real_images_have_the_logits_of_one_expert(tmp_path: Path) -> None:
    tables = random_tables(0.5)
    initial = made(tmp_path, tables, 4)
    result = initial.make("real")
    numbers = (result.images.flatten() * 255).round().long()
    assert numbers.tolist() == real_subset(initial.data.train, CLASSES, 4, 0, "initial").tolist()
    assert (numbers // PER_CLASS).tolist() == result.classes.tolist()
    assert len(set(numbers.tolist())) == 12
    assert torch.allclose(result.labels, tables[0, numbers])


def test_noise_is_standard_normal_and_its_labels_favour_the_class(tmp_path: Path) -> None:
    result = made(tmp_path, random_tables(1.0), 8).make("noise")
    assert result.images.mean().abs() < 1
    assert 0.5 < result.images.std() < 1.5
    assert result.labels.argmax(1).tolist() == result.classes.tolist()
    assert torch.equal(result.labels[0], result.labels[7])


def test_more_than_a_class_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^ipc: 9 is not at most the 8 training images of class 'a'"):
        made(tmp_path, random_tables(1.0), 9).make("correct")

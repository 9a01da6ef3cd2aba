"""Nearest features against every pair in float64, and what has no nearest."""

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.evaluation import nearest as module
from limbeck.evaluation.nearest import nearest
from limbeck.runtime.errors import UsageError


def pairs(queries: Tensor, others: Tensor) -> np.ndarray:
    """All distances, from differences in float64."""
    a, b = (one.double().numpy() for one in (queries, others))
    return np.array([[np.sqrt(((row - other) ** 2).sum()) for other in b] for row in a])


@pytest.mark.parametrize(
    ("queries", "others", "count", "offset"), [(7, 40, 3, 0.0), (1, 1, 5, 0.0), (33, 17, 17, 1e4), (5, 64, 1, -9)]
)
@pytest.mark.parametrize("block", [4, 1024])
def test_they_are_those_of_all_pairs(
    monkeypatch: pytest.MonkeyPatch, queries: int, others: int, count: int, offset: float, block: int
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    draws = torch.Generator().manual_seed(queries)
    a, b = (torch.randn(n, 6, generator=draws) + offset for n in (queries, others))
    found, expected = nearest(a, b, count), pairs(a, b)
    kept = min(count, others)
    assert found.positions.tolist() == np.argsort(expected, axis=1, kind="stable")[:, :kept].tolist()
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :kept], rtol=1e-12)


def test_equal_features_are_at_distance_zero_and_oneself_does_not_count() -> None:
    points = 1e3 + torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [30.0, 40.0]])
    assert nearest(points, points, 1).distances.flatten().tolist() == [0, 0, 0, 0]
    apart = nearest(points, points, 2, apart=torch.arange(4))
    assert apart.positions.tolist() == [[2, 1], [0, 2], [0, 1], [1, 0]]
    assert apart.distances.tolist() == [[0, 5], [5, 5], [0, 5], [45, 50]]


def test_no_query_has_no_nearest() -> None:
    found = nearest(torch.zeros(0, 2), torch.zeros(3, 2), 2)
    assert found.positions.shape == found.distances.shape == (0, 2)


@pytest.mark.parametrize(
    ("queries", "others", "count", "apart"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), 1, None),
        (torch.zeros(2, 3), torch.zeros(0, 3), 1, None),
        (torch.zeros(1, 3), torch.zeros(1, 3), 1, torch.tensor([0])),
        (torch.zeros(2, 3), torch.zeros(2, 3), 0, None),
        (torch.full((2, 3), torch.nan), torch.zeros(2, 3), 1, None),
    ],
)
def test_what_cannot_be_is_refused(queries: Tensor, others: Tensor, count: int, apart: Tensor | None) -> None:
    with pytest.raises(UsageError, match="^(features|count): "):
        nearest(queries, others, count, apart=apart)

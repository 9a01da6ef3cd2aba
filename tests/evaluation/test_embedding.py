"""PCA against the covariance's eigenvectors; t-SNE's shape and repetition, and that it keeps apart what lies apart."""

import numpy as np
import pytest
import torch

from limbeck.evaluation import embedding
from limbeck.evaluation.embedding import embed, principal
from limbeck.runtime.errors import UsageError


@pytest.mark.parametrize(("count", "dimensions"), [(30, 5), (6, 40), (3, 3)])
@pytest.mark.parametrize("block", [2, 4096])
def test_pca_is_that_of_the_covariance(monkeypatch: pytest.MonkeyPatch, count: int, dimensions: int, block: int) -> None:
    monkeypatch.setattr(embedding, "BLOCK", block)
    features = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(1)) * torch.arange(1, dimensions + 1) + 3
    found, share = principal(features, 2)
    centred = features.double().numpy() - features.double().numpy().mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    expected = centred @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(found.abs(), np.abs(expected), atol=1e-9)
    assert share == pytest.approx(values[::-1][:2].sum() / values.sum(), rel=1e-9)
    assert (found.gather(0, found.abs().argmax(0, keepdim=True)) > 0).all()


def test_points_without_variance_are_all_at_the_middle() -> None:
    for features in (torch.ones(4, 3), torch.ones(1, 1)):
        found, share = principal(features, 3)
        assert found.abs().max() == 0
        assert share == 0
    line = torch.arange(4.0)[:, None]
    found, share = principal(line, 2)
    np.testing.assert_allclose(found[:, 0].abs(), [1.5, 0.5, 0.5, 1.5])
    assert found[:, 1].abs().max() == 0
    assert share == 1


def test_tsne_is_of_many_points_the_same_every_time_and_keeps_groups_apart() -> None:
    draws = torch.Generator().manual_seed(0)
    groups = torch.arange(embedding.FEWEST) % 4
    features = torch.randn(len(groups), 8, generator=draws) + 20 * torch.eye(8)[groups]
    found = embed(features, 2**40 + 3)
    assert (found.way, found.share, found.points.shape, found.points.dtype) == ("t-SNE", None, (len(groups), 2), torch.float32)
    assert torch.equal(found.points, embed(features, 2**40 + 3).points)
    distances = torch.cdist(found.points, found.points).fill_diagonal_(torch.inf)
    assert (groups[distances.argmin(1)] == groups).all()  # the nearest in the plane is of the same group
    fewer = embed(features[:-1], 3)
    assert (fewer.way, fewer.points.shape) == ("PCA", (len(groups) - 1, 2))
    assert embed(features, 3, most="PCA").way == "PCA"
    assert fewer.share is not None
    assert 0 < fewer.share <= 1


@pytest.mark.parametrize("features", [torch.zeros(0, 2), torch.zeros(2, 0), torch.zeros(3), torch.full((2, 2), torch.inf)])
def test_what_has_no_place_in_a_plane_is_refused(features: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="^features: "):
        embed(features, 0)

"""Selections against brute force, and what they do with equal, single and extreme images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import selection as oracle
from torch import Tensor

from limbeck.distilled import selection
from limbeck.distilled.selection import centres, herding, k_center, moderate, random_subset
from limbeck.runtime.errors import UsageError


def cloud(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed(counts: tuple[int, ...], seed: int = 0) -> Tensor:
    """Labels of classes with so many images, in a random order."""
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(3, 9), min_size=1, max_size=3),
    size=st.integers(1, 4),
    ipc=st.integers(1, 3),
    piece=st.integers(1, 40),
)
def test_herding_and_k_center_are_the_brute_force(seed: int, counts: list[int], size: int, ipc: int, piece: int) -> None:
    labels = mixed(tuple(counts), seed)
    features = cloud(len(labels), size, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "PIECE", piece)
        found = {"herding": herding(features, labels, ipc), "k_center": k_center(features, labels, ipc)}
    for name, plain in (("herding", oracle.herding), ("k_center", oracle.k_center)):
        expected = []
        for k in range(len(counts)):
            members = (labels == k).nonzero().flatten()
            expected += members[plain(features[members].tolist(), ipc)].tolist()
        assert found[name].tolist() == expected, name
        assert found[name].dtype == torch.int64


def test_herding_follows_the_mean_where_single_images_do_not() -> None:
    features = torch.tensor([[0.0], [10.0], [4.0], [6.5]])  # mean 5.125
    # 6.5 and 4 lie nearest; with 6.5 already there, 4 brings the mean to 5.25, and 0 then 10 must wait.
    assert herding(features, torch.zeros(4, dtype=torch.int64), 4).tolist() == [2, 3, 0, 1]


def test_k_center_takes_the_ends() -> None:
    features = torch.tensor([[0.0], [1.0], [5.0], [6.0], [13.0]])  # mean 5
    assert k_center(features, torch.zeros(5, dtype=torch.int64), 3).tolist() == [2, 4, 0]


@pytest.mark.parametrize("take", [herding, k_center])
def test_larger_sets_hold_smaller_ones(take) -> None:  # type: ignore[no-untyped-def]
    labels, features = mixed((6, 6)), cloud(12, 3)
    few, many = take(features, labels, 2).view(2, -1), take(features, labels, 5).view(2, -1)
    assert torch.equal(few, many[:, :2])


@pytest.mark.parametrize("take", [herding, k_center, lambda f, y, n: centres(f, y, n, 0)])
@pytest.mark.parametrize("value", [0.0, 2.5, 1e38])
def test_equal_images_are_taken_once_each(take, value: float) -> None:  # type: ignore[no-untyped-def]
    found = take(torch.full((5, 2), value), torch.zeros(5, dtype=torch.int64), 5)
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]
    if take in (herding, k_center):
        assert found.tolist() == [0, 1, 2, 3, 4]  # the first of equal ones


@pytest.mark.parametrize("factor", [1e-300, 1e200])
def test_no_square_overflows_or_vanishes(factor: float) -> None:
    features, labels = cloud(12, 3), mixed((6, 6))
    for take in (herding, k_center):
        assert torch.equal(take(features * factor, labels, 4), take(features, labels, 4))


def test_features_in_half_precision_are_summed_in_double() -> None:
    features, labels = cloud(300, 4).half() + 100, torch.zeros(300, dtype=torch.int64)
    assert herding(features, labels, 3).tolist() == oracle.herding(features.double().tolist(), 3)


def test_random_subsets() -> None:
    labels = mixed((7, 4, 9))
    found = random_subset(labels, 4, 3)
    assert labels[found].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(set(found.tolist())) == 12
    assert torch.equal(found, random_subset(labels, 4, 3))
    assert not torch.equal(found, random_subset(labels, 4, 4))
    assert torch.equal(found.view(3, 4)[:, :2].flatten(), random_subset(labels, 2, 3))


def test_random_subsets_take_every_image_as_often() -> None:
    labels = torch.zeros(5, dtype=torch.int64)
    counts = torch.stack([torch.bincount(random_subset(labels, 2, seed), minlength=5) for seed in range(400)]).sum(0)
    assert counts.sum() == 800
    assert (counts - 160).abs().max() < 4 * (400 * 0.4 * 0.6) ** 0.5


def test_centres_stand_for_clusters() -> None:
    draws = torch.Generator().manual_seed(1)
    middles = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    sizes = (5, 12, 8)
    features = torch.cat([m + torch.randn(n, 2, generator=draws) for m, n in zip(middles, sizes, strict=True)])
    members = torch.arange(25).split(list(sizes))
    nearest = [part[(features[part] - features[part].mean(0)).norm(dim=1).argmin()].item() for part in members]
    found = centres(features, torch.zeros(25, dtype=torch.int64), 3, seed=0)
    assert found.tolist() == [nearest[1], nearest[2], nearest[0]]  # the largest cluster first
    assert torch.equal(found, centres(features, torch.zeros(25, dtype=torch.int64), 3, seed=0))


def test_one_image_and_every_image() -> None:
    one = torch.zeros(1, dtype=torch.int64)
    for take in (herding, k_center):
        assert take(torch.ones(1, 3), one, 1).tolist() == [0]
    assert centres(torch.ones(1, 3), one, 1, 0).tolist() == [0]
    labels = mixed((4, 4))
    assert sorted(centres(cloud(8, 2), labels, 4, 0).tolist()) == list(range(8))


@pytest.mark.parametrize(
    ("features", "labels", "ipc", "message"),
    [
        (torch.zeros(4, 2), torch.tensor([0, 0, 1, 0]), 2, "ipc: 2 is not at most the 1 images of class 1"),
        (torch.zeros(3, 2), torch.tensor([0, 0, 2]), 1, "ipc: 1 is not at most the 0 images of class 1"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 0, "ipc: 0 is not at least 1"),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), 1, r"features: \(3, 2\) is not of shape \(4, D\)"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 1, r"features: \(0, 2\)"),
        (torch.tensor([[1.0], [float("nan")]]), torch.zeros(2, dtype=torch.int64), 1, "features: .* is not finite numbers"),
        (torch.tensor([[1.0], [float("inf")]]), torch.zeros(2, dtype=torch.int64), 1, "features: .* is not finite numbers"),
    ],
)
def test_what_is_refused(features: Tensor, labels: Tensor, ipc: int, message: str) -> None:
    for take in (herding, k_center, lambda f, y, n: centres(f, y, n, 0)):
        with pytest.raises(UsageError, match=message):
            take(features, labels, ipc)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(3, 9), ipc=st.integers(1, 9), piece=st.integers(1, 40))
def test_moderate_is_the_brute_force(seed: int, count: int, ipc: int, piece: int) -> None:
    features, ipc = cloud(count, 3, seed), min(count, ipc)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "PIECE", piece)
        found = moderate(features, torch.zeros(count, dtype=torch.int64), ipc)
    assert found.tolist() == oracle.moderate(features.tolist(), ipc)


def test_moderate_leaves_what_is_typical_and_what_is_far_off() -> None:
    # Mean 0; distances 0, 1, 1, 2, 2, 3, 3, 16, 16, of which 2 is the median: those at 2, then those at 1 and 3, the outliers last.
    features = torch.tensor([[-16.0], [0.0], [1.0], [-1.0], [2.0], [-2.0], [3.0], [-3.0], [16.0]])
    found = moderate(features, torch.zeros(9, dtype=torch.int64), 9).tolist()
    assert found == [4, 5, 2, 3, 6, 7, 1, 0, 8]  # of equal ones the first


def test_the_centres_of_separated_clusters_are_their_middles() -> None:
    spots = [(0.0, 2), (100.0, 1), (200.0, 0)]  # of 5, 3 and 1 images
    features = torch.tensor([[at + step] for at, reach in spots for step in range(-reach, reach + 1)])
    assert centres(features, torch.zeros(9, dtype=torch.int64), 3, seed=0).tolist() == [2, 6, 8]

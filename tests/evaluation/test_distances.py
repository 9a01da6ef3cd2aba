"""Distances between classes against plain double loops, in closed form, and what must not change them."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.layout import in_json
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.evaluation import distances as module
from limbeck.evaluation.distances import MOST_CLASSES, MOST_ROWS, class_mean_distances, features_of, pointwise_distances, to_json
from limbeck.networks.names import build_network
from limbeck.runtime.errors import UsageError

summary = in_json(module.summary)
separation = in_json(module.separation)

METRICS = ("euclidean", "cosine")


def some(number: int = 23, width: int = 5, num_classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(number, width, generator=g, dtype=torch.float64)
    return features, torch.randint(num_classes, (number,), generator=g)


def plain_distance(a: list[float], b: list[float], metric: str) -> float:
    if metric == "euclidean":
        return math.dist(a, b)
    norms = math.hypot(*a) * math.hypot(*b)
    return 1 - (math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0)


def plain_pointwise(features: Tensor, classes: Tensor, num_classes: int, metric: str) -> np.ndarray:
    points, ids = features.double().tolist(), classes.tolist()
    result = np.full((num_classes, num_classes), np.nan)
    for a, b in np.ndindex(result.shape):
        found = [
            plain_distance(points[i], points[j], metric)
            for i in range(len(points))
            for j in range(len(points))
            if i != j and ids[i] == a and ids[j] == b
        ]
        if found:
            result[a, b] = math.fsum(found) / len(found)
    return result


def plain_means(features: Tensor, classes: Tensor, num_classes: int, metric: str) -> np.ndarray:
    points, ids = features.double().tolist(), classes.tolist()
    result = np.full((num_classes, num_classes), np.nan)
    means = []
    for k in range(num_classes):
        members = [point for point, label in zip(points, ids, strict=True) if label == k]
        means.append([math.fsum(values) / len(members) for values in zip(*members, strict=True)])
    for a, b in np.ndindex(result.shape):
        if means[a] and means[b]:
            result[a, b] = 0 if a == b else plain_distance(means[a], means[b], metric)
    return result


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [1, 4, 7, 23, 2048])
def test_pointwise_is_the_double_loop_in_blocks_of_any_size(metric: Any, block: int) -> None:
    features, classes = some()
    expected = plain_pointwise(features, classes, 4, metric)
    assert np.isfinite(expected).all()
    found = pointwise_distances(features, classes, 4, metric, block)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("metric", METRICS)
def test_class_means_are_the_double_loop(metric: Any) -> None:
    features, classes = some()
    found = class_mean_distances(features, classes, 4, metric)
    np.testing.assert_allclose(found, plain_means(features, classes, 4, metric), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("width", [1, 3])
def test_classes_with_one_image_and_with_none(metric: Any, width: int) -> None:
    """Class 1 has one image, class 3 none, class 2 a feature of zeros."""
    features = some(6, width)[0]
    features[5] = 0
    classes = torch.tensor([0, 0, 1, 2, 2, 2])
    expected = plain_pointwise(features, classes, 4, metric)
    assert np.isnan(expected).sum() == 8
    np.testing.assert_allclose(pointwise_distances(features, classes, 4, metric, 2), expected, rtol=1e-11, atol=1e-15)
    means = plain_means(features, classes, 4, metric)
    np.testing.assert_allclose(class_mean_distances(features, classes, 4, metric), means, rtol=1e-12, atol=1e-15)
    assert to_json(pointwise_distances(features, classes, 4, metric))[1][1] is None


@pytest.mark.parametrize("metric", METRICS)
def test_one_image_of_one_class(metric: Any) -> None:
    features, classes = torch.ones(1, 3), torch.zeros(1, dtype=torch.long)
    assert to_json(pointwise_distances(features, classes, 1, metric)) == [[None]]
    assert to_json(class_mean_distances(features, classes, 1, metric)) == [[0.0]]
    assert summary(pointwise_distances(features, classes, 1, metric)) == {"between": None, "within": None, "ratio": None}


def test_a_3_4_5_triangle() -> None:
    features, classes = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]), torch.tensor([0, 1, 2])
    expected = torch.tensor([[0.0, 3.0, 5.0], [3.0, 0.0, 4.0], [5.0, 4.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(class_mean_distances(features, classes, 3), expected, rtol=0, atol=1e-14)
    angle = class_mean_distances(features[1:], classes[:2], 2, "cosine")
    torch.testing.assert_close(angle[0, 1].item(), 1 - 3 / 5, rtol=0, atol=1e-15)


def test_gaussians_in_closed_form() -> None:
    """E|x − y| is 2 σ / √π within N(μ, σ²), and 5 to 2e-4 between N(0, 1) and N(5, 1): the mean of a folded N(5, 2)."""
    normal = torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    features = torch.cat([normal, normal + 5, 3 * normal])[:, None]
    classes = torch.arange(3).repeat_interleave(2000)
    found = pointwise_distances(features, classes, 3, block=1500)
    folded = 2 / math.sqrt(math.pi) * math.exp(-25 / 4) + 5 * math.erf(5 / 2)
    np.testing.assert_allclose(found.diagonal(), 2 / math.sqrt(math.pi) * np.array([1, 1, 3]), rtol=2e-3)
    np.testing.assert_allclose(found[0, 1], folded, rtol=1e-3)
    means = class_mean_distances(features, classes, 3)
    np.testing.assert_allclose(means, [[0, 5, 0], [5, 0, 5], [0, 5, 0]], atol=1e-12)


@given(st.integers(0, 99), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_euclidean_distances_are_those_of_space(seed: int, shift: float, factor: float) -> None:
    """Neither a shift nor a rotation changes them, and a scale is theirs."""
    features, classes = some(seed=seed)
    rotation = torch.linalg.qr(some(5, 5, seed=seed + 1)[0])[0]
    moved = factor * (features @ rotation + shift)
    for found in (class_mean_distances, pointwise_distances):
        torch.testing.assert_close(
            found(moved, classes, 4), factor * found(features, classes, 4), rtol=1e-8, atol=0, equal_nan=True
        )


@given(st.integers(0, 99), st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_cosine_distances_are_those_of_directions(seed: int, factor: float) -> None:
    features, classes = some(seed=seed)
    rotation = torch.linalg.qr(some(5, 5, seed=seed + 1)[0])[0]
    lengths = torch.rand(len(features), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + factor
    expected = pointwise_distances(features, classes, 4, "cosine")
    found = pointwise_distances(lengths * (features @ rotation), classes, 4, "cosine")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, equal_nan=True)
    expected = class_mean_distances(features, classes, 4, "cosine")
    torch.testing.assert_close(
        class_mean_distances(factor * features, classes, 4, "cosine"), expected, rtol=0, atol=1e-12, equal_nan=True
    )


@given(st.integers(0, 99), st.permutations(range(23)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_images_does_not_matter(seed: int, order: list[int]) -> None:
    features, classes = some(seed=seed)
    for metric in METRICS:
        for found in (class_mean_distances, pointwise_distances):
            expected = found(features, classes, 4, metric)
            torch.testing.assert_close(
                found(features[order], classes[order], 4, metric), expected, rtol=1e-11, atol=1e-14, equal_nan=True
            )


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("metric", METRICS)
def test_huge_and_tiny_features(size: float, metric: Any) -> None:
    features, classes = some()
    unit = 1 if metric == "cosine" else size
    for found in (class_mean_distances, pointwise_distances):
        expected = unit * found(features, classes, 4, metric)
        torch.testing.assert_close(found(size * features, classes, 4, metric), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_in_float64(dtype: torch.dtype) -> None:
    features, classes = some(60)
    narrow = (features + 100).to(dtype)
    for metric in METRICS:
        found = pointwise_distances(narrow, classes, 4, metric, 16)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found, plain_pointwise(narrow, classes, 4, metric), rtol=1e-7)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_images_are_not_apart(metric: Any) -> None:
    features, classes = torch.randn(1, 9, generator=torch.Generator().manual_seed(0)).repeat(40, 1), torch.arange(40) % 2
    assert pointwise_distances(features, classes, 2, metric).abs().max() < 1e-7
    assert class_mean_distances(features, classes, 2, metric).abs().max() < 1e-7


def test_no_more_than_a_block_of_distances_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, cdist = [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b, **how: sizes.append((len(a), len(b))) or cdist(a, b, **how))
    pointwise_distances(*some(100), 4, block=16)
    assert max(sizes) == (16, 16) and len(sizes) == 7 * 8 / 2


def test_summary_of_a_drawn_matrix() -> None:
    matrix = torch.tensor([[1.0, 4.0, 6.0], [4.0, 3.0, 8.0], [6.0, 8.0, math.nan]])
    assert summary(matrix) == {"between": 6.0, "within": 2.0, "ratio": 3.0}
    assert summary(torch.zeros(2, 2)) == {"between": 0.0, "within": 0.0, "ratio": None}


def test_separation_side_by_side() -> None:
    """Classes pushed apart by a factor of three, nothing else changed."""
    noise, classes = some(40, 3, 2)
    centres = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]], dtype=torch.float64)[classes]
    still = noise - torch.stack([noise[classes == k].mean(0) for k in range(2)])[classes]
    found = separation({"initial": (still + centres, classes), "distilled": (still + 3 * centres, classes)}, 2, network="a test")
    assert (found["network"], found["num_classes"], found["dimensions"]) == ("a test", 2, 3)
    assert found["sets"]["distilled"]["euclidean"]["class_means"]["between"] == pytest.approx(30)
    assert found["change_percent"]["distilled"]["euclidean"]["class_means"]["between"] == pytest.approx(200)
    assert found["change_percent"]["distilled"]["euclidean"]["pointwise"]["within"] == pytest.approx(0, abs=1e-8)
    assert found["change_percent"]["distilled"]["euclidean"]["class_means"]["ratio"] is None
    matrix = pointwise_distances(still + centres, classes, 2)
    assert found["sets"]["initial"]["euclidean"]["pointwise"]["matrix"] == matrix.tolist()
    assert found["sets"]["initial"]["images"] == 40
    assert found["sets"]["initial"]["cosine"]["pointwise"]["between"] <= 2
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_separation_of_one_image_per_class_is_json() -> None:
    features = some(3)[0]
    found = separation({"ipc 1": (features, torch.arange(3))}, 4, network="a test")
    points = found["sets"]["ipc 1"]["euclidean"]["pointwise"]
    assert (points["within"], points["ratio"]) == (None, None)
    assert points["matrix"][0][0] is None and points["matrix"][3] == [None] * 4
    assert found["change_percent"] == {}
    json.dumps(found, allow_nan=False)


class Headed(nn.Module):
    """As others build VGG: `features` is the convolutions. Dropout and batch norm have two modes; the head is registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(7, 3)
        self.features = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1))
        self.middle = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.features(x).flatten(1)))


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def some_images(number: int = 5, channels: int = 2, side: int = 8) -> Tensor:
    return torch.randn(number, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_features_of_our_networks() -> None:
    network, x = seeded(lambda: build_network("ConvNetD2-w4-batchnorm", 2, 8, 8, 3)).train(), some_images()
    found = features_of(network, x, 2)
    assert network.training and not found.requires_grad
    assert found.shape == (5, 16)
    with torch.no_grad():
        torch.testing.assert_close(network.classifier(found), network.eval()(x))


def test_features_of_any_network_are_what_its_head_sees() -> None:
    network, x = seeded(Headed).train(), some_images()
    network.middle.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = features_of(network, x, 2)
    assert found.shape == (5, 7)
    assert network.training and not network.middle.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(part._forward_pre_hooks for part in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(network.head(found), network.eval()(x))


def test_modes_and_hooks_come_back_after_an_error() -> None:
    network = seeded(Headed).train()
    with pytest.raises(RuntimeError):
        features_of(network, some_images(channels=3))
    assert network.training
    assert not any(part._forward_pre_hooks for part in network.modules())


FEATURES, CLASSES = torch.ones(4, 2), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pointwise_distances(FEATURES[0], CLASSES, 2), "features: (2,) is not of floats, of shape (N, D), N ≥ 1 and D ≥ 1"),
        (
            lambda: class_mean_distances(FEATURES[:0], CLASSES[:0], 2),
            "features: (0, 2) is not of floats, of shape (N, D), N ≥ 1 and D ≥ 1",
        ),
        (
            lambda: class_mean_distances(FEATURES.long(), CLASSES, 2),
            "features: (4, 2) is not of floats, of shape (N, D), N ≥ 1 and D ≥ 1",
        ),
        (lambda: pointwise_distances(FEATURES / 0, CLASSES, 2), "features: 'a value that is NaN or infinite' is not finite"),
        (
            lambda: pointwise_distances(FEATURES, CLASSES[:3], 2),
            "classes: 'torch.int64 (3,)' is not of shape (4,), one integer for every feature",
        ),
        (
            lambda: pointwise_distances(FEATURES, CLASSES.double(), 2),
            "classes: 'torch.float64 (4,)' is not of shape (4,), one integer for every feature",
        ),
        (lambda: pointwise_distances(FEATURES, CLASSES, 1), "classes: [0, 1] is not within [0, 1)"),
        (lambda: pointwise_distances(FEATURES, CLASSES - 1, 2), "classes: [-1, 0] is not within [0, 2)"),
        (lambda: pointwise_distances(FEATURES, CLASSES, 0), "num_classes: 0 is not at least 1"),
        (lambda: pointwise_distances(FEATURES, CLASSES, 2, "l1"), "metric: 'l1' is not euclidean or cosine"),
        (lambda: pointwise_distances(FEATURES, CLASSES, 2, block=0), "block: 0 is not at least 1"),
        (lambda: summary(torch.zeros(2, 3)), "matrix: (2, 3) is not of shape (K, K)"),
        (
            lambda: separation({"a": (FEATURES, CLASSES)}, 2, network=" "),
            "network: ' ' is not the name of the network that the features come from",
        ),
        (lambda: separation({}, 2, network="n"), "sets: {} is not one set or more of features of the same network"),
        (
            lambda: separation({"a": (FEATURES, CLASSES), "b": (FEATURES[:, :1], CLASSES)}, 2, network="n"),
            "sets: {'a': (2,), 'b': (1,)} is not one set or more of features of the same network",
        ),
        (
            lambda: features_of(nn.Flatten(), some_images()),
            "network: 'Flatten' is not a network with a method `features` or with a linear layer",
        ),
        (
            lambda: features_of(nn.Linear(8, 3), some_images()),
            "features: (5, 2, 8, 8) is not of a network whose features have shape (5, D)",
        ),
        (lambda: features_of(nn.Flatten(), some_images(0)), "x: (0, 2, 8, 8) is not one image or more"),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value) == message


def test_of_many_classes_distances_are_not_kept_one_by_one() -> None:
    classes = torch.arange(MOST_ROWS + 1)
    features = torch.randn(len(classes), 2, generator=torch.Generator().manual_seed(0))
    found = module.separation({"a": (features, classes)}, len(classes), network="x").sets["a"]
    assert found.euclidean.class_means.matrix == () and found.euclidean.class_means.between is not None
    few = features[:-1], classes[:-1]
    assert len(module.separation({"a": few}, MOST_ROWS, network="x").sets["a"].cosine.pointwise.matrix) == MOST_ROWS
    with pytest.raises(UsageError, match=f"num_classes: {MOST_CLASSES + 1} is not at most {MOST_CLASSES}"):
        module.separation({"a": few}, MOST_CLASSES + 1, network="x")

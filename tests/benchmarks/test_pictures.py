"""`benchmarks/pictures.py`: what the pictures of the documentation show is what was computed."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

import limbeck

before = list(sys.path)
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
pictures = importlib.import_module("pictures")
sys.path[:] = before


def test_bars_are_the_shares_that_the_criterion_leaves_out_and_lines_reach_everything() -> None:
    network = limbeck.flat_network("ConvNetD1-w4", (3, 8, 8), 2)
    draws = torch.Generator().manual_seed(0)
    losses, way = (torch.rand(network.num_parameters, generator=draws) for _ in range(2))
    none = torch.empty(0)
    figure = pictures.dropped(pictures.Iteration(losses, way, none, none, none, none, network, None))
    left, right = figure.axes
    kept = limbeck.LowLossDropout(pictures.ALPHA).keep(losses)
    widths = [bar.get_width() for bar in right.patches]
    shares = [100 * (1 - kept[layer].double().mean().item()) for layer in pictures.layers_of(network.slices)]
    assert widths == pytest.approx(shares) and len(widths) == 3
    for line in left.lines[:2]:
        values = line.get_ydata()
        assert (values[1:] >= values[:-1]).all() and values[-1] == pytest.approx(100)


def test_the_areas_are_the_gradient_without_and_with_the_weights() -> None:
    network = limbeck.flat_network("ConvNetD1-w4", (3, 8, 8), 10)
    draws = torch.Generator().manual_seed(0)
    x, gradient = (torch.rand(pictures.SHOWN, 3, 8, 8, generator=draws) for _ in range(2))
    classes, judge = torch.arange(pictures.SHOWN), network.with_parameters(network.initial(draws))
    pixels = torch.zeros(pictures.SHOWN, 3, 8, 8, dtype=torch.uint8)
    figure = pictures.areas(pictures.Iteration(x, x, x, pixels, gradient, classes, network, judge))
    weights = limbeck.activation_weights(judge, x, classes, weighting=limbeck.Activation(beta=1.0))
    shown = [torch.as_tensor(axes.images[0].get_array().data) for axes in figure.axes]
    expected = (gradient * weights).norm(dim=1)
    for row in range(pictures.SHOWN):
        torch.testing.assert_close(shown[5 * row + 2], weights[row, 0] / 2)
        torch.testing.assert_close(shown[5 * row + 4], expected[row] / expected[row].max())


def test_the_walk_has_as_many_derivatives_as_parameters() -> None:
    texts = [text.get_text() for text in pictures.walk().axes[0].texts]
    assert sum("theta_" in text for text in texts) == sum(r"$\lambda_" in text for text in texts) == 5

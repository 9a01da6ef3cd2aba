"""The pictures that explain: the walk back of the engine, Common Pattern Dropout, Discriminative Area Enhancement.

    python benchmarks/pictures.py walk        # docs/images/engine-walk.png, at once
    python benchmarks/pictures.py dropped     # docs/images/emphasis-dropped.png
    python benchmarks/pictures.py areas       # docs/images/emphasis-areas.png

The last two train one expert on built-in scenes and take one iteration of ten real images, half a minute on a core.
"""

import io
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HERE = Path(__file__).parent
sys.path[:1] = [str(HERE.parent)]
import limbeck  # noqa: E402
from limbeck.figures.style import BLUE, GRID, INK, MUTED, ORANGE, TEXT, dress, new_axes, png  # noqa: E402
from limbeck.matching.criteria import layers_of  # noqa: E402

IMAGES = HERE.parent / "docs" / "images"
NETWORK, ALPHA, STEPS, EPOCHS = "ConvNetD3-w32", 0.25, 20, 10
SHOWN = 6


class Iteration(NamedTuple):
    """One iteration of trajectory matching: loss and way of every parameter, the images, their gradient, and what sees them."""

    losses: Tensor
    way: Tensor
    images: Tensor
    pixels: Tensor
    gradient: Tensor
    classes: Tensor
    network: Any
    judge: Any


def iteration() -> Iteration:
    data = limbeck.load_data("scenes:easy")
    experts = limbeck.train_experts(data, NETWORK, num_experts=1, train_epochs=EPOCHS, expert_lr=0.05)
    network = limbeck.flat_network(NETWORK, data.shape, data.num_classes)
    preprocessing = limbeck.fit_normalise(data.train)
    rows = [int(np.flatnonzero(data.train.labels == k)[3]) for k in range(data.num_classes)]
    pixels = data.train.images()[rows]
    x, y, eta = preprocessing.prepare(pixels), torch.eye(data.num_classes), torch.tensor(0.02)
    start, target = experts.read(0, 2), experts.read(0, 5)
    steps = limbeck.draw_steps(x.shape, None, STEPS, limbeck.Dsa("crop_scale", crop_ratio=0.125), seed=0, iteration=0)
    ends = list[Tensor]()

    def loss(theta: Tensor) -> Tensor:
        ends.append(theta.detach())
        return limbeck.MatchingLoss(start, target)(theta)

    inner = limbeck.InnerLoop(limbeck.StudentStep(network, limbeck.cross_entropy), start, steps)
    [found] = limbeck.Exact()(inner, x, y, eta, loss)
    judge = network.with_parameters(experts.read(0, EPOCHS))
    losses, way = (ends[0] - target).square(), (start - target).square()
    return Iteration(losses, way, x, pixels, found.images, y.argmax(1), network, judge)


def dropped(found: Iteration) -> Any:
    """Shares of the loss by parameters of lowest loss, and of each layer what a drop ratio of a quarter leaves out."""
    order = found.losses.sort().indices
    count = len(order)
    held = {name: values[order].double().cumsum(0) / values.sum() for name, values in (("loss", found.losses), ("way", found.way))}
    at = int(ALPHA * count)
    print(f"the lowest {ALPHA:.0%} hold {held['loss'][at]:.4%} of the numerator, {held['way'][at]:.1%} of the denominator")
    figure, axes = new_axes(7.6, 2.9)
    axes.remove()
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.15, 1]})
    for panel in (left, right):
        dress(panel)
    every = np.linspace(0, count - 1, 400).astype(int)
    left.plot(100 * every / count, 100 * held["loss"][every], color=BLUE, label="of the loss, numerator")
    left.plot(
        100 * every / count,
        100 * held["way"][every],
        color=ORANGE,
        linestyle=(0, (5, 1.6)),
        label="of the experts' way, denominator",
    )
    left.axvline(100 * ALPHA, color=MUTED, linewidth=1)
    left.set_xlabel("parameters of lowest loss (%)", color=MUTED, fontsize=TEXT)
    left.set_ylabel("what they hold (%)", color=MUTED, fontsize=TEXT)
    left.legend(frameon=False, fontsize=TEXT - 1, loc="upper left")
    kept = limbeck.LowLossDropout(ALPHA).keep(found.losses)
    layers = layers_of(found.network.slices)
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in found.network.slices))
    shares = [100 * (1 - kept[layer].double().mean().item()) for layer in layers]
    right.barh(range(len(shares)), shares, color=BLUE, height=0.6)
    right.set_yticks(range(len(shares)), names, fontsize=TEXT - 1.5)
    right.invert_yaxis()
    right.axvline(100 * ALPHA, color=MUTED, linewidth=1)
    right.set_xlabel("left out (%)", color=MUTED, fontsize=TEXT)
    return figure


def areas(found: Iteration) -> Any:
    """Images, maps, weights, and how long the pixel gradient is with and without them."""
    maps = limbeck.TorchCam()(found.judge, found.images, found.classes, torch.Generator().manual_seed(0))
    weights = limbeck.Activation(beta=1.0)(maps, torch.Generator())
    plain, weighted = (gradient.norm(dim=1) for gradient in (found.gradient, found.gradient * weights))
    figure, axes = new_axes(6.2, 1.18 * SHOWN + 0.3)
    axes.remove()
    panels = figure.subplots(SHOWN, 5)
    titles = ("image", "map M", "weights F", "gradient", "weighted")
    for row, line in enumerate(panels):
        most = weighted[row].max()
        shown = (maps[row], weights[row, 0] / 2, plain[row] / most, weighted[row] / most)
        line[0].imshow(found.pixels[row].permute(1, 2, 0).numpy())
        for axes, values in zip(line[1:], shown, strict=True):
            axes.imshow(values.numpy(), cmap="magma", vmin=0, vmax=1)
        for axes, title in zip(line, titles, strict=True):
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title, fontsize=TEXT, color=INK)
    return figure


def walk() -> Any:
    """The steps forth, what is kept of them, and the way back."""
    figure, axes = new_axes(7.4, 2.75)
    axes.set_axis_off()
    axes.set_xlim(-0.75, 10.6)
    axes.set_ylim(-0.75, 3.35)
    names = (r"$\theta_0$", r"$\theta_1$", "…", r"$\theta_n$", r"$\theta_{n+1}$", "…", r"$\theta_T$")
    places = np.array([0, 1.35, 2.5, 3.65, 5.3, 6.95, 8.4])
    box = {"boxstyle": "round,pad=0.32", "facecolor": "#eef2fe", "edgecolor": BLUE}
    arrow = {"arrowstyle": "-|>", "shrinkA": 17, "shrinkB": 17, "linewidth": 1.3}
    for x, name in zip(places, names, strict=True):
        plain = name == "…"
        axes.text(x, 2.4, name, ha="center", va="center", fontsize=TEXT + 2, color=INK, bbox=None if plain else box)
        back = name.replace("theta", "lambda")
        axes.text(
            x,
            0.45,
            back,
            ha="center",
            va="center",
            fontsize=TEXT + 2,
            color=INK,
            bbox=None if plain else {**box, "facecolor": "#fdf1e2", "edgecolor": ORANGE},
        )
    for number, (one, other) in enumerate(zip(places, places[1:], strict=False)):
        ends = {"shrinkA": 27 if number == 4 else 17, "shrinkB": 27 if number == 3 else 17}
        axes.annotate("", (other, 2.4), (one, 2.4), arrowprops={**arrow, **ends, "color": BLUE})
        ends = {"shrinkA": ends["shrinkB"], "shrinkB": ends["shrinkA"]}
        axes.annotate("", (one, 0.45), (other, 0.45), arrowprops={**arrow, **ends, "color": ORANGE})
    axes.text(10.1, 2.4, r"$L$", ha="center", va="center", fontsize=TEXT + 3, color=INK)
    axes.annotate("", (10.1, 2.4), (8.4, 2.4), arrowprops={**arrow, "color": INK})
    axes.annotate("", (8.4, 0.45), (10.1, 2.4), arrowprops={**arrow, "color": INK, "connectionstyle": "arc3,rad=-0.35"})
    axes.annotate("", (places[3], 0.45), (places[3], 2.4), arrowprops={**arrow, "color": GRID, "linestyle": "-", "linewidth": 2})
    middle = (places[3] + places[4]) / 2
    axes.text(places[3] + 0.18, 1.42, "step n once more", ha="left", va="center", fontsize=TEXT - 0.5, color=MUTED)
    axes.text(
        middle,
        -0.42,
        r"$h_x, h_y, \langle g, \lambda_{n+1}\rangle$ to X, Y and $\eta$",
        ha="center",
        va="center",
        fontsize=TEXT,
        color=MUTED,
    )
    axes.text(4.2, 3.15, "forth: only the parameters are kept", ha="center", va="center", fontsize=TEXT, color=BLUE)
    return figure


def main() -> None:
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    drawings = {
        "walk": ("engine-walk", walk),
        "dropped": ("emphasis-dropped", lambda: dropped(iteration())),
        "areas": ("emphasis-areas", lambda: areas(iteration())),
    }
    if name not in drawings:
        sys.exit(__doc__)
    file, draw = drawings[name]
    picture = Image.open(io.BytesIO(png(draw()))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(IMAGES / f"{file}.png", optimize=True)


if __name__ == "__main__":
    main()

"""Why DC and DM gain little on the built-in scenes: whether their updates are right, and how far apart the classes are for them.

    python benchmarks/gradient_matching.py [--data cifar10.npz] --output benchmarks/results/gradient-matching.json

**Update.** X after 20 steps of the outer loop on scenes:medium (ConvNetD3-w16, one image per class, no augmentation, float64), and
after the same steps written out below, with nothing of the package but what is drawn: initial networks, and which real images a
step takes. DC matches each network four times and trains it on X for two epochs in between. Errors are norms, over that of X and of
X's change; of the change no more than 10⁻¹² is rounding.

**Distances.** φ the features of ConvNetD3-w16 as it is drawn, the mean over ten networks, of training images prepared as for a
distillation. μ_k and Σ_k are mean and covariance of φ over the images of class k, μ the mean of the μ_k:

    from_centre   the mean over classes of ‖μ_k − μ‖²
    apart         the mean over pairs of classes of ‖μ_k − μ_l‖²
    noise         the mean over classes of tr Σ_k / 64: the squared distance from μ_k of the mean of 64 images
    accuracy      of test images, classified by the nearest μ_k; `of_pixels` by the mean images themselves, without a network

The first two without what the finite number n_k of images adds, tr Σ_k / n_k for each mean. A data set given by `--data` is a file
or folder that Limbeck reads; at most 1000 of its images per class are taken, a tenth of them for validation.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, cross_entropy, group_norm

from limbeck.augmentation import NO_AUGMENTATION
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.data.split import Split
from limbeck.methods.class_features import Features
from limbeck.methods.distribution_matching import DistributionMatching
from limbeck.methods.enhance import Enhancement
from limbeck.methods.gradient_matching import GradientMatching
from limbeck.methods.outer import OuterLoop
from limbeck.methods.settings import OuterSettings, RealSettings
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.files import write_json
from limbeck.runtime.random import generator
from limbeck.saliency.weights import NoWeighting
from limbeck.training.images import TensorImages

NETWORK, STEPS, BATCH, NETWORKS, MOST = "ConvNetD3-w16", 20, 64, 10, 1000
BOUND = 1e-12
OUTER, INNER, NETWORK_LR, MOMENTUM = 4, 2, 0.01, 0.5
STEP_SIZE = {"dc": 1.0, "dm": 3.0}  # of the recipes of the scenes
Parts = dict[str, Tensor]


def features(parts: Parts, x: Tensor) -> Tensor:
    """Three times convolution, instance norm, ReLU, halving; with shape (N, 256)."""
    for block in range(3):
        x = conv2d(x, parts[f"blocks.{block}.0.weight"], parts[f"blocks.{block}.0.bias"], padding=1)
        x = group_norm(x, x.shape[1], parts[f"blocks.{block}.1.weight"], parts[f"blocks.{block}.1.bias"])
        x = avg_pool2d(x.relu(), 2)
    return x.flatten(1)


def loss(parts: Parts, x: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy."""
    return cross_entropy(features(parts, x) @ parts["classifier.weight"].T + parts["classifier.bias"], y)


def gradient(parts: Parts, x: Tensor, y: Tensor, *, of_weights: bool, again: bool = False) -> list[Tensor]:
    """Of `loss`, by the weights or by all parts; `again`: to be differentiated by x."""
    wanted = [value for value in parts.values() if value.ndim > 1 or not of_weights]
    return list(torch.autograd.grad(loss(parts, x, y), wanted, create_graph=again))


def rows_apart(a: Tensor, b: Tensor) -> Tensor:
    """Σ over output rows of 1 − cos."""
    a, b = a.flatten(1), b.flatten(1)
    apart: Tensor = 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)
    return apart.sum()


def initial(network: FlatNetwork, number: int) -> Parts:
    """The network of that number, by names, in float64."""
    theta = network.initial(generator(0, "matched network", number)).double()
    return {name: theta[network.slices[name]].view(shape).requires_grad_() for name, shape in network.shapes.items()}


def written_out(method: str, network: FlatNetwork, images: Tensor, labels: Tensor, x: Tensor, step_size: float) -> Tensor:
    """X after the steps, one image per class, in the order of the classes."""
    velocity, classes, parts = torch.zeros_like(x), torch.arange(len(x)), initial(network, 0)
    for iteration in range(STEPS):
        if method == "dm" or iteration % OUTER == 0:
            parts = initial(network, iteration if method == "dm" else iteration // OUTER)
        else:
            for _ in range(INNER):
                by_parts = gradient(parts, x, classes, of_weights=False)
                stepped = [value.detach() - NETWORK_LR * g for value, g in zip(parts.values(), by_parts, strict=True)]
                parts = {name: value.requires_grad_() for name, value in zip(parts, stepped, strict=True)}
        leaf = x.clone().requires_grad_()
        total = torch.zeros((), dtype=torch.float64)
        for k in classes.tolist():
            pool = (labels == k).nonzero()[:, 0]
            taken = images[pool[torch.randperm(len(pool), generator=generator(0, "real images", iteration, k))[:BATCH]]]
            if method == "dm":
                total = total + (features(parts, taken).mean(0).detach() - features(parts, leaf[k : k + 1])[0]).square().sum()
            else:
                real = gradient(parts, taken, torch.full((len(taken),), k), of_weights=True)
                own = gradient(parts, leaf[k : k + 1], classes[k : k + 1], of_weights=True, again=True)
                total = total + sum(rows_apart(a, b) for a, b in zip(real, own, strict=True))
        velocity = MOMENTUM * velocity + torch.autograd.grad(total, leaf)[0]
        x = x - step_size * velocity
    return x


def by_limbeck(method: str, network: FlatNetwork, images: Tensor, labels: Tensor, x: Tensor, step_size: float) -> Tensor:
    """X after the steps of the outer loop."""
    classes = torch.arange(len(x))
    real = RealSettings(batch=BATCH, outer_loops=OUTER, inner_loops=INNER, network_lr=NETWORK_LR)
    made = {"dc": GradientMatching, "dm": DistributionMatching}[method]
    objective = made(TensorImages(images), labels, classes, network, real=real, augmentation=NO_AUGMENTATION, seed=0)
    maps = Enhancement(network.module.double(), classes, 0, weighting=NoWeighting())
    settings = OuterSettings(iterations=STEPS, lr_img=step_size, img_momentum=MOMENTUM, lr_label=0.0, lr_lr=0.0)
    with tempfile.TemporaryDirectory() as folder:
        loop = OuterLoop(objective, maps, settings, lambda x, y, eta: None, STEPS, False, Path(folder))
        return loop.run(x, torch.eye(len(x), dtype=torch.float64), 0.01).images


def update_errors(images: Tensor, labels: Tensor, count: int) -> dict[str, dict[str, float]]:
    """How far the two are apart."""
    start = torch.stack([images[labels == k][0] for k in range(count)]).double()
    found = {}
    for method, step_size in STEP_SIZE.items():
        ours, theirs = (
            run(method, flat_network(NETWORK, shape_of(start), count), images.double(), labels, start, step_size)
            for run in (by_limbeck, written_out)
        )
        error = (ours - theirs).norm()
        found[method] = {
            "of_x": (error / theirs.norm()).item(),
            "of_the_change": (error / (theirs - start).norm()).item(),
            "change_of_x": ((theirs - start).norm() / start.norm()).item(),
        }
        assert found[method]["of_the_change"] < BOUND, f"{method}: {found[method]['of_the_change']:.1e} apart"
    return found


def shape_of(images: Tensor) -> tuple[int, int, int]:
    """(C, H, W)."""
    _, channels, height, width = images.shape
    return channels, height, width


def nearest(points: Tensor, means: Tensor, labels: Tensor) -> float:
    """The accuracy of the nearest mean."""
    return float((torch.cdist(points, means).argmin(1) == labels).double().mean())


def means_of(points: Tensor, labels: Tensor, count: int) -> Tensor:
    """Class by class, with shape (K, D)."""
    return torch.stack([points[labels == k].mean(0) for k in range(count)])


def distances(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], count: int) -> dict[str, Any]:
    """What the docstring says of the features of random networks."""
    network = flat_network(NETWORK, shape_of(train[0]), count)
    phi = FlatNetwork(Features(network.module), NETWORK)
    rows: list[dict[str, float]] = []
    for number in range(NETWORKS):
        theta = network.initial(generator(0, "matched network", number))
        with torch.no_grad():
            of_train, of_test = (torch.cat([phi(theta, part) for part in x.split(500)]).double() for x, _ in (train, test))
        means, traces, noises = means_of(of_train, train[1], count), [], []
        for k in range(count):
            own = of_train[train[1] == k]
            traces.append(own.var(0, correction=1).sum().item())
            noises.append(traces[-1] / len(own))
        bias, centre = fmean(noises), (means - means.mean(0)).square().sum(1).mean().item()
        apart = torch.pdist(means).square().mean().item()
        rows.append(
            {
                "apart": apart - 2 * bias,
                "from_centre": centre - bias * (1 - 1 / count),
                "noise": fmean(traces) / BATCH,
                "accuracy": nearest(of_test, means, test[1]),
            }
        )
    said: dict[str, Any] = {name: fmean(row[name] for row in rows) for name in rows[0]}
    said["accuracy_range"] = [min(row["accuracy"] for row in rows), max(row["accuracy"] for row in rows)]
    flat = [x.flatten(1).double() for x, _ in (train, test)]
    said["accuracy_of_pixels"] = nearest(flat[1], means_of(flat[0], train[1], count), test[1])
    return said | {"images_per_class": len(train[0]) // count}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="a further data set, such as cifar10.npz; left out where there is none")
    parser.add_argument("--output", type=Path, help="where the figures go as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    further = [arguments.data] if arguments.data and Path(arguments.data).exists() else []
    result: dict[str, Any] = {"network": NETWORK, "networks": NETWORKS, "steps": STEPS, "batch": BATCH, "distances": {}}
    for source in ("scenes:medium", "scenes:easy", *further):
        settings = DataSettings(source=source, per_class=MOST if source in further else None)
        data = load_data(settings)
        preprocessing = fit_preprocessing(settings, data.train)

        def prepared(split: Split) -> tuple[Tensor, Tensor]:
            pixels = torch.from_numpy(np.ascontiguousarray(split.storage[split.rows]))
            return preprocessing.prepare(pixels), torch.from_numpy(np.asarray(split.labels)).long()  # noqa: B023 (used at once)

        train, name = prepared(data.train), Path(source).stem if source in further else source
        if source == "scenes:medium":
            result["update"] = update_errors(*train, data.num_classes)
            for method, errors in result["update"].items():
                print(f"{method}: " + ", ".join(f"{key} {value:.2g}" for key, value in errors.items()), flush=True)
        said = result["distances"][name] = distances(train, prepared(data.test), data.num_classes)
        print(f"{name}: {said}", flush=True)
    if arguments.output:
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()

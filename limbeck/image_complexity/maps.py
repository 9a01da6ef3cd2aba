"""What a network says of images, in one pass: logits, activation maps at the layer's resolution, features.

The maps are those of `saliency/maps.py`, which are for images whose class is known beforehand and of the images' size; here the
class may be the predicted one, and the map is wanted before it is brought to another size.

The complexity of images, classes and subsets.

    c_i = 100 (1 − |{p : M_ip ≥ τ}| / HW)      c_k = mean of c_i over the images of class k      c = mean of c_k over the classes

with M_i in [0, 1] the activation map of image i over H·W pixels p and τ = 0.5, all in percent: the smaller the area that speaks for
the class, the more complex the image.

K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2024, arXiv:2410.17193.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck.image_complexity.settings import Cam
from limbeck.runtime.errors import UsageError, require
from limbeck.saliency.maps import NOISE, NOISY_PASSES, global_noise_from, to_unit


def complexity(maps: Tensor, threshold: float = 0.5) -> Tensor:
    """c_i of every map in percent; float64 with shape (N,).

    A map of zeros, of a network without a preference, has no active pixel and so the complexity 100, as published.

    Args:
        maps: in [0, 1] with shape (N, H, W).
        threshold: τ in (0, 1].

    Raises:
        UsageError: for other maps or thresholds.
    """
    require(0 < threshold <= 1, "threshold", threshold, "in (0, 1]")
    require(maps.ndim == 3 and maps.shape[1:].numel() > 0, "maps", tuple(maps.shape), "of shape (N, H, W) with H·W > 0")
    if not ((maps >= 0) & (maps <= 1)).all():
        raise UsageError("maps: hold values that are not in [0, 1]")
    # Compared in the maps' own precision, in which a value of 0.9 is not below 0.9.
    return 100 * (1 - (maps >= maps.new_tensor(threshold)).double().mean((1, 2)))


def class_means(values: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The mean over the images of each class, with shape (K, …); NaN for a class without any.

    Args:
        values: with shape (N, …); images whose value is NaN are left out.
        labels: int with shape (N,), in 0 … K−1.
        num_classes: K.
    """
    wide = values.astype(np.float64)
    known = np.isfinite(wide)
    sums, counts = (np.zeros((num_classes, *values.shape[1:])) for _ in range(2))
    np.add.at(sums, labels, np.where(known, wide, 0.0))
    np.add.at(counts, labels, known)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def subset_mean(classes: np.ndarray) -> float:
    """The mean over the classes that have a value, c; NaN where none has."""
    known = classes[np.isfinite(classes)]
    return float(known.mean()) if len(known) else float("nan")


class Seen(NamedTuple):
    """What a network says of N images.

    Args:
        logits: with shape (N, K).
        maps: M of each layer, in [0, 1] with shape (N, h, w); zero where the network shows no preference.
        features: the mean over space of the last layer's output, with shape (N, D).
    """

    logits: Tensor
    maps: list[Tensor]
    features: Tensor


def look(
    module: nn.Module,
    x: Tensor,
    classes: Tensor | None,
    layers: Sequence[str],
    cam: Cam,
    generator: torch.Generator,
) -> Seen:
    """Logits, maps and features of images.

    Args:
        module: in evaluation mode, its parameters frozen.
        x: images as the network takes them, with shape (N, C, H, W).
        classes: the network's class ids that maps are for, int64 with shape (N,); None takes those it predicts.
        layers: names of modules whose output has shape (N, D, h, w).
        cam: the kind of maps.
        generator: a CPU generator for the noise of `smooth_gradcam_pp`; others draw nothing.
    """
    from torchcam.methods import GradCAM, LayerCAM, SmoothGradCAMpp

    targets: list[nn.Module | str] = [*layers]
    # The parameters are frozen: only the image makes the logits differentiable.
    x = x.detach().requires_grad_()
    with torch.enable_grad(), global_noise_from(generator):
        noiseless = {"gradcam": GradCAM, "layercam": LayerCAM}
        if cam in noiseless:
            with noiseless[cam](module, targets) as extractor:
                logits = module(x)
                features = _pooled(extractor.hook_a[-1])
                maps = extractor(_ids(logits, classes), logits, normalized=False)
        else:
            with SmoothGradCAMpp(module, targets, NOISY_PASSES, NOISE) as smooth:
                logits = module(x)
                features = _pooled(smooth.hook_a[-1])
                maps = smooth(_ids(logits, classes), normalized=False)
    return Seen(logits.detach(), [to_unit(layer.detach()) for layer in maps], features)


def blend(maps: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """The mean over layers of their maps, with shape (N, H, W).

    Args:
        maps: of each layer, in [0, 1] with shape (N, h, w).
        size: (H, W) to bring all to, bilinear; None takes that of the finest layer.
    """
    wanted = size or max(((layer.shape[1], layer.shape[2]) for layer in maps), key=lambda sides: sides[0] * sides[1])
    scaled = [
        layer if layer.shape[1:] == wanted else interpolate(layer[:, None], wanted, mode="bilinear", align_corners=False)[:, 0]
        for layer in maps
    ]
    # Bilinear weights sum to 1 only to rounding.
    return torch.stack(scaled).mean(0).clamp(0, 1)


def _ids(logits: Tensor, classes: Tensor | None) -> list[int]:
    # What is not finite has no greatest; its map is thrown away afterwards.
    ids: list[int] = (logits.detach().nan_to_num().argmax(1) if classes is None else classes).tolist()
    return ids


def _pooled(output: Tensor | None) -> Tensor:
    assert output is not None, "the layer is part of the network"
    return output.detach().mean((2, 3))

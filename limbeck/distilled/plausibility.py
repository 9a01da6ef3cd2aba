"""Whether a set fits the images that networks trained on it will be tested on.

What a set says of itself (classes, shape, preprocessing, fingerprint) is compared with the data. Two faults show in no metadata.

**Wrong normalisation.** The pixels that X stands for, A⁻¹(X), are compared with real ones: with m_c and s_c the mean and deviation
of a channel of real pixels, m'_c and s'_c those of A⁻¹(X), the offset is (m'_c − m_c) / s_c, the contrast s'_c / s_c. Refused are

    pixels              nearly all of X is in [0, 1], or X fills [−1, 1] exactly, as prepared real images do not
    an offset           all channels are off in one direction by 1.5 / √C and by five standard errors of the mean of as many real
                        images: a constant, levels 0 … 255, bright images normalised twice
    normalised twice    more than 30 % of A⁻¹(X) is outside of [0, 1], but less than 1 % of A⁻¹(A⁻¹(X)), whose mean is that of real
                        pixels: dark images
    another kind        a contrast above 12: normalised where they should be whitened

A moderate mismatch is noted, of images of other programs: all channels have more than 1.1 times the contrast of real ones, or less
than 1 / 1.1, and one of the known means and deviations brings them within 1.07. Nothing is noted where the values themselves show
how images were normalised (`normalised`): real ones, few of which may well have little contrast. Sets that were normalised by
published numbers, or by others that are said, are measured under their own.

Images that are optimised for long are far from real ones, too: in sound sets, one image a class, up to 80 % of A⁻¹(X) were outside
of [0, 1], contrasts up to 6 and single channels 1.2 off, but never all of them by more than 0.25.

**Permuted labels.** M_kj counts the images of class k that are taken for class j, π is the permutation that maximises Σ_k M_kπ(k)
(Hungarian method: Kuhn, "The Hungarian method for the assignment problem", 1955). S are the classes in those cycles of π, longer
than one, of whose images at least half, A in all, are taken for class π(k), and less than a quarter as many for class k. Guesses at
random, in which class j has the share q_j, reach A for some S of s classes and some derangement of them with probability at most

    p = K · C(K, s) · D_s · P(Bin(n, q̄) ≥ A),    n = Σ_{k∈S} n_k,  q̄ = Σ_{k∈S} n_k q_π(k) / n,

D_s the number of derangements: a union bound over everything that could have been found (and over s, whence K); a sum of unequal
chances is no likelier than the binomial of their mean (Hoeffding, "On the distribution of the number of successes in independent
trials", 1956). Labels are called permuted when p < 0.01: noise is accused less than once in a hundred times, and an image each of
seven classes can never be enough. A check that would not have noticed labels that are all moved by one class says that it had no
power (`powerless`).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Constant, Normalise, Preprocessing, describe
from limbeck.distilled.formats import shown
from limbeck.distilled.normalised import apart, known_for, tells
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import UsageError
from limbeck.training.images import TensorImages, sample
from limbeck.training.train import logits_of

SAMPLE = 256  # real images
MOST_IMAGES = 1024  # of the set
DIFFERENCE = 0.05  # of prepared images, in their standard deviations
AGREEMENT = 1e-3  # relative, of means and deviations
LEAST_CONTRAST, MOST_CONTRAST = 0.35, 12.0  # of that of real images
LEVEL = 0.01  # of p
OWN_NUMBERS = "; the set, and what it is compared with, is measured under its own"
MODERATE, NEAR = 1.1, 1.07  # factors on the contrast


def check_fit(held: DistilledSet, data: ImageSet, preprocessing_of_data: Preprocessing) -> list[str]:
    """Refuse a set that does not fit the data.

    Args:
        held: the set.
        data: the images to test on.
        preprocessing_of_data: what its training split gives.

    Returns:
        What a reader should know though it is no reason to refuse the set, a sentence each; usually nothing.

    Raises:
        UsageError: when the classes, their order or the shape of the images are others, images are prepared differently, labels are
            those of other classes, or the images cannot be prepared as the set says.
    """
    _check_classes(held.class_names, data)
    if held.shape != data.shape:
        raise UsageError(f"images: shape {held.shape} of the set is not {data.shape}, that of the images of {data.source!r}")
    index = torch.arange(min(SAMPLE, len(data.train))) * len(data.train) // min(SAMPLE, len(data.train))
    pixels = data.train.images(index.numpy()).float() / 255
    notes = _check_preprocessing(held, preprocessing_of_data, pixels)
    notes += _check_labels(held)
    notes += _check_values(held, pixels) or _other_numbers(held, preprocessing_of_data, pixels)
    return notes + _fingerprint_note(held, data)


def suspicious(held: DistilledSet, network: nn.Module) -> list[str]:
    """What makes the set's labels look permuted, a sentence each; usually nothing.

    Args:
        held: the set.
        network: trained on real images that were prepared as the set's are, in evaluation mode; gives logits (N, K).
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    logits = logits_of(network, TensorImages(held.images.to(device))).cpu()
    if not bool(logits.isfinite().all()):
        return []  # says something about the network alone
    found = permutation(held.classes.cpu(), logits.argmax(1), held.num_classes)
    return [f"labels look permuted: {_told(found, held.class_names, 'shows')}"] if found else []


def powerless(held: DistilledSet, network: nn.Module) -> str:
    """Why `suspicious` could not have noticed even labels that are all of the next class; empty where it could.

    Of a set whose labels are right, the network's guesses would then go one class on. Where that many of them are no strong
    evidence, because the network knows too few of the images or there are too few, finding nothing says nothing.

    Args:
        held, network: as for `suspicious`, which has found nothing.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    logits = logits_of(network, TensorImages(held.images.to(device))).cpu()
    name = "the network trained on the full data"
    if not bool(logits.isfinite().all()):
        return f"{name} gives logits that are not finite"
    classes, guesses = held.classes.cpu(), logits.argmax(1)
    if permutation((classes + 1) % held.num_classes, guesses, held.num_classes):
        return ""
    return f"{name} takes {int((classes == guesses).sum())} of {len(classes)} images for their class, which is too little to tell"


def permutation(classes: Tensor, guesses: Tensor, num_classes: int) -> dict[int, int]:
    """{k: π(k)} for the classes k of S whose images are taken for another class; empty without strong evidence.

    Args:
        classes: the class that each image is said to be of, int64 with shape (N,).
        guesses: the class that it is taken for, int64 with shape (N,).
        num_classes: K.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import binom

    counts = torch.bincount(classes * num_classes + guesses, minlength=num_classes**2).view(num_classes, num_classes)
    images, shares = counts.sum(1), counts.sum(0).double() / len(classes)
    best = linear_sum_assignment(counts.numpy(), maximize=True)[1]
    target = torch.from_numpy(best)
    moved = [cycle for cycle in _cycles(best) if _elsewhere(counts[cycle], cycle, target[cycle])]
    if not moved:
        return {}
    members = torch.tensor(sorted(k for cycle in moved for k in cycle))
    reached, total, size = int(counts[members, target[members]].sum()), int(images[members].sum()), len(members)
    chance = float((images[members] * shares[target[members]]).sum()) / total
    tries = math.log(num_classes) + math.log(math.comb(num_classes, size)) + math.log(_derangements(size))
    if tries + float(binom.logsf(reached - 1, total, min(chance, 1.0))) >= math.log(LEVEL):
        return {}
    return {k: int(target[k]) for k in members.tolist() if images[k] > 0}


def _cycles(target: np.ndarray) -> list[list[int]]:
    """The classes in each cycle of a permutation that is longer than one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count, of = connected_components(coo_array((np.ones(len(target)), (np.arange(len(target)), target))), directed=False)
    return [members.tolist() for i in range(count) if len(members := np.flatnonzero(of == i)) > 1]


def _elsewhere(counts: Tensor, cycle: list[int], target: Tensor) -> bool:
    """Whether most images of the classes in a cycle are taken for the next one, and few for their own; counts (s, K)."""
    rows = torch.arange(len(cycle))
    away, own = int(counts[rows, target].sum()), int(counts[rows, torch.tensor(cycle)].sum())
    return away > 0 and 2 * away >= int(counts.sum()) and 4 * own < away


def _derangements(size: int) -> int:
    """D_s = Σ_k (−1)^k s! / k!, the number of permutations of s things that leave none in its place."""
    return sum((-1) ** k * math.perm(size, size - k) for k in range(size + 1))


def _told(found: dict[int, int], names: Sequence[str], verb: str) -> str:
    pairs = [f"class {names[k]!r} {verb} {names[j]!r}" for k, j in found.items()]
    return ", ".join(pairs[:5]) + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")


def _check_classes(names: tuple[str, ...], data: ImageSet) -> None:
    wanted = data.class_names
    if names == wanted:
        return
    if sorted(names) != sorted(wanted):
        lacking, more = (sorted(set(one) - set(other)) for one, other in ((wanted, names), (names, wanted)))
        parts = [f"the set lacks {shown(lacking)}"] if lacking else []
        parts += [f"{data.source!r} lacks {shown(more)}"] if more else []
        parts = parts or [f"the set has {len(names)}, {data.source!r} {len(wanted)}"]
        raise UsageError(f"classes: those of the set are not those of the data: {'; '.join(parts)}")
    differing = [k for k, (one, other) in enumerate(zip(names, wanted, strict=True)) if one != other]
    k = differing[0]
    raise UsageError(
        f"classes: their order in the set is not that of {data.source!r}: at position {k} the set has {names[k]!r}, the data"
        f" {wanted[k]!r}; {len(differing)} of {len(names)} are elsewhere"
    )


def _check_preprocessing(held: DistilledSet, other: Preprocessing, pixels: Tensor) -> list[str]:
    """Compare what two preprocessings make of real pixels."""
    own = held.preprocessing
    try:
        one, two = own.forward(pixels), other.forward(pixels)
    except RuntimeError as error:
        raise UsageError(
            f"preprocessing: {describe(own)} of the set is not possible for images of shape {tuple(pixels.shape[1:])}"
        ) from error
    deviations = float((one - two).abs().max() / two.std().clamp_min(1e-12))
    told = f"{describe(own)} of the set is not {describe(other)} of the data"
    if deviations > DIFFERENCE and _is_known(held) and isinstance(other, Normalise):
        return [f"preprocessing: {told}{OWN_NUMBERS}"]
    if not deviations <= DIFFERENCE:  # NaN does not pass
        raise UsageError(f"preprocessing: {told}: prepared images differ by up to {deviations:.2g} standard deviations")
    if own.kind == other.kind and all(
        torch.allclose(mine, theirs, rtol=AGREEMENT, atol=1e-6)
        for mine, theirs in zip(own.tensors().values(), other.tensors().values(), strict=True)
    ):
        return []
    return [f"preprocessing: {told}, which makes a difference of {deviations:.2g} standard deviations at most"]


def _is_known(held: DistilledSet) -> bool:
    """Whether images are normalised by numbers that are published, or were said, and not by a fit to other images."""
    own, settings = held.preprocessing, held.metadata.get("settings")
    if isinstance(own, Constant) or not isinstance(own, Normalise):
        return isinstance(own, Constant)
    data = settings.get("data") if isinstance(settings, Mapping) else None
    if isinstance(data, Mapping) and isinstance(data.get("normalise"), list):
        return True
    known = (made.tensors().values() for _, made in known_for(len(own.mean)))
    return any(all(torch.allclose(a, b) for a, b in zip(own.tensors().values(), one, strict=True)) for one in known)


def _other_numbers(held: DistilledSet, of_data: Preprocessing, real: Tensor) -> list[str]:
    """Whether the contrast of images of another program tells that they were normalised by other numbers than is taken."""
    own = held.preprocessing
    if not isinstance(own, Normalise) or not isinstance(held.metadata.get("origin"), Mapping):
        return []
    x = sample(TensorImages(held.images.cpu()), MOST_IMAGES)
    if tells(x, own):
        return []
    contrast = _statistics(own.inverse(x))[1] / _statistics(real)[1]
    if not (bool((contrast > MODERATE).all()) or bool((contrast < 1 / MODERATE).all())):
        return []
    known: dict[str, Normalise] = dict(known_for(len(contrast)))
    if isinstance(of_data, Normalise):
        known["yes"] = of_data
    found = {name: float((contrast * made.std / own.std).log().abs().max().exp()) for name, made in known.items()}
    best = min(found, key=lambda name: found[name])
    if found[best] > NEAR:
        return []
    right = known[best]
    return [
        f"images: contrast is {float(contrast.mean()):.2f} times that of real ones by {describe(own)}; were they normalised by"
        f" {describe(right)} (--normalised {best}), {apart(x, own, right)}"
    ]


def _check_labels(held: DistilledSet) -> list[str]:
    """Compare labels with the classes that the images are said to be of."""
    favoured, classes = held.labels.cpu().argmax(1), held.classes.cpu()
    wrong, total = int((favoured != classes).sum()), len(held)
    if held.label_kind == "hard" and wrong:
        raise UsageError(f"labels: {wrong} of {total} hard labels are not the class that the image is said to be of")
    if found := permutation(classes, favoured, held.num_classes):
        raise UsageError(f"labels: they look permuted: {_told(found, held.class_names, 'is labelled')}")
    told = f"labels: {wrong} of {total} favour another class than the image is said to be of"
    return [told] if 2 * wrong > total else []


def _check_values(held: DistilledSet, real: Tensor) -> list[str]:
    """Compare X with what the set's preprocessing makes of real pixels, and the pixels that X stands for with those."""
    preprocessing, x = held.preprocessing, sample(TensorImages(held.images.cpu()), MOST_IMAGES)
    pixels, said = preprocessing.inverse(x), f"{describe(preprocessing)}, as the set says"
    mean, std = _statistics(real)
    contrast = _statistics(pixels)[1] / std
    if reason := _range_of_pixels(x, preprocessing.forward(real)):
        raise UsageError(f"images: {reason}, which were never prepared by {said}")
    if float(contrast.max()) > MOST_CONTRAST:
        raise UsageError(f"images: contrast is {float(contrast.max()):.2g} times that of real ones: not prepared by {said}?")
    if (offset := _common_offset(pixels, real)) > 1.5 / math.sqrt(len(mean)):
        raise UsageError(f"images: brightness is {offset:.2g} standard deviations off: normalised twice, or not by {said}?")
    once = preprocessing.inverse(pixels)
    # A⁻¹ of zero-mean images, however wild, has the mean m, which A⁻¹ once more moves up by m s.
    alike = bool(((once.mean((0, 2, 3)) - mean).abs() < mean * std / 3).all())
    if alike and _outside(pixels) > 0.3 and _outside(once) < 0.01:
        raise UsageError(f"images: they look like real ones that were normalised twice, not by {said}")
    if (weak := float(contrast.max())) < LEAST_CONTRAST:
        return [f"images: they have {weak:.2g} of the contrast of real ones (not prepared by {said}?)"]
    return []


def _common_offset(pixels: Tensor, real: Tensor) -> float:
    """By how many of their standard deviations all channels of `pixels` are brighter, or all darker; 0 where it may be chance."""
    mean, std = _statistics(real)
    away = pixels.mean((0, 2, 3)) - mean
    error = real.mean((2, 3)).std(0, correction=0).clamp_min(1e-6) / math.sqrt(len(pixels))
    same = bool((away > 0).all() or (away < 0).all())
    return float((away.abs() / std).min()) if same and bool((away.abs() > 5 * error).all()) else 0.0


def _outside(pixels: Tensor) -> float:
    return float(((pixels < 0) | (pixels > 1)).float().mean())


def _statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, the latter at least a level of 8 bits."""
    return pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0).clamp_min(1 / 255)


def _range_of_pixels(x: Tensor, prepared: Tensor) -> str | None:
    """What gives X away as pixels that were not prepared as it is said, or None."""
    low, high = float(x.min()), float(x.max())
    in_unit = (float(((held > -0.05) & (held < 1.05)).float().mean()) for held in (x, prepared))
    if next(in_unit) > 0.995 and next(in_unit) < 0.9 and high - low > 0.5:
        return f"nearly all values are in [0, 1] ({low:.3g} … {high:.3g}), like those of pixels"
    if -1.001 <= low < -0.98 and 0.98 < high <= 1.001 and float((prepared.abs() <= 1).float().mean()) < 0.9:
        return f"all values are in [−1, 1] ({low:.3g} … {high:.3g}), like those of pixels normalised by ½ and ½"
    return None


def _fingerprint_note(held: DistilledSet, data: ImageSet) -> list[str]:
    stored = held.metadata.get("fingerprints")
    stored = stored.get("data") if isinstance(stored, dict) else None
    if stored is None or stored == data.fingerprint:
        return []
    now = f"fingerprint {str(stored)[:32]}, not {data.fingerprint}"
    return [f"data: the set was made from other images than those of {data.source!r} now ({now})"]

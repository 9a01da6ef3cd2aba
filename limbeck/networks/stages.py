"""A network as a row of stages, each with its derivatives written out: what the student's step is compiled from.

    z = W ∘ x        a linear map with weight W: a 3×3 convolution or a matrix product
    x' = φ(z; p)     everything else: bias, norm, activation, pooling

W ∘ x is bilinear, so its derivatives are bilinear too; φ is cheap, and with its derivatives in closed form a compiler turns
each of them into a few passes over memory. A dot denotes the derivative along a direction (θ̇, ẋ), g_z the gradient ∂ℓ/∂z:

    ż = Ẇ ∘ x + W ∘ ẋ      g_x = Wᵀ g_z      g_W = g_z ⋆ x

The norm, with μ the mean over whatever it normalises over and r = (μ(z − μz)² + ε)^(−½):

    x̂ = r (z − μz)                    x̂˙ = r (ż − μż − x̂ s),   s = μ(x̂ ż),   ṙ = −r² s
    g_z = r (g_x̂ − c₁ − x̂ c₂),        c₁ = μ g_x̂,   c₂ = μ(g_x̂ x̂)
    ġ_z = ṙ/r · g_z + r (ġ_x̂ − ċ₁ − x̂˙ c₂ − x̂ ċ₂)

Arrays are (B, H, W, C), channels last, because then neither convolutions nor compiled passes have to reorder them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

EPS = 1e-5
LEAKY_SLOPE = 0.01
SPACE = (1, 2, 3, 4)  # of an array seen in cells: (B, H/2, 2, W/2, 2, C)
COLOURS = 4  # up to so many channels count as an image's

Norm = Literal["instance", "group", "batch", "none"]
Pooling = Literal["avg", "max", "none"]
Activation = Literal["relu", "leaky", "sigmoid"]
Parameters = tuple[Tensor, ...]


class Linear(ABC):
    """W ∘ x and its two adjoints, with W of shape (channels of z, channels of x, …)."""

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """z = W ∘ x."""

    @abstractmethod
    def to_input(self, gz: Tensor, weight: Tensor) -> Tensor:
        """g_x = Wᵀ g_z."""

    @abstractmethod
    def to_weight(self, gz: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """g_W = g_z ⋆ x; of `weight` only shape and precision count."""


@dataclass(frozen=True)
class Convolution(Linear):
    """A 3×3 convolution.

    Args:
        dtype: to compute in; None takes that of the weight. x and z are in it, gradients of the weight in the weight's own.
        padding: zeros on every side, at least 1, which keeps H and W.
    """

    dtype: torch.dtype | None = None
    padding: int = 1

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return _rows(conv2d(self._planes(x, weight), self._kernel(weight), padding=self.padding))

    def to_input(self, gz: Tensor, weight: Tensor) -> Tensor:
        (height, width), frame = gz.shape[1:3], self.padding - 1
        if weight.shape[1] <= COLOURS and height % 2 == width % 2 == 0:
            return self._to_image(gz, weight)[:, frame : height - frame, frame : width - frame]
        x = gz.new_empty(len(gz), height - 2 * frame, width - 2 * frame, weight.shape[1])
        return _rows(self._backward(gz, x, weight, 0))

    def to_weight(self, gz: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return self._backward(gz, x, weight, 1).to(weight.dtype)

    def _backward(self, gz: Tensor, x: Tensor, weight: Tensor, which: Literal[0, 1]) -> Tensor:
        """The gradient by the input (0) or the weight (1), and that one alone: autograd's formulas would ask for both."""
        mask, pads = [which == 0, which == 1, False], [self.padding, self.padding]
        backward, planes = torch.ops.aten.convolution_backward.default, (self._planes(gz, weight), self._planes(x, weight))
        gradient: Tensor = backward(*planes, self._kernel(weight), None, [1, 1], pads, [1, 1], False, [0, 0], 1, mask)[which]
        return gradient

    def _to_image(self, gz: Tensor, weight: Tensor) -> Tensor:
        """The same by the padded input, two by two pixels at once: libraries compute 16 channels for an image's three."""
        # Of a cell's surroundings, 4×4 pixels, its pixel (a, b) is reached from rows a … a+2 and columns b … b+2.
        turned = self._kernel(weight).flip(2, 3).transpose(0, 1)
        kernel = torch.cat([pad(turned, (b, 1 - b, a, 1 - a)) for a in (0, 1) for b in (0, 1)])
        cells = conv2d(self._planes(gz, weight), kernel.contiguous(memory_format=torch.channels_last), padding=1, stride=2)
        batch, _, height, width = cells.shape
        pixels = _rows(cells).reshape(batch, height, width, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return pixels.reshape(batch, 2 * height, 2 * width, -1)

    def _planes(self, x: Tensor, weight: Tensor) -> Tensor:
        return x.to(self.dtype or weight.dtype).permute(0, 3, 1, 2)

    def _kernel(self, weight: Tensor) -> Tensor:
        return weight.to(self.dtype or weight.dtype).contiguous(memory_format=torch.channels_last)


class Dense(Linear):
    """A matrix product with the flattened input, flattened channels first as `nn.Flatten` orders it.

    Args:
        shape: (H, W) of the input.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._flat(x, weight) @ weight.t()

    def to_input(self, gz: Tensor, weight: Tensor) -> Tensor:
        return _rows((gz @ weight).unflatten(1, (-1, *self.shape)))

    def to_weight(self, gz: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return gz.t() @ self._flat(x, weight)

    def _flat(self, x: Tensor, weight: Tensor) -> Tensor:
        return x.to(weight.dtype).permute(0, 3, 1, 2).flatten(1)


class Tangent(NamedTuple):
    """A value and its derivative along a direction."""

    value: Tensor
    dot: Tensor


class Rest(ABC):
    """φ and its derivatives. `p` and `pt` are its parameters and their direction ṗ."""

    @abstractmethod
    def forward(self, z: Tensor, p: Parameters) -> Tensor:
        """x'."""

    @abstractmethod
    def forward_tangent(self, z: Tangent, p: Parameters, pt: Parameters) -> Tangent:
        """x' and its derivative."""

    @abstractmethod
    def backward(self, gx: Tensor, z: Tensor, p: Parameters) -> tuple[Tensor, Parameters]:
        """g_z and g_p from g_x'."""

    @abstractmethod
    def backward_tangent(self, gx: Tangent, z: Tangent, p: Parameters, pt: Parameters) -> tuple[Tangent, Parameters]:
        """(g_z, ġ_z) and ġ_p."""


class Bias(Rest):
    """φ(z; b) = z + b: the end of a classifier."""

    def forward(self, z: Tensor, p: Parameters) -> Tensor:
        return z + p[0]

    def forward_tangent(self, z: Tangent, p: Parameters, pt: Parameters) -> Tangent:
        return Tangent(z.value + p[0], z.dot + pt[0])

    def backward(self, gx: Tensor, z: Tensor, p: Parameters) -> tuple[Tensor, Parameters]:
        return gx, (gx.sum(0),)

    def backward_tangent(self, gx: Tangent, z: Tangent, p: Parameters, pt: Parameters) -> tuple[Tangent, Parameters]:
        return gx, (gx.dot.sum(0),)


@dataclass(frozen=True)
class NormActivatePool(Rest):
    """φ(z; b, w, v) = pool(σ(w x̂ + v)), x̂ the norm of z + b; without a norm φ(z; b) = pool(σ(z + b)).

    Args:
        norm: `instance`, `group`, `batch` (of the batch's own statistics) or `none`.
        groups: of `group`.
        pooling: of 2×2 cells; H and W must be even unless it is `none`.
        activation: σ.
        dtype: of x' and g_z, which convolutions take; None leaves them in that of the parameters. It is computed in theirs.
    """

    norm: Norm
    groups: int
    pooling: Pooling
    activation: Activation
    dtype: torch.dtype | None = None

    def forward(self, z: Tensor, p: Parameters) -> Tensor:
        normed, _ = self._norm(self._cells(z, p))
        return self._narrow(self._pool(self._activate(self._affine(normed, p))))

    def forward_tangent(self, z: Tangent, p: Parameters, pt: Parameters) -> Tangent:
        normed, r = self._norm(self._cells(z.value, p))
        normed_dot, _ = self._norm_dot(normed, r, self._cells(z.dot, pt))
        n = self._affine(normed, p)
        dot = self._slope(n) * self._affine_dot(normed, normed_dot, p, pt)
        a = self._activate(n)
        return Tangent(self._narrow(self._pool(a)), self._narrow(self._pool_along(a, dot)))

    def backward(self, gx: Tensor, z: Tensor, p: Parameters) -> tuple[Tensor, Parameters]:
        normed, r = self._norm(self._cells(z, p))
        n = self._affine(normed, p)
        gn = self._slope(n) * self._unpool(gx.to(n.dtype), self._activate(n))
        if self.norm == "none":
            return self._whole(gn), (gn.sum((0, *SPACE)),)
        w, count = p[1], normed[0, ..., 0].numel()
        sums = _mean(gn), _mean(gn * normed)
        gz = r * (w * gn - self._over(w * sums[0]) - normed * self._over(w * sums[1]))
        return self._whole(gz), (self._bias_gradient(gz), *(count * total.sum((0, *SPACE)) for total in reversed(sums)))

    def backward_tangent(self, gx: Tangent, z: Tangent, p: Parameters, pt: Parameters) -> tuple[Tangent, Parameters]:
        normed, r = self._norm(self._cells(z.value, p))
        normed_dot, s = self._norm_dot(normed, r, self._cells(z.dot, pt))
        n = self._affine(normed, p)
        a, slope = self._activate(n), self._slope(n)
        ga = self._unpool(gx.value.to(n.dtype), a)
        gn, gn_dot = slope * ga, slope * self._unpool(gx.dot.to(n.dtype), a)
        if self.activation == "sigmoid":  # the only one that bends
            gn_dot = gn_dot + slope * (1 - 2 * a) * self._affine_dot(normed, normed_dot, p, pt) * ga
        if self.norm == "none":
            return Tangent(self._whole(gn), self._whole(gn_dot)), (gn_dot.sum((0, *SPACE)),)
        w, wt, count = p[1], pt[1], normed[0, ..., 0].numel()
        sums = _mean(gn), _mean(gn * normed)
        dots = _mean(gn_dot), _mean(gn_dot * normed + gn * normed_dot)
        c1, c2 = (self._over(w * total) for total in sums)
        c1_dot, c2_dot = (self._over(w * dot + wt * total) for dot, total in zip(dots, sums, strict=True))
        core = w * gn - c1 - normed * c2
        core_dot = w * gn_dot + wt * gn - c1_dot - normed_dot * c2 - normed * c2_dot
        gz, gz_dot = r * core, r * core_dot - r * r * s * core
        totals = tuple(count * dot.sum((0, *SPACE)) for dot in reversed(dots))
        return Tangent(self._whole(gz), self._whole(gz_dot)), (self._bias_gradient(gz_dot), *totals)

    def _cells(self, z: Tensor, p: Parameters) -> Tensor:
        """z + b, in the parameters' precision, seen in cells: (B, H/2, 2, W/2, 2, C), or (B, H, 1, W, 1, C) without pooling."""
        side = 1 if self.pooling == "none" else 2
        batch, height, width, channels = z.shape
        return (z.to(p[0].dtype) + p[0]).view(batch, height // side, side, width // side, side, channels)

    def _whole(self, cells: Tensor) -> Tensor:
        """From cells back to (B, H, W, C)."""
        # Narrowed first: a compiler would write the wide array to memory where its shape changes.
        return self._narrow(cells).flatten(3, 4).flatten(1, 2)

    def _narrow(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype)

    def _over(self, means: Tensor) -> Tensor:
        """From the means over space of every image and channel to those over all that is normalised together."""
        if self.norm == "batch":
            return _held(means.mean(0, keepdim=True))
        if self.norm == "instance":
            return _held(means)
        grouped = means.unflatten(-1, (self.groups, -1))
        return _held(grouped.mean(-1, keepdim=True).expand_as(grouped).flatten(-2))

    def _norm(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x̂ and r."""
        if self.norm == "none":
            return z, z
        centred = z - self._over(_mean(z))
        r = _held(torch.rsqrt(self._over(_mean(centred.square())) + EPS))
        return centred * r, r

    def _norm_dot(self, normed: Tensor, r: Tensor, z_dot: Tensor) -> tuple[Tensor, Tensor]:
        """The derivative of x̂, and s."""
        if self.norm == "none":
            return z_dot, z_dot
        mean = self._over(_mean(z_dot))
        s = self._over(_mean(normed * z_dot))
        return r * (z_dot - mean - normed * s), s

    def _affine(self, normed: Tensor, p: Parameters) -> Tensor:
        return normed if self.norm == "none" else normed * p[1] + p[2]

    def _affine_dot(self, normed: Tensor, normed_dot: Tensor, p: Parameters, pt: Parameters) -> Tensor:
        return normed_dot if self.norm == "none" else normed_dot * p[1] + normed * pt[1] + pt[2]

    def _bias_gradient(self, gz: Tensor) -> Tensor:
        # The norm takes the mean away, and with it the bias, where a channel is normalised alone.
        return gz.sum((0, *SPACE)) if self.norm == "group" else torch.zeros_like(gz[0, 0, 0, 0, 0])

    def _activate(self, n: Tensor) -> Tensor:
        if self.activation == "sigmoid":
            return n.sigmoid()
        return n.relu() if self.activation == "relu" else torch.where(n > 0, n, LEAKY_SLOPE * n)

    def _slope(self, n: Tensor) -> Tensor:
        """σ'(n)."""
        if self.activation == "sigmoid":
            return n.sigmoid() * (1 - n.sigmoid())
        positive = (n > 0).to(n.dtype)
        return positive if self.activation == "relu" else LEAKY_SLOPE + (1 - LEAKY_SLOPE) * positive

    def _pool(self, a: Tensor) -> Tensor:
        return a.amax((2, 4)) if self.pooling == "max" else a.mean((2, 4))

    def _pool_along(self, a: Tensor, dot: Tensor) -> Tensor:
        return (dot * self._share(a)).sum((2, 4))

    def _unpool(self, gx: Tensor, a: Tensor) -> Tensor:
        """The adjoint of the pooling."""
        return gx[:, :, None, :, None, :] * self._share(a)

    def _share(self, a: Tensor) -> Tensor | float:
        """What each pixel of a cell contributes to its pooled value."""
        if self.pooling != "max":
            return 0.25 if self.pooling == "avg" else 1.0
        greatest = (a == a.amax((2, 4), keepdim=True)).to(a.dtype)
        return greatest / greatest.sum((2, 4), keepdim=True)


@dataclass(frozen=True)
class NetworkStage:
    """One stage: x' = φ(W ∘ x; p).

    Args:
        linear: W ∘ x.
        rest: φ.
        names: of W and of the parameters p, as in `named_parameters()`.
    """

    linear: Linear
    rest: Rest
    names: tuple[str, ...]


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _mean(cells: Tensor) -> Tensor:
    """The mean over space of every image and channel."""
    return cells.mean(SPACE, keepdim=True)


def _held(x: Tensor) -> Tensor:
    """The same; compiled, written to memory once, and not computed again for every pixel that it is needed at."""
    return x.as_strided(x.size(), x.stride())

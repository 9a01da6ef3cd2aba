"""What a set stores, and the images that networks see.

    X = D(P)        ∂L/∂P = J_D(P)ᵀ ∂L/∂X

P are N slots, a tensor each, and X the images, of every slot equally many, slot by slot. What is optimised, saved and counted in
bytes is P; students, maps, weights on the gradient, evaluations and people see X. J_Dᵀ is the adjoint of the decoder, so that
whatever is done to ∂L/∂X is carried back with it. Labels belong to images, one each: an image that is decoded from a slot began as
a real one of its own, and a label has few numbers beside it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from limbeck.runtime.errors import require
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.plugins import blamed

Shape = tuple[int, int, int]
FLOAT32 = 4  # bytes
CLOSE = 1e-2  # of the largest value: matrices are multiplied in tf32 where that is asked for


class Parametrisation(ABC):
    """D.

    Example:
        >>> class Mirrored(Parametrisation):
        ...     '''A slot is the left half of an image.'''
        ...     def slot_shape(self, shape):
        ...         return (*shape[:2], shape[2] // 2)
        ...     def encode(self, images):
        ...         return images[..., : images.shape[-1] // 2]
        ...     def decode(self, stored, shape):
        ...         return torch.cat([stored, stored.flip(-1)], -1)
        >>> decoder = Decoder(Mirrored(), (1, 2, 4))
        >>> p = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> decoder(p)
        tensor([[[[1., 2., 2., 1.],
                  [3., 4., 4., 3.]]]])
        >>> decoder.carried(p, torch.ones(1, 1, 2, 4))
        tensor([[[[2., 2.],
                  [2., 2.]]]])
    """

    @property
    def images_per_slot(self) -> int:
        """Images that are decoded from a slot."""
        return 1

    @abstractmethod
    def slot_shape(self, shape: Shape) -> tuple[int, ...]:
        """The shape of a slot of images (C, H, W).

        Raises:
            UsageError: for images that it cannot be made of.
        """

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """P, whose images come close to `images` (M, C, H, W), which lie slot by slot."""

    @abstractmethod
    def decode(self, stored: Tensor, shape: Shape) -> Tensor:
        """X with shape (M, C, H, W), of `stored` (N, …), slots of `slot_shape`; differentiable, and each slot by itself."""


@dataclass(frozen=True)
class Pixels(Parametrisation):
    """X = P.

    Example:
        >>> x = torch.zeros(10, 3, 32, 32)
        >>> Pixels().decode(x, (3, 32, 32)) is x
        True
    """

    def slot_shape(self, shape: Shape) -> tuple[int, ...]:
        return shape

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, stored: Tensor, shape: Shape) -> Tensor:
        return stored


@dataclass(frozen=True)
class Decoder:
    """D for images of one shape.

    Args:
        parametrisation: what is stored.
        shape: (C, H, W) of the images; of pixels it says itself.
    """

    parametrisation: Parametrisation = Pixels()
    shape: Shape = (0, 0, 0)

    @property
    def trivial(self) -> bool:
        """Whether what is stored are the images."""
        return isinstance(self.parametrisation, Pixels)

    @property
    def images_per_slot(self) -> int:
        """Images that are decoded from a slot."""
        return self.parametrisation.images_per_slot

    @cached_property
    def slot_shape(self) -> tuple[int, ...]:
        """The shape of a slot."""
        return self.parametrisation.slot_shape(self.shape)

    def __str__(self) -> str:
        one = self.parametrisation
        return repr(one) if is_dataclass(one) else type(one).__name__

    def __call__(self, stored: Tensor) -> Tensor:
        """X of `stored`."""
        return self.parametrisation.decode(stored, self.shape)

    def carried(self, stored: Tensor, gradient: Tensor) -> Tensor:
        """J_D(P)ᵀ of a gradient by X, at P = `stored`."""
        if self.trivial:
            return gradient
        with torch.enable_grad():
            p = stored.detach().requires_grad_()
            found: Tensor = torch.autograd.grad(self(p), p, gradient)[0]
        return found

    def real_images(self, slots: int) -> int:
        """As many images as take the bytes of so many slots, rounded up."""
        return slots if self.trivial else -(-slots * math.prod(self.slot_shape) // math.prod(self.shape))

    def encoded(self, images: Tensor) -> Tensor:
        """P of `images` (M, C, H, W), slot by slot."""
        return self.parametrisation.encode(images)

    def check(self) -> None:
        """Raise `UsageError` for images that cannot be decoded from anything, or a parametrisation that is none."""
        if self.trivial:
            return
        key, name = "parametrisation.kind", type(self.parametrisation).__name__
        with blamed(key, name, "raised"):
            n, slot = self.images_per_slot, (1, *self.slot_shape)
            stored = self.encoded(torch.zeros(n, *self.shape))
            images = self(stored.detach().requires_grad_())
        found = tuple(stored.shape)
        require(found == slot, key, name, f"one that stores {n} images with shape {slot}, as it says of a slot: it has {found}")
        wanted, found = (n, *self.shape), tuple(images.shape)
        require(found == wanted, key, name, f"one that decodes a slot to images with shape {wanted}: it gives {found}")
        require(images.requires_grad, key, name, "differentiable")

    def problem(self, stored: Tensor) -> str | None:
        """What is wrong with P, or None."""
        wanted = tuple(stored.shape[1:]) if self.trivial else self.slot_shape
        if stored.ndim < 2 or tuple(stored.shape[1:]) != wanted or (self.trivial and stored.ndim != 4):
            return f"what is stored has shape {tuple(stored.shape)}, not (N, {', '.join(map(str, wanted))})"
        return None

    def decoded_shape(self, stored: Tensor) -> tuple[int, ...]:
        """The shape of X."""
        return tuple(stored.shape) if self.trivial else (len(stored) * self.images_per_slot, *self.shape)


@dataclass(frozen=True, eq=False)
class Code:
    """What images are decoded from.

    Args:
        decoder: D.
        stored: P, float32.
    """

    decoder: Decoder
    stored: Tensor

    @property
    def bytes(self) -> int:
        """Of P."""
        return FLOAT32 * self.stored.numel()

    @property
    def fingerprint(self) -> str:
        """The same wherever it is decoded."""
        return fingerprint(str(self.decoder), self.decoder.shape, array_fingerprint(self.stored.cpu().numpy()))

    def images(self) -> Tensor:
        """X."""
        return self.decoder(self.stored)

    def to(self, device: torch.device | str) -> "Code":
        """The same on that device."""
        return replace(self, stored=self.stored.to(device))

    def problem(self, images: Tensor) -> str | None:
        """Why it is not the code of `images`, or None."""
        if (found := self.decoder.problem(self.stored)) is not None:
            return found
        if self.decoder.decoded_shape(self.stored) != tuple(images.shape):
            return f"what is stored decodes to {list(self.decoder.decoded_shape(self.stored))}, not {list(images.shape)}"
        if not bool(self.stored.isfinite().all()):
            return "what is stored must be finite"
        far = (self.images() - images.to(self.stored)).abs().max() > CLOSE * images.abs().max().to(self.stored)
        return "the images are not those that what is stored decodes to" if bool(far) else None

    def __str__(self) -> str:
        count, slots = len(self.stored) * self.decoder.images_per_slot, len(self.stored)
        each = math.prod(self.stored.shape[1:])
        return f"{count} images are decoded from {slots} slots of {each} numbers by {self.decoder}: {self.bytes} bytes"

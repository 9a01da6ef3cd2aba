"""How the images of a set lie in its file: as they are, or as what they are decoded from.

    images                          of pixels, and of a parametrisation of the user's, which no file can say
    stored, "parametrisation"       of the others: P, and what decodes it

so that the file holds the bytes that a set is compared at.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from limbeck.distilled.small_set import SmallSet
from limbeck.parametrisations.parametrisation import Code, Decoder, Shape
from limbeck.parametrisations.registry import from_dict, to_dict
from limbeck.runtime.memory import free_memory

DECODED, STORED = "images", "stored"


def described(small: SmallSet) -> dict[str, Any] | None:
    """What decodes the images, in JSON's types; None where they are stored themselves."""
    return None if small.code is None else to_dict(small.code.decoder.parametrisation)


def tensors_of(small: SmallSet) -> dict[str, Tensor]:
    """What is stored of the images, by its name."""
    if small.code is None or described(small) is None:
        return {DECODED: small.images}
    return {STORED: small.code.stored}


def stored_by(decoder: Decoder, start: SmallSet, held: SmallSet | None = None) -> SmallSet:
    """A start as what its images come closest to that can be stored; of a set that is continued, `held`, just what it stores."""
    if decoder.trivial:
        return start
    code = None if held is None else held.code
    if held is not None and code is not None and code.decoder == decoder and torch.equal(held.images, start.images.to(held.images)):
        return replace(start, code=code.to(start.images.device))
    code = Code(decoder, decoder.encoded(start.images))
    return replace(start, images=code.images(), code=code)


def images_of(
    tensors: Mapping[str, Tensor], shape: list[int], parametrisation: Mapping[str, Any] | None
) -> tuple[Tensor, Code | None]:
    """The images, and what they are decoded from.

    Args:
        tensors: of the file.
        shape: (N, C, H, W) that the images are said to have.
        parametrisation: what decodes them; None where they are stored themselves.

    Raises:
        ValueError, LookupError: for what is no set's.
        MemoryError: where the images need more memory than there is.
    """
    if parametrisation is None:
        return tensors[DECODED], None
    if len(shape) != 4 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(f"its images are said to have shape {shape}")
    sides = sum(side**2 for side in shape[2:])  # of decoders that are matrices
    if 4 * math.prod(shape) + 16 * sides > free_memory(torch.device("cpu")):
        raise MemoryError
    code = Code(Decoder(from_dict(parametrisation), cast(Shape, tuple(shape[1:]))), tensors[STORED])
    if (wrong := code.decoder.problem(code.stored)) is not None:
        raise ValueError(wrong)
    if (found := code.decoder.decoded_shape(code.stored)) != tuple(shape):
        raise ValueError(f"what is stored decodes to {list(found)}, not {shape}")
    return code.images(), code

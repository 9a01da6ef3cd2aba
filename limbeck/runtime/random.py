"""Keyed generators: every random draw comes from a generator made of (seed, stage, iteration, step, …).

Nothing depends on what was drawn before, so a resumed run draws exactly what an uninterrupted one does.
"""

import hashlib

import numpy as np
import torch

Key = str | int


def derived_seed(seed: int, *key: Key) -> int:
    """A 63-bit seed that is a hash of `seed` and the parts of `key`.

    Torch's CPU generator takes the lowest 32 bits of it, so that among a million keys about a hundred pairs draw the same
    numbers: by accident, for unrelated uses, and without harm.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *key: Key) -> torch.Generator:
    """A CPU generator for the draw that `key` names; draws are made on the CPU so that they agree on every device."""
    return torch.Generator().manual_seed(derived_seed(seed, *key))


def numpy_generator(seed: int, *key: Key) -> np.random.Generator:
    """The same for NumPy."""
    return np.random.default_rng(derived_seed(seed, *key))

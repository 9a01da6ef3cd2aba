"""What happens to files: bits that flip, ends that are lost, bytes that come, go or are blank, and files in each other's place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many kinds of damage to some bytes, each with a name, spread over all of them; every result differs from them."""
    draws = np.random.default_rng(seed)
    edges = [0, 1, 7, 8, 9, len(content) - 1, len(content) // 2]
    places = [*edges, *draws.integers(0, len(content), max(0, count - len(edges)))][:count]
    for number, place in enumerate(map(int, places)):
        yield f"bit at {place}", content[:place] + bytes([content[place] ^ 1 << int(draws.integers(8))]) + content[place + 1 :]
        if number % 4 == 0:
            yield f"end at {place}", content[:place]
            yield f"byte into {place}", content[:place] + bytes([int(draws.integers(256))]) + content[place:]
            yield f"byte out of {place}", content[:place] + content[place + 1 :]
            blank = content[:place] + bytes(min(16, len(content) - place)) + content[place + 16 :]
            if blank != content:
                yield f"blank from {place}", blank


def swapped(one: Path, other: Path) -> None:
    """Each file in the other's place."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def open_to_change(file: Path) -> dict[str, Any]:
    """What a file holds without its checksum, as whoever alters it on purpose would have it."""
    return {key: value for key, value in json.loads(file.read_text()).items() if key not in ("limbeck", "checksum")}

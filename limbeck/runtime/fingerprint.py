"""Fingerprints: a short hash of everything that determines a result, so that it can be found again instead of recomputed."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """`value` as JSON types: data classes become objects, tuples lists, NumPy scalars numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def encodable(value: Any) -> Any:
    """`plain(value)` with the numbers that JSON has no word for as the strings `Infinity`, `-Infinity` and `NaN`."""
    value = plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [encodable(item) for item in value]
    return {key: encodable(item) for key, item in value.items()} if isinstance(value, dict) else value


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys."""
    rows: dict[str, Any] = {}
    for key, item in value.items():
        rows |= flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return rows


def fingerprint(*values: Any) -> str:
    """Sixteen hexadecimal digits that identify `values` (data classes, dictionaries, lists, numbers, strings)."""
    text = json.dumps([plain(value) for value in values], sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def array_fingerprint(*arrays: np.ndarray) -> str:
    """The same for the shapes, types and bytes of arrays; a memory-mapped one is read in pieces."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        for start in range(0, len(array), 4096):
            digest.update(np.ascontiguousarray(array[start : start + 4096]).tobytes())
    return digest.hexdigest()[:16]

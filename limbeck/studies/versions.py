"""By what the cells of a grid were measured: versions of limbeck and torch, and the instructions that they computed with.

Cells whose settings are equal are comparable, but those of an earlier version or of another kind of processor need not be what
would be measured now: a difference between two rows may be one between two versions. It is said wherever such cells stand together.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from limbeck.studies.cells import CellRecord


def versions_said(records: Iterable[CellRecord]) -> list[str]:
    """What a reader must know of cells that stand together; empty where all were measured alike.

    Args:
        records: of finished cells. What a file does not say is not counted.

    Example:
        >>> old, new = ({"limbeck": version, "torch": "2.13.0+cpu"} for version in ("0.1.0", "0.2.0"))
        >>> versions_said([CellRecord(environment=old), CellRecord(environment=new), CellRecord(environment=new)])
        ['cells were not all measured alike, which may be what differs: limbeck 0.1.0 in 1, 0.2.0 in 2']
    """
    counted: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in _facts(record.environment or {}).items():
            counted.setdefault(name, Counter())[value] += 1
    said = [
        f"{name} " + ", ".join(f"{value} in {counts[value]}" for value in sorted(counts))
        for name, counts in counted.items()
        if len(counts) > 1
    ]
    return [f"cells were not all measured alike, which may be what differs: {'; '.join(said)}"] if said else []


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """What an environment says of what a figure may depend on."""
    promised = environment.get("determinism") or {}
    held = {
        "limbeck": environment.get("limbeck"),
        "torch": environment.get("torch"),
        "instructions": promised.get("instructions"),
    }
    return {name: str(value) for name, value in held.items() if value is not None}

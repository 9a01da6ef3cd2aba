"""What another grid has measured under equal settings is taken from there: `--reuse`."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from limbeck.runs.identity import NONE, otherwise
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.version import VERSION
from limbeck.studies.cells import CELL, Cell, CellFolder, CellRecord, pads
from limbeck.studies.contents import may_be_taken
from limbeck.studies.images import built_in


def take_over(cells: Sequence[Cell], source: Path, folder: Path) -> dict[str, CellRecord]:
    """Copy what another grid has measured under equal settings.

    `limbeck compare` on scenes:medium and the medium level of `limbeck comp-dd --scenes` ask for the same distillations under other
    names. A cell's file says which settings are not the defaults, and with that what was measured; its name and facts are only the
    grid's.

    Args:
        cells: of this grid.
        source: the folder of another grid, which may still be growing.
        folder: that of this one; cells that are there stay as they are.

    Returns:
        What was taken over, by the cells' names.

    Raises:
        UsageError: when `source` is not the folder of a grid, or a cell cannot be written.
    """
    own = CellFolder(folder)
    try:
        return {cell.name: own.write(cell, found) for cell, found in to_take_over(cells, source, folder).items()}
    except OSError as error:
        raise UsageError(f"output: {str(folder)!r} cannot be written: {error.strerror}") from error


def to_take_over(cells: Sequence[Cell], source: Path, folder: Path) -> dict[Cell, CellRecord]:
    """What `take_over` would copy, by cell; nothing is written.

    Raises:
        UsageError: when `source` is not the folder of a grid.
    """
    if not os.path.isdir(source / "cells"):
        raise UsageError(f"--reuse: {str(source)!r} has no folder cells/, which every grid's has")
    records = (_readable(path) for path in sorted((source / "cells").glob("*.json")))
    held = {fingerprint(record.settings.changed(NONE)): record for record in records if record is not None}
    own, taken = CellFolder(folder), {}
    for cell in cells:
        found = held.get(fingerprint(cell.changed.changed(NONE)))
        if found is None or own.result_file(cell).exists():
            continue
        if otherwise(found.numerics, cell.settings, padded=pads(cell.settings)):
            continue
        if not may_be_taken(found.noted, cell.settings, own.images):
            continue
        if not built_in(cell.settings) and not own.images.are_the_same(found.images, cell.settings):
            continue
        taken[cell] = found
    return taken


def taken_said(records: Mapping[str, CellRecord], place: object) -> str:
    """The sentence on cells, by name, that were taken from a folder: how many, and by which other versions they were measured."""
    counts = Counter((record.environment or {}).get("limbeck") for record in records.values())
    others = {
        f"limbeck {version}" if version else "an unknown version": counts[version] for version in counts if version != VERSION
    }
    said = f"{len(records)} cells taken from {place}"
    if not others:
        return said
    measured = ", ".join(f"{count} measured by {version}" for version, count in sorted(others.items()))
    return f"{said}, {measured}: they may differ from what {VERSION} measures"


def _readable(path: Path) -> CellRecord | None:
    """A cell's file; None where it holds something else."""
    try:
        held = read_json(path, CELL)
        return CellRecord.from_dict(held) if "settings" in held else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None

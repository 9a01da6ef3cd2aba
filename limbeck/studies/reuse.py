"""Finished cells of another grid that are cells of this one: those measured under equal settings.

`limbeck compare` on scenes:medium and the medium level of `limbeck comp-dd --scenes` ask for the same distillations under other
names. A cell's file says which settings are not the defaults, and with that what was measured; its name and facts are only the
grid's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.studies.cells import Cell, CellFolder


def take_over(cells: Sequence[Cell], source: Path, folder: Path) -> list[str]:
    """Copy what was measured elsewhere under equal settings.

    Args:
        cells: of this grid.
        source: the folder of another grid, which may still be growing.
        folder: that of this one; cells that are there stay as they are.

    Returns:
        The names of the cells that were taken over.

    Raises:
        UsageError: when `source` is not the folder of a grid, or a cell cannot be written.
    """
    if not (source / "cells").is_dir():
        raise UsageError(f"--reuse: {str(source)!r} has no folder cells/, which every grid's has")
    held = {fingerprint(found["settings"]): found for path in sorted((source / "cells").glob("*.json")) if (found := _read(path))}
    own, taken = CellFolder(folder), []
    for cell in cells:
        found = held.get(fingerprint(cell.changed))
        if found is None or own.result_file(cell).exists():
            continue
        named = {"name": cell.name, "facts": dict(cell.facts), "recipe": cell.recipe, "overrides": dict(cell.overrides)}
        try:
            write_json(own.result_file(cell), {**found, **named, "fingerprint": fingerprint(cell.changed)})
        except OSError as error:
            raise UsageError(f"output: {str(folder)!r} cannot be written: {error.strerror}") from error
        taken.append(cell.name)
    return taken


def _read(path: Path) -> dict[str, Any] | None:
    """A cell's file; None where it holds something else."""
    try:
        found = read_json(path)
        mean = found["accuracy"]["distilled"]["mean"]
        good = isinstance(found["settings"], dict) and isinstance(mean, (int, float)) and 0 <= mean <= 1
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return dict(found) if good else None

"""What a store of experts holds, in words: what `limbeck experts show` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from limbeck.runtime.disk import in_words
from limbeck.runtime.terminal import console

if TYPE_CHECKING:
    from limbeck.experts.maintain import Description
    from limbeck.experts.notes import Difficulty

MOST_CLASSES = 20  # in a table of difficulties


def print_store(store: "Description") -> None:
    from limbeck.experts.maintain import over_experts

    identity = store.identity
    print(f"network: {identity.get('network')}, {identity['num_parameters']} parameters")
    for name, value in identity.items():
        if name not in ("network", "num_parameters"):
            print(f"{name}: {_flat(value)}")
    for name, value in store.about.items():
        print(f"{name} (not part of its identity): {value}")
    print(f"experts: {store.num_experts}")
    for epochs, count in store.epochs.items():
        print(f"epochs: {epochs} of {count} experts")
    codings = ", ".join(f"{count} in {name}" for name, count in store.codings.items())
    if codings:
        print(f"checkpoints: {codings}; at most {100 * store.step_error:.2g} % of an epoch's step lost")
    share = "" if store.list_share is None else f", {100 * store.list_share:.1f} % of what lists of all epochs take"
    print(f"size: {in_words(store.bytes)}{share}")
    rows = over_experts(list(store.accuracy.values()))
    for epoch, mean, low, high in _spread(rows, 6):
        print(f"accuracy after epoch {epoch}: {100 * mean:.1f} % ({100 * low:.1f} … {100 * high:.1f})")
    for asked in store.wanted:
        last = "" if asked.last is None else f", epoch {asked.last} of {asked.label_experts}"
        state = "complete" if not asked.lacking else f"{asked.lacking} experts lack something"
        print(f"asked for: epochs {asked.epochs} of {asked.num_experts} experts{last}, as {asked.dtype}: {state}")
    for record in store.difficulty:
        _print_difficulty(record)
    if len(store.difficulty) > 1:
        print("warning: the scores were computed anew between two trainings and differ, so that some experts follow others")


def _print_difficulty(record: "Difficulty") -> None:
    """The scores of a curriculum, a line a class; of many classes the easiest and the hardest."""
    from rich.table import Table
    from rich.text import Text

    rows = sorted(record.classes, key=lambda row: row.mean)
    shown = rows if len(rows) <= MOST_CLASSES else rows[: MOST_CLASSES // 2] + rows[-MOST_CLASSES // 2 :]
    after = f"{record.networks} networks after {record.epochs} epochs, fingerprint {record.fingerprint}"
    print(f"difficulty of {record.images} training images: {record.measure}, the mean over {after}")
    table = Table("class", "images", "mean", "least", "quarter", "median", "three quarters", "most")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in shown:
        table.add_row(Text(row.name), str(row.images), *(f"{value:.3g}" for value in (row.mean, *row.quantiles)))
    console().print(table)
    if len(shown) < len(rows):
        print(f"the easiest and the hardest {MOST_CLASSES // 2} of {len(rows)} classes; --json has all")
    for kind in ("easiest", "hardest"):
        print(f"{kind} training images: {', '.join(map(str, getattr(record, kind)))}")


def _spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of them, evenly, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""What a command prints at its end: one JSON object, or a summary for people that fits into 80 columns."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Inside the block everything printed, also by C libraries and child processes, goes to standard error."""
    stream = sys.stdout
    stream.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        # What waits in a buffer would otherwise reach standard output after the block.
        stream.flush()
        _flush_c_streams()
        os.dup2(kept, 1)
        os.close(kept)


def print_json(value: Any) -> None:
    """Print `value` as one JSON object on one line of standard output."""
    import json

    from limbeck.runtime.fingerprint import encodable

    value = encodable(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    print(text)


def print_results(results: Mapping[str, Any]) -> None:
    """Print the accuracies, the recovery ratio, the time of every stage and the paths that `results` holds."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from limbeck.distilled.card import accuracies, protocol_name

    console = Console(highlight=False)
    table = Table("images", "test accuracy", "95 % interval", "networks")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in accuracies(results):
        table.add_row(Text(row.title), row.value, row.bounds, str(row.runs))
    console.print(table)
    if isinstance(results.get("protocol"), Mapping):
        said = f"protocol: {protocol_name(results['protocol'])}, network {results.get('network', '–')}"
        console.print(said, markup=False, emoji=False)
    if results.get("recovery_ratio") is not None:
        console.print(f"recovery ratio: {100 * results['recovery_ratio']:.1f} % of the full data's accuracy")
    if skipped := results.get("skipped_share"):
        reason = "their loss or gradient was not finite, or above outer.max_match_loss"
        console.print(f"warning: {100 * skipped:.1f} % of the iterations changed nothing: {reason}")
    if results.get("best_iteration") == 0:
        console.print("warning: no iteration was better on the validation images than the initial images, which are the result")
    if seconds := results.get("seconds"):
        stages = ", ".join(f"{stage} {duration(spent)}" for stage, spent in seconds.items())
        console.print(f"time: {stages}")
    print_paths(results)


def print_evaluation(results: Mapping[str, Any]) -> None:
    """Print the evaluation of one set, or the table that compares several."""
    from rich.console import Console

    sets = results.get("sets") or [results]
    if len(sets) == 1:
        for note in sets[0].get("notes", ()):
            print(f"note: {note}")
        print_results(sets[0] | {"seconds": results.get("seconds")})
        _print_networks(sets[0])
    else:
        _print_sets(sets)
        _print_comparisons(results["comparisons"])
        Console(highlight=False).print(f"time: {duration(results['seconds']['evaluate'])}")
    for one in sets:
        for name, value in (one.get("further") or {}).items():
            print(f"\n{name}" + (f" of {one['paths']['distilled']}" if len(sets) > 1 else "") + ":")
            _print_tree(value)


def _print_networks(result: Mapping[str, Any]) -> None:
    """The accuracies under every architecture."""
    if not result.get("networks"):
        return
    rows = {result["network"]: result} | dict(result["networks"])
    _print_table(
        ("network", "distilled", "random", "full", "recovery"),
        [(name, *_values(row), _percent(row.get("recovery_ratio"))) for name, row in rows.items()],
    )


def _print_sets(sets: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for number, one in enumerate(sets):
        print(f"{chr(65 + number)}: {one['paths']['distilled']}")
        for note in one.get("notes", ()):
            print(f"   note: {note}")
        for name, row in ({one["network"]: one} | dict(one.get("networks") or {})).items():
            values = (value.removesuffix(" %") for value in _values(row))
            rows.append((chr(65 + number), name, *values, _percent(row.get("recovery_ratio"))))
    _print_table(("", "network", "distilled (%)", "random (%)", "full (%)", "recovery"), rows)


def _print_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> None:
    places = list(dict.fromkeys(place for row in comparisons for place in (row["a"], row["b"])))
    letter = {place: chr(65 + number) for number, place in enumerate(places)}
    rows = []
    for row in comparisons:
        low, high = row["ci95"] or (float("nan"), float("nan"))
        points = f"{100 * row['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        p = "–" if row["p_adjusted"] is None else f"{row['p_adjusted']:.3g}"
        open_ = row["p_adjusted"] is not None and row["p_adjusted"] > 0.05 and row.get("seeds_needed")
        more = row.get("verdict") or (f"{row['seeds_needed']} seeds" if open_ else "")
        rows.append((f"{letter[row['a']]} − {letter[row['b']]}", row["network"], points, p, str(row["n"]), more))
    last = "verdict" if any("verdict" in row for row in comparisons) else "would decide"
    _print_table(("sets", "network", "points, 95 % interval", "p (Holm)", "seeds", last), rows)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def _print_tree(value: Any, indent: int = 2) -> None:
    """Nested results, a line each."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            print(f"{' ' * indent}{key}:")
            _print_tree(item, indent + 2)
        elif not isinstance(item, (list, tuple)) or len(item) <= 4:
            shown = f"{item:.4g}" if isinstance(item, float) else item
            print(f"{' ' * indent}{key}: {shown}")


def _values(row: Mapping[str, Any]) -> tuple[str, str, str]:
    from limbeck.distilled.card import accuracies

    found = {accuracy.name: accuracy.value for accuracy in accuracies(row)}
    return found.get("distilled", "–"), found.get("random", "–"), found.get("full", "–")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def print_lines(found: Any) -> None:
    """Print the tables and sentences of what was found, and the paths of its files."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, markup=False)
    for line in found.lines():
        console.print(line, soft_wrap=isinstance(line, str))
    print_paths({"paths": found.paths})


def print_paths(results: Mapping[str, Any]) -> None:
    """Print the paths that `results` holds, a line each and unbroken."""
    paths: Mapping[str, Any] = results.get("paths", {})
    width = max(map(len, paths), default=0) + 1
    for name, path in paths.items():
        print(f"{name + ':':{width}} {path}")


def duration(seconds: float) -> str:
    """Such as 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _flush_c_streams() -> None:
    """Write what C libraries have printed and their buffers still hold."""
    import ctypes

    with suppress(OSError, TypeError, AttributeError):  # no C library to be found by that name
        ctypes.CDLL(None).fflush(None)

"""What a command prints at its end: one JSON object, or a summary for people that fits into 80 columns."""

import os
import sys
from collections.abc import Iterator, Mapping
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

    from limbeck.distilled.card import accuracies

    console = Console(highlight=False)
    table = Table("images", "test accuracy", "95 % interval", "networks")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in accuracies(results):
        table.add_row(row.title, row.value, row.bounds, str(row.runs))
    console.print(table)
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

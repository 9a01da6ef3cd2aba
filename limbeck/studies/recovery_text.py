"""Tables of accuracies and recovery ratios as text: Markdown, and blocks that fit into a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from limbeck.studies.compare import accuracy_text, difference_text

WHAT = {"accuracy": "accuracy, %", "recovery_ratio": "recovery ratio, %"}
REFERENCES = {"random": "random real images", "full": "full data"}


def markdown(results: Mapping[str, Any]) -> str:
    """`title`, `tables`, `notes`, `failed` and `left` of what `limbeck comp-dd` stores."""
    lines = [f"# {results['title']}", "", *table_lines(results["tables"])]
    lines += [*(f"- {note}" for note in results["notes"]), *([""] if results["notes"] else [])]
    lines += [f"- failed: {name}: {message}" for name, message in results["failed"].items()]
    if results["left"]:
        lines += [f"cells to be run yet ({len(results['left'])}): {', '.join(results['left'])}"]
    return "\n".join(lines).rstrip() + "\n"


def table_lines(tables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The tables and what they decide as lines of Markdown: mean ± half of the 95 % interval over distillation seeds."""
    for table in tables:
        for what, title in WHAT.items():
            head, *rows = rows_of(table, what, table["columns"])
            yield from (f"## {images_text(table['ipc'])}: {title}", "", _line(head), "|---" * len(head) + "|")
            yield from (*map(_line, rows), "")
        if table["verdicts"]:
            yield from (*(f"- {verdict_text(one)}" for one in table["verdicts"]), "")


def rows_of(table: Mapping[str, Any], what: str, columns: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A header, a row for every method and, of accuracies, one for random real images and one for the full data.

    Args:
        table: of `recovery.tabulate`.
        what: `accuracy` or `recovery_ratio`.
        columns: those of the table to show.
    """
    rows = [["method", *(f"{column['category']} {column['level']}" for column in columns)]]
    for row in table["rows"]:
        rows.append([row["method"], *(summary_text((row["cells"].get(one["subset"]) or {}).get(what)) for one in columns)])
    if what == "accuracy":
        for kind, title in REFERENCES.items():
            if any(column[kind] for column in columns):
                rows.append([f"({title})", *(_mean_text(column[kind]) for column in columns)])
    return rows


def blocks(table: Mapping[str, Any], what: str, width: int = 80) -> Iterator[list[list[str]]]:
    """The rows of `rows_of` in pieces of whole categories that are at most `width` wide as a table; a lone category stays whole."""
    chosen: list[Mapping[str, Any]] = []
    for category in dict.fromkeys(column["category"] for column in table["columns"]):
        more = [*chosen, *(column for column in table["columns"] if column["category"] == category)]
        if chosen and _width(rows_of(table, what, more)) > width:
            yield rows_of(table, what, chosen)
            more = more[len(chosen) :]
        chosen = more
    if chosen:
        yield rows_of(table, what, chosen)


def images_text(ipc: int) -> str:
    """Such as `1 image per class`."""
    return f"{ipc} image{'' if ipc == 1 else 's'} per class"


def summary_text(summary: Mapping[str, Any] | None) -> str:
    """Mean ± half of the 95 % interval, in %; a dash for nothing."""
    return "–" if summary is None else accuracy_text(summary)


def verdict_text(one: Mapping[str, Any]) -> str:
    """What was asked of a category and a method, the answer, and the differences it rests on."""
    steps = "; ".join(_step_text(step) for step in one["steps"])
    p = "" if one["p_adjusted"] is None else f", p {one['p_adjusted']:.3g} (Holm)"
    needed = [step["seeds_needed"] for step in one["steps"]]
    end = ""
    # Steps that point both ways are decided by no number of seeds, as long as they do.
    if one["verdict"] == "undecided" and None not in needed and one["p"] < 1:
        end = f"; {max(needed)} seeds would decide"
    return f"{one['category']}, {one['method']}: recovery ratio {' > '.join(one['levels'])}: {one['verdict']}{p} ({steps}){end}"


def _step_text(step: Mapping[str, Any]) -> str:
    n = step["n"] if step["paired"] else "/".join(map(str, step["n"]))
    seeds = f"{n} seed{'' if n == 1 else 's'}{'' if step['paired'] else ' unpaired'}"
    return f"{step['a']} − {step['b']} {difference_text(step)} points, {seeds}"


def _mean_text(summary: Mapping[str, Any] | None) -> str:
    return "–" if summary is None else f"{100 * summary['mean']:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Of a table with a space on either side of every cell and a line between them."""
    return 1 + sum(max(map(len, column)) + 3 for column in zip(*rows, strict=True))

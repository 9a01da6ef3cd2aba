"""`README.md` of a submission: what `submission.json` holds, for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from limbeck.studies.compare import accuracy_text
from limbeck.studies.recovery_text import table_lines


def card(held: Mapping[str, Any]) -> str:
    """The card of a submission, Markdown.

    Args:
        held: what `submission.json` holds.
    """
    lines = [
        f"# {held['benchmark']}: {', '.join(held['methods'])}",
        "",
        "Accuracies are means over distillation seeds, ± half of the 95 % t-interval; the recovery ratio is that of an accuracy to "
        "the full data's. `limbeck comp-dd --check .` reads this folder and makes the tables again from its cells.",
        "",
        *_table(("", ""), _facts(held)),
        *table_lines(held["tables"]),
        *(f"- {note}" for note in held["notes"]),
        *([""] if held["notes"] else []),
        "## Images and experts",
        "",
        *_table(("subset", "images", "experts by seed"), _fingerprints(held)),
        "## Cells",
        "",
        "`submission.json` has the settings of each that are not Limbeck's defaults, and the accuracy of every network.",
        "",
        *_table(("cell", "recipe", "accuracy, %", "full data, %", "seconds"), map(_row, held["cells"])),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _facts(held: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Subsets", ", ".join(part["name"] for part in held["subsets"])
    yield "Images per class", ", ".join(map(str, held["ipcs"]))
    yield "Distillation seeds", ", ".join(map(str, held["seeds"]))
    environments = [one or {} for one in held["environments"]]
    for title, keys in (("Versions", ("limbeck", "python", "torch")), ("Hardware", ("device", "cores"))):
        said = (", ".join(f"{key} {one[key]}" for key in keys if key in one) for one in environments)
        yield title, "; ".join(dict.fromkeys(text for text in said if text)) or "unknown"
    yield "Checksum", str(held["checksum"])


def _fingerprints(held: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for part in held["subsets"]:
        cells = [cell for cell in held["cells"] if cell["facts"]["subset"] == part["name"]]
        experts: dict[int, dict[str, None]] = {}
        for cell in cells:
            if "experts" in cell["fingerprints"]:
                experts.setdefault(cell["facts"]["seed"], {})[cell["fingerprints"]["experts"]] = None
        said = "; ".join(f"{seed}: {' '.join(names)}" for seed, names in experts.items())
        yield part["name"], str(cells[0]["fingerprints"]["data"] or "unknown"), said or "none"


def _row(cell: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy, spent = cell["accuracy"], cell["seconds"] or {}
    return (
        cell["name"],
        cell["recipe"],
        accuracy_text(accuracy["distilled"]),
        f"{100 * accuracy['full']['mean']:.1f}" if "full" in accuracy else "–",
        f"{sum(spent.values()):.0f}",
    )


def _table(head: Sequence[str], rows: Any) -> list[str]:
    lines = [head, *rows]
    shown = [f"| {' | '.join(' '.join(str(cell).split()).replace('|', '¦') for cell in row)} |" for row in lines]
    return [shown[0], "|---" * len(head) + "|", *shown[1:], ""]

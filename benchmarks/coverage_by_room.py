"""Which share of the lines of every room the tests reach, from the data that `make coverage` has left.

    python benchmarks/coverage_by_room.py

Exits with 2 where all of them together lie below `fail_under` (pyproject.toml); rooms below it are named.
"""

import sys
from collections import defaultdict
from pathlib import Path

import coverage

PACKAGE = Path(__file__).parents[1] / "limbeck"


def main() -> int:
    measured = coverage.Coverage()
    measured.load()
    least = float(measured.get_option("report:fail_under") or 0)  # type: ignore[arg-type]
    rooms: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        _, lines, _, missing, _ = measured.analysis2(str(path))
        for room in (parts[0] if len(parts) > 1 else "(top)", "all"):
            rooms[room][0] += len(lines)
            rooms[room][1] += len(lines) - len(missing)
    print("| room | lines | reached |")
    print("|---|---|---|")
    for room, (lines, reached) in rooms.items():
        print(f"| {room} | {lines} | {reached / max(1, lines):.1%} |")
    low = [room for room, (lines, reached) in rooms.items() if 100 * reached < least * lines]
    if low:
        print(f"below {least:g} %: {', '.join(low)}")
    return 2 if "all" in low else 0


if __name__ == "__main__":
    sys.exit(main())

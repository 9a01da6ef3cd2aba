"""Print the table of single runs in `docs/results.md` from the raw results: `python benchmarks/table.py`."""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def cell(summary: dict[str, object]) -> str:
    low, high = summary["ci95"]  # type: ignore[misc]
    return f"{100 * summary['mean']:.1f} ± {100 * summary['std']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"  # type: ignore[operator]


if __name__ == "__main__":
    print("| run | random | initial | **distilled** | full | recovery | skipped |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(RESULTS.glob("*.json")):
        held = json.loads(path.read_text(encoding="utf-8"))
        if "recovery_ratio" not in held:
            continue  # another benchmark's
        accuracy = held["accuracy"]
        columns = [cell(accuracy[name]) for name in ("random", "initial", "distilled", "full")]
        columns[2] = f"**{columns[2]}**"
        ratio, skipped = f"{100 * held['recovery_ratio']:.0f} %", f"{100 * held['skipped_share']:.0f} %"
        print(f"| `{held['recipe']}` | {' | '.join(columns)} | {ratio} | {skipped} |")

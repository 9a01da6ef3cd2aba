"""The tables of docs/complexity.md and its figure, from the raw results of `complexity.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.evaluation.statistics import compare, summarise
from limbeck.runtime.files import read_json

RESULTS = Path(__file__).parent / "results" / "complexity"
LEVELS = ("easy", "medium", "hard")


def table() -> str:
    """Markdown, and the figures beside the results."""
    lines = []
    for network, runs in grouped("scenes").items():
        lines += [f"\nScenes, {network}, {len(runs)} seeds: one network for all levels\n"]
        lines += [
            "| layer, kind, resolution | easy | medium | hard | medium − easy | hard − medium | Pearson | Spearman |",
            "|---" * 8 + "|",
        ]
        lines += [scenes_row(key, [run["one"][key] for run in runs]) for key in runs[0]["one"]]
        lines += [
            "\na network for each level\n",
            "| layer, kind, resolution | easy | medium | hard | Pearson easy | medium | hard |",
        ]
        lines += ["|---" * 7 + "|"]
        for key in runs[0]["own"]:
            levels = [[run["own"][key][level] for run in runs] for level in LEVELS]
            cells = [spread([row["complexity"] for row in rows]) for rows in levels]
            cells += [spread([row["pearson"] for row in rows], 2) for rows in levels]
            lines.append(f"| {key} | {' | '.join(cells)} |")
    for kind in ("photographs", "sides"):
        for network, runs in grouped(kind).items():
            lines += [f"\n{kind}, {network}, {len(runs)} seeds\n"]
            lines += ["| maps | set | mean activation | active area | above the mean | accuracy |", "|---" * 6 + "|"]
            for key in (key for key in runs[0] if key != "network"):
                for name in runs[0][key]:
                    lines.append(photographs_row(key, name, [run[key][name] for run in runs]))
                for what in ("mean_activation", "complexity"):
                    pairs = [[run[key][name][what] for run in runs] for name in ("cifar10", "imagenette")]
                    lines.append(f"| {key} | CIFAR-10 − Imagenette, {what} | {difference(*pairs)} | | | |")
    return "\n".join(lines)


def figure(path: Path) -> None:
    """How mean activation and active share are distributed over the images of each set, under either network of `sides`."""
    from limbeck.figures.style import BLUE, GREEN, INK, ORANGE, TEXT, dress, label, new_axes, png
    from limbeck.runtime.files import write_bytes

    runs = [run for network, found in grouped("sides").items() if network.endswith("64 pixels") for run in found]
    drawn, first = new_axes(8.2, 5.0)
    first.remove()
    sets = {"cifar10": ("CIFAR-10", BLUE), "imagenette": ("Imagenette", ORANGE), "samples": ("ImageNet, one of each class", GREEN)}
    for row, (own, said) in enumerate((("imagenette", "Imagenette"), ("cifar10", "CIFAR-10"))):
        key = f"trained on {own}, gradcam image predicted"
        for column, (what, title) in enumerate(
            {"mean_activation": "mean activation", "complexity": "pixels of activation ≥ 0.5"}.items()
        ):
            axes = drawn.add_subplot(2, 2, 2 * row + column + 1)
            dress(axes)
            for name, (called, colour) in sets.items():
                counts = np.sum([run[key][name]["histograms"][what] for run in runs], 0).reshape(25, 2).sum(1)
                counts = counts[::-1] if what == "complexity" else counts  # the share is 100 − complexity
                legend = called if row == column == 0 else None
                axes.stairs(100 * counts / counts.sum(), np.linspace(0, 100, 26), color=colour, linewidth=1.5, label=legend)
                value = np.mean([run[key][name][what] for run in runs])
                axes.axvline(100 - value if what == "complexity" else value, color=colour, linewidth=1, linestyle=":")
            axes.set_title(f"network trained on {said}", fontsize=TEXT, color=INK, loc="left")
            label(axes, f"{title} (%)", "images (%)" if column == 0 else "")
    write_bytes(path, png(drawn))


def grouped(kind: str) -> dict[str, list[dict[str, Any]]]:
    """The results of every seed, by network."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob(f"{kind}-*.json")):
        run = read_json(path)
        settings = run["settings"]
        name = settings["network"] + ("" if kind == "scenes" else f" at {settings['size']} pixels")
        found.setdefault(name, []).append(run["rows"])
    return found


def scenes_row(key: str, rows: Sequence[dict[str, Any]]) -> str:
    levels = [[row["levels"][level] for row in rows] for level in LEVELS]
    cells = [spread(values) for values in levels] + [difference(levels[1], levels[0]), difference(levels[2], levels[1])]
    cells += [spread([row[name] for row in rows], 2) for name in ("pearson", "spearman")]
    return f"| {key} | {' | '.join(cells)} |"


def photographs_row(key: str, name: str, rows: Sequence[dict[str, Any]]) -> str:
    accuracies = [row["accuracy"] for row in rows]
    cells = [spread([row["mean_activation"] for row in rows]), spread([100 - row["complexity"] for row in rows])]
    cells += [spread([row["area"] for row in rows]), "–" if None in accuracies else spread([100 * value for value in accuracies])]
    return f"| {key} | {name} | {' | '.join(cells)} |"


def spread(values: Sequence[float], places: int = 1) -> str:
    """Mean [95 % interval]."""
    found = summarise([float(value) for value in values])
    ends = found.ci95
    return f"{found.mean:.{places}f}" + ("" if ends is None else f" [{ends[0]:.{places}f}, {ends[1]:.{places}f}]")


def difference(a: Sequence[float], b: Sequence[float]) -> str:
    """Mean [95 % interval] of the seeds' pairs."""
    found = compare(a, b)
    ends = found.ci95
    return f"{found.mean:+.1f}" + ("" if ends is None else f" [{ends[0]:+.1f}, {ends[1]:+.1f}]")

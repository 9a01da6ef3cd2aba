"""Time, memory and error of the ways to the pixel gradient, side by side.

    python benchmarks/engine.py --ipc 1,10,50 --steps 10,20,40,80 --output runs/bench-engine

Every measurement is made in a process of its own, one after another, and written to a file at once, from which the same command
takes it when it is run again. In the output folder:

    cells/<variant>-ipc<n>-T<t>.json      a variant's times, memory and errors
    convolutions/<precision>-batch<B>.json    the times of the convolutions alone
    references/ipc<n>-T<t>.safetensors    the exact gradient, in float64
    probe.json                            from which memory is foretold
    results.json                          all of it, which `engine_table.py` prints as the tables of `docs/performance.md`
    time.png, memory.png, cosine.png      over T
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from engine_cells import VARIANTS, Bench, EngineBenchSettings
from engine_figures import engine_figures
from engine_table import growth, table
from isa import ISA

from limbeck.figures.style import png
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.files import write_bytes, write_json
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.memory import total_memory
from limbeck.runtime.progress import NoProgress, Progress, default_progress

NOTES = (
    "Every cell is a process of its own: one iteration to warm up and compile, then those that are timed.",
    "Threads of compiled variants sleep while they wait, as the command's do; the others' spin first, as torch's do.",
    "`unroll` runs as plain PyTorch does; the others let the C library keep freed memory on a CPU, as Limbeck does.",
    "Memory is the peak of the process on a CPU, PyTorch itself and the compiler included, and the peak of all tensors on CUDA.",
    "Errors are those of the gradient of the images, against a float64 gradient through all steps.",
    "The convolutions alone are those of the gradient that a variant computes: the exact, the truncated or TESLA's; where "
    "steps are kept or unrolled, those of the exact one with every step computed again.",
)


def numbers(text: str) -> tuple[int, ...]:
    """Different whole numbers from 1, joined by commas."""
    found = tuple(int(word) for word in text.split(","))
    if len(set(found)) < len(found) or min(found) < 1:
        raise ValueError
    return found


def instructions(text: str) -> tuple[str, ...]:
    """Different names out of `ISA`, joined by commas."""
    found = tuple(text.split(","))
    if len(set(found)) < len(found) or not set(found) <= set(ISA):
        raise ValueError
    return found


def names(text: str) -> tuple[str, ...]:
    """Different names out of `VARIANTS`, joined by commas."""
    found = tuple(text.split(","))
    if len(set(found)) < len(found) or not set(found) <= set(VARIANTS):
        raise ValueError
    return found


def bench_engine(
    settings: EngineBenchSettings, output: Path, *, fresh: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure, or take what was measured before, and write `results.json`.

    Args:
        settings: what to measure.
        output: the folder to write to.
        fresh: measure again what was measured before; exact gradients are kept.
        progress: where to report.

    Returns:
        `settings`, `environment`, `notes`, `memory_limit_bytes`, `micro_batch` and a list `cells` of objects with:

        - `isa`, `variant`, `ipc`, `steps` (T), `images` (N), `batch` (B) and `way`;
        - `predicted_bytes`, and whether it `fits`: a cell that does not is not run and has none of what follows;
        - `error`, a message, where its process failed: then it has none of what follows either;
        - `seconds` of each timed iteration, `median_seconds`, `min_seconds`, and `compile_seconds`: by how much the first
          iteration of a compiled variant took longer;
        - `peak_bytes`, and `resident_bytes` of the process before the first iteration;
        - `errors`: `relative` and `cosine` of `images`, `labels` and `syn_lr`, or None;
        - `convolution_seconds`, the median of the convolutions alone, and `convolution_flops` a second that they reach;
        - `times_convolutions`, `times_unroll` and `memory_of_unroll`: ratios of medians and of peaks, or None.

    Raises:
        UsageError: for a network, device, variant or folder that cannot be used; nothing is run then.
        Failure: when no cell could be measured.
    """
    benches = [Bench.open(settings, isa, Path(output), fresh) for isa in settings.isa]
    grown = [bench.growth(bench.variants()) for bench in benches]
    first, progress, cells = benches[0], progress or NoProgress(), []
    limit = total_memory(first.device) // 2
    with progress.stage("bench", sum(len(bench.problems()) * len(bench.variants()) for bench in benches)) as stage:
        for problem, ipc in first.problems():
            foretold = [
                {name: bench.predicted(problem, growth[name], name) + resident for name in growth}
                for bench, (growth, resident) in zip(benches, grown, strict=True)
            ]
            reference = first.reference(problem, ipc, 2 * foretold[0]["eager"] <= limit)
            for name in first.variants():
                for bench, bytes_of in zip(benches, foretold, strict=True):
                    if name not in bench.variants():
                        continue
                    about = {"isa": bench.isa, "variant": name, "ipc": ipc, **bench.about(problem, name)}
                    fits = bytes_of[name] <= limit
                    found = bench.cell(problem, ipc, name, reference) if fits else {}
                    cells.append({**about, "predicted_bytes": bytes_of[name], "fits": fits, **found})
                    stage.advance(variant=name, isa=bench.isa, ipc=ipc, T=problem.steps)
    cells = _compared(cells)
    broken = [cell for cell in cells if "error" in cell]
    if broken and not any("seconds" in cell for cell in cells):
        raise Failure(f"no variant could be measured; {broken[0]['variant']}: {broken[0]['error']}")
    results = {
        "settings": {**plain(settings), "variants": first.variants(), "device": str(first.device), "threads": first.threads},
        "environment": first.environment,
        "notes": list(NOTES),
        "memory_limit_bytes": limit,
        "micro_batch": first.micro_batch,
        "cells": cells,
        "paths": {"results": str(first.folder / "results.json")},
    }
    write_json(first.folder / "results.json", results)
    return results


def _compared(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells, each beside the unroll of the same problem."""
    unrolls = {_place(cell): cell for cell in cells if cell["variant"] == "unroll" and "seconds" in cell}
    rows = []
    for cell in cells:
        row, unroll = dict(cell), unrolls.get(_place(cell))
        if "seconds" in cell:
            row["times_unroll"] = unroll and cell["median_seconds"] / unroll["median_seconds"]
            row["memory_of_unroll"] = unroll and cell["peak_bytes"] / unroll["peak_bytes"]
        rows.append(row)
    return rows


def _place(cell: Mapping[str, Any]) -> tuple[str, int, int]:
    return cell["isa"], cell["ipc"], cell["steps"]


def main() -> None:
    """Measure, draw and print what the options say."""
    own = EngineBenchSettings()
    options: dict[str, tuple[Callable[[str], Any], str]] = {
        "network": (str, "the network"),
        "size": (int, "height and width of the images"),
        "classes": (int, "number of classes"),
        "steps": (numbers, "numbers of student steps: T,T,…"),
        "ipc": (numbers, "images per class: N,N,…; above 100 images a step takes 100 of them"),
        "variants": (names, f"out of {','.join(VARIANTS)} (default: all that the device can do)"),
        "device": (str, "auto, cpu, cuda, cuda:1, …"),
        "repeats": (int, "timed iterations, after one that is not"),
        "threads": (int, "of the CPU (default: as torch chooses)"),
        "reference_seconds": (float, "compute no float64 gradient that takes longer: errors stay unknown"),
        "isa": (instructions, f"of the CPU, out of {','.join(ISA)}: all it has, AVX2 at most; both joined measure side by side"),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for one in fields(own):
        kind, text = options[one.name]
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, default=getattr(own, one.name), help=text)
    parser.add_argument("--output", type=Path, default=Path("runs/bench-engine"), help="where results, plots and measurements lie")
    parser.add_argument("--fresh", action="store_true", help="measure again what the folder has")
    given = vars(parser.parse_args())
    output, fresh = given.pop("output"), given.pop("fresh")
    try:
        results = bench_engine(EngineBenchSettings(**given), output, fresh=fresh, progress=default_progress())
    except (UsageError, Failure) as error:
        sys.exit(f"{parser.prog}: {error}")
    for name, figure in engine_figures(results).items():
        write_bytes(output / f"{name}.png", png(figure))
    print("\n".join([*table(results["cells"]), *growth(results["cells"]), *results["notes"], f"results and plots: {output}"]))


if __name__ == "__main__":
    main()

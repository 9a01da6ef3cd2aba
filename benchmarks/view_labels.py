"""What it costs to keep a teacher's labels of views in few bytes: bytes of a view, and accuracy lost against the live teacher.

    python benchmarks/view_labels.py --output benchmarks/results/view-labels.json

RDED's images of `scenes:medium` (the recipe `scenes/rded-ipc1`, at `--ipc` images per class), trained on as `kd-rded` says. All
networks of a seed have the same start and see the same views in the same order; they differ in the labels of these views alone:
what the teacher says at every step, or what was kept of that. The accuracy lost is paired by seed. A finished variant is kept in
the output file and not measured again; to a file of other settings, or of another version of the protocol, nothing is added. Prints
the table of `docs/evaluation.md`.
"""

import argparse
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from isa import add_isa, take_isa

from limbeck.distilled.settings import ViewLabelSettings
from limbeck.distilled.small_set import SmallSet
from limbeck.distilled.view_labels import StoredViews, stored_error
from limbeck.evaluation.evaluator import Evaluator
from limbeck.evaluation.predictions import accuracy
from limbeck.evaluation.protocols import resolve
from limbeck.evaluation.statistics import compare, summarise
from limbeck.recipes import load_recipe
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.identity import effects
from limbeck.runs.record import final_seeds
from limbeck.runs.settings import DistillSettings, flat
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import environment
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.progress import PlainProgress
from limbeck.training.images import TensorImages

LIVE = "live teacher"
FIRST_VERSION = 1  # of the protocol, in files that do not say which
VARIANTS: dict[str, ViewLabelSettings] = {
    "fp32": ViewLabelSettings(dtype="fp32"),
    "bf16": ViewLabelSettings(dtype="bf16"),
    "bf16, top 5": ViewLabelSettings(dtype="bf16", top=5),
    "bf16, top 3": ViewLabelSettings(dtype="bf16", top=3),
    "bf16, top 1": ViewLabelSettings(dtype="bf16", top=1),
}
ERROR_EPOCHS = 10  # evenly spaced, of those whose labels are compared with the teacher's own


def measured(logits: Sequence[torch.Tensor], judge: Evaluator) -> list[float]:
    return [accuracy(found, judge.labels_of("test")) for found in logits]


def errors(views: StoredViews, subset: SmallSet, judge: Evaluator) -> dict[str, float]:
    """Of some epochs together, at the protocol's temperature."""
    epochs = [views.epochs * i // ERROR_EPOCHS for i in range(ERROR_EPOCHS)]
    rows = [stored_error(views, judge.teacher, TensorImages(subset.images), epoch, judge.protocol.temperature) for epoch in epochs]
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in ("kl", "top1_agreement")}
    return {**mean, "kl_max": max(row["kl_max"] for row in rows)}


def variant(name: str, subset: SmallSet, judge: Evaluator, seeds: range, folder: Path) -> dict[str, Any]:
    began, progress = time.perf_counter(), PlainProgress()
    if name == LIVE:
        values = measured(judge.live_logits(subset, seeds, progress=progress), judge)
        return {"accuracy": summarise(values).to_dict(), "seconds": round(time.perf_counter() - began, 1)}
    views = judge.label_views(subset, folder / f"{name}.safetensors", VARIANTS[name], progress)
    labelled = time.perf_counter() - began
    values = measured(judge.logits(dataclasses.replace(subset, views=views), seeds, progress=progress), judge)
    return {
        "accuracy": summarise(values).to_dict(),
        "bytes_per_view": views.bytes_per_view,
        "file_bytes": views.path.stat().st_size,
        "error": errors(views, subset, judge),
        "label_seconds": round(labelled, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(results: dict[str, Any]) -> str:
    live = results["variants"][LIVE]["accuracy"]["values"]
    lines = ["| labels | bytes a label | KL | accuracy | against live, 95 % interval |", "|---|---|---|---|---|"]
    for name, row in results["variants"].items():
        figures = f"{100 * row['accuracy']['mean']:.2f} ± {100 * row['accuracy']['std']:.2f}"
        if name == LIVE:
            lines.append(f"| {name} | | | {figures} | |")
            continue
        lost = compare(row["accuracy"]["values"], live)
        if lost.std == 0 and lost.mean == 0:
            against = "0, the same networks"
        else:
            low, high = lost.ci95 or (math.nan, math.nan)
            against = f"{100 * lost.mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
        lines.append(f"| {name} | {row['bytes_per_view']['labels']:.0f} | {row['error']['kl']:.1e} | {figures} | {against} |")
    return "\n".join(lines)


def others(held: dict[str, Any], settings: DistillSettings) -> list[str]:
    """The keys, of those that are read, with another value than a file of results has; what it lacks had its default."""
    different = [key for key, *_ in FlatSettings(flat(held)).differences(FlatSettings.of(settings))]
    found = effects(different, settings)
    return [key for key in different if found[key] != "none"]


def measure(results: dict[str, Any], settings: DistillSettings, names: list[str], output: Path) -> None:
    """Measure those variants, each of which is in the file when it is finished."""
    workspace, seeds = Workspace(settings, PlainProgress()), results["seeds"]
    judge = workspace.evaluator().decided(settings.ipc)
    with tempfile.TemporaryDirectory() as folder:
        images, classes, _ = workspace.method(workspace, Path(folder))
        labels = torch.zeros(len(images), workspace.data.num_classes, device=images.device)  # a teacher's protocol does not look
        subset = SmallSet(images, labels, classes, settings.outer.syn_lr_init, "logits")
        results |= {"environment": environment(workspace.device), "teacher_accuracy": judge.full(PlainProgress()).values[0]}
        for name in names:
            results["variants"][name] = variant(name, subset, judge, range(seeds[0], seeds[-1] + 1), Path(folder))
            write_json(output, results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("words", nargs="*", help="key=value, for the recipe")
    add_isa(parser)
    arguments = parser.parse_args()
    take_isa(arguments.isa)
    words = dict(word.split("=", 1) for word in arguments.words)
    settings = load_recipe("scenes/rded-ipc1", {"ipc": str(arguments.ipc), "eval.protocol": "kd-rded", **words})
    protocol, seeds = resolve(settings.eval), list(final_seeds(arguments.seeds))
    asked = {"settings": encodable(settings), "seeds": seeds, "version": protocol.version}
    results: dict[str, Any] = read_json(arguments.output) if arguments.output.exists() else {**asked, "variants": {}}
    if keys := others(results["settings"], settings) + ["--seeds"] * (results["seeds"] != seeds):
        sys.exit(f"--output: {arguments.output} was measured with other values of {', '.join(keys)}; name another file")
    missing = [name for name in (LIVE, *VARIANTS) if name not in results["variants"]]
    version = results.get("version", FIRST_VERSION)
    if missing and version != protocol.version:
        said = f"version {version} of {protocol.name} and lacks {', '.join(missing)}"
        sys.exit(f"--output: {arguments.output} was measured with {said}; name another file for version {protocol.version}")
    if missing:
        measure(results, settings, missing, arguments.output)
    draws, said = results["variants"]["bf16"]["bytes_per_view"]["draws"], f"{protocol.name}, version {version}"
    print(table(results))
    print(f"\nOf a view {draws:.1f} bytes more say how it is seen; {settings.ipc} images per class, {said}.")


if __name__ == "__main__":
    main()

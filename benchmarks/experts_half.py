"""What half-width experts change: the displacement they are read as, the pixel gradient, the accuracy in the end.

    python benchmarks/experts_half.py gradient --output benchmarks/results/experts-half/gradient.json
    python benchmarks/experts_half.py accuracy --max-seconds 500

Both take the same trajectories twice: trained once, kept in fp32, and those same parameters encoded again.

`gradient`: for every start epoch t that the schedule can reach, Δ = θ*_{t+M} − θ*_t read from either store, ‖Δ' − Δ‖ / ‖Δ‖, and the
cosine between the pixel gradients ∂L/∂X of the matching loss with either, of the same X, Y, η and draws, by the engine itself. To
compare with: the cosine to the gradient from a θ*_t whose numbers are each one step of single precision off (`rounding`), and to
the gradient of another draw of batches and augmentation from the exact store (`other draw`).

`accuracy`: distillations with either store, paired by their seed, each a file in `benchmarks/results/experts-half/cells/`. What is
there is not run again, and what --max-seconds stops goes on at the next call. To be run from the repository's root: the stores lie
under `runs/experts-half/`, and may be deleted once all cells are there.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from limbeck.accuracy import Accuracy, Comparison
from limbeck.evaluation.statistics import compare, summarise
from limbeck.experts.maintain import describe
from limbeck.experts.store import TrajectoryStore
from limbeck.matching.adjoint import Gradients, InnerLoop
from limbeck.matching.criteria import layers_of
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.steps import draw_steps
from limbeck.recipes import load_recipe, parse_overrides
from limbeck.runs.checks import check
from limbeck.runs.distill import train_experts
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.devices import environment, repeatable
from limbeck.runtime.files import new_folder, write_json
from limbeck.runtime.notices import by_kind
from limbeck.runtime.progress import default_progress
from limbeck.runtime.random import generator
from limbeck.studies.cells import PLACES, Cell, CellRecord
from limbeck.studies.matrix import Running, run_matrix

RECIPE = "scenes/datm-ipc1"
SAME = {"data.source": "scenes:easy", "experts.num_experts": "3"}
# As far as the published ten images per class reach, epochs 0 … 22.
GRADIENT = SAME | {"experts.train_epochs": "24", "schedule.first_max_start_epoch": "5", "schedule.max_start_epoch": "20"}
ACCURACY = SAME | {
    "outer.iterations": "200",
    "schedule.iterations": "150",
    "eval.every": "200",
    "eval.every_seeds": "1",
    "eval.seeds": "3",
    "eval.full_epochs": "1",
}
RESULTS = Path(__file__).parent / "results" / "experts-half"
STORES = Path("runs/experts-half")
EXACT, DTYPES = "fp32", ("fp32", "half")


def encoded(store: TrajectoryStore, path: Path, coding: str) -> TrajectoryStore:
    """The same checkpoints in another coding, in the new folder `path`."""
    identity = {name: value for name, value in store.metadata.items() if name not in ("format", "about")}
    copy = TrajectoryStore(path, identity, store.metadata["about"])
    for expert in store.experts:
        thetas = {epoch: store.read(expert, epoch) for epoch in store.held(expert)}
        copy.write(expert, thetas, store.accuracies(expert), coding)
    return copy


class Rounding:
    """Reads a store with every number moved to the next one of single precision, up or down."""

    def __init__(self, store: TrajectoryStore) -> None:
        self.store = store

    def read(self, expert: int, epoch: int, device: torch.device) -> Tensor:
        theta = self.store.read(expert, epoch)
        up = torch.rand(theta.shape, generator=generator(0, "rounding", expert, epoch)) < 0.5
        return torch.nextafter(theta, torch.where(up, torch.inf, -torch.inf)).to(device)


def gradient(arguments: argparse.Namespace) -> None:
    """Displacements and pixel gradients by start epoch."""
    settings = load_recipe(RECIPE, GRADIENT | parse_overrides(arguments.overrides))
    workspace = Workspace(settings, default_progress())
    check(workspace)
    repeatable(workspace.device)
    exact, ahead, start = workspace.experts, settings.match.expert_epochs, workspace.initial()
    step, adjoint, arrangement = workspace.engine()
    eta = torch.tensor(settings.outer.syn_lr_init, device=workspace.device)
    shape = tuple(start.images.shape)

    def matched(store: TrajectoryStore | Rounding, expert: int, t: int, draw: int = 0) -> Gradients:
        theta, target = (store.read(expert, epoch, workspace.device) for epoch in (t, t + ahead))
        key = t + draw * settings.schedule.max_start_epoch
        draws = draw_steps(shape, settings.match.batch_syn, settings.match.syn_steps, workspace.augmentation, settings.seed, key)
        match, chance = workspace.matching, generator(settings.seed, "criterion", key)
        layers = layers_of(workspace.network.slices)
        loss = MatchingLoss(theta, target, match.criterion, match.distance, layers, chance)
        return adjoint(InnerLoop(step, theta, draws), start.images, start.labels, eta, loss)[0]

    rows: list[dict[str, Any]] = []
    experts = range(settings.experts.num_experts)
    with tempfile.TemporaryDirectory() as scratch:
        stores = {coding: encoded(exact, Path(scratch) / coding, coding) for coding in arguments.codings}
        said = {coding: describe(store) for coding, store in stores.items()}
        with default_progress().stage("gradients", settings.schedule.max_start_epoch, settings.schedule.min_start_epoch) as stage:
            for t in range(settings.schedule.min_start_epoch, settings.schedule.max_start_epoch):
                truth = [matched(exact, expert, t) for expert in experts]
                row: dict[str, Any] = {"t": t, "loss": [float(one.loss) for one in truth]}
                beside = {coding: [matched(store, expert, t) for expert in experts] for coding, store in stores.items()}
                beside["rounding"] = [matched(Rounding(exact), expert, t) for expert in experts]
                beside["other draw"] = [matched(exact, expert, t, 1) for expert in experts]
                for name, own in beside.items():
                    row[name] = _against(own, truth)
                for coding, store in stores.items():
                    row[coding]["displacement_error"] = [_lost(exact, store, expert, t, ahead) for expert in experts]
                rows.append(row)
                stage.advance()
    for coding in arguments.codings:
        print(f"\n{coding}: {said[coding].codings}, at most {100 * said[coding].step_error:.2g} % of an epoch's step lost")
        print("| t | L | displacement error, mean | largest | cosine, mean | least | rounding, mean | least | other draw |")
        print("|---|---|---|---|---|---|---|---|---|")
        for row in rows:
            print(_line(row, coding))
    if arguments.output:
        held = {coding: {key: getattr(said[coding], key) for key in ("codings", "step_error", "bytes")} for coding in stores}
        made = {
            "recipe": RECIPE,
            "settings": FlatSettings.of(settings).changed(without=PLACES),
            "compiled": arrangement.compiled,
            "stores": held,
            "rows": rows,
        }
        write_json(arguments.output, made | {"environment": environment(workspace.device)})


def _against(own: Sequence[Gradients], truth: Sequence[Gradients]) -> dict[str, list[float]]:
    """Cosines and ratios of lengths of pixel gradients, expert by expert."""
    pairs = [(one.images.flatten().double(), other.images.flatten().double()) for one, other in zip(own, truth, strict=True)]
    cosines = [float(cosine_similarity(one, other, dim=0)) for one, other in pairs]
    return {"cosine": cosines, "norm_ratio": [float(one.norm() / other.norm()) for one, other in pairs]}


def _lost(exact: TrajectoryStore, store: TrajectoryStore, expert: int, t: int, ahead: int) -> float:
    """‖Δ' − Δ‖ / ‖Δ‖."""

    def displacement(of: TrajectoryStore) -> Tensor:
        return of.read(expert, t + ahead).double() - of.read(expert, t).double()

    true = displacement(exact)
    return float((displacement(store) - true).norm() / true.norm())


def _line(row: Mapping[str, Any], coding: str) -> str:
    lost, cosines, rounding = row[coding]["displacement_error"], row[coding]["cosine"], row["rounding"]["cosine"]
    columns = [f"{row['t']}", f"{statistics.fmean(row['loss']):.2f}"]
    columns += [f"{100 * statistics.fmean(lost):.3f} %", f"{100 * max(lost):.3f} %"]
    columns += [f"{value:.4f}" for value in (statistics.fmean(cosines), min(cosines), statistics.fmean(rounding), min(rounding))]
    return f"| {' | '.join(columns)} | {statistics.fmean(row['other draw']['cosine']):.3f} |"


def accuracy(arguments: argparse.Namespace) -> None:
    """Distilled accuracy with either store."""
    overrides, deadline = ACCURACY | parse_overrides(arguments.overrides), time.monotonic() + arguments.max_seconds
    cells = {(seed, dtype): _cell(overrides, seed, dtype) for seed in arguments.seeds for dtype in DTYPES}
    folder, progress = arguments.folder, default_progress()
    finished = run_matrix(list(cells.values()), folder, Running(max_seconds=0)).results
    for seed in arguments.seeds:
        if time.monotonic() < deadline and any(cells[seed, dtype].name not in finished for dtype in DTYPES):
            _stores(cells[seed, EXACT], seed)
    ready = [cell for cell in cells.values() if cell.name in finished or Path(cell.overrides["experts.store"]).exists()]
    left = max(0.0, deadline - time.monotonic())
    matrix = run_matrix(ready, folder, Running(jobs=arguments.jobs, max_seconds=left, progress=progress))
    show(matrix.results, cells.values())
    if matrix.failed:
        sys.exit(f"{len(matrix.failed)} of {len(cells)} cells failed: {'; '.join(by_kind(matrix.failed))}")


def _cell(overrides: Mapping[str, str], seed: int, dtype: str) -> Cell:
    own = {"seed": str(seed), "experts.dtype": dtype, "experts.store": str(STORES / f"{dtype}-seed{seed}")}
    given = {**overrides, **own}
    return Cell(f"{dtype}-seed{seed}", RECIPE, given, load_recipe(RECIPE, given), {"dtype": dtype, "seed": seed})


def _stores(cell: Cell, seed: int) -> None:
    """The experts of a seed in fp32, and the same in the other widths."""
    store = train_experts(cell.settings, progress=default_progress())
    for dtype in DTYPES:
        path = STORES / f"{dtype}-seed{seed}"
        if not path.exists():
            with new_folder(path) as folder:
                encoded(store, folder, dtype)


def show(results: Mapping[str, CellRecord], cells: Iterable[Cell]) -> None:
    """Print the accuracies of the pairs that are there, and the interval of their differences."""
    seeds = sorted({cell.facts["seed"] for cell in cells})
    pairs = [seed for seed in seeds if all(f"{dtype}-seed{seed}" in results for dtype in DTYPES)]
    print(f"{len(results)} of {len(seeds) * len(DTYPES)} cells are there, {len(pairs)} pairs")
    if not pairs:
        return
    found = {dtype: [results[f"{dtype}-seed{seed}"].accuracy for seed in pairs] for dtype in DTYPES}
    print("| seed | random | initial | " + " | ".join(DTYPES) + " |\n|---|---|---|---|---|")
    for number, seed in enumerate(pairs):
        columns = [found[EXACT][number][name].mean for name in ("random", "initial")]
        columns += [found[dtype][number].distilled.mean for dtype in DTYPES]
        print(f"| {seed} | {' | '.join(f'{100 * value:.1f}' for value in columns)} |")
    means = {dtype: [one.distilled.mean for one in found[dtype]] for dtype in DTYPES}
    means["random"] = [one.random.mean for one in found[EXACT]]
    for name, values in means.items():
        print(f"{name}: {_interval(summarise(values))}")
    print(f"half − fp32: {_interval(compare(means['half'], means['fp32']))} points")


def _interval(found: Accuracy | Comparison) -> str:
    low, high = found.ci95 or (float("nan"), float("nan"))
    return f"{100 * found.mean:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("gradient", help="displacements and pixel gradients by start epoch")
    one.add_argument("--codings", nargs="+", choices=("half", "fp16"), default=["half"])
    one.add_argument("--output", type=Path)
    one.set_defaults(run=gradient)
    other = parts.add_parser("accuracy", help="distilled accuracy, paired by seed")
    other.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    other.add_argument("--jobs", type=int, default=1)
    other.add_argument("--max-seconds", type=float, default=float("inf"))
    other.add_argument("--folder", type=Path, default=RESULTS)
    other.set_defaults(run=accuracy)
    for part in (one, other):
        part.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="settings that replace the case's")
    arguments = parser.parse_args()
    arguments.run(arguments)

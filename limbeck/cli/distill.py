"""`limbeck distill`: experts (trained or reused) → distil → evaluate → report.

`limbeck plan` foretells its time, memory and disk.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli.command import Command, add_baselines, add_recipe_arguments, overrides_from
from limbeck.runtime.errors import Failure, require
from limbeck.runtime.tables import duration
from limbeck.runtime.terminal import console

if TYPE_CHECKING:
    from limbeck.experts.estimate import Estimate, Forecast
    from limbeck.runs.plan import Plan
    from limbeck.runs.results import RunResult
    from limbeck.runs.scaling import Scaling, World
    from limbeck.runs.settings import DistillSettings


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--output", metavar="DIR", help="the run folder (default: runs/RECIPE), or s3://…; the same as output=DIR")
    add_baselines(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder; where there is none, one begins")


def run(arguments: Namespace) -> "RunResult":
    from limbeck.recipes import remarks

    overrides = overrides_from(arguments, output=arguments.output)
    settings = _settings(arguments.recipe, overrides, arguments.trust)
    output = settings.output or str(default_output(arguments.recipe))

    from limbeck.report.html import write_report
    from limbeck.runs.distill import distill
    from limbeck.runs.folder import begun_by_this_job
    from limbeck.runtime.progress import NoProgress, default_progress
    from limbeck.runtime.published import folder_of, working
    from limbeck.runtime.ranks import joined

    with ExitStack() as kept:
        with joined() as ranks:
            progress = default_progress() if ranks.first else NoProgress()
            for remark in remarks(arguments.recipe, overrides, settings):
                progress.say(remark)
            resume = arguments.resume or begun_by_this_job(folder_of("output", output))
            work = kept.enter_context(working("output", output, resume=resume, ranks=ranks))
            calls = [work.publish] if work.published else []
            result = distill(settings, work.folder, resume=resume, progress=progress, recipe=arguments.recipe, callbacks=calls)
        if not ranks.first:
            return result
        try:
            report = write_report(work.folder)
        except Exception as error:
            said = f"the report could not be written ({error}); the distilled set and its results are in {output}"
            raise Failure(said) from error
    paths = {**result.paths, "report": str(report)}
    return result.at(**{name: work.named(path) for name, path in paths.items()})


def _settings(recipe: str, overrides: Mapping[str, str], trust: bool) -> "DistillSettings":
    """Those of the recipe, if this machine is one for them."""
    from limbeck.recipes import load_recipe

    settings = load_recipe(recipe, overrides, trust=trust)
    if settings.engine.precision == "bf16" and "engine.precision" not in overrides:
        from limbeck.matching.engine import check_recipe

        check_recipe(recipe, settings.engine)
    return settings


def default_output(recipe: str) -> Path:
    """`runs/` and the recipe's name, its folders joined by dashes; of a user's own file its stem."""
    path = Path(recipe)
    return Path("runs") / (path.stem if path.suffix in (".yaml", ".yml") else recipe.replace("/", "-"))


COMMAND = Command(
    help="distil a data set after a recipe, evaluate the result and write a report",
    add_arguments=add_arguments,
    run=run,
    show=print,
    resume=("--resume",),
    keys={"recipe": "RECIPE"},
    examples={
        "limbeck distill scenes": "the built-in images, in a few minutes",
        "limbeck distill scenes ipc=10 --output runs/ten": "with another setting, into another folder",
        "limbeck distill scenes --data photos/": "images of your own: photos/train/CLASS/*.jpg and photos/test/CLASS/*.jpg",
        "limbeck distill scenes method=datm --resume": "another method; go on with a run that was stopped",
    },
)


OF_WORLD = ("devices", "nodes", "link", "bandwidth", "latency", "cores")


@dataclass(frozen=True)
class Planned:
    """A recipe, and what it will take."""

    recipe: str
    plan: "Plan"

    def __json__(self) -> Any:
        return {"recipe": self.recipe, "stage": "distil", **self.plan.to_dict()}


def add_plan_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--device", help="the same as engine.device=DEVICE; for cuda without one, memory is computed")
    several = parser.add_argument_group("several devices")
    several.add_argument("--devices", metavar="N", type=int, help="of a node: one run over them all (torchrun), a process each")
    several.add_argument("--nodes", metavar="M", type=int, help="that have so many devices each (default: 1)")
    link = "what is between processes, or between nodes where there are several: nvlink, pcie, 100gbe, 10gbe, loopback"
    several.add_argument("--link", metavar="NAME", help=link)
    several.add_argument("--bandwidth", metavar="GB/S", type=float, help="of it, instead of what is assumed")
    several.add_argument("--latency", metavar="MICROSECONDS", type=float, help="of it, instead of what is assumed")
    several.add_argument("--cores", metavar="N", type=int, help="of a node, which processes on the CPU share (default: those here)")


def plan(arguments: Namespace) -> Planned:
    world = _world(arguments)
    settings = _settings(arguments.recipe, overrides_from(arguments, **{"engine.device": arguments.device}), arguments.trust)

    from limbeck.runs import plan as planning
    from limbeck.runtime.progress import default_progress

    return Planned(arguments.recipe, planning.plan(settings, progress=default_progress(), world=world))


def _world(arguments: Namespace) -> "World | None":
    """The devices that the options name, if they do."""
    given = {name: value for name in OF_WORLD if (value := getattr(arguments, name)) is not None}
    if not given:
        return None
    require("devices" in given, f"--{next(iter(given))}", next(iter(given.values())), "of use without --devices N")

    from limbeck.runs.scaling import World

    return World(**given)


def show_plan(found: Planned) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    plan, out = found.plan, console()
    table = Table(Column(Text("stage distil of " + found.recipe)), "predicted")
    table.columns[1].justify = "right"
    for name, seconds in plan.parts.items():
        table.add_row(name, duration(seconds))
    if plan.seconds is not None and plan.seconds_per_iteration is not None:
        table.add_row("in all", duration(plan.seconds), style="bold")
    if plan.experts:
        table.add_row("the experts' stage before it", duration(plan.experts[0].seconds))
    if plan.seconds_per_iteration is not None:
        table.add_row("an iteration", f"{1000 * plan.seconds_per_iteration:.0f} ms")
    table.add_row("peak memory", f"{plan.peak_memory / 2**20:.0f} MiB")
    out.print(table)
    if engine := plan.engine:
        form = "compiled" if engine.compiled else "not compiled"
        out.print(f"engine: {form}, on {plan.device}, {engine.micro_batch or 'all'} images at a time, {engine.kept} steps kept")
    if plan.experts:
        forecast, estimate = plan.experts
        told = f"{estimate.disk / 2**20:.0f} MiB on disk in all ({100 * estimate.share:.0f} % of lists of all epochs)"
        out.print(f"experts: {_missing(forecast, estimate)}; {told}")
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in forecast.parts.items() if seconds >= 0.05)
        if stages:
            out.print(f"experts' stage: {stages}")
    for sentence in plan.notes:
        out.print(f"note: {sentence}", markup=False, emoji=False)
    for sentence in plan.advice:
        out.print(f"advice: {sentence}", markup=False, emoji=False)
    out.print("initial labels and the final evaluation come on top")
    if plan.scaling:
        _show_scaling(plan.scaling)


def _show_scaling(found: "Scaling") -> None:
    """A row for every number of devices, and what they rest on."""
    from limbeck.runs.scaling import useful_sentence
    from limbeck.runtime.tables import Grid

    times, needs = [], []
    for row in found.rows:
        place = (str(row.devices), str(row.nodes))
        if row.seconds is not None and row.seconds_per_iteration is not None:
            iteration, share = duration(row.seconds_per_iteration), f"{100 * (row.share or 0):.0f} %"
            times.append((*place, iteration, duration(row.seconds), f"{row.speed_up:.2f}", f"{100 * (row.efficiency or 0):.0f} %"))
        else:
            share = "–"
        sharded = "–" if row.memory_sharded is None else f"{row.memory_sharded / 2**20:.0f} MiB"
        sent, whole = (f"{row.sent / 1e6:.1f} MB", f"{1000 * row.talk:.1f} ms", share), f"{row.memory / 2**20:.0f} MiB"
        needs.append((*place, *sent, whole, sharded))
    out = console()
    if times:
        of_times = ("devices", "nodes", "iteration", "in all", "speed-up", "efficiency")
        out.print(Grid(of_times, tuple(times), left=0, title="one run over several devices, predicted"))
    head = ("devices", "nodes", "sent", "takes", "share", "memory", "X in shards")
    out.print(Grid(head, tuple(needs), left=0, title="what a device sends in an iteration, and holds"))
    held = "in shards" if found.sharded else "whole on every device"
    for sentence in (
        useful_sentence(found),
        f"time and bytes are those of X {held}",
        *(f"assumed: {one}" for one in found.assumptions),
    ):
        out.print(sentence, markup=False, emoji=False)


def _missing(forecast: "Forecast", estimate: "Estimate") -> str:
    """What is to be trained."""
    if not estimate.missing_experts:
        return "nothing is missing"
    beside = f", {forecast.at_once} at a time" if forecast.at_once > 1 else ""
    more = f"{estimate.to_write / 2**20:.0f} MiB to write"
    return f"{estimate.epochs} epochs of {estimate.missing_experts} are missing{beside}, {more}"


PLAN = Command(
    help="predict time, memory and disk of a recipe's experts and distillation, from a short calibration",
    add_arguments=add_plan_arguments,
    run=plan,
    show=show_plan,
    keys={"recipe": "RECIPE"},
    examples={
        "limbeck plan scenes ipc=10": "how long it would take here",
        "limbeck plan imagenette/edf-ipc1 --device cuda": "the memory of a GPU, also where there is none",
        "limbeck plan scenes --devices 8 --nodes 2 --link 100gbe": "over several machines",
    },
)

"""`limbeck bench`: measure Limbeck itself on this machine."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.cli.command import Command
from limbeck.cli.output import print_paths
from limbeck.runtime.errors import Failure, UsageError

COLUMNS = ("T", "variant", "time", "of\nunroll", "of\nconv.", "memory", "of\nunroll", "error", "cosine")


def add_arguments(parser: ArgumentParser) -> None:
    from limbeck.studies.settings import VARIANTS, EngineBenchSettings

    own = EngineBenchSettings()
    names = ",".join(VARIANTS)
    options = (
        ("--network", "NAME", own.network, "the network"),
        ("--size", "PIXELS", own.size, "height and width of the images"),
        ("--classes", "K", own.classes, "number of classes"),
        ("--steps", "T,T,…", _joined(own.steps), "numbers of student steps"),
        ("--ipc", "N,N,…", _joined(own.ipc), "images per class; above 100 images a step takes 100 of them"),
        ("--variants", "NAME,…", None, f"out of {names} (default: all that the device can do)"),
        ("--device", "NAME", own.device, "auto, cpu, cuda, cuda:1, …"),
        ("--repeats", "COUNT", own.repeats, "timed iterations, after one that is not"),
        ("--threads", "COUNT", None, "of the CPU (default: as torch chooses)"),
        ("--reference-seconds", "S", own.reference_seconds, "compute no float64 gradient that takes longer: errors stay unknown"),
        ("--output", "FOLDER", "runs/bench-engine", "where results, plots and finished measurements lie"),
    )
    parser.add_argument("what", metavar="WHAT", help="engine: time, memory and error of the ways to the pixel gradient")
    for name, placeholder, default, text in options:
        shown = text if default is None else f"{text} (default: {default})"
        parser.add_argument(name, metavar=placeholder, default=None if default is None else str(default), help=shown)
    parser.add_argument("--fresh", action="store_true", help="measure again what the folder has")


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.runtime.errors import require
    from limbeck.studies.settings import EngineBenchSettings

    require(arguments.what == "engine", "WHAT", arguments.what, "engine")
    settings = EngineBenchSettings(
        network=arguments.network,
        size=_whole("--size", arguments.size),
        classes=_whole("--classes", arguments.classes),
        steps=tuple(_whole("--steps", word) for word in arguments.steps.split(",")),
        ipc=tuple(_whole("--ipc", word) for word in arguments.ipc.split(",")),
        variants=None if arguments.variants is None else tuple(arguments.variants.split(",")),
        device=arguments.device,
        repeats=_whole("--repeats", arguments.repeats),
        threads=None if arguments.threads is None else _whole("--threads", arguments.threads),
        reference_seconds=_seconds("--reference-seconds", arguments.reference_seconds),
    )
    output = Path(arguments.output)

    from limbeck.runtime.progress import default_progress
    from limbeck.studies.engine_bench import bench_engine

    results = bench_engine(settings, output, fresh=arguments.fresh, progress=default_progress())
    try:
        drawn = _draw(results, output)
    except Exception as error:
        raise Failure(f"the plots could not be drawn ({error}); the results are in {results['paths']['results']}") from error
    return {**results, "paths": {**results["paths"], **drawn}}


def show(results: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    cells: Sequence[Mapping[str, Any]] = results["cells"]
    for ipc in dict.fromkeys(cell["ipc"] for cell in cells):
        held = [cell for cell in cells if cell["ipc"] == ipc]
        console.print(_table(held))
        for cell in held:
            if reason := _reason(cell):
                print(f"T = {cell['steps']}, {cell['variant']}: {reason}")
        for precision, flops in _speeds(held).items():
            print(f"{precision} convolutions alone reach {flops / 1e9:.0f} GFLOP/s")
        print()
    console.print("time: median (least); of unroll, of conv.: ratios to plain unrolling and to the convolutions alone")
    for note in results["notes"]:
        console.print(note, markup=False, emoji=False)
    print_paths(results)


def _table(cells: Sequence[Mapping[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    first = cells[0]
    part = "" if first["batch"] == first["images"] else f", {first['batch']} of them a step"
    images = "image" if first["ipc"] == 1 else "images"
    title = f"{first['ipc']} {images} per class: {first['images']} in all{part}"
    table = Table(*COLUMNS, title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    for number, cell in enumerate(cells):
        last = number + 1 == len(cells) or cells[number + 1]["steps"] != cell["steps"]
        table.add_row(*_row(cell), end_section=last)
    return table


def _row(cell: Mapping[str, Any]) -> list[str]:
    start = [str(cell["steps"]), cell["variant"]]
    if "seconds" not in cell:
        return [*start, "failed" if "error" in cell else "does not fit", *[""] * 6]
    images = (cell["errors"] or {}).get("images", {})
    return [
        *start,
        _times(cell["median_seconds"], cell["min_seconds"]),
        _number(cell["times_unroll"], ".2f"),
        _number(cell["times_convolutions"], ".2f"),
        _size(cell["peak_bytes"]),
        _number(cell["memory_of_unroll"], ".2f"),
        _number(images.get("relative"), ".0e"),
        _number(images.get("cosine"), ".4f"),
    ]


def _reason(cell: Mapping[str, Any]) -> str | None:
    """Why a cell has no figures."""
    if not cell["fits"]:
        return f"does not fit (predicted {_size(cell['predicted_bytes'])})"
    return f"failed: {cell['error']}" if "error" in cell else None


def _speeds(cells: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Floating-point operations a second that the convolutions alone reach, by precision: at the most steps measured."""
    return {cell["way"]["precision"]: cell["convolution_flops"] for cell in cells if "seconds" in cell and _whole_product(cell)}


def _whole_product(cell: Mapping[str, Any]) -> bool:
    return cell["way"]["kind"] in ("exact", "unroll")


def _draw(results: Mapping[str, Any], output: Path) -> dict[str, str]:
    """Write the plots; their paths by name."""
    from limbeck.figures.engine import engine_figures, png
    from limbeck.runtime.files import write_bytes

    paths = {}
    for name, figure in engine_figures(results).items():
        write_bytes(output / f"{name}.png", png(figure))
        paths[f"{name} plot"] = str(output / f"{name}.png")
    return paths


def _whole(option: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"{option}: {word!r} is not a whole number") from None


def _seconds(option: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise UsageError(f"{option}: {word!r} is not a number of seconds") from None


def _joined(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, (int, float)) else "–"


def _times(median: float, least: float) -> str:
    unit, scale = ("s", 1) if median >= 1 else ("ms", 1000)
    return f"{scale * median:.3g} ({scale * least:.3g}) {unit}"


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


COMMAND = Command(
    help="measure time, memory and error of the ways to the pixel gradient here",
    add_arguments=add_arguments,
    run=run,
    show=show,
    resume=(),  # what was measured is taken from the folder
)

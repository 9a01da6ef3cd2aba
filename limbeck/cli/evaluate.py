"""`limbeck evaluate`: train fresh networks on a distilled set, on as many random real images, and on the full data."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from limbeck.cli.command import Command, add_overrides, overrides_from
from limbeck.cli.output import print_results
from limbeck.runtime.errors import UsageError

CHANGEABLE = ("eval.", "engine.", "network", "data.source", "data.workers")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a distilled set, or the run folder that holds one")
    parser.add_argument("--data", metavar="SOURCE", help="where its data set is now; the same as data.source=SOURCE")
    add_overrides(parser, "settings that replace those it was distilled under, such as eval.seeds=10: eval.*, engine.*, network")


def run(arguments: Namespace) -> dict[str, Any]:
    from limbeck.recipes import key_types

    overrides = overrides_from(arguments)
    for key in overrides:
        if key in key_types() and not key.startswith(CHANGEABLE):
            raise UsageError(f"{key}: is settled by the distilled set; an evaluation takes eval.*, engine.*, network")

    from limbeck.distilled.set import DistilledSet
    from limbeck.methods.run import evaluate
    from limbeck.recipes import settings_from_plain
    from limbeck.runtime.progress import default_progress

    path = distilled_folder(Path(arguments.path))
    stored = DistilledSet.load(path).metadata.get("settings")
    settings = settings_from_plain(stored, overrides, origin=f"the settings of {path}")
    results: dict[str, Any] = evaluate(path, settings, progress=default_progress())
    return results


def distilled_folder(path: Path) -> Path:
    """`path`, or the distilled set in it when `path` is a run folder.

    Raises:
        UsageError: when `path` is the folder of a run that has not come to its end.
    """
    if (path / "distilled").is_dir():
        return path / "distilled"
    if (path / "state.json").exists():
        raise UsageError(f"path: {str(path)!r} is a run that has not ended; finish it with `limbeck distill … --resume`")
    return path


COMMAND = Command(
    help="train fresh networks on a distilled set and measure them on the test images",
    add_arguments=add_arguments,
    run=run,
    show=print_results,
)

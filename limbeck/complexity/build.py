"""A benchmark of easy and hard classes: of every category those of lowest and those of highest complexity.

A folder with `benchmark.json`, which says where the images are and which classes are in which subset, and a card. It holds no
image: `benchmark:FOLDER:NAME` is the source itself, with the classes of the subset, in the source's order.

K. Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios", 2024, arXiv:2410.17193, have
ten of each in categories of at least twenty.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.complexity.run import Complexity
from limbeck.complexity.settings import BuildSettings
from limbeck.data.benchmarks import FORMAT, PREFIX, RECORD
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import write_json, write_text
from limbeck.runtime.fingerprint import fingerprint

LEVELS = ("easy", "hard")
BUILT_IN = ("scenes", "imagenet")  # sources that a folder of the same name does not stand in for


def build_benchmark(
    found: Complexity, groups: Mapping[str, Sequence[int]], source: DataSettings, output: Path, settings: BuildSettings
) -> dict[str, Any]:
    """Choose the subsets and write the folder; what `benchmark.json` holds.

    Args:
        found: complexities of all classes.
        groups: the classes of every category, by its name.
        source: the settings that the images were loaded with.
        output: the folder; its `benchmark.json` and `README.md` are replaced.
        settings: see there.

    Raises:
        UsageError: when no category has enough classes with a complexity, or a name cannot be part of a source's name.
    """
    names = found.measurement.pictures.class_names
    values = found.measurement.classes(found.images)[:, 0]
    needed = max(settings.least, 2 * settings.classes_per_subset)
    kept: dict[str, list[int]] = {}
    small: dict[str, list[int]] = {}
    for name, members in groups.items():
        good = name == name.strip() != "" and not set(name) & set(":/\\\n")
        require(good, "--categories", name, "a name without colons and slashes")
        usable = [k for k in members if np.isfinite(values[k])]
        (kept if len(usable) >= needed else small)[name] = usable
    if not kept:
        sizes = ", ".join(f"{name} has {len(members)}" for name, members in small.items())
        raise UsageError(
            f"--categories: none has the {needed} classes that are needed ({sizes}); --least and --classes-per-subset change that"
        )
    subsets = {}
    for name, members in kept.items():
        for level, classes in zip(LEVELS, split(values, members, settings.classes_per_subset), strict=True):
            subsets[f"{name}-{level}"] = {
                "category": name,
                "level": level,
                "complexity": float(values[classes].mean()),
                "classes": [_entry(k, names, values) for k in classes],
            }
    record = {
        "format": FORMAT,
        "source": _absolute(source),
        "data": found.results["data"],
        "measured": {key: found.results[key] for key in ("network", "settings", "images", "reliability", "environment")},
        "build": settings,
        "categories": {name: [_entry(k, names, values) for k in members] for name, members in kept.items()},
        "left_out": {name: len(members) for name, members in small.items()},
        "subsets": subsets,
        "fingerprint": fingerprint(found.results["data"]["fingerprint"], subsets),
    }
    write_json(output / RECORD, record)
    write_text(output / "README.md", card(record, output))
    return record


def split(values: np.ndarray, members: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """The `count` members of lowest and those of highest value, each ascending; of equal values the first is the lower."""
    order = sorted(members, key=lambda k: (values[k], k))
    return sorted(order[:count]), sorted(order[-count:])


def card(record: Mapping[str, Any], output: Path) -> str:
    """What the folder says about itself, Markdown."""
    source, measured, settings = record["source"], record["measured"], record["measured"]["settings"]
    rows = [
        f"| `{name}` | {subset['complexity']:.1f} % | {', '.join(_cell(entry['name']) for entry in subset['classes'])} |"
        for name, subset in record["subsets"].items()
    ]
    left = ", ".join(f"{name} ({count})" for name, count in record["left_out"].items())
    reliability = measured["reliability"]
    trust = "–" if reliability is None else f"{reliability:.2f}"
    first = next(iter(record["subsets"]))
    parts = [
        f"# Easy and hard classes of {Path(source.source).name or source.source}",
        f"Of each of {len(record['categories'])} categories the {record['build'].classes_per_subset} classes of lowest and of "
        "highest complexity: the share of an image, in percent, that does not speak for its class.",
        f"```\nlimbeck distill RECIPE --data {shlex.quote(f'{PREFIX}{output.expanduser().absolute()}:{first}')}\n```",
        "| subset | complexity | classes |\n|---|---|---|\n" + "\n".join(rows),
        f"Measured on {measured['images']} images with {measured['network']['name']} ({settings.cam}, layer "
        f"{'+'.join(measured['network']['layers'])}, {settings.classes} class, activation of at least {settings.thresholds[0]:g} "
        f"at the resolution of the {settings.maps}). Correlation of the classes' complexities to be expected of as many other "
        f"images: {trust}.",
        *([f"Categories that are too small: {left}."] if left else []),
        f"The images stay where they are, at `{source.source}`; `benchmark.json` holds all settings. "
        f"Fingerprints: data {record['data']['fingerprint']}, benchmark {record['fingerprint']}.",
        "After Wang et al., [arXiv:2410.17193](https://arxiv.org/abs/2410.17193).",
    ]
    return "\n\n".join(parts) + "\n"


def _entry(k: int, names: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    return {"index": int(k), "name": names[k], "complexity": float(values[k])}


def _cell(name: str) -> str:
    """A name as it can stand in a table of Markdown."""
    return " ".join(name.split()).replace("|", "\\|")


def _absolute(source: DataSettings) -> DataSettings:
    """The same wherever it is read from."""
    if source.source.startswith(PREFIX):
        folder, _, name = source.source.removeprefix(PREFIX).rpartition(":")
        named = f"{PREFIX}{Path(folder).expanduser().absolute()}:{name}"
    else:
        named = source.source if source.source.partition(":")[0] in BUILT_IN else _place(source.source)
    return replace(source, source=named, root=None if source.root is None else _place(source.root))


def _place(named: str) -> str:
    """A path made absolute, also behind `hf:`; a name on the Hub as it is."""
    prefix = "hf:" if named.startswith("hf:") else ""
    place = Path(named.removeprefix(prefix)).expanduser()
    return f"{prefix}{place.absolute()}" if place.exists() or not prefix else named

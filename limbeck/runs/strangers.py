"""What settings may ask for that somebody else may have written, in a set's metadata or a recipe's file, and nobody typed here.

    a recipe's file     no code: `package.module:Name` runs where it is typed, or with --trust
    a set's metadata    nor a protocol's file, nothing on the Hub, and no more work than `MOST` says

Both may name images in a folder of this machine: these are looked at, and nothing is done to them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.runs.settings import key_types
from limbeck.runtime.checked import named_by
from limbeck.runtime.plugins import NAMED, is_code, is_foreign
from limbeck.runtime.urls import is_url
from limbeck.tracking.settings import names_of

SOURCES = ("scenes", "imagenet", "hf", "benchmark")  # whose names have a colon, and are no code
NETWORKS = ("network", "eval.networks", "eval.teacher", "rded.teacher", "sre2l.teacher")  # names, joined by commas
WIDEST, SEVERAL = 1024, 20
# Ten times what anybody has published, or more.
MOST = {
    "eval.epochs": 10_000,
    "eval.full_epochs": 10_000,
    "eval.seeds": 100,
    "eval.full_seeds": 100,
    "eval.batch_size": 2**20,
    "eval.full_batch_size": 2**20,
    "data.size": 1024,
    "data.workers": 1024,
}


def code_in(keys: Mapping[str, Any]) -> dict[str, str]:
    """The keys whose values name code, with the first such name of each."""
    kinds = key_types()
    found = {}
    for key, value in keys.items():
        names: Sequence[str] = []
        if key == "track" and isinstance(value, (str, list, tuple)):
            names = names_of(value)
        elif isinstance(value, str) and key in kinds and (key in NETWORKS or named_by(kinds[key])):
            names = [name.strip() for name in value.split(",")] if key in NETWORKS else [value]
        if code := [name for name in names if _is_code(key, name)]:
            found[key] = code[0]
    return found


def _is_code(key: str, name: str) -> bool:
    if key == "data.source":
        return NAMED.fullmatch(name) is not None and name.partition(":")[0] not in SOURCES and not _is_there(name)
    code = is_code(name) if key in NETWORKS else is_foreign(name)
    return code and not (key == "init" and _is_there(name))


def _is_there(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # no name of a file
        return False


def beyond(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys whose values the metadata of a set may not choose, each with what is wrong with it."""
    from limbeck.evaluation.protocols import PROTOCOLS

    for key, name in code_in(keys).items():
        yield key, f"{name!r} is code"
    protocol, source = keys.get("eval.protocol"), keys.get("data.source")
    if isinstance(protocol, str) and protocol not in PROTOCOLS and not is_foreign(protocol):
        yield "eval.protocol", f"{protocol!r} is the path of a file"
    if isinstance(source, str) and source.startswith("hf:"):
        yield "data.source", f"{source!r} is to be looked for on the Hugging Face Hub"
    if isinstance(source, str) and is_url(source):
        yield "data.source", f"{source!r} is to be fetched"
    for key, most in MOST.items():
        values = keys.get(key) if isinstance(keys.get(key), (list, tuple)) else [keys.get(key)]
        if any(isinstance(value, (int, float)) and not value <= most for value in values or ()):
            yield key, f"{keys[key]} is more than {most}"
    for key in NETWORKS:
        if not isinstance(value := keys.get(key), str):
            continue
        wide = [width for width in re.findall(r"-w(\d+)", value) if int(width[:9]) > WIDEST]
        if wide or value.count(",") >= SEVERAL:
            yield key, f"a width of {wide[0][:9]} is more than {WIDEST}" if wide else f"it names more than {SEVERAL} networks"

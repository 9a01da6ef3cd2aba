"""Something of the user's, named `package.module:attribute`.

The module is imported, from the environment or the current folder. Whoever names such a thing has its code run.
"""

import inspect
import os
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any

from limbeck.runtime.errors import UsageError, require

LIBRARIES = ("timm", "torchvision", "transformers")  # that have networks (`networks/libraries.py`)
_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
NAMED = re.compile(f"{_NAME}:{_NAME}")
_typed: ContextVar[Collection[str] | None] = ContextVar("typed", default=None)
# `package.module:Name`, or what `fingerprint.described` says of an object, which nobody can make of it again.
FORM = re.compile(rf"{_NAME}:({_NAME}|[\w.<>]*<[\w.<>]*)(\(.*\))?", re.DOTALL)


def is_foreign(name: str) -> bool:
    """Whether `name` is meant to name something of the user's, and no place such as `s3://bucket/key`."""
    return ":" in name and "://" not in name


def makes(value: object) -> bool:
    """Whether `value` is a class or a function, which makes what is wanted, and not that itself."""
    return isinstance(value, (type, partial)) or inspect.isroutine(value)


def library_of(name: str) -> str | None:
    """Which of `LIBRARIES` a network is to come from, as in `timm:resnet18`; None where it names something else."""
    library, _, own = name.partition(":")
    return library if library in LIBRARIES and own else None


def is_code(name: str) -> bool:
    """Whether `name` is meant to name code of the user's, or a folder of theirs, and no network of an installed library."""
    return is_foreign(name) and library_of(name) in (None, "transformers")


def check_form(key: str, name: str, attribute: str) -> None:
    """Raise `UsageError` unless `name` has the form `package.module:attribute`.

    Args:
        key: the dotted name of the setting, said in the message.
        name: its value.
        attribute: what is sought in the module, said in the message, such as "factory".
    """
    require(NAMED.fullmatch(name) is not None, key, name, f"of the form package.module:{attribute}")


@contextmanager
def only(typed: Collection[str]) -> Iterator[None]:
    """Inside the block nothing is imported but these names: all others were found in data of somebody else."""
    before = _typed.set(typed)
    try:
        yield
    finally:
        _typed.reset(before)


def imported(key: str, name: str, attribute: str) -> Any:
    """What `name` names; arguments as for `check_form`.

    Raises:
        UsageError: when there is no such module or nothing of that name in it, when importing it raises, or where it was found
            in data of somebody else (`only`).
    """
    check_form(key, name, attribute)
    if (typed := _typed.get()) is not None and name not in typed:
        raise UsageError(f"{key}: {name!r} is code that somebody else's data name, and nobody has typed")
    path, _, place = name.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # the last place, so that it hides nothing; an installed command does not have it
    try:
        with blamed(key, name, f"cannot be imported, {path} raised"):
            found = import_module(path)
    except UsageError as error:
        missing = getattr(error.__cause__, "name", None) if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing and f"{path}.".startswith(f"{missing}."):
            reason = f"there is no module {missing!r} in the environment or the current folder"
            raise UsageError(f"{key}: {name!r} cannot be imported: {reason}") from error.__cause__
        raise
    for part in place.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{key}: {name!r} cannot be imported: {path} has no {place!r}")
        found = getattr(found, part)
    return found


@contextmanager
def blamed(key: str, name: str, what: str) -> Iterator[None]:
    """Turns whatever is raised inside into a `UsageError` of one line: that `name` did `what`."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise UsageError(f"{key}: {name!r} {what} {type(error).__name__}" + (f": {said}" if said else "")) from error

"""The examples of the docstrings: those of public names, and of what a study of one's own is made of, are there, and all run."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import limbeck
import limbeck.figures
import limbeck.matching
import limbeck.saliency

PARTS = ("augmentation", "matching.adjoint", "matching.criteria", "matching.distances", "matching.schedules", "matching.steps")
PARTS += ("saliency.maps", "saliency.weights", "networks.flat", "data.imageset", "distilled.small_set")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> Iterator[ModuleType]:
    """Every module of the rooms whose parts are used on their own, and the homes of the public names."""
    names = {f"limbeck.{part}" for part in PARTS}
    for room in (limbeck.matching, limbeck.saliency, limbeck.figures):
        names |= {module.name for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")}
    names |= {getattr(getattr(limbeck, name), "__module__", "limbeck") for name in limbeck.__all__}
    return map(importlib.import_module, sorted(names))


FOUND = [test for module in modules() for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


def has_example(value: Any) -> bool:
    """Whether it, or a part of it, has one."""
    path = f"{value.__module__}.{value.__qualname__}"
    return any(f"{test.name}.".startswith(f"{path}.") for test in FOUND)


@pytest.mark.parametrize("test", FOUND, ids=lambda test: test.name.removeprefix("limbeck."))
def test_an_example_gives_what_it_says(test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said, random = list[str](), torch.get_rng_state()
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
    torch.set_rng_state(random)
    assert not said, "".join(said)


def test_public_names_have_examples() -> None:
    public = {name: getattr(limbeck, name) for name in limbeck.__all__}
    lacking = {name for name, value in public.items() if hasattr(value, "__qualname__") and not has_example(value)}
    assert lacking == set()


@pytest.mark.parametrize("part", PARTS)
def test_parts_have_examples(part: str) -> None:
    module = importlib.import_module(f"limbeck.{part}")
    public = [value for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
    plain = {
        "Gradients",
        "InnerLoop",
        "Trajectory",
        "WalkBack",
        "Exact",
        "Unroll",
        "Tesla",
        "Truncated",
        "StepDraw",
        "Draw",
        "NamedSet",
    }
    lacking = {value.__name__ for value in public if value.__name__[0] != "_" and not has_example(value)}
    assert lacking <= plain  # values, and the adjoints, which `Adjoint`'s example is of

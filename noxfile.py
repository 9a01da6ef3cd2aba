"""Legs: the tests in environments that a change may break without anybody seeing it here. `make legs`, or `nox -s NAME`.

    pythons         Python 3.10 to 3.13, where they are installed
    torch_lowest    the lowest torch that pyproject.toml admits
    torch_newest    the newest there is
    lowest          the lowest version of every dependency but torch
    no_extras       without any extra
    parts           torch, numpy and safetensors alone, for the parts of `tests/test_parts.py` and what tests them
    float64         torch's default type is float64, for what takes images and networks of any type
    warnings        warnings are errors
    random_order    tests in an order that is drawn anew

Each runs `SUBSET`, what depends on versions, types and order most, in about five minutes; words behind `--` are given to pytest
instead: `nox -s lowest -- tests`. CONTRIBUTING.md says which legs have been run.
"""

import re
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
TOOLS = ("pytest>=8", "pytest-xdist", "hypothesis")
SUBSET = (
    "tests/test_layers.py",
    "tests/test_startup.py",
    "tests/test_parts.py",
    "tests/test_recipes.py",
    "tests/test_recipe_values.py",
    "tests/test_losses.py",
    "tests/matching",
    "tests/networks",
    "tests/parametrisations",
    "tests/saliency",
    "tests/training",
    "tests/distilled",
    "tests/data",
    "tests/figures",
    "tests/evaluation/test_statistics.py",
    "tests/evaluation/test_policies.py",
    "tests/runs/test_settings.py",
    "tests/runs/test_api.py",
    "tests/report/test_report.py",
    "tests/cli",
)
# What takes images and networks of any type; sets and files are in single precision by their own word.
OF_TYPES = (
    "tests/test_losses.py",
    "tests/test_augmentation.py",
    "tests/matching",
    "tests/networks",
    "tests/saliency",
    "tests/training/test_optimisers.py",
    "tests/data/test_preprocessing.py",
)
OF_PARTS = (
    "tests/test_losses.py",
    "tests/matching/test_adjoint.py",
    "tests/matching/test_criteria.py",
    "tests/matching/test_distances.py",
    "tests/matching/test_schedules.py",
    "tests/matching/test_steps.py",
)
nox.options.sessions = ["lowest", "no_extras", "parts", "float64", "warnings", "random_order"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


def dependencies() -> list[str]:
    """What `pip install limbeck` brings, as pyproject.toml has it."""
    listed = PROJECT.partition("dependencies = [")[2].partition("\n]")[0]
    return re.findall(r'^    "(.*?)",', listed, re.MULTILINE)


def lowest(requirement: str) -> str:
    """The same of the lowest version that it admits."""
    return re.sub(r">=", "==", requirement, count=1) if not re.search("==", requirement.partition(";")[0]) else requirement


def tests(session: nox.Session, *options: str, among: tuple[str, ...] = SUBSET, **env: str) -> None:
    session.run("python", "-m", "pytest", "-q", *options, *(session.posargs or among), env={"OMP_NUM_THREADS": "1", **env})


def pinned(session: nox.Session, *packages: str) -> None:
    """Install, with the versions that development uses where it fixes some."""
    session.install("--constraint", "constraints.txt", *packages)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    pinned(session, ".[dev]")
    tests(session)


@nox.session
def torch_lowest(session: nox.Session) -> None:
    [torch] = [one for one in dependencies() if one.startswith("torch>")]
    session.install(".", lowest(torch), *TOOLS)
    tests(session)


@nox.session
def torch_newest(session: nox.Session) -> None:
    session.install("--upgrade", ".", "torch", *TOOLS)
    tests(session)


@nox.session(name="lowest")
def lowest_versions(session: nox.Session) -> None:
    pinned(session, ".", *(lowest(one) for one in dependencies() if not one.startswith("torch>")), *TOOLS)
    tests(session)


@nox.session
def no_extras(session: nox.Session) -> None:
    pinned(session, ".", *TOOLS)
    tests(session)


@nox.session
def parts(session: nox.Session) -> None:
    pinned(session, "torch", "numpy", "safetensors", *TOOLS)
    session.install("--no-deps", ".")
    tests(session, among=OF_PARTS)


@nox.session
def float64(session: nox.Session) -> None:
    pinned(session, ".", *TOOLS, "kornia", "pytorch-optimizer")  # oracles
    tests(session, among=OF_TYPES, LIMBECK_TESTS_DTYPE="float64")


@nox.session
def warnings(session: nox.Session) -> None:
    pinned(session, ".", *TOOLS)
    tests(session, "-W", "error", "-W", "ignore:`torch.jit:DeprecationWarning")  # torch's compiler and loader warn of themselves


@nox.session
def random_order(session: nox.Session) -> None:
    pinned(session, ".", *TOOLS, "pytest-randomly")
    tests(session)

"""`import limbeck` and `limbeck --help` cost next to nothing, because nothing heavy is imported before it is used."""

import subprocess
import sys

import pytest

import limbeck

HEAVY = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "jinja2", "torchcam", "rich", "jsonargparse", "yaml")


def heavy_after(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter holds after running `code`."""
    probe = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_probe_sees_what_is_imported() -> None:
    assert heavy_after("import yaml") == ["yaml"]


def test_import_is_light() -> None:
    assert heavy_after("import limbeck\ndir(limbeck)\nlimbeck.__version__") == []


def test_settings_need_no_torch() -> None:
    assert heavy_after("from limbeck import DistillSettings\nDistillSettings()") == []


def test_help_is_light() -> None:
    run = "from limbeck.cli.main import main\ntry:\n    main({words!r})\nexcept SystemExit as end:\n    assert end.code == 0"
    assert heavy_after(run.format(words=["--help"])) == []
    assert heavy_after(run.format(words=["distill", "--help"])) == []


def test_listing_recipes_needs_no_torch() -> None:
    assert "torch" not in heavy_after("from limbeck.cli.main import main\nmain(['recipes', 'scenes', '--full'])")


@pytest.mark.parametrize(
    "line",
    [
        "distill nowhere",
        "distill scenes method=edff",
        "plan nowhere",
        "experts nowhere",
        "compare nowhere scenes",
        "compare scenes nowhere --ipc 1",
        "compare --methods edff,datm --data scenes",
        "compare --methods edf,datm --data nowhere",
        "compare --methods edf,datm --base nowhere",
        "reproduce table99",
        "reproduce all --only table99",
        "evaluate nowhere",
        "evaluate zoo:nowhere",
        "evaluate . --recipe nowhere",
        "tune nowhere",
        "export zoo:nowhere --to npz --output set.npz",
        "push zoo:nowhere me/mine",
    ],
)
def test_names_that_are_none_are_refused_without_torch(line: str) -> None:
    code = f"from limbeck.cli.main import main\nassert main({line.split()!r}) == 2"
    assert "torch" not in heavy_after(code)


@pytest.mark.parametrize("name", [name for name in limbeck.__all__ if name != "__version__"])
def test_lazy_names_are_what_they_say(name: str) -> None:
    assert getattr(limbeck, name).__name__.removeprefix("limbeck.") == name
    assert name in dir(limbeck)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        limbeck.distil  # noqa: B018

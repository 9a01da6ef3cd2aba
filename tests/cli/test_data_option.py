"""`--data SOURCE` and data.source=SOURCE are the same in every command: what is run, what is refused, and not both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distilled.samples import sample_set

from limbeck.cli.command import is_setting
from limbeck.cli.main import COMMANDS, main
from limbeck.experts.store import TrajectoryStore
from limbeck.runs.settings import DistillSettings, flat
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import plain

# Of each command the words before, and the function that does its work.
WORK = {
    "distill": (["scenes"], "limbeck.runs.distill.distill"),
    "plan": (["scenes"], "limbeck.runs.plan.plan"),
    "tune": (["scenes"], "limbeck.runs.tuning.tune"),
    "experts": (["scenes"], "limbeck.runs.distill.train_experts"),
    "evaluate": (["theirs.npz"], "limbeck.runs.evaluate.evaluate"),
    "compare": (["--methods", "random", "--seeds", "0"], "limbeck.studies.compare.compare_cells"),
    "reproduce": (["fig5", "--seeds", "0"], "limbeck.reproduction.run.run"),
    "complexity": ([], "limbeck.image_complexity.run.measure_complexity"),
    "experts import": (["replay_buffer_0.pt", "--network", "ConvNetD1", "--output", "new"], "limbeck.data.load.load_data"),
    "experts verify": (["store", "--recipe", "scenes"], "limbeck.experts.maintain.verify"),
    "experts prune": (["store", "--recipe", "scenes"], "limbeck.experts.maintain.prune"),
}
# What takes no images by name: it has them in its files, or in a list of its own.
OTHERS = {
    *("comp-dd", "doctor", "export", "recipes", "report", "watch", "recipes import", "experts show"),
    *("cite", "completion", "pull", "push", "zoo"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("theirs.npz", images=np.zeros((2, 4, 4, 3), dtype=np.uint8), labels=np.arange(2))
    Path("replay_buffer_0.pt").touch()
    TrajectoryStore(Path("store"), {"network": "ConvNetD3-w32", "num_parameters": 1, "imported": ["a"]})


def asked(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command hands to the function that does its work."""
    found = list[tuple[Any, ...]]()

    def work(*given: Any, **options: Any) -> Any:
        options = {name: value for name, value in options.items() if name not in ("progress", "running")}
        found.append((*[one for one in given if not hasattr(one, "stage") and not isinstance(one, TrajectoryStore)], options))
        raise UsageError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(WORK[command][1], work)
        assert main([*command.split(), *WORK[command][0], *words]) == 2
    assert len(found) == 1
    return repr(found[0])


def test_every_command_is_here() -> None:
    names = {*COMMANDS, *(f"{name} {action}" for name, command in COMMANDS.items() for action in command.actions)}
    assert names == {*WORK, *OTHERS}


@pytest.mark.parametrize("command", WORK)
def test_both_ask_for_the_same(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    option = asked(command, ["--data", "scenes:hard"], monkeypatch)
    assert asked(command, ["data.source=scenes:hard"], monkeypatch) == option
    if command == "complexity":
        assert asked(command, ["scenes:hard"], monkeypatch) == option
    if not command.startswith("experts "):
        assert "scenes:hard" in option


# Cells of a grid are processes of their own.
ALONE = [command for command in WORK if WORK[command][0][:1] != ["store"] and command not in ("compare", "reproduce")]


@pytest.mark.parametrize("command", ALONE)
def test_both_refuse_the_same(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for words in (["--data", "scenes:nowhere"], ["data.source=scenes:nowhere"]):
        assert main([*command.split(), *WORK[command][0], *words]) in (1, 2)
        said.append(capsys.readouterr().err.splitlines()[-1])
    assert said[0] == said[1] and "'scenes:nowhere' is" in said[0]


@pytest.mark.parametrize("command", WORK)
def test_not_both(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), *WORK[command][0], "--data", "scenes", "data.source=scenes"]) == 2
    assert capsys.readouterr().err == "limbeck: error: data.source: is given twice, once as --data\n"


def test_other_options_are_not_given_twice_either(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = (("--output a", "output=a"), ("--skip-bad", "data.skip_bad=no"))
    for option, setting in pairs:
        assert main(["distill", "scenes", *option.split(), setting]) == 2
        key, name = setting.partition("=")[0], option.split()[0]
        assert capsys.readouterr().err == f"limbeck: error: {key}: is given twice, once as {name}\n"
    assert main(["evaluate", "theirs.npz", "--seeds", "3", "eval.seeds=3"]) == 2
    assert capsys.readouterr().err == "limbeck: error: eval.seeds: is given twice, once as --seeds\n"


def test_the_data_of_a_set_that_does_not_say_how_it_was_made_can_be_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_set().save("a")
    found = list[DistillSettings]()
    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", lambda sets, settings, **options: found.append(settings))
    assert main(["evaluate", "a", "data.size=16"]) == 2
    assert "'a' does not say what it was distilled from; give --data SOURCE or --recipe RECIPE" in capsys.readouterr().err
    assert main(["evaluate", "a", "--data", "scenes:easy", "data.size=16"]) == 0
    assert [(one.data.source, one.data.size) for one in found] == [("scenes:easy", 16)]


def test_complexity_takes_one_source(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([], "SOURCE: None is not images, such as a folder or scenes"),
        (["scenes", "scenes:easy"], "'scenes:easy' is not of the form key=value, such as data.size=64"),
        (["scenes", "--data", "scenes"], "SOURCE: is given twice, once as --data"),
        (["data.size=8"], "SOURCE: None is not images"),
    ):
        assert main(["complexity", *words]) == 2
        assert capsys.readouterr().err.startswith(f"limbeck: error: {said}")


def test_every_key_is_a_setting() -> None:
    for key in flat(plain(DistillSettings.of())):
        assert is_setting(f"{key}=1"), key
    assert is_setting(f"eval.networks={','.join(['ConvNetD3-w16'] * 40)}")  # which is no name of a file, as long as it is
    assert not is_setting("scenes") and not is_setting("./a=b") and not is_setting("Recipe=1")

"""What somebody else wrote, a set, a recipe or a benchmark, runs no code here, leads nowhere and takes no more than it may."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distilled.samples import sample_set
from image_complexity.material import image_set
from reliability.damage import open_to_change
from reliability.kinds import SETTINGS, judge

import limbeck
from limbeck.cli.main import main
from limbeck.data.benchmarks import innermost
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.recipes import load_recipe
from limbeck.runs.settings import DistillSettings, key_types
from limbeck.runs.strangers import MOST, NETWORKS, beyond, code_in
from limbeck.runtime.checked import named_by
from limbeck.runtime.errors import UsageError
from limbeck.runtime.plugins import imported, only
from limbeck.runtime.progress import NoProgress


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to be in, with a module whose import leaves a file behind."""
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('EXECUTED').touch()\nMETHOD = make = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("evil", None)


def executed(folder: Path) -> bool:
    return (folder / "EXECUTED").exists()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


# ---- recipes


@pytest.mark.parametrize("key", [key for key, kind in key_types().items() if named_by(kind) or key in NETWORKS])
def test_a_recipe_runs_no_code_that_nobody_typed(key: str, evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (evil / "mine.yaml").write_text(f"{key}: evil:make\n")
    for words in (["distill"], ["plan"], ["compare"], ["experts"]) if key == "method" else (["plan"],):
        line = said(capsys, *words, "mine.yaml")
        assert f"{key}: 'evil:make' is code that the recipe mine.yaml names" in line
        assert f"{key}=evil:make typed beside it, or --trust, runs it" in line
    assert main(["recipes", "mine.yaml", "--full"]) == 0
    assert "evil:make" in capsys.readouterr().out
    with pytest.raises(UsageError, match="in Python `trust` of load_recipe"):
        load_recipe("mine.yaml")
    assert not executed(evil)


@pytest.mark.parametrize("way", [["--trust"], ["method=evil:METHOD"]])
def test_code_runs_where_it_is_typed_or_trusted(way: list[str], evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (evil / "mine.yaml").write_text("method: evil:METHOD\n")
    assert "'evil:METHOD' is not a limbeck.methods.method.Method" in said(capsys, "plan", "mine.yaml", *way)
    assert executed(evil)


def test_a_method_typed_instead_does_not_run_the_one_of_the_file(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (evil / "mine.yaml").write_text("method: evil:METHOD\n")
    assert "is code that the recipe mine.yaml names" in said(capsys, "plan", "mine.yaml", "method=mtt")
    assert not executed(evil)


def test_an_alias_bomb_is_a_line(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 8)}]" for i in range(8)]
    (evil / "bomb.yaml").write_text("\n".join(lines))
    for words in (["recipes", "bomb.yaml"], ["distill", "bomb.yaml"], ["evaluate", "s", "--protocol", "bomb.yaml"]):
        sample_set(metadata={"settings": SETTINGS}).save(evil / "s")
        line = said(capsys, *words)
        assert "has more than the 100000 values that are accepted, aliases counted" in line


# ---- sets


def asked(monkeypatch: pytest.MonkeyPatch) -> list[DistillSettings]:
    found = list[DistillSettings]()

    def evaluate(paths: Any, settings: DistillSettings, **_: Any) -> str:
        found.append(settings)
        return "done"

    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", evaluate)
    return found


def changed(key: str, value: Any) -> dict[str, Any]:
    held = json.loads(json.dumps(SETTINGS))
    group, _, name = key.rpartition(".")
    (held.setdefault(group, {}) if group else held)[name] = value
    return held


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("network", "evil:make", "'evil:make' is code"),
        ("eval.networks", "MLP, evil:make", "'evil:make' is code"),
        ("eval.teacher", "evil:make", "'evil:make' is code"),
        ("eval.protocol", "evil:make", "'evil:make' is code"),
        ("eval.protocol", "mine.yaml", "'mine.yaml' is the path of a file"),
        ("augment.strategy", "evil:make", "'evil:make' is code"),
        ("data.source", "evil:make", "'evil:make' is code"),
        ("data.source", "hf:somebody/images", "'hf:somebody/images' is to be looked for on the Hugging Face Hub"),
        ("eval.epochs", 10**9, "1000000000 is more than 10000"),
        ("eval.full_epochs", 10**9, "1000000000 is more than 10000"),
        ("eval.seeds", 10**6, "1000000 is more than 100"),
        ("data.size", 100_000, "100000 is more than 1024"),
        ("data.size", [16, 100_000], r"\(16, 100000\) is more than 1024"),
        ("eval.networks", "VGG11-w9999", "a width of 9999 is more than 1024"),
        ("eval.networks", ",".join(["MLP"] * 30), "it names more than 20 networks"),
    ],
)
def test_a_sets_metadata_choose_nothing_that_runs_opens_or_never_ends(
    key: str, value: Any, what: str, evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (evil / "mine.yaml").write_text("base: dd\n")
    sample_set(metadata={"settings": changed(key, value)}).save(evil / "set")
    found = asked(monkeypatch)
    line = said(capsys, "evaluate", "set")

    assert re.search(rf"{key}: {what}, as the metadata of 'set' have it; .*--trust", line), line
    assert not found and not executed(evil)
    assert main(["evaluate", "set", "--trust"]) == 0 and len(found) == 1
    if "yourself" in line:
        typed = json.dumps(value) if isinstance(value, list) else value
        assert main(["evaluate", "set", f"{key}={typed}"]) == 0 and len(found) == 2


def test_what_people_publish_is_within_the_bounds() -> None:
    usual = {"eval.epochs": 1000, "eval.full_epochs": 300, "eval.seeds": 30, "data.size": (256, 256), "network": "ConvNetD7-w512"}
    assert not list(beyond({**usual, "data.source": "scenes:easy", "eval.protocol": "kd", "eval.networks": "MLP,VGG11-w64"}))
    assert set(MOST) <= set(key_types())


def test_names_with_a_colon_are_no_code_where_they_are_known() -> None:
    known = {"data.source": "imagenet:comp-dd/bird-easy", "network": "MLP", "init": "correct", "method": "edf"}
    assert code_in(known) == {} == code_in({"data.source": "hf:a/b"}) == code_in({"data.source": "benchmark:x:y"})
    assert code_in({"init": "evil:make", "method": "evil:M"}) == {"init": "evil:make", "method": "evil:M"}


def test_nothing_is_imported_that_was_not_typed(evil: Path) -> None:
    with only({"json:loads"}):
        assert imported("x", "json:loads", "Name") is json.loads
        with pytest.raises(UsageError, match="x: 'evil:make' is code that somebody else's data name, and nobody has typed"):
            imported("x", "evil:make", "Name")
    assert not executed(evil)
    assert imported("x", "evil:make", "Name") == 3


def test_an_evaluation_of_a_set_imports_nothing_that_its_metadata_name(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {**SETTINGS, "method": "evil:METHOD", "init": "evil:make", "engine": {"kind": "evil:make"}}
    sample_set(metadata={"settings": held}).save(evil / "set")
    settings = list[DistillSettings]()

    def evaluate(paths: Any, made: DistillSettings, **_: Any) -> str:
        from limbeck.runs.workspace import Workspace

        settings.append(made)
        with pytest.raises(UsageError, match="nobody has typed"):
            Workspace(made, NoProgress()).method  # noqa: B018
        return "done"

    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", evaluate)
    assert main(["evaluate", "set"]) == 0 and settings and not executed(evil)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("eval.networks", "evil:make", "networks: is missing"),
        ("eval.protocol", "mine.yaml", "protocol: is missing; 'mine.yaml' is the path of a file"),
        ("eval.epochs", 10**9, "epochs: is missing; 1000000000 is more than 10000"),
        ("eval.teacher", "evil:make", "teacher: is missing"),
    ],
)
def test_python_asks_for_the_same(key: str, value: Any, what: str, evil: Path) -> None:
    held = sample_set(names=("a", "b", "c"), shape=(3, 8, 8), metadata={"settings": changed(key, value)})
    with pytest.raises(UsageError, match=what):
        limbeck.evaluate(held, image_set())
    assert not executed(evil)


# ---- what is printed

ESCAPE = "\x1b[2J\x1b]0;mine\x07\x9b31m\u202e"


def test_nothing_that_is_printed_is_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from experts.walks import IDENTITY, walk

    from limbeck.experts.store import TrajectoryStore

    store = TrajectoryStore(tmp_path / "store", {**IDENTITY, "network": ESCAPE}, {"note": ESCAPE, ESCAPE: [ESCAPE]})
    store.write(0, dict(enumerate(walk(0, 2))))
    (tmp_path / "mine.yaml").write_text(f"# {ESCAPE[-1]} \x9b\nnetwork: {json.dumps(ESCAPE)}\n")
    monkeypatch.chdir(tmp_path)
    for words in (["experts", "show", "store"], ["experts", "show", "store", "--json"], ["recipes", "mine.yaml", "--full"]):
        main(words)
    main(["evaluate", ESCAPE]), main(["distill", f"{ESCAPE}.yaml"]), main(["plan", "scenes", f"{ESCAPE}=1"])
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert not set(text) & set(ESCAPE) - set("[2J]0;mine31m"), text
    shown = next(line for line in printed.out.splitlines() if line.startswith("{"))
    assert json.dumps(ESCAPE) in json.dumps(json.loads(shown))


# ---- benchmarks, networks


def write_benchmark(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    subsets = {"x": {"classes": [{"name": "0"}, {"name": "1"}]}}
    held = {"format": 1, "source": {"source": source, "size": 8, "per_class": 3}, "subsets": subsets}
    (folder / "benchmark.json").write_text(json.dumps(held))
    return folder


def test_a_benchmark_names_no_code(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_benchmark(evil / "b", "evil:make")
    for words in (["plan", "scenes"], ["distill", "scenes"], ["complexity"]):
        source = ["benchmark:b:x"] if words == ["complexity"] else ["--data", "benchmark:b:x"]
        line = said(capsys, *words, *source)
        assert "its images are 'evil:make', which is code; data.source=evil:make takes it, typed by yourself" in line
    assert not executed(evil)


def test_benchmarks_of_benchmarks_have_an_end(evil: Path) -> None:
    write_benchmark(evil / "a", "benchmark:b:x")
    write_benchmark(evil / "b", "benchmark:a:x")
    for load in (innermost, load_data):
        with pytest.raises(UsageError, match="and that of others, without an end"):
            load(DataSettings(source="benchmark:a:x"))
    write_benchmark(evil / "b", "scenes:easy")
    assert innermost(DataSettings(source="benchmark:a:x")).source == "scenes:easy"


def test_a_folder_with_a_network_names_no_code(evil: Path) -> None:
    from limbeck.image_complexity.networks import load_network

    judge(evil)
    file = evil / "net" / "network.json"
    file.write_text(json.dumps({**open_to_change(file), "network": "evil:make"}))
    with pytest.raises(UsageError):
        load_network(evil / "net")
    assert not executed(evil)


def test_arguments_of_the_command_that_compares_are_handed_on() -> None:
    from limbeck.studies.cells import Cell
    from limbeck.studies.matrix import distill_command

    settings = load_recipe("scenes")
    words = {trust: distill_command(Cell("a", "mine.yaml", {}, settings, {}, trust), Path("runs/a")) for trust in (True, False)}
    assert "--trust" in words[True] and "--trust" not in words[False]

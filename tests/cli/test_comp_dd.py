"""`limbeck comp-dd` from its words to tables, figure and submission: with fake cells, and once with real distillations."""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data.imagenet_tree import build_tree
from studies.fake_cells import command, results, starts
from studies.here import in_this_process

from limbeck.cli import comp_dd as cli
from limbeck.cli.command import Parser
from limbeck.cli.main import main
from limbeck.data.registry import find_subset
from limbeck.evaluation.statistics import summarise
from limbeck.methods.registry import METHODS
from limbeck.runtime.errors import UsageError
from limbeck.runtime.executor import Cluster, Local, using
from limbeck.studies import matrix
from limbeck.studies.cells import Cell
from limbeck.studies.comp_dd import check_root, comp_dd, plan, published_recipe, scenes
from limbeck.studies.recovery import Recovery

RATIOS = {"easy": 0.75, "medium": 0.6, "hard": 0.5}


def parsed(*words: str) -> Namespace:
    parser = Parser(prog="limbeck comp-dd")
    cli.COMMAND.add_arguments(parser)
    return parser.parse_intermixed_args(list(words))


def run(*words: str) -> Recovery:
    found = cli.run(parsed(*words))
    assert isinstance(found, Recovery)
    return found


def of_level(cell: Cell) -> dict[str, Any]:
    """A result whose recovery ratio is that of the level, and a little more with every seed."""
    mean = 0.8 * (RATIOS[cell.facts["level"]] + 0.01 * cell.facts["seed"] ** 2)
    accuracy = {
        "distilled": summarise([mean - 0.01, mean + 0.01]).to_dict(),
        "random": summarise([0.2, 0.3]).to_dict(),
        "full": summarise([0.75, 0.85]).to_dict(),
    }
    return results(accuracy=accuracy, data={"fingerprint": cell.facts["subset"]}, environment={"limbeck": "1", "device": "x"})


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Let cells be fake ones with these results; where they note themselves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIMBECK_IMAGENET", raising=False)

    def use(result: Callable[[Cell], dict[str, Any]] = of_level) -> Path:
        started = tmp_path / "started.jsonl"
        monkeypatch.setattr(matrix, "distill_command", command(started, result=result))
        return started

    return use


# What is run


def test_comp_dd_has_sixteen_subsets_and_scenes_three() -> None:
    parts = comp_dd().parts
    assert len(parts) == 16 and len({part.category for part in parts}) == 8
    assert [part.name for part in parts[:2]] == ["bird-easy", "bird-hard"]
    assert [part.level for part in parts] == ["easy", "hard"] * 8
    assert {part.name: part.note for part in parts if part.note}.keys() == {"music-hard"}
    assert all(find_subset(part.source.removeprefix("imagenet:")).name == f"comp-dd/{part.name}" for part in parts)
    assert [part.source for part in scenes().parts] == ["scenes:easy", "scenes:medium", "scenes:hard"]


def test_subsets_are_called_by_several_names() -> None:
    def names(*words: str) -> list[str]:
        return [part.name for part in comp_dd().choose(words)]

    assert names("car-hard", "bird") == ["bird-easy", "bird-hard", "car-hard"]
    assert names("comp-dd/Car-Hard", "car-hard") == ["car-hard"]
    assert [part.name for part in scenes().choose(["hard", "scenes:easy"])] == ["scenes-easy", "scenes-hard"]
    assert len(scenes().choose(["scenes"])) == 3
    for wrong in ("imagenette", "easy", "bird-medium", ""):
        with pytest.raises(UsageError, match=f"^--subsets: '{wrong}' is not in Comp-DD, which has bird-easy, bird-hard, dog-easy"):
            names(wrong)


def entrant(subset: str, method: str, ipc: int) -> Any:
    (part,) = comp_dd().choose([subset])
    return published_recipe(part, method, ipc)


def test_settings_are_the_published_or_those_of_the_nearest_complexity() -> None:
    own = entrant("car-hard", "edf", 10)
    assert (own.recipe, own.overrides) == ("comp-dd/car-hard/ConvNetD5/edf-ipc10", {})
    assert entrant("car-hard", "edf", 30).recipe == "comp-dd/car-hard/ConvNetD5/edf-ipc10"
    assert entrant("car-hard", "edf", 31).recipe == "comp-dd/car-hard/ConvNetD5/edf-ipc50"
    lent = {"snake": "dog", "fish": "car", "insect": "bird", "round": "dog", "music": "dog"}
    for category, lender in lent.items():
        for level in ("easy", "hard"):
            found = entrant(f"{category}-{level}", "edf", 1)
            assert found.recipe == f"comp-dd/{lender}-{level}/ConvNetD5/edf-ipc1"
            assert found.overrides == {"data.source": f"imagenet:comp-dd/{category}-{level}"}


@pytest.mark.parametrize("method", [name for name in METHODS if name != "edf"])
def test_another_method_is_itself_on_settings_of_edf(method: str) -> None:
    # The settings of car-easy for one image have a learning rate of labels, which hard ones refuse.
    subsets = comp_dd().choose(["car-easy", "snake-hard"])
    cells, _ = plan(comp_dd(), subsets, ["edf", method], [1, 50], [0], {})
    for edf, other in zip(cells[::2], cells[1::2], strict=True):
        assert other.settings.method == method and other.settings.data == edf.settings.data
        assert (other.settings.eval, other.settings.augment) == (edf.settings.eval, edf.settings.augment)
        for key, value in METHODS[method].preset.items():
            group, _, name = key.rpartition(".")
            held = getattr(other.settings, group) if group else other.settings
            assert group in ("eval", "augment") or getattr(held, name) == value, key
        skips = other.settings.outer.max_match_loss < float("inf")
        assert skips == (METHODS[method].steps or METHODS[method].kind != "objective")


def test_what_differs_is_noted() -> None:
    subsets = comp_dd().choose(["dog", "snake", "music-hard"])
    _, notes = plan(comp_dd(), subsets, ["edf", "ftd"], [10, 30], [0], {})
    assert notes[0].startswith("music-hard: published with banjo (420) twice: nine distinct classes")
    assert notes[1:] == [
        "snake-easy: no settings are published; those of dog-easy",
        "snake-hard, music-hard: no settings are published; those of dog-hard",
        "30 images per class: settings of 10",
        "ftd: EDF's settings, with those that make the method",
        "experts.alpha 0.4 in ftd, experts.alpha 0.3 in edf",
    ]


# The command


def test_scenes_from_words_to_submission(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    started = worker()
    words = ("--scenes", "--methods", "edf", "--ipc", "1,3", "--seeds", "0,1", "eval.epochs=50")
    found = run(*words)
    names = [f"scenes-{level}-edf-ipc{ipc}-seed{seed}" for seed in (0, 1) for level in ("easy", "medium", "hard") for ipc in (1, 3)]
    assert [start["cell"] for start in starts(started)] == names
    output = Path("runs/comp-dd-scenes")
    held = json.loads((output / "cells" / "scenes-hard-edf-ipc3-seed1.json").read_text())
    assert held["recipe"] == "scenes/edf-ipc3" and held["overrides"]["data.source"] == "scenes:hard"
    assert [table.ipc for table in found.tables] == [1, 3]
    cell = found.tables[0].rows[0].cells["scenes-medium"]
    assert cell.recovery_ratio.values == pytest.approx([0.6, 0.61])
    assert [one.levels for one in found.tables[1].verdicts] == [("easy", "medium", "hard")]
    assert (output / "recovery.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "comp-dd.md").read_text().startswith("# scenes: edf\n")
    assert json.loads((output / "comp-dd.json").read_text())["levels"] == ["easy", "medium", "hard"]
    cli.show(found)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines if line[:1] in "┃│┏└┡")
    # 0.8 · (0.75 + 0.76) / 2, and half of t · |0.8 · 0.01| / √2 / √2 around it.
    assert any(line.split("│")[1:3] == [" edf                  ", " 60.4 ± 5.1  "] for line in lines)
    assert "scenes, edf: recovery ratio easy > medium > hard: undecided, p 0.5 (Holm) (easy − medium +15.0" in "\n".join(lines)
    checked = cli.run(parsed("--check", str(output / "submission")))
    assert len(checked.to_dict()["cells"]) == 12 and "12 cells" in str(checked)
    cli.show(checked)
    cli.run(parsed(*words))
    assert len(starts(started)) == 12


def test_a_grid_in_pieces_has_its_submission_at_the_end(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    started = worker()
    words = ("--scenes", "--methods", "edf", "--subsets", "easy,hard", "--seeds", "0,1", "--output", "out")
    shown = run(*words, "--show")
    assert len(shown.left) == 4 and shown.tables == () and not Path("out").exists()
    first = run(*words, "--shard", "1/2")
    assert first.left == ("scenes-hard-edf-ipc1-seed0", "scenes-hard-edf-ipc1-seed1")
    assert not Path("out/submission").exists() and first.tables[0].verdicts == ()
    cli.show(first)
    assert "cells to be run yet: 2;" in capsys.readouterr().out
    cli.run(parsed(*words, "--shard", "2/2"))
    assert Path("out/submission/README.md").is_file() and len(starts(started)) == 4


def test_a_failing_cell_leaves_the_tables_and_fails_the_command(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worker(lambda cell: {} if cell.facts["level"] == "hard" else of_level(cell))
    words = ["comp-dd", "--scenes", "--methods", "edf", "--subsets", "easy,hard", "--seeds", "0"]
    assert main(words) == 1
    assert "failed: scenes-hard-edf-ipc1-seed0" in capsys.readouterr().out
    assert main([*words, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["failed"].keys() == {"scenes-hard-edf-ipc1-seed0"} and out.count("\n") == 1
    assert err.splitlines()[-1].startswith("limbeck: failed: 1 cell failed: scenes-hard-edf-ipc1-seed0: ")
    assert not Path("runs/comp-dd-scenes/submission").exists()


def test_imagenet_is_looked_through_before_anything_is_run(worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, root = worker(), build_tree(tmp_path / "imagenet", train=0)
    words = ("--methods", "edf", "--subsets", "bird,car-easy", "--seeds", "0")
    found = run(*words, "--data-root", str(root))
    assert [start["cell"] for start in starts(started)] == [
        f"{name}-edf-ipc1-seed0" for name in ("bird-easy", "bird-hard", "car-easy")
    ]
    assert [column.subset for column in found.tables[0].columns] == ["bird-easy", "bird-hard", "car-easy"]
    assert str(tmp_path) not in Path("runs/comp-dd/submission/submission.json").read_text()
    assert "3 cells" in str(cli.run(parsed("--check", "runs/comp-dd/submission")))
    monkeypatch.setenv("LIMBECK_IMAGENET", str(root))
    gone = find_subset("car-easy").classes[3].wnid
    (root / "val" / gone).rename(root / "val" / "elsewhere")
    with pytest.raises(UsageError) as caught:
        cli.run(parsed(*words, "--output", "again"))
    assert str(caught.value) == f"$LIMBECK_IMAGENET: '{root}/val' has no folder {gone} (car-easy)"
    (root / "val").rename(root / "classwise")
    (root / "flat").rename(root / "val")
    with pytest.raises(
        UsageError, match=r"^\$LIMBECK_IMAGENET: the images in '.*/val' are not in class folders, and none of LOC_val"
    ):
        cli.run(parsed(*words, "--output", "again"))
    (root / "val.txt").touch()
    check_root(comp_dd().choose(None), str(root))  # what the list says is read with the images
    (root / "val").rename(root / "flat")
    with pytest.raises(UsageError, match="has train/ but no val/ beside it$"):
        cli.run(parsed(*words, "--output", "again"))
    (root / "train" / find_subset("bird-hard").classes[0].wnid).rename(root / "train" / "elsewhere")
    (root / "classwise").rename(root / "val")
    with pytest.raises(UsageError, match=rf"^data.root: '{root}/train' has no folder n\d+ \(bird-hard\)$"):
        cli.run(parsed(*words, f"data.root={root}", "--output", "again"))
    with pytest.raises(UsageError, match="has no folder train/ with a folder of images per class$"):
        cli.run(parsed(*words, f"data.root={root / 'flat'}", "--output", "again"))
    assert len(starts(started)) == 3 and not Path("again").exists()


def test_a_protocol_is_looked_for_beside_imagenet(worker: Any, tmp_path: Path) -> None:
    started, root = worker(), build_tree(tmp_path / "imagenet", train=0)
    with pytest.raises(UsageError, match="^eval.protocol: 'ddd' is not one of dd, "):
        run("--methods", "edf", "--subsets", "bird-easy", "--data-root", str(root), "eval.protocol=ddd")
    assert starts(started) == []


class Elsewhere(Local, Cluster):
    """A cluster whose files nobody here sees."""

    def apart(self, function: Any, job: Any, log: Path) -> Any:
        raise AssertionError("cells of recipes are commands")


def test_on_a_cluster_files_are_the_jobs_affair(worker: Any) -> None:
    started, words = worker(), ("--methods", "edf", "--subsets", "bird-easy", "--seeds", "0", "--data-root", "/only/there")
    with using(Elsewhere()):
        assert run(*words).tables[0].rows[0].method == "edf" and len(starts(started)) == 1
        with pytest.raises(UsageError, match="^eval.protocol: 'ddd' is not one of dd, "):
            run(*words, "eval.protocol=ddd", "--output", "other")
    with pytest.raises(UsageError, match="^data.root: '/only/there' is not a folder that exists$"):
        run(*words, "--output", "other")


def test_keys_that_a_method_does_not_read_are_said(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    worker()
    run("--scenes", "--methods", "edf,random", "match.syn_steps=3", "--show")
    assert capsys.readouterr().err.splitlines() == ["warning: random does not read match.syn_steps"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--methods: is missing; name one or more, such as edf,datm,random"),
        (("--methods", ","), "--methods: ',' is not one or more methods"),
        (("--methods", "edf,edf"), "--methods: 'edf' is given twice"),
        (("--methods", "edv"), "--methods: 'edv' is not one of"),
        (("--methods", "edv", "--scenes"), "--methods: 'edv' is not one of"),
        (("--methods", "edf", "--scenes", "eval.protocol=ddd"), "eval.protocol: 'ddd' is not one of dd, "),
        (("--methods", "edf", "--scenes", "data.classes=dragons"), "data.classes: 'dragons' "),
        (
            ("--methods", "edf"),
            "data.root: is missing; the subsets of Comp-DD need the folder that holds ImageNet's train/ and val/",
        ),
        (("--methods", "edf", "--data-root", "gone"), "data.root: 'gone' is not a folder that exists"),
        (("--methods", "edf", "--data-root", "a", "data.root=b"), "data.root: is given twice, once as --data-root"),
        (("--methods", "edf", "--data-root", "a", "--scenes"), "--data-root: 'a' is not accepted beside --scenes"),
        (("--methods", "edf", "--subsets", "imagenette"), "--subsets: 'imagenette' is not in Comp-DD, which has bird-easy"),
        (
            ("--methods", "edf", "--subsets", "bird-easy", "--scenes"),
            "--subsets: 'bird-easy' is not in scenes, which has scenes-easy",
        ),
        (("--methods", "edf", "--subsets", ","), "--subsets: names none; some of bird-easy"),
        (("--methods", "edf", "--ipc", "0"), "--ipc: '0' is not one or more different whole numbers from 1"),
        (("--methods", "edf", "--seeds", "1,1"), "--seeds: '1,1' is not one or more"),
        (("--methods", "edf", "ipc=3"), "ipc: is what the benchmark runs over; use --ipc"),
        (("--methods", "edf", "data.source=scenes"), "data.source: is what the benchmark runs over; use --subsets"),
        (("--methods", "edf", "--scenes", "nothing"), "'nothing' is not of the form key=value"),
        (("--methods", "edf", "--scenes", "--jobs", "x"), "--jobs: 'x' is not one or more"),
        (("--methods", "edf", "--scenes", "--reuse", "gone"), "--reuse: 'gone' has no folder cells/"),
        (("--check", "gone"), "--check: 'gone' holds no submission.json"),
    ],
)
def test_what_cannot_be_run_is_said_and_nothing_run(worker: Any, words: tuple[str, ...], says: str) -> None:
    started = worker()
    with pytest.raises(UsageError) as caught:
        cli.run(parsed(*words))
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)
    assert starts(started) == [] and not Path("runs").exists()


def test_help_imports_nothing_heavy() -> None:
    probe = "import sys\nfrom limbeck.cli.main import main\ntry: main(['comp-dd', '--help'])\nexcept SystemExit: pass\n"
    code = f"{probe}print([name for name in ('torch', 'numpy', 'yaml', 'rich', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--scenes" in done.stdout and done.stdout.splitlines()[-1] == "[]"


# Real distillations


def test_a_cell_is_a_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    small = "network=MLP-w8 data.per_class=10 eval.seeds=2 eval.epochs=1 eval.random_lr=0.01 eval.full_epochs=1 features=none"
    assert main(["comp-dd", "--scenes", "--subsets", "easy", "--methods", "random", "--seeds", "0", *small.split()]) == 0
    assert [path.name for path in Path("runs/comp-dd-scenes/cells").iterdir()] == ["scenes-easy-random-ipc1-seed0.json"]
    assert json.loads(Path("runs/comp-dd-scenes/comp-dd.json").read_text())["left"] == []


@pytest.mark.parametrize("ipcs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_three_levels_end_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], ipcs: int
) -> None:
    in_this_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    small = "network=MLP-w8 data.per_class=10 eval.seeds=2 eval.epochs=1 eval.every=2 eval.random_lr=0.01 eval.full_epochs=1"
    few = "features=none experts.num_experts=1 experts.train_epochs=2 match.expert_epochs=1 match.syn_steps=2 outer.iterations=2"
    start = "schedule.first_max_start_epoch=1 schedule.max_start_epoch=2 engine.compile=no"
    words = [
        "--scenes",
        "--methods",
        "datm,random",
        "--ipc",
        "2,1"[: 2 * ipcs - 1],
        "--seeds",
        "0,1",
        *f"{small} {few} {start}".split(),
    ]
    assert main(["comp-dd", *words, "--jobs", "1", "--output", "out"]) == 0
    out = capsys.readouterr().out
    assert "2 images per class: recovery ratio, %" in out
    assert out.count("scenes, datm: recovery ratio easy > medium > hard: ") == ipcs
    assert (tmp_path / "out" / "recovery.png").read_bytes().startswith(b"\x89PNG")
    assert main(["comp-dd", "--check", "out/submission"]) == 0
    assert f"{12 * ipcs} cells" in capsys.readouterr().out
    held = json.loads((tmp_path / "out" / "submission" / "submission.json").read_text())
    assert {len(cell["accuracy"]["distilled"]["values"]) for cell in held["cells"]} == {2}
    datm, random = held["cells"][0], held["cells"][1]
    assert "experts" in datm["fingerprints"] and "experts" not in random["fingerprints"]
    images = {cell["facts"]["subset"]: cell["fingerprints"]["data"] for cell in held["cells"]}
    assert len(set(images.values())) == 3 and None not in images.values()
    assert main(["comp-dd", *words, "--output", "other", "--reuse", "out", "--show"]) == 0
    assert not json.loads((tmp_path / "other" / "comp-dd.json").read_text())["left"]

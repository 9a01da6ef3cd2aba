"""Coresets beside a figure: they are what their methods make, measured as the set is, and the verdict is the paired test's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limbeck.cli.main import main
from limbeck.distilled.scored import ranked
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.evaluation.difficulty import of_experts
from limbeck.methods.registry import CORESETS, METHODS
from limbeck.recipes import load_recipe
from limbeck.runs import coresets
from limbeck.runs.distill import distill
from limbeck.runs.evaluate import EvaluationOptions, evaluate
from limbeck.runs.identity import effect_of, effects
from limbeck.runs.results import RunResult
from limbeck.runs.workspace import Workspace
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.random import generator
from limbeck.studies.cells import CellRecord
from limbeck.studies.table import tabulate

TINY = {
    "data.size": "8",
    "data.per_class": "8",
    "data.val_fraction": "0.25",
    "network": "ConvNetD1-w4",
    "engine.compile": "no",
    "method": "random",
    "features": "none",
    "ipc": "2",
    "eval.epochs": "2",
    "eval.seeds": "3",
    "eval.full_epochs": "3",
    "eval.random_lr": "0.01",
}
SOME = "herding,ccs,rded-hard"


def settings(**given: str):  # type: ignore[no-untyped-def]
    return load_recipe("scenes", TINY | {key.replace("__", "."): value for key, value in given.items()})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return distill(settings(eval__baselines=SOME), tmp_path_factory.mktemp("runs") / "run")


def test_a_coreset_beside_a_figure_is_what_its_method_makes(tmp_path: Path) -> None:
    workspace = Workspace(settings(eval__baselines="all", coreset__epoch="2"), NoProgress())
    made = coresets.coresets(workspace, 2)
    assert tuple(made) == CORESETS and all(METHODS[name].labels == "hard" for name in CORESETS)
    for name in ("k-means", "forgetting", "rded-hard"):
        distill(settings(method=name, coreset__epoch="2"), tmp_path / name)
        held = DistilledSet.load(tmp_path / name / "distilled")
        assert torch.equal(held.images, made[name].images) and torch.equal(held.labels, made[name].labels), name


def test_experts_judge_where_they_are_asked_to(tmp_path: Path) -> None:
    few = {"experts__num_experts": "2", "experts__train_epochs": "3", "schedule__max_start_epoch": "2", "match__expert_epochs": "1"}
    asked = settings(method="el2n", coreset__judges="experts", schedule__kind="uniform", coreset__epoch="2", **few)
    result, workspace = distill(asked, tmp_path / "run"), Workspace(asked, NoProgress())
    labels = torch.from_numpy(workspace.data.train.labels)
    scores = of_experts(workspace.experts, 2, [1, 2], workspace.network, workspace.train_images, labels, 2).el2n
    index = ranked(scores, labels, 2, 0)
    assert torch.equal(result.distilled.images, workspace.preprocessing.prepare(workspace.data.train.images(index.numpy())))
    assert result.experts is not None and result.experts.num_experts == 2


def test_figures_and_verdicts_are_those_of_the_same_protocol_and_seeds(run: RunResult) -> None:
    found = run.evaluation.coresets
    assert found is not None and tuple(found.rows) == tuple(SOME.split(",")) and found.chosen_on == "validation"
    workspace = Workspace(settings(eval__baselines=SOME), NoProgress())
    evaluator = workspace.evaluator().decided(2)
    for name, small in coresets.coresets(workspace, 2).items():
        own = replace(small, syn_lr=0.01)
        row = found.rows[name]
        assert row.accuracy.values == evaluator.distilled(own, seeds=range(1000, 1003)).values and row.accuracy.lr_from == "given"
        assert row.validation.values == evaluator.distilled(own, seeds=range(1000, 1003), split="val").values
    assert found.rows[found.best].validation.mean == max(row.validation.mean for row in found.rows.values())
    values = zip(run.accuracy.distilled.values, found.rows[found.best].accuracy.values, strict=True)
    assert found.gain.mean == pytest.approx(sum(a - b for a, b in values) / 3)
    assert run.evaluation.gain is not None and found.random.mean == run.evaluation.gain.mean
    assert RunResult.from_dict(json.loads((Path(run.paths["run"]) / "results.json").read_text())).evaluation.coresets == found


def test_the_table_and_the_report_say_it(run: RunResult) -> None:
    from limbeck.report.html import write_report

    found, page = run.evaluation.coresets, write_report(Path(run.paths["run"])).read_text(encoding="utf-8")
    assert found is not None
    assert "Coreset: rded-hard" in str(run) and "Coreset rded-hard" in page
    for question, answer in found.verdicts:
        assert f"{question} {answer.partition(' points')[0]}" in " ".join(str(run).split())
        assert question[1:] in page and answer in page
    assert [question.partition("?")[0] for question, _ in found.verdicts] == ["beats random images", "beats the best coreset"]


def test_without_validation_images_a_step_size_is_chosen_as_for_random_ones_and_the_set_must_beat_all(tmp_path: Path) -> None:
    asked = settings(eval__baselines="herding,moderate", data__val_fraction="0", eval__random_lr="null", ipc="1")
    found = distill(asked, tmp_path / "run").evaluation.coresets
    assert found is not None and found.chosen_on == "none" and found.gain.verdict in ("better", "undecided")
    assert all(not row.validation.known and row.accuracy.lr_from == "training" for row in found.rows.values())


def test_evaluate_puts_them_beside_every_set_and_network(run: RunResult) -> None:
    asked = settings(eval__baselines="herding", network="ConvNetD1-w4")
    options = EvaluationOptions(keep=False)
    held = run.distilled
    found = evaluate([held, held], asked, networks=["ConvNetD1-w4", "MLP"], options=options)
    for one in found.sets:
        assert one.coresets is not None and one.networks["MLP"].coresets is not None
        assert run.evaluation.coresets is not None
        assert one.coresets.rows["herding"] == run.evaluation.coresets.rows["herding"]
    assert "A, MLP: beats the best coreset? (herding" in str(found)


def test_what_is_asked_for_otherwise_is_measured_again_and_nothing_else(run: RunResult, tmp_path: Path) -> None:
    keys = ("eval.baselines", "coreset.cut", "coreset.epoch", "rded.crops", "coreset.bins")
    assert set(effects(keys, settings(eval__baselines=SOME)).values()) == {"late"}
    assert effects(keys[1:], settings()) == dict.fromkeys(keys[1:], "none")
    assert effect_of("coreset.cut", settings(method="ccs", eval__baselines=SOME)) == "result"
    plain = distill(settings(), tmp_path / "run")
    assert plain.evaluation.coresets is None and "coresets" not in json.loads((tmp_path / "run" / "results.json").read_text())
    again = distill(settings(eval__baselines=SOME), tmp_path / "run", resume=True)
    assert again.evaluation.coresets == run.evaluation.coresets and again.accuracy == plain.accuracy == run.accuracy


@pytest.mark.parametrize(
    "words", [["distill", "scenes", "--baselines=el2m,herding"], ["evaluate", "x", "--baselines", "el2m,herding"]]
)
def test_names_that_are_none_are_refused_with_those_that_are(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    accepted = "all, or some of herding, k-center, k-means, moderate, el2n, forgetting, ccs, rded-hard, joined by commas"
    assert capsys.readouterr().err.strip() == f"limbeck: error: --baselines: 'el2m,herding' is not {accepted}"
    with pytest.raises(UsageError, match=r"^eval\.baselines: 'random' is not all, or some of herding, "):
        settings(eval__baselines="random")


def test_what_cannot_be_made_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^ipc: 2 is not at most 1: class 0 has 6 training images, 4 of which make one$"):
        distill(settings(eval__baselines="all", rded__factor="2"), tmp_path / "run")
    # Of a slot that takes the bytes of two images, two.
    slots = {"method": "dm", "ipc": "1", "parametrisation__kind": "dct", "parametrisation__keep": "0.5"}
    with pytest.raises(UsageError, match=r"^ipc: 2 is not at most 1: class 0 has 6 training images, 4 of which make one$"):
        distill(settings(eval__baselines="all", rded__factor="2", **slots), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    workspace = Workspace(settings(eval__baselines="herding"), NoProgress())
    with pytest.raises(UsageError, match=r"^ipc: 7 is not at most the 6 training images of class '0' "):
        coresets.check(workspace, 7)
    coresets.check(workspace, 6)


def test_a_set_of_more_images_than_there_are_real_ones_is_doubted(tmp_path: Path) -> None:
    """Of each class there are six training images: the random ones beside a set of nine are fewer, which is said."""
    images = torch.randn(90, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    many = SmallSet.of_classes(images, torch.arange(10).repeat_interleave(9), 10, 0.01)
    options = EvaluationOptions(keep=False, further=("areas", "distances"))
    found = evaluate(many, settings(), options=options)
    text = "the random images are fewer than the set: of class '0' there are 6 training images, not 9"
    assert [one.text for one in found.sets[0].doubts if one.kind == "few random"] == [text]
    assert f"warning: {text}" in " ".join(str(found).split())
    few = SmallSet.of_classes(images[:60], torch.arange(10).repeat_interleave(6), 10, 0.01)
    assert not [
        one for one in evaluate(few, settings(), options=EvaluationOptions(keep=False)).sets[0].doubts if one.kind == "few random"
    ]


def cell(method: str, seed: int, own: float, rows: dict[str, tuple[float, float]]) -> CellRecord:
    """A record whose coresets have these test and validation accuracies."""
    figure = lambda mean: {"mean": mean, "n": 2, "std": None, "ci95": None, "values": [mean, mean]}  # noqa: E731
    held = {name: {"accuracy": figure(test), "validation": figure(val)} for name, (test, val) in rows.items()}
    none = {"n": 2, "mean": 0.0}
    beside = {"rows": held, "best": "a", "chosen_on": "validation", "gain": none, "random": none}
    record = {"accuracy": {"distilled": figure(own)}, "network": "N", "coresets": beside}
    return replace(CellRecord.from_dict(record), facts={"method": method, "ipc": 1, "seed": seed})


def test_a_comparison_takes_the_coreset_that_is_best_on_validation_images() -> None:
    draws = generator(0, "test")
    noise = [0.004 * float(torch.rand((), generator=draws)) for _ in range(8)]
    # On test images `b` is better, which must not count.
    rows = {"a": (0.30, 0.50), "b": (0.60, 0.40)}
    cells = [cell("edf", seed, 0.40 + noise[seed], rows) for seed in range(4)]
    cells += [cell("dm", seed, 0.20 + noise[4 + seed], rows) for seed in range(4)]
    (section,) = tabulate(cells)
    edf, dm = section.beside
    assert (edf.a, edf.b, edf.verdict, edf.n) == ("edf", "coreset a", "better", 4) and edf.mean == pytest.approx(0.10, abs=0.005)
    assert (dm.b, dm.verdict) == ("coreset a", "worse") and edf.p_adjusted is not None and edf.p is not None
    assert edf.p_adjusted >= edf.p
    assert [round(section.coresets[name].mean, 6) for name in "ab"] == [0.30, 0.60]
    assert section.against_coresets[0].startswith("beats the best coreset? yes: edf − coreset a: +10.")
    assert section.words()[-1][:2] == ("coreset: b", "60.0 ± 0.0")

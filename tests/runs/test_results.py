"""Results of runs and evaluations: JSON and back, text of 80 columns, tables in a notebook."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from distilled.samples import sample_set, summary

from limbeck.evaluation.results import Evaluation, SetResult
from limbeck.evaluation.statistics import compare
from limbeck.runs.distill import IN_METADATA
from limbeck.runs.results import RunResult
from limbeck.runtime.errors import UsageError

HELD = {
    "accuracy": {name: summary(mean) for name, mean in (("distilled", 0.4), ("initial", 0.2), ("random", 0.1), ("full", 0.8))},
    "recovery_ratio": 0.5,
    "protocol": {"name": "dd", "version": 1, "epochs": 1000},
    "network": "ConvNetD3",
    "networks": {"MLP": {"accuracy": {"distilled": summary(0.3)}, "recovery_ratio": None}},
    "best_iteration": 3,
    "skipped_share": 0.25,
    "seconds": {"distil": 61.0},
    "experts": {"num_experts": 2, "last_epoch_accuracy": [0.5, None]},
    "paths": {"run": "runs/a"},
}


def test_a_run_goes_through_json() -> None:
    found = RunResult.from_dict(HELD)
    written = json.loads(json.dumps(found.to_dict()))
    assert RunResult.from_dict(written) == found
    assert written.keys() >= HELD.keys() and not written.keys() & {"held", "evaluation", "notes", "further"}
    assert (found.accuracy.distilled.mean, found.recovery_ratio, found.networks["MLP"].accuracy.distilled.mean) == (0.4, 0.5, 0.3)
    assert not {"seconds", "paths", "experts"} & set(IN_METADATA)  # which differ between runs of the same bits


def test_a_run_shows_itself() -> None:
    found = RunResult.from_dict(HELD)
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    facts = ("40.0 ± 1.2 %", "protocol: dd 1, 1000 epochs, network ConvNetD3", "25.0 % of the iterations", "1 min 01 s", "runs/a")
    for words in facts:
        assert words in " ".join(text.split())
    assert "<td>Distilled images</td>" in found._repr_html_()


def test_a_run_has_its_set(tmp_path: Path) -> None:
    held = sample_set()
    bare = RunResult(evaluation=SetResult())
    assert replace(bare, held=held).distilled is held
    assert bare.at(distilled=str(held.save(tmp_path / "set"))).distilled.class_names == held.class_names
    with pytest.raises(UsageError, match="does not say where its set is"):
        bare.distilled  # noqa: B018


def test_an_evaluation_of_one_set_is_asked_as_the_set() -> None:
    only = replace(RunResult.from_dict(HELD).evaluation, notes=("a note",), measurements={"areas": {"area": 0.12345}})
    found = Evaluation(sets=(only,), seconds={"evaluate": 2.0})
    assert found.accuracy.distilled.mean == 0.4 and found.network == "ConvNetD3"
    text = str(found.table())
    assert "note: a note" in text and "area: 0.1235" in text and "│ MLP" in text
    with pytest.raises(AttributeError, match="an evaluation has no 'beauty'"):
        found.beauty  # noqa: B018
    with pytest.raises(AttributeError, match="'accuracy' of which of the 2 sets"):
        Evaluation(sets=(only, only)).accuracy  # noqa: B018


def test_an_evaluation_of_several_sets_compares_them() -> None:
    one = RunResult.from_dict({**HELD, "paths": {"distilled": "a"}}).evaluation
    other = replace(one, paths={"distilled": "b"})
    between = replace(compare([0.4, 0.5], [0.3, 0.45]), a="a", b="b", network="ConvNetD3", p_adjusted=0.2, seeds_needed=4)
    found = Evaluation(sets=(one, other), comparisons=(between,), seconds={"evaluate": 2.0})
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    text = str(found.table())
    assert max(map(len, text.splitlines())) <= 80
    assert "A − B" in text and "+7.5" in text and "4 seeds" in text
    assert found._repr_html_().count("<table>") == 2

"""Results go through JSON and back, say themselves in words, and are read from files that lack what later versions write."""

import json
import re
from dataclasses import replace

import pytest

from limbeck.accuracy import Accuracies, Accuracy, Comparison, points
from limbeck.evaluation.coresets import Coreset, Coresets
from limbeck.evaluation.results import Evaluation, SetResult
from limbeck.evaluation.statistics import compare, summarise


def test_an_accuracy_goes_through_json() -> None:
    found = summarise([0.25, 0.5])
    assert Accuracy.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert list(found.to_dict()) == ["mean", "std", "ci95", "n", "values"]
    assert found.values == (0.25, 0.5)


@pytest.mark.parametrize("broken", [None, 3, {}, {"mean": "high"}])
def test_what_has_no_mean_is_unknown(broken: object) -> None:
    found = Accuracy.from_dict(broken)
    assert not found.known
    assert (str(found), found.interval, found.with_margin) == ("–", "–", "–")


def test_the_texts_of_an_accuracy() -> None:
    found = Accuracy(mean=0.502, std=0.028, ci95=(0.47, 1.2), n=3)
    assert (str(found), found.interval) == ("50.2 ± 2.8 %", "47.0 … 100.0 %")
    assert Accuracy(mean=0.5, ci95=(0.45, 0.55)).with_margin == "50.0 ± 5.0"
    assert str(Accuracy.from_dict({"mean": 0.5})) == "50.0 %"
    assert Accuracy.from_dict({"mean": 0.5, "ci95": [None, None]}).ci95 is None


def test_accuracies_side_by_side() -> None:
    held = {"full": {"mean": 0.9, "epochs": 5, "lr": 0.1}, "distilled": {"mean": 0.5}, "other": {"mean": 0.1}}
    found = Accuracies.from_dict(held)
    assert [name for name, _ in found.items()] == ["distilled", "full"]
    assert (found["distilled"].mean, found.full.lr, found.random.known) == (0.5, 0.1, False)
    assert found.to_dict()["full"]["epochs"] == 5
    assert "lr" not in found.to_dict()["distilled"]
    with pytest.raises(KeyError):
        found["other"]


def test_the_best_on_test_has_a_row_of_its_own_and_a_sentence() -> None:
    found = Accuracy(mean=0.5, n=3, best_on_test=Accuracy(mean=0.6, n=3))
    assert Accuracy.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    gain = compare([0.6, 0.7, 0.8], [0.5, 0.6, 0.6])
    coresets = Coresets(rows={"herding": Coreset(accuracy=found)}, best="herding", chosen_on="none", gain=gain, random=gain)
    text = " ".join(str(Evaluation(sets=(SetResult(accuracy=Accuracies(distilled=found), coresets=coresets),))).split())
    assert "Distilled images │ 50.0 %" in text and "Distilled images, best on test │ 60.0 %" in text
    assert "Coreset: herding, best on test │ 60.0 %" in text
    assert "best on test (optimistic: chosen on the images that it is measured on): distilled 60.0 %; above, chosen on val" in text
    last = SetResult(accuracy=Accuracies(distilled=found), protocol={"name": "rded", "chosen_on": "none"})
    assert "distilled 60.0 %; above, the last one" in " ".join(str(Evaluation(sets=(last,))).split())


def test_a_comparison_goes_through_json() -> None:
    plain = compare([0.6, 0.7, 0.8], [0.5, 0.6, 0.6])
    assert Comparison.from_dict(json.loads(json.dumps(plain.to_dict()))) == plain
    assert "a" not in plain.to_dict()
    named = Comparison.from_dict(
        {**plain.to_dict(), "a": "x", "b": "y", "verdict": "undecided", "seeds_needed": 9, "p_adjusted": 0.06}
    )
    assert Comparison.from_dict(json.loads(json.dumps(named.to_dict()))) == named
    assert named.to_dict()["seeds_needed"] == 9
    assert "network" not in named.to_dict()


def test_the_texts_of_a_comparison() -> None:
    found = Comparison(n=5, mean=-0.012, ci95=(-0.03, 0.0001))
    assert found.points == "−1.2 [−3.0, 0.0]"
    assert str(found) == "−1.2 [−3.0, 0.0] points, 5 seeds"
    named = Comparison(n=1, mean=0.1, a="edf", b="mtt", p_adjusted=0.0312, verdict="undecided", seeds_needed=7)
    assert str(named) == "edf − mtt: +10.0 points, 1 seed, p 0.0312 (Holm): undecided; 7 seeds would decide"
    assert points(-0.0001) == "0.0"


def accuracies(*values: float) -> Accuracies:
    return Accuracies(distilled=summarise(values), random=summarise([0.1] * len(values)))


def test_a_set_that_is_given_twice_has_two_letters() -> None:
    sets = [SetResult(accuracy=accuracies(*values), paths={"distilled": path}) for path, *values in (("a", 0.5, 0.6),) * 3]
    rows = [replace(compare([0.5, 0.6], [0.5, 0.6]), a="a", b="a", network=name) for name in ("one",) * 3 + ("two",) * 3]
    text = str(Evaluation(sets=tuple(sets), comparisons=tuple(rows)))
    assert re.findall(r"([ABC] − [ABC]) │ (one|two)", text) == [
        (pair, network) for network in ("one", "two") for pair in ("A − B", "A − C", "B − C")
    ]


def test_a_single_sets_verdict_is_shown() -> None:
    known = SetResult(accuracy=accuracies(0.5, 0.6), network="one", paths={"distilled": "a"})
    found = replace(compare([0.5, 0.6], [0.1, 0.1]), a="a", b="random images", network="one", p_adjusted=0.04)
    for verdict, said in (("a better", "better"), ("b better", "worse"), ("undecided", "undecided")):
        judged = Evaluation(sets=(known,), comparisons=(replace(found, verdict=verdict),))
        assert re.search(rf"set − random │ one .* 0\.04 │ +2 │ +{said} │", str(judged))
        assert str(Evaluation.from_dict(json.loads(json.dumps(judged.to_dict())))) == str(judged)
    assert "set − random" not in str(Evaluation(sets=(known,)))


def test_verdicts_name_the_letters() -> None:
    rows = [replace(compare([0.5, 0.6], [0.1, 0.1]), a=a, b=b, verdict="b better") for a, b in ("ab", "ac", "bc")]
    text = str(Evaluation(sets=(SetResult(accuracy=accuracies(0.5, 0.6)),) * 3, comparisons=tuple(rows)))
    assert re.findall(r"([ABC] − [ABC]) .*│ (\w better)", text) == [
        ("A − B", "B better"),
        ("A − C", "C better"),
        ("B − C", "C better"),
    ]

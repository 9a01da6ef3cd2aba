"""In which settings runs differ: only those, and runs that are alike in one column."""

import math

from limbeck.report.differences import Variant, differences
from limbeck.runs.flat_settings import FlatSettings
from limbeck.runs.settings import DistillSettings


def settings(**keys: object) -> FlatSettings:
    return FlatSettings.of(DistillSettings.of({name.replace("__", "."): value for name, value in keys.items()}))


def test_only_what_differs_is_said_and_alike_runs_share_a_column() -> None:
    runs = [settings(seed=0), settings(seed=1), settings(seed=0, outer__lr_img=50.0, data__source="scenes:hard")]
    facts = [{"method": "edf", "ipc": "1", "seed": "0"}, {"method": "edf", "ipc": "1", "seed": "1"}, {"method": "edf", "ipc": "1"}]
    found = differences(runs, ["a", "b", "c"], facts)
    assert found.variants == (Variant("edf, IPC 1 (2 runs)", 2, (facts[0], facts[1])), Variant("c", 1, (facts[2],)))
    defaults = DistillSettings()
    rows = {"data.source": (str(defaults.data.source), "scenes:hard"), "outer.lr_img": (f"{defaults.outer.lr_img:.10g}", "50")}
    assert dict(found.rows) == rows and not found.same


def test_method_images_and_seed_are_no_differences() -> None:
    runs = [settings(ipc=1, seed=0, output="a"), settings(ipc=1, seed=5, output="b")]
    found = differences(runs, ["a", "b"], [{}, {}])
    assert found.rows == () and found.same


def test_a_missing_key_has_its_default() -> None:
    default = FlatSettings.of(DistillSettings()).keys["outer.iterations"]
    found = differences(
        [FlatSettings({}), FlatSettings({"outer.iterations": default}), FlatSettings({"outer.iterations": 7})],
        ["a", "b", "c"],
        [{}] * 3,
    )
    assert found.rows == (("outer.iterations", (str(default), "7")),)
    assert [one.count for one in found.variants] == [2, 1]


def test_what_a_method_does_not_read_is_a_dash_and_no_difference() -> None:
    runs = [settings(method="edf", experts__num_experts=5, outer__lr_img=3.0), settings(method="random")]
    runs.append(settings(method="datm", outer__lr_img=2.0))
    found = differences(runs, ["a", "b", "c"], [{}] * 3)
    default = FlatSettings.of(DistillSettings()).keys["experts.num_experts"]
    rows = dict(found.rows)
    assert rows["experts.num_experts"] == ("5", "–", str(default)) and rows["outer.lr_img"] == ("3", "–", "2")
    alone = dict(differences(runs[:2], ["a", "b"], [{}] * 2).rows)
    of_loops = {key for key in alone if key.startswith(("experts.", "match.", "outer."))}
    assert of_loops == set(), "nothing that both read differs there: of one image per class EDF drops nothing either"


def test_no_limit_is_told_as_such() -> None:
    found = differences([settings(outer__max_match_loss=math.inf), settings(outer__max_match_loss=2.0)], ["a", "b"], [{}] * 2)
    assert found.rows == (("outer.max_match_loss", ("∞", "2")),)


def test_no_code_is_run_that_settings_name() -> None:
    runs = [FlatSettings({"method": "no.such.module:METHOD", "outer.lr_img": float(k)}) for k in range(2)]
    assert differences(runs, ["a", "b"], [{}] * 2).rows == (("outer.lr_img", ("0", "1")),)


def test_subsets_are_no_differences_of_settings() -> None:
    runs = [FlatSettings({"data.source": f"scenes:{level}"}) for level in ("easy", "hard")]
    assert differences(runs, ["a", "b"], [{"subset": "easy"}, {"subset": "hard"}]).same
    assert differences(runs, ["a", "b"], [{}, {}]).rows == (("data.source", ("scenes:easy", "scenes:hard")),)

"""`limbeck.compare`: methods as objects, names, settings and recipes, in this process or in others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import Said
from studies.fake_cells import command, results, starts

from limbeck.data.imageset import ImageSet
from limbeck.methods.presets import Preset
from limbeck.runs.api import settings_of
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.located import here
from limbeck.studies import matrix
from limbeck.studies.compare import _cell, _measured_as, compare
from limbeck.studies.table import Table

TINY: dict[str, Any] = {"network": "MLP-w8", "full_epochs": 1, "random_lr": 0.01, "eval.epochs": 1, "eval.seeds": 2}


@pytest.fixture(scope="module")
def data() -> ImageSet:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8), np.tile(np.arange(3), 8)
    return ImageSet.from_arrays(images, labels, images[:12], labels[:12])


def test_objects_are_compared_in_this_process_and_found_again(data: ImageSet, tmp_path: Path) -> None:
    methods = {"chance": Preset("random")(), "centres": "k-center", "own": DistillSettings.of(method="herding", **TINY)}
    table = compare(methods, data, seeds=(0, 1), output=tmp_path / "grid", pairs=[("centres", "own")], **TINY)
    assert [row.method for row in table.rows] == ["chance", "centres", "own"] and table.seeds == (0, 1)
    assert [one.a for one in table.differences] == ["centres", "own"] and table.pairs[0].b == "own"
    assert "chance, centres, own on " in table.title and not table.notes
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "grid" / "cells").iterdir()}
    assert len(times) == 6
    again = compare(methods, data, seeds=(0, 1), output=tmp_path / "grid", pairs=[("centres", "own")], **TINY)
    assert again == table == Table.read(tmp_path / "grid")
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_what_only_presets_say_of_the_evaluation_is_that_of_the_first(data: ImageSet, tmp_path: Path) -> None:
    """EDF's crops are 0.25, those of the others 0.125, DC is evaluated in a way of its own: all are measured alike."""
    once: dict[str, Any] = {"network": "MLP-w8", "full_epochs": 1, "random_lr": 0.01, "eval.seeds": 2, "seeds": [0]}
    whole = {**once, "eval.epochs": 1, "iterations": 1, "real.batch": 2, "init": "real", "eval.every": 1}
    table = compare(
        {"dc": "dc", "chance": Preset("random")(), "own": Preset("random")(**{"augment.crop_ratio": 0.5})}, data, **whole
    )
    assert not table.failed
    assert table.notes == (
        "eval.protocol 'none' in chance as in dc; its own is 'dd'",
        "eval.protocol 'none' in own as in dc; its own is 'dd'",
        "augment.crop_ratio 0.5 in own, augment.crop_ratio 0.125 in dc",
    )
    beside = [_measured_as(_cell("edf", "edf", "edf", data, {"ipc": 1, "seed": 0}), "m", name, {})[0] for name in ("mtt", "dc")]
    for method in beside:
        settings = settings_of(data, method, {})
        assert (settings.augment.crop_ratio, settings.eval.protocol, settings.eval.epochs) == (0.25, "dd", None)
        assert DistillSettings.of(method=settings.method).augment.crop_ratio == 0.125
    assert _measured_as(_cell("mtt", "mtt", "mtt", data, {"ipc": 1, "seed": 0}), "m", "edf", {})[1] == [
        "augment.crop_ratio 0.125 in m as in mtt; its own is 0.25"
    ]


def test_nothing_is_left_where_there_is_no_output(data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    table = compare({"chance": "random"}, data, ipc=[1, 2], seeds=[0], **TINY)
    assert [section.ipc for section in table.sections] == [1, 2] and table.paths == {}
    assert list(tmp_path.iterdir()) == []


def test_a_grid_at_a_url_is_there_and_found_again(
    data: ImageSet, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tables = [compare({"chance": Preset("random")()}, data, seeds=[0], output=f"{bucket}/grid", **TINY) for _ in range(2)]
    assert tables[0] == tables[1] and tables[0].paths["json"] == f"{bucket}/grid/comparison.json"
    assert Table.read(here("output", f"{bucket}/grid")).sections == tables[0].sections
    assert list(tmp_path.glob("s3*")) == []


def test_recipes_are_run_in_processes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started.jsonl"
    monkeypatch.setattr(matrix, "distill_command", command(started, result=lambda cell: results(0.5)))
    methods = {"EDF": "scenes/edf-ipc1", "MTT": "scenes/mtt-ipc1"}
    table = compare(methods, "scenes:hard", seeds=[3], output=tmp_path, **{"eval.epochs": 7})
    assert [start["cell"] for start in starts(started)] == ["EDF-ipc1-seed3", "MTT-ipc1-seed3"]
    assert table["MTT"].recipe == "scenes/mtt-ipc1" and table.data == "scenes:hard"


def test_settings_are_replaced_together_and_their_keys_looked_at_first(data: ImageSet) -> None:
    datm = DistillSettings.of(method="datm", **{"outer.lr_label": 2.0})
    hard = {"ipc": 1, "seed": 3, "labels": "hard", "outer.lr_label": 0, "match": {"syn_steps": 7}}
    for given in (hard, dict(reversed(hard.items()))):
        made = _cell("own", "own", datm, data, given).settings
        assert (made.labels, made.outer.lr_label, made.match.syn_steps, made.seed) == ("hard", 0, 7, 3)
        assert made.data.source is data and made.match.expert_epochs == datm.match.expert_epochs
    with pytest.raises(UsageError, match=r"^outer.lr_label: 2.0 is not 0 with labels=hard"):
        _cell("own", "own", datm, data, {"ipc": 1, "seed": 0, "labels": "hard"})
    for word, said in (
        ("foo", "foo: is not a key; "),
        ("bad.key", "bad.key: is not a key; "),
        ("match.key", "match.key: is not a"),
    ):
        with pytest.raises(UsageError, match=f"^{said}"):
            compare({"own": datm}, data, **{word: 1})


def test_keys_that_a_recipes_method_does_not_read_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "distill_command", command(tmp_path / "started.jsonl"))
    said = Said()
    recipes = {"EDF": "scenes/edf-ipc1", "chance": "scenes/random-ipc1"}
    compare(recipes, "scenes", seeds=(0, 1), output=tmp_path, progress=said, syn_steps=3)
    assert [line for line in said.lines if "read" in line] == ["warning: random does not read match.syn_steps"]


def test_what_cannot_be_compared_is_refused(data: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^methods: "):
        compare({}, data)
    with pytest.raises(UsageError, match="^data: None is not images"):
        compare({"chance": "random"})
    with pytest.raises(UsageError, match="^eval.epochs 9 in own is not eval.epochs 1 in chance"):
        own = DistillSettings.of({**TINY, "method": "random", "data.source": data, "eval.epochs": 9})
        compare({"chance": DistillSettings.of({**TINY, "method": "random", "data.source": data}), "own": own}, output=tmp_path)
    wrong: Any
    for wrong in (("centres", "chnace"), ("chance", "chance"), ("chance",), "chance"):
        with pytest.raises(UsageError, match=r"^pairs: .* is not \(A, B\) with two different ones of chance, centres$"):
            compare({"chance": "random", "centres": "k-center"}, data, pairs=[wrong], output=tmp_path, **TINY)
    with pytest.raises(UsageError, match=r"^pairs: \('b', 'a'\) is not a pair that is given once$"):
        compare({"a": "random", "b": "k-center"}, data, pairs=[("b", "a"), ("b", "a")], output=tmp_path, **TINY)
    with pytest.raises(UsageError, match=r"^seed: 18446744073709551616 is not a whole number from −2⁶³ to 2⁶⁴ − 1$"):
        compare({"chance": "random"}, data, seeds=[2**64], **TINY)
    with pytest.raises(Failure, match="^no distillation could be finished; chance-ipc9-seed0: ipc: 9"):
        compare({"chance": "random"}, data, ipc=9, seeds=[0], **TINY)
    assert list(tmp_path.iterdir()) == []

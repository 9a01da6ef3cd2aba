"""Every value that a method stands for by itself, beside where it is published: benchmarks/published/presets.csv.

`source` are sections of the papers' facts as docs/fidelity.md counts them, the table of EDF's released settings, or `ours`, with
what is published instead, where anything is.
"""

import csv
import json
from pathlib import Path

import pytest

from limbeck.methods.registry import METHODS
from limbeck.runs.settings import DistillSettings, key_types, value_of
from limbeck.runs.unread import idle_keys
from limbeck.runtime.fingerprint import encodable

TABLE = Path(__file__).parents[2] / "benchmarks" / "published" / "presets.csv"
ROWS = list(csv.DictReader(TABLE.open(encoding="utf-8")))
# What the data, the machine or the user decide, and how often is looked.
NOT_OF_A_METHOD = (
    "data.",
    "engine.",
    "view_labels.",
    "network",
    "ipc",
    "seed",
    "output",
    "method",
    "experts.dtype",
    "experts.store",
)
NOT_OF_A_METHOD += ("match.loss", "match.match_norm", "outer.checkpoint_every", "eval.seeds", "eval.networks", "eval.teacher")
NOT_OF_A_METHOD += (
    "parametrisation.",
    "features",
    "track",
    "eval.baselines",
    "eval.view_labels",
    "eval.full_",
    "eval.random_lr",
    "eval.every",
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['key']}={row['value']}")
def test_presets_are_as_published(row: dict[str, str]) -> None:
    assert row["source"]
    for method in row["methods"].split():
        assert encodable(value_of(DistillSettings.of(method=method), row["key"])) == json.loads(row["value"]), method


@pytest.mark.parametrize("method", METHODS)
def test_the_table_has_every_key_that_a_method_reads(method: str) -> None:
    settings = DistillSettings.of(method=method, ipc=10)  # of one image per class nothing is dropped
    said = [row["key"] for row in ROWS if method in row["methods"].split()]
    own = {key for key in key_types() if not key.startswith(NOT_OF_A_METHOD) or key == "engine.kind"}
    read = own - set(idle_keys(settings, key_types()))
    if settings.enhance.weighting == "none":
        read = {key for key in read if not key.startswith("enhance.cam")}
    assert len(said) == len(set(said)) and set(said) == read
    preset = {key for key in METHODS[method].preset if not key.startswith("parametrisation.")}  # any method's
    assert preset <= read | set(idle_keys(settings, METHODS[method].preset))


@pytest.mark.parametrize(("ipc", "ratio"), [(1, 0.0), (10, 0.25), (50, 0.375)])
def test_edf_drops_what_is_published_for_the_number_of_images(ipc: int, ratio: float) -> None:
    assert DistillSettings.of(method="edf", ipc=ipc).match.drop_ratio == ratio

"""Tables print words of the user's as they are, though they may look like markup."""

import pytest

from limbeck.cli import comp_dd, compare, distill
from limbeck.runs.plan import Plan
from limbeck.studies.recovery import Recovery
from limbeck.studies.table import Table

ODD = "[/b] :cat: [red]x"
SUMMARY = {"mean": 0.5, "values": [0.5], "n": 1, "ci95": None, "std": None}


def test_methods_of_a_comparison(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    row = {
        "method": ODD,
        "accuracy": SUMMARY,
        "seeds": [0],
        "seconds": {"distil": 1.0},
        "peak_memory": None,
        "comparison": {},
        "skipped_share": None,
    }
    table = {"ipc": 1, "network": ODD, "rows": [row], "reference": {}, "differences": [], "pairs": []}
    compare.COMMAND.show(Table.from_dict({"title": "", "data": "", "tables": [table], "notes": [ODD]}))
    printed = capsys.readouterr().out
    assert printed.count(ODD) == 3


def test_categories_and_methods_of_a_benchmark(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    rows = [{"method": ODD, "cells": {"a": {"seeds": [0], "accuracy": SUMMARY, "recovery_ratio": SUMMARY}}}]
    columns = [{"category": ":dog:", "level": "easy", "subset": "a", "random": None, "full": None}]
    table = {"ipc": 1, "rows": rows, "columns": columns, "verdicts": []}
    comp_dd.show(Recovery.from_dict({"title": "", "benchmark": "", "tables": [table]}))
    printed = capsys.readouterr().out
    assert printed.count(ODD) == printed.count(":dog: easy") == 2


def test_recipes_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    rest = {"parts": {}, "experts": None, "seconds_per_iteration": 1.0, "peak_memory": 0, "engine": None, "device": "cpu"}
    distill.PLAN.show(distill.Planned(ODD, Plan(**rest, advice=(ODD,), notes=())))
    assert capsys.readouterr().out.count(ODD) == 2

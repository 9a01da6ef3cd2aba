"""The bits of small seeded runs of all methods, of evaluations, a comparison and experts are those that were kept.

A deliberate change of a figure is named in CHANGELOG.md, and kept by `python tests/same_bits/record.py --write`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from same_bits.record import CONDITIONS, KEPT

RECORD = Path(__file__).with_name("record.py")
CPUINFO = Path("/proc/cpuinfo")
# A recovery's images have had other bits on AMD's processors, where the probe and all else was equal: known are those of Intel's.
OF_ONE_VENDOR = {"sre2l": "GenuineIntel"}


def test_everything_computes_what_it_did() -> None:
    done = subprocess.run([sys.executable, str(RECORD)], env={**os.environ, **CONDITIONS}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found, kept = json.loads(done.stdout), json.loads(KEPT.read_text(encoding="utf-8"))
    assert found.keys() == kept.keys()
    if found["probe"] == kept["probe"]:
        here = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.exists() else ""
        for name in (name for name, vendor in OF_ONE_VENDOR.items() if vendor not in here):
            kept[name] = {**kept[name], "bits": found[name]["bits"]}
        assert found == kept
        return
    # Another processor or version of torch: its sums round otherwise, and only what has not been amplified yet can be compared.
    for name, held in kept.items():
        if isinstance(held, dict) and held["first loss"] is not None:
            assert _first_loss(found[name]) == pytest.approx(_first_loss(held), rel=0.02), name


def _first_loss(record: dict[str, Any]) -> float:
    loss: float = record["first loss"]
    return loss

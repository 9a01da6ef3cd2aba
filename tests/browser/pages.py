"""The report that these tests look at, and which parts of it are compared with pictures."""

from pathlib import Path
from typing import Any

from browser.visits import Visits
from report.fake_run import make_run

from limbeck.report.html import write_report

FIGURES = ("accuracy", "loss", "kept")
SHOTS = {
    "light": {"gallery": ".class .images", "film": "#film .class .images", **{name: f"#{name} svg" for name in FIGURES}},
    "dark": {"film": "#film .class .images", "loss": "#loss svg"},
}


def opened(visits: Visits, folder: Path, scheme: str = "light", width: int = 1280) -> Any:
    """The report of a small run."""
    return visits.open(write_report(make_run(folder)), width, scheme=scheme)

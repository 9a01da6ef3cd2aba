"""What the tests of the report share."""

from pathlib import Path

import pytest
from report.fake_run import make_run
from report.page import NAMES, Page, page


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "finished", names=NAMES)


@pytest.fixture(scope="session")
def report(finished: Path) -> Page:
    return page(finished)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time, and most tests are about something else."""
    monkeypatch.setattr("limbeck.report.html.figures", lambda run: [])

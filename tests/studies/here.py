"""Cells of a grid as they are, in the process of the test."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from limbeck.cli.main import main
from limbeck.runtime.executor import local


class Here:
    """Stands in for a process of `limbeck`, which would import torch anew: runs its words in this one."""

    def __init__(self, words: Sequence[str], stdout: IO[bytes], **_: Any) -> None:
        assert words[:3] == [sys.executable, "-m", "limbeck"]
        with open(stdout.name, "a") as log, redirect_stdout(log), redirect_stderr(log):
            self.returncode = main(list(words[3:]))

    def poll(self) -> int:
        return self.returncode


def without_pages(patch: pytest.MonkeyPatch) -> None:
    """Let distillations draw no page, which takes longer than they do where they are as small as here."""
    import limbeck.report.write  # noqa: F401 (it keeps the true one for `limbeck report`)

    def leave(run: Path, target: Path | None = None) -> Path:
        return target or run / "report.html"

    patch.setattr("limbeck.report.html.write_report", leave)


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Run the cells here, without their pages."""
    patch.setattr(local, "subprocess", SimpleNamespace(Popen=Here, DEVNULL=None))
    without_pages(patch)

"""`limbeck reproduce`: what is said of the words behind it."""

from pathlib import Path

import pytest

from limbeck.cli.main import main


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("match.syn_steps=3", []),
        ("enhance.cam_every=3", ["warning: datm does not read enhance.cam_every"]),  # EDF's rows do, all but one
        ("rded.factor=2", ["warning: datm does not read rded.factor", "warning: edf does not read rded.factor"]),
    ],
)
def test_keys_that_no_row_of_a_method_reads_are_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, said: list[str]
) -> None:
    assert main(["reproduce", "table4", "--seeds", "0,1", "--output", str(tmp_path / "out"), "--show", given]) == 0
    assert sorted(line for line in capsys.readouterr().err.splitlines() if "warning" in line) == said

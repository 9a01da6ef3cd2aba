"""Where compiled code is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from limbeck.runtime.compiling import keep_compiled_code, processor

PLACE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.mark.parametrize("named", [None, "mine"])
def test_every_kind_of_processor_has_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path))
    monkeypatch.setenv(PLACE, "" if named is None else str(tmp_path / named))
    for _ in range(2):
        keep_compiled_code()
        assert Path(os.environ[PLACE]) == tmp_path / (named or "compiled") / processor()


def test_code_for_other_instructions_is_not_found() -> None:
    """What was compiled for AVX-512 gave wrong gradients where `ATEN_CPU_CAPABILITY=avx2` found it again."""
    words = [sys.executable, "-c", "from limbeck.runtime.compiling import processor; print(processor())"]
    plain = subprocess.run(words, env={**os.environ, "ATEN_CPU_CAPABILITY": "default"}, capture_output=True, text=True, check=True)
    assert plain.stdout.startswith("default-")
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert plain.stdout.strip() != processor()


def test_whoever_compiles_keeps_it_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from limbeck.runtime.compiling import compiled

    monkeypatch.setenv(PLACE, str(tmp_path))
    compiled(lambda x: x + 1)
    assert Path(os.environ[PLACE]).parent == tmp_path

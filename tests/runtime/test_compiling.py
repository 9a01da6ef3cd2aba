"""Where compiled code is kept."""

import os
import subprocess
import sys
import tempfile
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


def test_the_place_that_torch_names_itself_is_not_the_users(tmp_path: Path) -> None:
    """Compiled code was kept where torch's compiler, once imported, says: in the system's folder for what passes."""
    code = f"import os, torch._dynamo, torch._inductor.codecache as held; held.cache_dir(); print(os.environ['{PLACE}'])"
    code += f"\nfrom limbeck.runtime.compiling import keep_compiled_code\nkeep_compiled_code(); print(os.environ['{PLACE}'])"
    clean = {name: value for name, value in os.environ.items() if name != PLACE} | {"LIMBECK_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    of_torch, ours = map(Path, done.stdout.split())
    assert of_torch.parent == Path(tempfile.gettempdir()) and ours == tmp_path / "compiled" / processor()


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


def test_no_library_is_built_to_ask_for_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpu_vec_isa

    from limbeck.runtime.compiling import compiled

    built: list[str] = []
    monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", lambda self, code: bool(built.append(code)) or True)
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    x = torch.linspace(-1, 1, 37)
    assert torch.equal(compiled(lambda x: x.square() + 1, side_by_side=True)(x), x.square() + 1)
    assert cpu_vec_isa.valid_vec_isa_list.cache_info().currsize and cpu_vec_isa.VecISA._avx_code not in built

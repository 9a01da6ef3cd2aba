"""The ways that messages about places name, gone as they are written: a larger cache, smaller images, another folder, going on."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from data.pictures import png

from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.runs.folder import RunFolder
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import UsageError


def test_a_full_disk_names_a_larger_place_and_smaller_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for split in ("train", "test"):
        for kind in ("ant", "bee"):
            for number in range(3):
                (tmp_path / "photos" / split / kind).mkdir(parents=True, exist_ok=True)
                content = png(np.full((32, 32, 3), 40 * number, dtype=np.uint8))
                (tmp_path / "photos" / split / kind / f"{number}.png").write_bytes(content)
    room = lambda place: SimpleNamespace(free=5000 if str(place).startswith(str(small)) else 10**9)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", room)
    monkeypatch.setenv("LIMBECK_CACHE", str(small))
    settings: Any = {"source": str(tmp_path / "photos"), "val_fraction": 0.0}
    with pytest.raises(UsageError) as caught:
        load_data(DataSettings(**settings, size=32))
    (variable,) = re.findall(r"set \$(\w+) to a larger place", str(caught.value))
    assert load_data(DataSettings(**settings, size=8)).shape == (3, 8, 8)  # or a smaller data.size
    monkeypatch.setenv(variable, str(large))
    assert load_data(DataSettings(**settings, size=32)).shape == (3, 32, 32)


def test_a_folder_that_is_taken_names_another(tmp_path: Path) -> None:
    taken, settings = tmp_path / "run", DistillSettings.of()
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        RunFolder(taken, settings, False)
    assert str(caught.value).endswith("is not empty; go on with --resume, or name another with --output")
    assert not RunFolder(tmp_path / "another", settings, False).results_file.exists()

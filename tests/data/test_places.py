"""Places that the system refuses to look at end in one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data.pictures import fill, load, refused

from limbeck.data.load import decodes_at_any_size
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError

LONG = "x" * 300
HOMELESS = "~nosuchuser/photos"


@pytest.mark.parametrize("source", [LONG, f"{LONG}/photos", HOMELESS])
@pytest.mark.parametrize("form", ["{}", "hf:{}", "benchmark:{}:easy", "{}/{{0..1}}.tar"])
def test_names_that_lead_nowhere(source: str, form: str) -> None:
    pytest.importorskip("datasets")
    message = refused(form.format(source))
    assert message.startswith(f"data.source: {form.format(source)!r} cannot be read: ")
    assert message.endswith(("File name too long", "Could not determine home directory"))


@pytest.mark.parametrize("root", [LONG, HOMELESS])
def test_a_root_that_leads_nowhere(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("imagenet:imagefruit", root=root).startswith(f"data.root: {root!r} cannot be read: ")
    monkeypatch.setenv("LIMBECK_IMAGENET", root)
    assert refused("imagenet:imagefruit").startswith(f"$LIMBECK_IMAGENET: {root!r} cannot be read: ")


def test_whether_a_size_is_needed_is_not_known_of_them() -> None:
    for source in (LONG, HOMELESS):
        with pytest.raises(UsageError, match=r"^data\.source: .* cannot be read: "):
            decodes_at_any_size(DataSettings(source=source))


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Closes a folder, also to the user whom no folder is closed to."""
    stat, scandir = os.stat, os.scandir

    def close(folder: Path) -> None:
        def refusing(ask: Callable[..., Any], *, itself: bool) -> Callable[..., Any]:
            def answer(path: Any = ".", *args: Any, **keys: Any) -> Any:
                at = Path(os.fsdecode(path)) if not isinstance(path, int) else Path()
                if at.is_relative_to(folder) and (itself or at != folder):
                    raise PermissionError(13, "Permission denied", path)
                return ask(path, *args, **keys)

            return answer

        monkeypatch.setattr(os, "stat", refusing(stat, itself=False))
        monkeypatch.setattr(os, "scandir", refusing(scandir, itself=True))

    return close


def test_a_folder_that_one_may_not_enter(tmp_path: Path, closed: Callable[[Path], None]) -> None:
    root = fill(tmp_path / "set", a=4, b=4)
    assert len(load(root).train) > 0
    closed(root)
    assert refused(root) == f"data.source: '{root}' cannot be read: Permission denied"
    assert refused(root / "a") == f"data.source: '{root / 'a'}' cannot be read: Permission denied"
    assert refused("imagenet:imagefruit", root=str(root)) == f"data.root: '{root}' cannot be read: Permission denied"

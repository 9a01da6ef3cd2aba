"""Folders of parquet files, as people lay them out and as the Hugging Face Hub converts datasets.

ROOT/*.parquet, ROOT/SPLIT/*.parquet        which library `datasets` understands by itself
ROOT/CONFIG/SPLIT/0000.parquet              the Hub's conversion; where there are several, hf:ROOT:CONFIG chooses one
"""

from pathlib import Path

from limbeck.data.folder import subfolders
from limbeck.runtime.errors import UsageError

SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves


def holds_parquet(root: Path) -> bool:
    """Whether the folder holds parquet files and no other folders than those that do, or a dataset that was saved to disk."""
    if any((root / name).is_file() for name in SAVED):
        return True
    folders = subfolders(root).values()
    plain = any(_holds(at) for at in (root, *folders)) and all(_holds(at) for at in folders)
    return plain or bool(configurations(root))


def configurations(root: Path) -> dict[str, dict[str, list[str]]]:
    """The files by configuration and split, where the folder is laid out as the Hub converts datasets; else nothing."""
    found = {}
    for name, config in subfolders(root).items() if root.is_dir() else ():
        found[name] = {split: sorted(map(str, at.glob("*.parquet"))) for split, at in subfolders(config).items()}
    whole = bool(found) and all(splits and all(splits.values()) for splits in found.values())
    return found if whole else {}


def find_local(named: str) -> tuple[Path, str]:
    """The path and the configuration that `PATH` or `PATH:CONFIG` means; the path need not be there."""
    path = Path(named).expanduser().resolve()
    head, colon, config = named.rpartition(":")
    if not path.exists() and head and colon and (other := Path(head).expanduser().resolve()).is_dir():
        return other, config
    return path, ""


def choose_files(found: dict[str, dict[str, list[str]]], config: str, named: str) -> dict[str, list[str]]:
    """The files of one configuration by split.

    Args:
        found: what `configurations` gives.
        config: which; empty where the user names none.
        named: what the user calls the folder.

    Raises:
        UsageError: when there is none of that name, or the user has to choose.
    """
    if len(found) > 1 and not config:
        called = named.removeprefix("hf:")
        raise UsageError(
            f"data.source: {named!r} has the configurations {', '.join(found)}; hf:{called}:{next(iter(found))} takes one of them"
        )
    if config and config not in found:
        raise UsageError(f"data.source: {named!r} names the configuration {config!r}, where there are {', '.join(found)}")
    return found[config] if config else next(iter(found.values()))


def _holds(at: Path) -> bool:
    return any(at.glob("*.parquet"))

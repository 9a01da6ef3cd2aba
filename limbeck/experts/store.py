"""The trajectory store: a folder of expert checkpoints that opens at once and reads by slice.

    metadata.json        what determines the trajectories: its identity
    wanted-….json        what those asked for who filled it
    difficulty-….json    which scores the experts' curriculum goes by, where there is one
    expert-0003/…        the expert's checkpoints and accuracies, in the files of `blocks.py`
    expert-0003.lock     held while the expert is trained

The identity says what the trajectories are trained on and how, and leaves out what changes none of them: how many experts and
which epochs are kept, how exactly, and where the images lie. Whatever recipes agree in it share one store.

Reading writes nothing and takes no lock, so that a store may lie on a file system that is mounted read-only.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from limbeck.experts.blocks import blocks_of, write_block
from limbeck.experts.files import Shelf
from limbeck.experts.fill import Want
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import encodable, fingerprint, plain

FORMAT = 2
N = TypeVar("N")


def difference(held: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> str:
    """The first key of `wanted` that `held` has another value for, as a phrase; empty where there is none."""
    wanted = encodable(dict(wanted))
    inner = [key for key in held if key not in wanted] if prefix else []
    for key in (*wanted, *inner):
        old, new, name = held.get(key), wanted.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            if found := difference(old, new, f"{name}."):
                return found
        elif old != new:
            return f"{name} {old!r}, not {new!r}"
    return ""


class TrajectoryStore:
    """The checkpoints θ*_t of S experts, in the folder `path`.

    Args:
        path: the folder.
        identity: what determines the trajectories, with `num_parameters`; the folder is made a store of it where it is none.
            None takes what the folder says.
        about: what else to note when the store is made.

    Raises:
        UsageError: when the folder is no store, of another format or of another identity.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any] | None = None, about: Mapping[str, Any] | None = None) -> None:
        self.path = path
        file = path / "metadata.json"
        if identity is not None and not file.exists():
            try:
                write_json(file, {"format": FORMAT, **plain(dict(identity)), "about": plain(dict(about or {}))})
            except OSError as error:
                raise UsageError(f"experts: the store {str(path)!r} cannot be made ({error.strerror})") from error
        try:
            self.metadata: dict[str, Any] = read_json(file)
            self.num_parameters = int(self.metadata["num_parameters"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"experts: {str(path)!r} is not a trajectory store (no readable metadata.json)") from error
        if found := difference(self.metadata, {"format": FORMAT, **(identity or {})}):
            raise UsageError(f"experts: the store {str(path)!r} was made with {found}")
        self._shelves: dict[int, Shelf] = {}

    @property
    def imported(self) -> bool:
        """Whether the checkpoints come from elsewhere, so that none can be added by training."""
        return "imported" in self.metadata

    def shelf(self, expert: int) -> Shelf:
        """The files of an expert."""
        if expert not in self._shelves:
            self._shelves[expert] = Shelf(self.path / f"expert-{expert:04d}", self.num_parameters)
        return self._shelves[expert]

    @property
    def experts(self) -> list[int]:
        """The experts of which something is held."""
        names = [path.name.removeprefix("expert-") for path in self.path.glob("expert-*") if path.is_dir()]
        return [expert for expert in sorted(int(name) for name in names if name.isdigit()) if self.shelf(expert).blocks]

    def held(self, expert: int) -> list[int]:
        """The epochs of `expert` that can be read, in order."""
        return self.shelf(expert).held()

    def holds(self, expert: int, epochs: Sequence[int], coding: str = "fp16") -> bool:
        """Whether every one of `epochs` of `expert` can be read, at least as exactly as `coding` keeps it."""
        return not self.shelf(expert).missing(epochs, coding)

    def read(self, expert: int, epoch: int, device: torch.device | None = None) -> Tensor:
        """θ*_epoch of `expert`, float32 with shape (P,).

        Raises:
            KeyError: when the store does not hold it.
            UsageError: when its file is broken.
        """
        return self.shelf(expert).read(epoch).to(device or "cpu")

    def write(self, expert: int, checkpoints: Mapping[int, Tensor], log: Mapping[str, Any], coding: str = "fp32") -> None:
        """Add checkpoints that are there already, {epoch: θ with shape (P,)}; they take the place of those held before.

        Args:
            expert: its number; nobody else may be writing it.
            checkpoints: from one training.
            log: `val_accuracy`, after epochs 1, 2, …; may be absent.
            coding: how exactly to keep them.

        Raises:
            ValueError: when a number is not finite.
        """
        shelf, accuracies = self.shelf(expert), dict(enumerate(log.get("val_accuracy", []), start=1))
        generation, end, noted = shelf.next_generation(checkpoints), None, -1
        for number, epochs in enumerate(blocks := blocks_of(checkpoints)):
            follows = number > 0 and blocks[number - 1][-1] == epochs[0] - 1
            until = max(accuracies, default=0) if number == len(blocks) - 1 else epochs[-1]
            accuracy = {epoch: value for epoch, value in accuracies.items() if noted < epoch <= until and value is not None}
            thetas = {epoch: checkpoints[epoch] for epoch in epochs}
            written = write_block(shelf.folder, thetas, coding, generation, after=end if follows else None, accuracy=accuracy)
            end, noted = written.header["end"], until
        shelf.look()

    def log(self, expert: int) -> dict[str, Any]:
        """`val_accuracy`, the accuracies on the validation split after epochs 1, 2, … of `expert`; None where none was noted."""
        noted = self.shelf(expert).accuracy()
        last = max([*noted, *self.held(expert)], default=0)
        return {"val_accuracy": [noted.get(epoch) for epoch in range(1, last + 1)]}

    def wanted(self) -> list[Want]:
        """What those asked for who filled the store."""
        return self._notes("wanted", lambda values: Want(**{**values, "epochs": tuple(values["epochs"])}))

    def difficulties(self) -> list[dict[str, Any]]:
        """What was noted of the scores that the experts' curriculum goes by (`Scoring.record`); nothing without a curriculum.

        More than one where the scores were computed anew between two trainings, and differed by rounding.
        """
        return self._notes("difficulty", _record)

    def note(self, want: Want, *, instead: bool = False) -> None:
        """Note what is wanted; `instead` of all that was noted before."""
        path = self.path / f"wanted-{fingerprint(want)}.json"
        if not path.exists():
            write_json(path, want)
        for other in self.path.glob("wanted-*.json") if instead else ():
            if other != path:
                other.unlink()

    def note_difficulty(self, record: Mapping[str, Any]) -> None:
        """Note what `Scoring.record` says of the scores that experts are trained on."""
        path = self.path / f"difficulty-{record['fingerprint']}.json"
        if not path.exists():
            write_json(path, dict(record))

    def _notes(self, kind: str, make: Callable[[Any], N]) -> list[N]:
        found = []
        for path in sorted(self.path.glob(f"{kind}-*.json")):
            try:
                found.append(make(read_json(path)))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise UsageError(f"experts: {str(path)!r} is broken; delete it") from error
        return found

    def summary(self) -> dict[str, Any]:
        """What the store holds: experts, epochs that all of them have, bytes, the experts' last accuracies."""
        held = {expert: set(self.held(expert)) for expert in self.experts}
        return {
            "path": str(self.path),
            "num_experts": len(held),
            "epochs": sorted(set.intersection(*held.values())) if held else [],
            "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
            "last_epoch_accuracy": [
                self.log(expert)["val_accuracy"][-1] if epochs != {0} else None for expert, epochs in held.items()
            ],
        }


def _record(values: Any) -> dict[str, Any]:
    """A record of `Scoring.record`, refused where something of it is missing."""
    known = ("measure", "networks", "epochs", "fingerprint", "images", "easiest", "hardest")
    rows = [{key: row[key] for key in ("class", "name", "images", "mean", "quantiles")} for row in values["classes"]]
    return {**{key: values[key] for key in known}, "classes": rows}

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

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from limbeck.accuracy import percent
from limbeck.experts.blocks import BrokenFile, blocks_of, text_of, write_block
from limbeck.experts.elsewhere import Elsewhere
from limbeck.experts.files import Job, Shelf
from limbeck.experts.notes import DIFFICULTY, WANTED, Difficulty, Want, sound_want
from limbeck.networks.names import usual_name
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.executor import Shard
from limbeck.runtime.files import read_json, write_json
from limbeck.runtime.fingerprint import array_fingerprint, encodable, fingerprint, plain
from limbeck.runtime.sealed import Damaged, FileKind
from limbeck.runtime.tables import table
from limbeck.runtime.urls import is_url, local

FORMAT = 2
CONTENT = "content"  # of what is noted about an imported store: a digest of all that was imported
STORE = FileKind("store of experts")
N = TypeVar("N")
Curve = list[float | None]


@dataclass(frozen=True)
class Summary:
    """What a store holds: the epochs are those that all of its experts have."""

    path: str
    num_experts: int
    epochs: list[int]
    bytes: int
    last_epoch_accuracy: Curve


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
        elsewhere: where the store is, when the folder is a copy.

    Raises:
        UsageError: when the folder is no store, of another format or of another identity.

    Example:
        >>> import limbeck
        >>> store = limbeck.train_experts("scenes:easy", "ConvNetD2-w4", num_experts=2, train_epochs=2, size=16, per_class=12)
        >>> store.held(1), (store.read(1, 2) - store.read(1, 0)).norm() > 0
        ([0, 1, 2], tensor(True))
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.path, self.elsewhere = path, elsewhere
        file = path / "metadata.json"
        if identity is not None and not file.exists():
            try:
                write_json(file, {"format": FORMAT, **plain(dict(identity)), "about": plain(dict(about or {}))}, STORE)
            except OSError as error:
                raise UsageError(f"experts: the store {str(path)!r} cannot be made ({error.strerror})") from error
            self._put(file)
        try:
            self.metadata: dict[str, Any] = read_json(file, STORE)
            self.num_parameters = int(self.metadata["num_parameters"])
        except Damaged as error:
            said = f"is not a trajectory store, or a broken one (metadata.json: {error}); restore it, or delete the folder"
            raise UsageError(f"experts: {str(path)!r} {said}, and the experts are trained again") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"experts: {str(path)!r} is not a trajectory store (no readable metadata.json)") from error
        if found := difference(self.metadata, {"format": FORMAT, **(identity or {})}):
            raise UsageError(f"experts: the store {str(path)!r} was made with {found}")
        self._shelves: dict[int, Shelf] = {}
        self.remake: Callable[[], None] | None = None  # trains what is missing, where somebody knows how

    @staticmethod
    def at(place: str | Path, key: str = "experts") -> "TrajectoryStore":
        """The store in a folder or at a URL, which the user calls `key`."""
        if not is_url(str(place)):
            return TrajectoryStore(Path(local(str(place))).expanduser())
        elsewhere = Elsewhere.at(key, str(place))
        return TrajectoryStore(elsewhere.folder, elsewhere=elsewhere)

    @property
    def place(self) -> str:
        """The folder, or the URL of which it is a copy."""
        return str(self.path) if self.elsewhere is None else self.elsewhere.remote.url

    def _put(self, file: Path) -> None:
        """Have a new file where the store is, when the folder is a copy."""
        if self.elsewhere is not None:
            self.elsewhere.put(file.name)

    def __repr__(self) -> str:
        return f"TrajectoryStore({self.place!r}, {len(self.experts)} experts)"

    def _repr_html_(self) -> str:
        """What it holds, and the experts' curves, in a notebook."""
        from limbeck.experts.look import curves_svg

        found, curves = self.summary(), [self.accuracies(expert) for expert in self.experts]
        last = [value for value in found.last_epoch_accuracy if value is not None]
        rows = [
            ("network", self.metadata.get("network") or "–"),
            ("experts", found.num_experts),
            ("epochs that all of them have", text_of(found.epochs) if found.epochs else "–"),
            ("validation accuracy after the last epoch", percent(math.fsum(last) / len(last)) if last else "–"),
            ("on disk", f"{found.bytes / 2**20:.1f} MiB"),
        ]
        return table(rows) + curves_svg(curves)

    @property
    def imported(self) -> bool:
        """Whether the checkpoints come from elsewhere, so that none can be added by training."""
        return "imported" in self.metadata

    @property
    def content(self) -> str:
        """Sixteen hexadecimal digits that identify the trajectories, wherever they lie and however exactly they are kept."""
        if self.imported:  # nothing is known of how they were trained, and none is ever added
            if (noted := (self.metadata.get("about") or {}).get(CONTENT)) is not None:
                return str(noted)
            first = self.experts[0]
            return array_fingerprint(*(self.read(first, epoch).numpy() for epoch in self.held(first)[-1:]))
        return self.known

    @property
    def known(self) -> str:
        """Sixteen hexadecimal digits that identify what is known of how the trajectories came to be."""
        known = {key: value for key, value in self.metadata.items() if key not in ("format", "about")}
        return fingerprint({**known, "network": usual_name(str(known.get("network")))})

    def shelf(self, expert: int) -> Shelf:
        """The files of an expert."""
        if expert not in self._shelves:
            self._shelves[expert] = Shelf(self.path / f"expert-{expert:04d}", self.num_parameters, self.known, self.elsewhere)
        return self._shelves[expert]

    @property
    def experts(self) -> list[int]:
        """The experts of which something is held."""
        if self.elsewhere is not None:
            return [expert for expert in self.elsewhere.experts() if self.shelf(expert).blocks]
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
            NotHeld: when the store does not hold it.
            UsageError: when these are no whole numbers, or its file is broken.
        """
        for name, value in (("expert", expert), ("epoch", epoch)):
            require(isinstance(value, int), name, value, "a whole number")
        try:
            theta = self.shelf(expert).read(epoch)
        except BrokenFile as error:
            if self.remake is None:
                raise self.advised(error) from error
            self.leave(error)
            self.remake()
            theta = self.shelf(expert).read(epoch)
        return theta.to(device or "cpu")

    def leave(self, error: BrokenFile) -> None:
        """Take no notice any more of a file that is broken, so that what it held is trained again, and say so."""
        self.shelf(int(error.path.parent.name.removeprefix("expert-"))).leave(error.path)
        logging.getLogger("limbeck").warning("%s is broken (%s); what it held is trained again", error.path, error.reason)

    def sound(self, look: Callable[[], N]) -> N:
        """What `look` finds, which is to read no files that are broken: of those no notice is taken any more (`leave`).

        Raises:
            BrokenFile: when the store was imported.
        """
        while True:
            try:
                return look()
            except BrokenFile as error:
                if self.imported:
                    raise self.advised(error) from error
                self.leave(error)

    def advised(self, error: BrokenFile) -> BrokenFile:
        """The error with what helps: nobody can train again what was imported."""
        return BrokenFile(error.path, error.reason, "import the store again") if self.imported else error

    def write(
        self, expert: int, checkpoints: Mapping[int, Tensor], accuracies: Sequence[float | None] = (), coding: str = "fp32"
    ) -> None:
        """Add checkpoints that are there already, {epoch: θ with shape (P,)}; they take the place of those held before.

        Args:
            expert: its number; nobody else may be writing it.
            checkpoints: from one training.
            accuracies: on the validation split, after epochs 1, 2, …; None where none was noted.
            coding: how exactly to keep them.

        Raises:
            ValueError: when a number is not finite.
        """
        shelf, reached = self.shelf(expert), dict(enumerate(accuracies, start=1))
        generation, end, noted = shelf.next_generation(checkpoints), None, -1
        for number, epochs in enumerate(blocks := blocks_of(checkpoints)):
            follows = number > 0 and blocks[number - 1][-1] == epochs[0] - 1
            until = max(reached, default=0) if number == len(blocks) - 1 else epochs[-1]
            accuracy = {epoch: value for epoch, value in reached.items() if noted < epoch <= until and value is not None}
            thetas = {epoch: checkpoints[epoch] for epoch in epochs}
            after = end if follows else None
            written = write_block(shelf.folder, thetas, coding, generation, after=after, accuracy=accuracy, of=shelf.of)
            end, noted = written.header.end, until
        shelf.look()

    def accuracies(self, expert: int) -> Curve:
        """On the validation split, after epochs 1, 2, … of `expert`; None where none was noted."""
        noted = self.shelf(expert).accuracy()
        return [noted.get(epoch) for epoch in range(1, max([*noted, *self.held(expert)], default=0) + 1)]

    def lacking(self, want: Want, shard: Shard = Shard()) -> dict[int, list[int]]:
        """By expert of the share, the epochs that are wanted and not there."""
        found = {expert: self.shelf(expert).missing(want.of(expert), want.coding) for expert in shard.of(want.num_experts)}
        return {expert: epochs for expert, epochs in found.items() if epochs}

    def to_train(self, want: Want, shard: Shard = Shard()) -> dict[int, list[int]]:
        """The same, where training can add it, and what broken files held.

        Raises:
            UsageError: when something is lacking and the store was imported.
        """
        lacking = self.sound(lambda: self.lacking(want, shard))
        if lacking and self.imported:
            raise UsageError(f"experts.store: {str(self.path)!r} was imported and {say_lacking(lacking)}")
        return lacking

    def wanted(self) -> list[Want]:
        """What those asked for who filled the store."""
        return self._notes("wanted", WANTED, sound_want)

    def difficulties(self) -> list[Difficulty]:
        """What was noted of the scores that the experts' curriculum goes by; nothing without a curriculum.

        More than one where the scores were computed anew between two trainings, and differed by rounding.
        """
        return self._notes("difficulty", DIFFICULTY, Difficulty.from_dict)

    def note(self, want: Want, *, instead: bool = False) -> None:
        """Note what is wanted; `instead` of all that was noted before."""
        path = self.path / f"wanted-{fingerprint(want)}.json"
        if not path.exists():
            write_json(path, want, WANTED, self.known)
            self._put(path)
        for other in self.path.glob("wanted-*.json") if instead else ():
            if other != path:
                other.unlink()

    def note_difficulty(self, scores: Difficulty) -> None:
        """Note what the scores are that experts are trained on."""
        path = self.path / f"difficulty-{scores.fingerprint}.json"
        if not path.exists():
            write_json(path, scores, DIFFICULTY, self.known)
            self._put(path)

    def _notes(self, name: str, kind: FileKind, make: Callable[[Any], N]) -> list[N]:
        found = []
        for path in sorted(self.path.glob(f"{name}-*.json")):
            try:
                found.append(make(read_json(path, kind, self.known)))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise UsageError(f"experts: {str(path)!r} is broken; delete it") from error
        return found

    def summary(self) -> Summary:
        """What there is."""
        held = {expert: set(self.held(expert)) for expert in self.experts}
        common = sorted(set.intersection(*held.values())) if held else []
        size = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        if self.elsewhere is not None:
            size = self.elsewhere.size()
        last = [self.accuracies(expert)[-1] if epochs != {0} else None for expert, epochs in held.items()]
        return Summary(self.place, len(held), common, size, last)


def missing_jobs(want: Want, store: TrajectoryStore | None = None, shard: Shard = Shard()) -> dict[int, list[Job]]:
    """By expert of the share that lacks something, what there is to train, in that order; without a store, all.

    What broken files held is to be trained, too, where training cannot go on without it.
    """

    def jobs(expert: int) -> list[Job]:
        return list(_jobs(want, expert, store))

    found = {expert: jobs(expert) if store is None else store.sound(partial(jobs, expert)) for expert in shard.of(want.num_experts)}
    return {expert: jobs for expert, jobs in found.items() if jobs}


def _jobs(want: Want, expert: int, store: TrajectoryStore | None) -> Iterator[Job]:
    left = want.of(expert)
    if store is None:
        yield from [Job(expert, 0, left, None)] if left else []
        return
    while (job := store.shelf(expert).job(left, want.coding)) is not None:
        yield job
        left = tuple(epoch for epoch in left if epoch > job.stop)


def say_lacking(lacking: Mapping[int, Sequence[int]]) -> str:
    """A phrase for what is lacking by expert, of which there is something."""
    expert, epochs = next(iter(lacking.items()))
    others = f" and something of {len(lacking) - 1} others" if len(lacking) > 1 else ""
    return f"lacks epochs {text_of(epochs)} of expert {expert}{others}"

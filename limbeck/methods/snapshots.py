"""What an evaluation of the outer loop sees, and the files of it: X, Y, η, maps and weights; and P where X is decoded from it."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.sealed import Damaged, FileKind

SNAPSHOT = FileKind("snapshot")
STORED = "P"
# A snapshot that is neither the first nor the best is there to be looked at, and holds at most so many bytes of X.
LOOKED_AT = 8 * 2**20


@dataclass(frozen=True)
class Snapshots:
    """Those in the folder of a run.

    Args:
        folder: of the run.
        of: the run, as its files name it.
    """

    folder: Path
    of: str

    def path(self, iteration: int) -> Path:
        """The place of the snapshot of that iteration."""
        return self.folder / "snapshots" / f"iteration-{iteration:06d}.safetensors"

    def write(self, iteration: int, tensors: Mapping[str, Tensor], header: Mapping[str, Any], whole: bool) -> None:
        """Write one, with all of its images or with some to look at."""
        kept, about = (tensors, header) if whole else thinned(tensors, header)
        write_tensors(self.path(iteration), kept, about, SNAPSHOT, self.of)

    def read(self, iteration: int, device: torch.device) -> Mapping[str, Tensor]:
        """The tensors of a whole snapshot.

        Raises:
            OSError: when there is none.
            Damaged: when it is not what was written.
        """
        tensors, header = read_tensors(self.path(iteration), str(device), SNAPSHOT, self.of)
        if header.get("iteration") != iteration or "positions" in header or not {"X", "Y", "syn_lr", "weights"} <= tensors.keys():
            raise Damaged("it is another one's")
        return tensors

    def thin(self, images: Tensor, needed: AbstractSet[int]) -> None:
        """Leave of all a few images, but for the first and those after that many iterations, where X is as large as `images`."""
        if 4 * images.numel() <= LOOKED_AT:
            return
        whole = {self.path(iteration) for iteration in {0, *needed}}
        for path in set((self.folder / "snapshots").glob("iteration-*.safetensors")) - whole:
            with suppress(Damaged):  # nothing goes on from those, and the report says which it cannot read
                tensors, header = read_tensors(path, kind=SNAPSHOT, of=self.of)
                if "positions" not in header:
                    write_tensors(path, *thinned(tensors, header), SNAPSHOT, self.of)


def thinned(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """Tensors and header of a snapshot with X, Y, maps and weights of so many images, evenly, that X has `LOOKED_AT` bytes.

    `positions` in the header says which; a snapshot that has no more stays as it is.
    """
    images = tensors["X"]
    count = max(1, LOOKED_AT // (4 * images[0].numel()))
    if count >= len(images):
        return tensors, header
    index = torch.arange(count) * len(images) // count
    few = {name: tensors[name][index.to(images.device)] for name in ("X", "Y", "maps", "weights")}
    return few | {"syn_lr": tensors["syn_lr"]}, {**header, "positions": index.tolist()}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What an evaluation sees; callbacks may keep it, the loop does not change its tensors.

    Args:
        iteration: finished iterations.
        images: X with shape (N, C, H, W), or its running average where one is evaluated.
        labels: Y with shape (N, K).
        syn_lr: η.
        maps: M with shape (N, H, W); zeros where none are made.
        weights: F with shape (N, 1, H, W).
        accuracy: mean accuracy in [0, 1] on the validation images; None where nothing is chosen by it.
        best: whether it is the best so far.
        loss: of the last iteration; None before the first, or where it was not finite.
        skipped: iterations that changed nothing.

    Example:
        >>> import limbeck
        >>> seen = []
        >>> quick = {"size": 16, "per_class": 12, "iterations": 2, "every": 1, "epochs": 1, "full_epochs": 1, "random_lr": 0.01}
        >>> run = limbeck.distill("scenes:easy", "dm", network="ConvNetD2-w4", callbacks=[seen.append], **quick)
        >>> [snapshot.iteration for snapshot in seen], seen[0].images.shape
        ([0, 1, 2], torch.Size([10, 3, 16, 16]))
    """

    iteration: int
    images: Tensor
    labels: Tensor
    syn_lr: float
    maps: Tensor
    weights: Tensor
    accuracy: float | None
    best: bool
    loss: float | None
    skipped: int


Callback = Callable[[Snapshot], None]

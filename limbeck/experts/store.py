"""The trajectory store: a folder of expert checkpoints that opens at once and reads by slice.

    metadata.json                          what the experts were trained on and how
    expert-0003/epochs-0000-0007-….safetensors `theta` with shape (n, P), one row an epoch; the header names the epochs
    expert-0003/log.json                   accuracy after every epoch

A file appears whole or not at all; a store whose metadata differ from what is asked for is refused.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_header, read_json, write_json, write_tensors
from limbeck.runtime.fingerprint import encodable, fingerprint, plain

FORMAT = 1


class TrajectoryStore:
    """The checkpoints θ*_t of S experts, in the folder `path`.

    Args:
        path: the folder.
        metadata: what the experts must have been trained on and how; None takes what the folder says.

    Raises:
        UsageError: when the folder is no store, holds a broken file, or was made with other metadata.
    """

    def __init__(self, path: Path, metadata: dict[str, Any] | None = None) -> None:
        self.path = path
        found = path / "metadata.json"
        if metadata is not None and not found.exists():
            write_json(found, {"format": FORMAT, **plain(metadata)})
        try:
            self.metadata: dict[str, Any] = read_json(found)
            self.num_parameters = int(self.metadata["num_parameters"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"experts: {str(path)!r} is not a trajectory store (no readable metadata.json)") from error
        self._refuse_other(metadata)
        self.rows: dict[int, dict[int, tuple[Path, int]]] = {}
        for file in sorted(path.glob("expert-[0-9]*/epochs-*.safetensors")):
            self._index(file)

    def _refuse_other(self, metadata: dict[str, Any] | None) -> None:
        for key, wanted in {"format": FORMAT, **encodable(metadata or {})}.items():
            held = self.metadata.get(key)
            if held != wanted:
                raise UsageError(f"experts: the store {str(self.path)!r} was made with {key} {held!r}, not {wanted!r}")

    def _index(self, file: Path) -> None:
        expert = int(file.parent.name.removeprefix("expert-"))
        try:
            with safe_open(file, framework="pt") as opened:
                epochs = read_header(opened.metadata())["epochs"]
                shape = tuple(opened.get_slice("theta").get_shape())
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            raise UsageError(f"experts: {str(file)!r} is broken ({error}); delete it, and it is trained again") from error
        if shape != (len(epochs), self.num_parameters):
            raise UsageError(f"experts: {str(file)!r} has shape {shape}, not {(len(epochs), self.num_parameters)}")
        # One file supplies all of an expert's epochs, so that a start and its target always come from one training.
        if len(epochs) >= len(self.rows.get(expert, {})):
            self.rows[expert] = {epoch: (file, row) for row, epoch in enumerate(epochs)}

    def held(self, expert: int) -> list[int]:
        """The epochs of `expert` that can be read, in order."""
        return sorted(self.rows.get(expert, {}))

    def holds(self, expert: int, epochs: Sequence[int]) -> bool:
        """Whether every one of `epochs` of `expert`, and its log, can be read."""
        try:
            self.log(expert)["val_accuracy"][-1]
        except (OSError, ValueError, TypeError, LookupError):
            return False
        return set(epochs) <= self.rows.get(expert, {}).keys()

    def write(self, expert: int, checkpoints: dict[int, Tensor], log: dict[str, Any]) -> None:
        """Add an expert's checkpoints, {epoch: θ with shape (P,)}, and its log.

        The checkpoints take the place of those held before where they are as many or more; the older file stays for those
        who are reading it.
        """
        epochs = sorted(checkpoints)
        folder = self.path / f"expert-{expert:04d}"
        file = folder / f"epochs-{epochs[0]:04d}-{epochs[-1]:04d}-{fingerprint(epochs)[:8]}.safetensors"
        dtype = {"float32": torch.float32, "float16": torch.float16}[self.metadata["dtype"]]
        write_json(folder / "log.json", log)
        write_tensors(file, {"theta": torch.stack([checkpoints[epoch].to(dtype) for epoch in epochs])}, {"epochs": epochs})
        self._index(file)

    def read(self, expert: int, epoch: int, device: torch.device | None = None) -> Tensor:
        """θ*_epoch of `expert`, float32 with shape (P,).

        Raises:
            KeyError: when the store does not hold it.
        """
        file, row = self.rows[expert][epoch]
        with safe_open(file, framework="pt") as opened:
            theta: Tensor = opened.get_slice("theta")[row : row + 1][0]
        return theta.to(device or "cpu", torch.float32)

    def log(self, expert: int) -> dict[str, Any]:
        """The accuracies that were noted while `expert` trained."""
        value: dict[str, Any] = read_json(self.path / f"expert-{expert:04d}" / "log.json")
        return value

    def summary(self) -> dict[str, Any]:
        """What the store holds: experts, epochs, bytes, the experts' last accuracies on the validation split."""
        size = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        last = [self.log(expert)["val_accuracy"][-1] for expert in sorted(self.rows)]
        epochs = sorted(set.intersection(*(set(held) for held in self.rows.values()))) if self.rows else []
        return {"path": str(self.path), "num_experts": len(self.rows), "epochs": epochs, "bytes": size, "last_epoch_accuracy": last}

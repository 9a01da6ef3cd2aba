"""Everything that changes in the outer loop, and the checkpoint that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from limbeck.methods.health import Health, sizes
from limbeck.methods.objective import State
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.records import Record

_TENSORS = ("images", "labels", "syn_lr", "images_velocity", "labels_velocity", "syn_lr_velocity", "average", "weights")


@dataclass(frozen=True)
class Best(Record):
    """The best evaluation so far: after how many iterations, and its accuracy; None where nothing is chosen by it."""

    iteration: int
    accuracy: float | None = None


@dataclass
class OuterState:
    """The state after `iteration` finished iterations.

    Args:
        images: X with shape (N, C, H, W).
        labels: Y with shape (N, K).
        syn_lr: η, a scalar.
        images_velocity: of SGD on X; likewise for Y and η.
        average: the running average of X (X itself where none is kept).
        weights: F with shape (N, 1, H, W).
        objective: the objective's state.
        iteration: finished iterations.
        skipped: how many of them changed nothing.
        best: the best evaluation so far; None before the first.
        kept_share: of the last iteration, per parameter tensor.
        last_loss: of the last iteration.
        health: whether the loop gets on; without sizes before it runs.
        whole: whether all of it is of one iteration; not while one changes it.
    """

    images: Tensor
    labels: Tensor
    syn_lr: Tensor
    images_velocity: Tensor
    labels_velocity: Tensor
    syn_lr_velocity: Tensor
    average: Tensor
    weights: Tensor
    objective: State
    iteration: int = 0
    skipped: int = 0
    best: Best | None = None
    kept_share: dict[str, float] = field(default_factory=dict)
    last_loss: float | None = None
    health: Health = Health()
    whole: bool = True

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Of X, Y and η."""
        return sizes(self.images, self.labels, self.syn_lr)

    @classmethod
    def start(cls, images: Tensor, labels: Tensor, syn_lr: float, objective: State) -> "OuterState":
        """The state before the first iteration."""
        eta = torch.tensor(syn_lr, device=images.device, dtype=images.dtype)
        zeros = (torch.zeros_like(images), torch.zeros_like(labels), torch.zeros_like(eta))
        weights = torch.ones_like(images[:, :1])
        return cls(images.clone(), labels.clone(), eta, *zeros, images.clone(), weights, objective)

    def back_to(self, snapshot: Mapping[str, Tensor], objective: State, *, averaged: bool) -> None:
        """Take X, Y, η and the weights of a snapshot, the objective's state before its first iteration, and no velocities."""
        self.images, self.labels, self.syn_lr, self.weights = (snapshot[name] for name in ("X", "Y", "syn_lr", "weights"))
        self.average = self.images.clone() if averaged else self.images
        self.images_velocity, self.labels_velocity = torch.zeros_like(self.images), torch.zeros_like(self.labels)
        self.syn_lr_velocity, self.objective = torch.zeros_like(self.syn_lr), objective

    def save(self, path: Path) -> None:
        """Write the checkpoint, atomically; what is X itself, or has no effect, is not written."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if self.average is self.images:
            del tensors["average"]
        if bool((self.weights == 1).all()):
            del tensors["weights"]
        tensors |= {f"objective.{name}": value for name, value in self.objective.items()}
        plain = ("iteration", "skipped", "best", "kept_share", "last_loss", "health")
        write_tensors(path, tensors, {name: getattr(self, name) for name in plain})

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "OuterState":
        """Read a checkpoint.

        Raises:
            UsageError: when the file is broken.
        """
        try:
            tensors, plain = read_tensors(path, str(device))
            plain["best"] = Best.from_dict(plain["best"]) if plain["best"] else None
            plain["health"] = Health.from_dict(plain.get("health", {}))  # earlier versions had none
            tensors.setdefault("average", tensors["images"])
            tensors.setdefault("weights", torch.ones_like(tensors["images"][:, :1]))
            objective = {name.removeprefix("objective."): one for name, one in tensors.items() if name.startswith("objective.")}
            values: dict[str, Any] = {name: tensors[name] for name in _TENSORS} | plain
            return cls(**values, objective=objective)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"output: {str(path)!r} is broken ({error}); delete it, and the distillation starts anew") from error

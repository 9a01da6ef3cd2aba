"""Everything that changes in the outer loop, and the file that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.methods.health import Health, sizes
from limbeck.methods.objective import State
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.records import Record
from limbeck.runtime.sealed import Damaged, FileKind

CHECKPOINT = FileKind("checkpoint")
_TENSORS = ("images", "labels", "syn_lr", "images_velocity", "labels_velocity", "syn_lr_velocity", "average", "weights")
_OF_ADAMW = ("images_second", "images_steps")


@dataclass(frozen=True)
class Best(Record):
    """The best evaluation so far: after how many iterations, and its accuracy; None where nothing is chosen by it."""

    iteration: int
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reached(Record):
    """What a checkpoint says beside its tensors: the fields of `OuterState` that are none."""

    iteration: int
    skipped: int = 0
    best: Best | None = None
    kept_share: Mapping[str, float] = field(default_factory=dict)
    last_loss: float | None = None
    health: Health = Health()  # earlier versions had none


@dataclass
class OuterState:
    """The state after `iteration` finished iterations.

    Args:
        images: X with shape (N, C, H, W).
        labels: Y with shape (N, K).
        syn_lr: η, a scalar.
        images_velocity: of SGD on X, of AdamW the first moments; likewise for Y and η.
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
        images_second: of AdamW on X, the second moments; None with SGD.
        images_steps: of AdamW on X, how many steps it has made, a scalar.
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
    kept_share: Mapping[str, float] = field(default_factory=dict)
    last_loss: float | None = None
    health: Health = Health()
    whole: bool = True
    images_second: Tensor | None = None
    images_steps: Tensor | None = None

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Of X, Y and η."""
        return sizes(self.images, self.labels, self.syn_lr)

    @classmethod
    def start(cls, images: Tensor, labels: Tensor, syn_lr: float, objective: State, *, adamw: bool = False) -> "OuterState":
        """The state before the first iteration."""
        eta = torch.tensor(syn_lr, device=images.device, dtype=images.dtype)
        zeros = (torch.zeros_like(images), torch.zeros_like(labels), torch.zeros_like(eta))
        weights = torch.ones_like(images[:, :1])
        state = cls(images.clone(), labels.clone(), eta, *zeros, images.clone(), weights, objective)
        if adamw:
            state.images_second, state.images_steps = torch.zeros_like(images), torch.zeros_like(eta)
        return state

    @property
    def images_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of AdamW on X."""
        assert self.images_second is not None and self.images_steps is not None, "the state is one of SGD"
        return self.images_velocity, self.images_second, self.images_steps

    def back_to(self, snapshot: Mapping[str, Tensor], objective: State, *, averaged: bool) -> None:
        """Take X, Y, η and the weights of a snapshot, the objective's state before its first iteration, and no velocities."""
        self.images, self.labels, self.syn_lr, self.weights = (snapshot[name] for name in ("X", "Y", "syn_lr", "weights"))
        self.average = self.images.clone() if averaged else self.images
        self.images_velocity, self.labels_velocity = torch.zeros_like(self.images), torch.zeros_like(self.labels)
        self.syn_lr_velocity, self.objective = torch.zeros_like(self.syn_lr), objective
        if self.images_second is not None:
            self.images_second, self.images_steps = torch.zeros_like(self.images), torch.zeros_like(self.syn_lr)

    def save(self, path: Path, of: str = "") -> None:
        """Write the checkpoint of the run `of`, atomically; what is X itself, or has no effect, is not written."""
        tensors = {name: getattr(self, name) for name in (*_TENSORS, *_OF_ADAMW) if getattr(self, name) is not None}
        if self.average is self.images:
            del tensors["average"]
        if bool((self.weights == 1).all()):
            del tensors["weights"]
        tensors |= {f"objective.{name}": value for name, value in self.objective.items()}
        reached = Reached(
            iteration=self.iteration,
            skipped=self.skipped,
            best=self.best,
            kept_share=self.kept_share,
            last_loss=self.last_loss,
            health=self.health,
        )
        write_tensors(path, tensors, reached.to_dict(), CHECKPOINT, of)

    @classmethod
    def load(cls, path: Path, device: torch.device, of: str = "") -> "OuterState":
        """Read a checkpoint of the run `of`.

        Raises:
            OSError: when there is none.
            Damaged: when it is not what was written, or what no loop can have written.
        """
        tensors, metadata = read_tensors(path, str(device), CHECKPOINT, of)
        try:
            reached = Reached.from_dict(metadata)
            tensors.setdefault("average", tensors["images"])
            tensors.setdefault("weights", torch.ones_like(tensors["images"][:, :1]))
            held: dict[str, Any] = {name: tensors[name] for name in (*_TENSORS, *(tensors.keys() & {*_OF_ADAMW}))}
        except (TypeError, LookupError) as error:
            raise Damaged(f"its content is no checkpoint's: {error}") from error
        objective = {name.removeprefix("objective."): one for name, one in tensors.items() if name.startswith("objective.")}
        state = cls(**held, objective=objective, **{one.name: getattr(reached, one.name) for one in fields(reached)})
        if problem := state.problem():
            raise Damaged(problem)
        return state

    def problem(self) -> str | None:
        """What cannot be so of a state, or None."""
        shape = self.images.shape
        shapes = {
            "images_velocity": shape,
            "average": shape,
            "labels_velocity": self.labels.shape,
            "weights": (shape[0], 1, *shape[2:]),
        }
        if (self.images_second is None) != (self.images_steps is None):
            return "of the moments of X some are missing"
        names: tuple[str, ...] = _TENSORS
        if self.images_second is not None:
            shapes, names = shapes | {"images_second": shape, "images_steps": ()}, (*_TENSORS, *_OF_ADAMW)
        shapes |= {"syn_lr": (), "syn_lr_velocity": (), "labels": (shape[0], *self.labels.shape[1:])}
        for name, wanted in shapes.items():
            if (found := getattr(self, name)).shape != wanted:
                return f"{name} has shape {tuple(found.shape)}, not {tuple(wanted)}"
        if broken := [name for name in names if not bool(getattr(self, name).isfinite().all())]:
            return f"{broken[0]} has numbers that are not finite"
        if not 0 <= self.skipped <= self.iteration:
            return f"{self.skipped} of {self.iteration} iterations skipped"
        if self.best is not None and not 0 <= self.best.iteration <= self.iteration:
            return f"the best of {self.iteration} iterations is number {self.best.iteration}"
        return None

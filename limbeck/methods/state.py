"""Everything that changes in the outer loop, and the file that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.methods.health import Health, sizes
from limbeck.methods.objective import State
from limbeck.methods.snapshots import STORED
from limbeck.parametrisations.parametrisation import Decoder
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
        images: P, what is stored of X (`parametrisations/`): X itself with shape (N, C, H, W), or N slots.
        labels: Y with shape (M, K), of the M images that P decodes to.
        syn_lr: η, a scalar.
        images_velocity: of SGD on P, of AdamW the first moments; likewise for Y and η.
        average: the running average of P (P itself where none is kept).
        weights: F with shape (M, 1, H, W).
        objective: the objective's state.
        iteration: finished iterations.
        skipped: how many of them changed nothing.
        best: the best evaluation so far; None before the first.
        kept_share: of the last iteration, per parameter tensor.
        last_loss: of the last iteration.
        health: whether the loop gets on; without sizes before it runs.
        whole: whether all of it is of one iteration; not while one changes it.
        decoder: what leads from P to X; no checkpoint holds it.
        images_second: of AdamW on P, the second moments; None with SGD.
        images_steps: of AdamW on P, how many steps it has made, a scalar.
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
    decoder: Decoder = Decoder()
    images_second: Tensor | None = None
    images_steps: Tensor | None = None

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Of P, Y and η."""
        return sizes(self.images, self.labels, self.syn_lr)

    @classmethod
    def start(
        cls, images: Tensor, labels: Tensor, syn_lr: float, objective: State, decoder: Decoder = Decoder(), *, adamw: bool = False
    ) -> "OuterState":
        """The state before the first iteration."""
        eta = torch.tensor(syn_lr, device=images.device, dtype=images.dtype)
        zeros = (torch.zeros_like(images), torch.zeros_like(labels), torch.zeros_like(eta))
        held = (images.clone(), labels.clone(), eta, *zeros, images.clone(), _no_weights(images, decoder))
        state = cls(*held, objective, decoder=decoder)
        if adamw:
            state.images_second, state.images_steps = torch.zeros_like(images), torch.zeros_like(eta)
        return state

    @property
    def decoded(self) -> Tensor:
        """X."""
        return self.decoder(self.images)

    @property
    def images_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of AdamW on P."""
        assert self.images_second is not None and self.images_steps is not None, "the state is one of SGD"
        return self.images_velocity, self.images_second, self.images_steps

    def back_to(self, snapshot: Mapping[str, Tensor], objective: State, *, averaged: bool) -> None:
        """Take P, Y, η and the weights of a snapshot, the objective's state before its first iteration, and no velocities."""
        self.images = snapshot["X"] if self.decoder.trivial else snapshot[STORED]
        self.labels, self.syn_lr, self.weights = (snapshot[name] for name in ("Y", "syn_lr", "weights"))
        self.average = self.images.clone() if averaged else self.images
        self.images_velocity, self.labels_velocity = torch.zeros_like(self.images), torch.zeros_like(self.labels)
        self.syn_lr_velocity, self.objective = torch.zeros_like(self.syn_lr), objective
        if self.images_second is not None:
            self.images_second, self.images_steps = torch.zeros_like(self.images), torch.zeros_like(self.syn_lr)

    def save(self, path: Path, of: str = "") -> None:
        """Write the checkpoint of the run `of`, atomically; what is P itself, or has no effect, is not written."""
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
    def load(cls, path: Path, device: torch.device, of: str = "", decoder: Decoder = Decoder()) -> "OuterState":
        """Read a checkpoint of the run `of`, whose images `decoder` decodes.

        Raises:
            OSError: when there is none.
            Damaged: when it is not what was written, or what no loop can have written.
        """
        tensors, metadata = read_tensors(path, str(device), CHECKPOINT, of)
        try:
            reached = Reached.from_dict(metadata)
            tensors.setdefault("average", tensors["images"])
            if (wrong := decoder.problem(tensors["images"])) is not None:
                raise Damaged(wrong)
            tensors.setdefault("weights", _no_weights(tensors["images"], decoder))
            held: dict[str, Any] = {name: tensors[name] for name in (*_TENSORS, *(tensors.keys() & {*_OF_ADAMW}))}
        except (TypeError, LookupError) as error:
            raise Damaged(f"its content is no checkpoint's: {error}") from error
        objective = {name.removeprefix("objective."): one for name, one in tensors.items() if name.startswith("objective.")}
        rest = {one.name: getattr(reached, one.name) for one in fields(reached)}
        state = cls(**held, objective=objective, decoder=decoder, **rest)
        if problem := state.problem():
            raise Damaged(problem)
        return state

    def problem(self) -> str | None:
        """What cannot be so of a state, or None."""
        shape, (count, _, *sides) = self.images.shape, self.decoder.decoded_shape(self.images)
        shapes = {
            "images_velocity": shape,
            "average": shape,
            "labels_velocity": self.labels.shape,
            "weights": (count, 1, *sides),
        }
        if (self.images_second is None) != (self.images_steps is None):
            return "of the moments of X some are missing"
        names: tuple[str, ...] = _TENSORS
        if self.images_second is not None:
            shapes, names = shapes | {"images_second": shape, "images_steps": ()}, (*_TENSORS, *_OF_ADAMW)
        shapes |= {"syn_lr": (), "syn_lr_velocity": (), "labels": (count, *self.labels.shape[1:])}
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


def _no_weights(stored: Tensor, decoder: Decoder) -> Tensor:
    """F of ones, for the images that `stored` decodes to."""
    count, _, *sides = decoder.decoded_shape(stored)
    return stored.new_ones(count, 1, *sides)

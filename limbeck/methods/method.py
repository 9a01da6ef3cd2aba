"""What a method is: something that makes, the settings that belong to it, and what it asks of a run.

    kind          make(…)                                                 what becomes of it
    objective     (materials, classes, engine) → an `Objective`           the outer loop goes down its gradients
    images        (materials, folder) → X, the classes, a teacher         the teacher labels X
    selection     (materials) → positions of training images              they are taken as they are

This module is free of torch, so that settings can be read, and recipes listed, without it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

from limbeck.runtime.errors import require

if TYPE_CHECKING:
    from limbeck.methods.materials import Materials

Kind = Literal["objective", "images", "selection"]
Shards = Literal["no", "images", "classes"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method.

    Args:
        make: called as the table above says, or where that function lies, `package.module:function`, imported when it is called.
            `classes` are those of the initial images, int64 with shape (N,), on the CPU; `engine` is (student's step, way to the
            gradient) where `steps`, else None; `folder` is the run's, for what a stopped run goes on from.
        preset: settings that the method stands for, by dotted keys; they lie under those of a recipe.
        kind: which row of the table it is.
        experts: whether it reads experts, at the epochs of `schedule.*`, so that they are trained before.
        ends: whether it reads of each expert the first and the last epoch instead, fresh and trained parameters.
        steps: whether it walks through student steps, so that an engine is set up.
        difficulties: whether it asks how difficult training images are, of whom `coreset.judges` says.
        shards: whether what `make` gives goes by `materials.spread` where each rank holds but a part of X: `images`, any of them;
            `classes`, all images of some classes, and then networks without batch norm, or with it where `norms`; `no`.
        norms: whether batch norms see nothing but a class, or batches that all ranks have together, so that they do not matter.
        labels: `soft` where they may be; else the setting `labels: hard` is asked for.
        check: called with the materials, or where that function lies, before anything is trained or written; it raises `UsageError`
            for settings or data that `make` would refuse. None where there are none.
        name: what it is called in results; one of the user's is called as the key names it, unless it says otherwise.
        given: settings over the preset, by dotted keys or their last words, as `presets.py` takes them.

    Example:
        >>> def make(materials):
        ...     return materials.data.train.of_class(0)[: materials.ipc]
        >>> Method(make=make, kind="selection", preset={"labels": "hard", "outer.lr_label": 0.0}).experts
        False
    """

    make: Callable[..., Any] | str
    preset: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "objective"
    experts: bool = False
    ends: bool = False
    steps: bool = False
    difficulties: bool = False
    shards: Shards = "no"
    norms: bool = False
    labels: Literal["soft", "hard"] = "hard"
    check: "Callable[[Materials], None] | str | None" = None
    name: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind: {self.kind!r} is not one of {', '.join(get_args(Kind))}")
        if self.shards not in get_args(Shards):
            raise ValueError(f"shards: {self.shards!r} is not one of {', '.join(get_args(Shards))}")

    def __call__(self, *arguments: Any) -> Any:
        """What `make` returns for these arguments.

        Raises:
            UsageError: when that should be an objective and is none.
        """
        found = _function(self.make)(*arguments)
        if self.kind == "objective":
            from limbeck.methods.objective import Objective

            require(isinstance(found, Objective), "method", type(found).__name__, "an Objective, which `make` is to return")
        return found

    def refuse(self, materials: "Materials") -> None:
        """Raise `UsageError` for what the method cannot be run with, if it says any such thing."""
        if self.check is not None:
            _function(self.check)(materials)


def _function(named: Callable[..., Any] | str) -> Callable[..., Any]:
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function

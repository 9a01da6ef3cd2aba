"""The state of the outer loop on the ranks of a run: the same on each, or X sharded by images with all that goes with them.

Rank 0 reads and writes. It hands out what it has read, where X is sharded X, Y, their velocities, the running average and the
weights by images, and collects them where they are to be written. Norms and sums over X are then those of all shards.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from limbeck.matching.adjoint import Gradients
from limbeck.matching.spread import Spread
from limbeck.methods.health import sizes
from limbeck.methods.objective import Update
from limbeck.methods.state import OuterState

BY_IMAGE = ("images", "labels", "images_velocity", "images_second", "labels_velocity", "average", "weights")
SNAPSHOT_BY_IMAGE = ("X", "Y", "weights")


def handed_out(state: OuterState | None, spread: Spread, device: torch.device) -> OuterState:
    """On every rank the state that rank 0 has, all of it or, where X is sharded, this rank's images."""
    ranks = spread.ranks
    if ranks.alone:
        assert state is not None, "a process alone has the state"
        return state
    tensors = None if state is None else tensors_of(state)
    plain = ranks.told(lambda: _without_tensors(state))
    found = spread_out(tensors, spread, device, BY_IMAGE)
    objective = {name.removeprefix("objective."): one for name, one in found.items() if name.startswith("objective.")}
    own: dict[str, Any] = {name: one for name, one in found.items() if not name.startswith("objective.")}
    own.setdefault("average", own["images"])
    return replace(plain, objective=objective, **own)


def spread_out(
    tensors: Mapping[str, Tensor] | None, spread: Spread, device: torch.device, by_image: tuple[str, ...] = SNAPSHOT_BY_IMAGE
) -> dict[str, Tensor]:
    """On every rank the tensors that rank 0 has, of those by image, where X is sharded, the rows of this rank."""
    ranks = spread.ranks
    if ranks.alone:
        return dict(tensors or {})
    about = ranks.told(lambda: {name: (tuple(one.shape), one.dtype) for name, one in (tensors or {}).items()})
    found = {}
    for name, (shape, dtype) in about.items():
        own = None if tensors is None else tensors[name].to(device)
        if spread.sharded and name in by_image:
            like = torch.empty(0, *shape[1:], dtype=dtype, device=device)
            found[name] = ranks.handed_out(own, like, shape[0], spread.whole)
        else:
            found[name] = torch.empty(shape, dtype=dtype, device=device) if own is None else own.contiguous()
            ranks.broadcast_(found[name])
    return found


def collected(state: OuterState, spread: Spread) -> OuterState:
    """On rank 0 the whole state, where X is sharded in the memory of the host; elsewhere just what is here."""
    if spread.total is None:
        return state
    total, ranks = spread.total, spread.ranks
    here = {name: getattr(state, name) for name in BY_IMAGE if name != "average"}
    whole: dict[str, Any] = {name: ranks.collected(one, total, spread.whole) for name, one in here.items() if one is not None}
    same = state.average is state.images
    average = whole["images"] if same else ranks.collected(state.average, total, spread.whole)
    whole |= {name: getattr(state, name).cpu() for name in ("syn_lr", "syn_lr_velocity")}
    whole |= {} if state.images_steps is None else {"images_steps": state.images_steps.cpu()}
    return replace(state, **whole, average=average)


def of_rank_0(update: Update, spread: Spread) -> Update:
    """The same on every rank, of what each has computed for itself."""
    g, plain = update.gradients, update.plain
    parts = [tensor.contiguous() for tensor in (g.loss, g.images, g.labels, g.syn_lr, *([] if plain is None else [plain]))]
    spread.ranks.broadcast_(*parts)
    return replace(update, gradients=Gradients(*parts[:4]), plain=None if plain is None else parts[4])


def tensors_of(state: OuterState) -> dict[str, Tensor]:
    """Those of a state by name, `average` only where it is not X itself."""
    names = [one.name for one in fields(state) if isinstance(getattr(state, one.name), Tensor)]
    found = {name: getattr(state, name) for name in names if name != "average" or state.average is not state.images}
    return found | {f"objective.{name}": one for name, one in state.objective.items()}


def _without_tensors(state: OuterState | None) -> OuterState:
    assert state is not None, "rank 0 has the state"
    nothing = {one.name: torch.empty(0) for one in fields(state) if isinstance(getattr(state, one.name), Tensor)}
    changes: dict[str, Any] = {**nothing, "objective": {}}
    return replace(state, **changes)


def totals(spread: Spread, *values: Tensor) -> list[float]:
    """Scalars, where X is sharded summed over its shards."""
    if spread.sharded:
        found = torch.stack([value.double() for value in values])
        spread.ranks.sum_(found)
        return [float(one) for one in found.tolist()]
    return [float(value) for value in values]


def norm(spread: Spread, value: Tensor) -> float:
    """The norm of a tensor by images, over all of them."""
    if not spread.sharded:
        return float(value.norm())
    return float(totals(spread, value.double().square().sum())[0] ** 0.5)


def sizes_of(state: OuterState, spread: Spread) -> tuple[float, float, float]:
    """Root mean square of X and of Y, and η, over all images."""
    if not spread.sharded:
        return sizes(state.images, state.labels, state.syn_lr)
    values = (state.images, state.labels)
    found = totals(
        spread,
        *(value.double().square().sum() for value in values),
        *(torch.tensor(float(value.numel()), device=value.device) for value in values),
    )
    x, y = ((found[k] / found[k + 2]) ** 0.5 for k in range(2))
    return x, y, abs(float(state.syn_lr))


def comparison(spread: Spread, gradient: Tensor, plain: Tensor | None) -> dict[str, float]:
    """The cosine of a gradient by X with the plain one, and the ratio of their norms."""
    assert plain is not None, "a comparison was made without the plain gradient"
    if not spread.sharded:
        cosine = cosine_similarity(gradient.flatten(), plain.flatten(), dim=0).item()
        return {"cosine": cosine, "norm_ratio": (gradient.norm() / plain.norm()).item()}
    product, one, other = totals(
        spread, (gradient * plain).double().sum(), gradient.double().square().sum(), plain.double().square().sum()
    )
    one, other = one**0.5, other**0.5
    return {"cosine": product / (max(one, 1e-8) * max(other, 1e-8)), "norm_ratio": one / other if other else float("nan")}


def rescaled(spread: Spread, gradient: Tensor, plain: Tensor | None) -> Tensor:
    """`gradient` with the norm of `plain`."""
    assert plain is not None, "the norm was to be matched without the plain gradient"
    if spread.sharded:
        length = norm(spread, gradient)
        return gradient * (norm(spread, plain) / length if length > 0 else 1.0)
    length_here = gradient.norm()
    return gradient * torch.where(length_here > 0, plain.norm() / length_here, 1.0)


def infinite(spread: Spread, *values: Tensor) -> list[bool]:
    """Of each whether it has numbers that are not finite, on any rank."""
    found = torch.stack([~value.isfinite().all() for value in values])
    if spread.sharded:
        counted = found.to(torch.float32)
        spread.ranks.sum_(counted)
        found = counted > 0
    return [bool(one) for one in found.tolist()]

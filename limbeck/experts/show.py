"""What a store holds, as values to print and to draw."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from limbeck.experts.epochs import text_of
from limbeck.experts.fill import Want
from limbeck.experts.store import TrajectoryStore

Curve = list[float | None]


def describe(store: TrajectoryStore) -> dict[str, Any]:
    """What a store holds.

    Returns:
        `path`; `identity`, what determines the trajectories; `about`; `num_experts`; `epochs`, {the epochs as text: how many
        experts hold just these}; `codings`, {name: how many checkpoints}; `step_error`, the largest part of an epoch's step that
        a coding has lost; `bytes`; `list_share`, those bytes as a share of what lists of all epochs up to the last one take;
        `accuracy`, for each expert the accuracies after epochs 1, 2, … or None; `wanted`, what was asked for and how many
        experts lack something of it; `difficulty`, what was noted of the scores of their curriculum, if they have one.
    """
    summary = store.summary()
    held = {expert: store.held(expert) for expert in store.experts}
    blocks = [block for expert in held for block in store.shelf(expert).blocks]
    codings: Counter[str] = Counter()
    for block in blocks:
        codings[block.header["coding"]] += len(block.epochs)
    last = max((epochs[-1] for epochs in held.values()), default=0)
    lists = 4 * store.num_parameters * (last + 1) * len(held)
    identity = {name: value for name, value in store.metadata.items() if name not in ("format", "about")}
    return {
        "path": str(store.path),
        "identity": identity,
        "about": store.metadata.get("about") or {},
        "num_experts": len(held),
        "epochs": dict(Counter(text_of(epochs) for epochs in held.values())),
        "codings": dict(codings),
        "step_error": max((block.header["step_error"] for block in blocks), default=0.0),
        "bytes": summary["bytes"],
        "list_share": summary["bytes"] / lists if lists else None,
        "accuracy": {str(expert): store.log(expert)["val_accuracy"] for expert in held},
        "wanted": [_asked(want, store) for want in store.wanted()],
        "difficulty": store.difficulties(),
    }


def over_experts(curves: Sequence[Curve]) -> list[tuple[int, float, float, float]]:
    """For every epoch with a known accuracy: the epoch, the mean over the experts, the lowest and the highest."""
    rows = []
    for epoch in range(1, max(map(len, curves), default=0) + 1):
        known = [value for curve in curves if len(curve) >= epoch and (value := curve[epoch - 1]) is not None]
        if known:
            rows.append((epoch, statistics.fmean(known), min(known), max(known)))
    return rows


def _asked(want: Want, store: TrajectoryStore) -> dict[str, Any]:
    return {
        "num_experts": want.num_experts,
        "epochs": text_of(want.epochs),
        "last": want.last,
        "label_experts": want.label_experts,
        "dtype": want.coding,
        "lacking": len(want.lacking(store)),
    }

"""The figures of a report: those there are data for, each with a title and a sentence."""

from collections.abc import Mapping, Sequence

import numpy as np

from limbeck.accuracy import percent
from limbeck.evaluation.predictions import Predictions
from limbeck.figures import curves
from limbeck.figures.areas import area_curve
from limbeck.figures.confusion import confusion_map
from limbeck.figures.curves import kept_share
from limbeck.figures.dropped import dropped_map
from limbeck.figures.exhibit import Exhibit
from limbeck.figures.style import inline_svg
from limbeck.report.contents import Row, Run


def figures(run: Run) -> list[dict[str, str]]:
    """Name, title, caption and `<svg>` of every figure."""
    drawn = curves_of(run)
    keys = ("name", "title", "caption", "svg")
    rows = ((one.name, one.title, one.caption, inline_svg(one.figure, one.name, one.title)) for one in drawn)
    return [dict(zip(keys, row, strict=True)) for row in rows]


def curves_of(run: Run) -> list[Exhibit]:
    """The figures of what a run has noted, those that there are data for."""
    rows, evaluations, comparisons = (run.metrics.get(kind, []) for kind in ("iteration", "evaluation", "comparison"))
    evaluations = [row for row in evaluations if isinstance(row.get("accuracy"), Mapping)]
    kept = [share for snapshot in run.snapshots if (share := snapshot.header.get("kept_share"))]
    made = []
    if _known(evaluations, "iteration"):
        made.append(Exhibit("accuracy", "Validation accuracy", _best(evaluations), curves.accuracy_curve(evaluations)))
    if _known(rows, "loss"):
        made.append(Exhibit("loss", "Matching loss", _skipped(rows), curves.loss_curve(rows)))
    if _known(rows, "syn_lr"):
        last = next(row["syn_lr"] for row in reversed(rows) if row.get("syn_lr") is not None)
        made.append(Exhibit("step-size", "Learned step size η", f"At the end {last:.5g}.", curves.step_size_curve(rows)))
    if any(_known(rows, key) for key in ("grad_norm_images", "grad_norm_labels", "grad_lr")):
        caption = "Of the matching loss with respect to images, labels and step size."
        made.append(Exhibit("gradients", "Gradient norms", caption, curves.gradient_curves(rows)))
    if len(comparisons) > 1 and (_known(comparisons, "cosine") or _known(comparisons, "norm_ratio")):  # one is no curve
        caption = "The gradient of the images beside the one without Common Pattern Dropout and Discriminative Area Enhancement."
        made.append(Exhibit("comparison", "What dropout and enhancement change", caption, curves.comparison_curves(comparisons)))
    if kept:
        caption = "The share of each layer's parameters that enters the matching loss, at the last snapshot and over all."
        made.append(Exhibit("kept", "Parameters kept", caption, kept_share(kept)))
        iterations = [snapshot.iteration for snapshot in run.snapshots if snapshot.header.get("kept_share")]
        if any(share < 1 for one in kept for share in one.values()):
            caption = "What the criterion, such as Common Pattern Dropout, leaves out of each layer, at every snapshot."
            made.append(Exhibit("dropped", "What is left out, over the iterations", caption, dropped_map(iterations, kept)))
    mapped = [snapshot for snapshot in run.snapshots if snapshot.area]
    if len(mapped) > 1:
        caption = "The mean share of an image above its activation map's mean; the band holds the middle half of the images."
        figure = area_curve([one.iteration for one in mapped], [np.array(one.area) for one in mapped])
        made.append(Exhibit("area-curve", "Discriminative area over the iterations", caption, figure))
    said = run.result.evaluation.predictions if run.result is not None else None
    if run.distilled is not None and said is not None and said.confusion:
        names = run.distilled.class_names
        made.append(Exhibit("confusion", "What is taken for what", _hardest(said, names), confusion_map(said.confusion, names)))
    return made


def _known(rows: Sequence[Row], key: str) -> bool:
    """Whether any row has a number there."""
    return bool(np.isfinite(curves.column(rows, key)).any())


def _best(evaluations: Sequence[Row]) -> str:
    best = evaluations[curves.best_row(evaluations)]
    return f"On images kept apart from training. The best is that after {best['iteration']} iterations."


def _skipped(rows: Sequence[Row]) -> str:
    count = sum(bool(row.get("skipped")) for row in rows)
    if not count:
        return f"None of {len(rows)} iterations was skipped."
    return f"{count} of {len(rows)} iterations ({percent(count / len(rows))}) were skipped and changed nothing."


def _hardest(said: Predictions, names: Sequence[str]) -> str:
    """Which class is recognised worst, of the networks trained on the distilled images."""
    text = "By networks trained on the distilled images, of the test images."
    means = {name: row.mean for name, row in zip(names, said.per_class, strict=False) if row is not None}
    if not means:
        return text
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    return f"{text} Best: {high}, {percent(means[high])}; worst: {low}, {percent(means[low])}."

"""What came out of a run: the few numbers that matter most, the accuracies, and how they were measured."""

from dataclasses import dataclass

from limbeck.accuracy import TITLES, Accuracy, percent, protocol_name
from limbeck.evaluation.scores import told
from limbeck.report.contents import Run


def headline(run: Run) -> list[dict[str, str]]:
    """The few numbers that matter most, each with what it is and what it is to be compared with."""
    if (result := run.result) is None:
        return []
    distilled, random, full = result.accuracy.distilled, result.accuracy.random, result.accuracy.full
    if not distilled.known:
        return []
    interval = "" if distilled.ci95 is None else f"95 % interval {distilled.interval}"
    value = "failed" if distilled.all_failed else percent(distilled.mean)
    tiles = [{"value": value, "name": "test accuracy from the distilled images alone", "more": interval}]
    if random.mean > 0:
        times = f"{distilled.mean / random.mean:.2f} ×"
        tiles.append({"value": times, "name": "the accuracy of as many random real images", "more": f"random images: {random}"})
    if result.recovery_ratio is not None:
        more = f"full training data: {full}" if full.known else ""
        name = "of the full training data's accuracy recovered"
        tiles.append({"value": percent(result.recovery_ratio), "name": name, "more": more})
    return tiles


@dataclass(frozen=True)
class Bars:
    """The table of accuracies: its rows, and with which step sizes networks were trained, in words."""

    rows: "tuple[Bar, ...]"
    step_sizes: str


def accuracies(run: Run) -> Bars | None:
    """The accuracies of a run; None where none is known."""
    if (result := run.result) is None or not (known := dict(result.accuracy.items())):
        return None
    rows = tuple(
        bar
        for name, row in known.items()
        for bar in (Bar(name, row), *([Bar(name, row.best_on_test, True)] if row.best_on_test is not None else []))
    )
    return Bars(rows, result.accuracy.step_sizes)


@dataclass(frozen=True)
class Bar:
    """A row of the table of accuracies."""

    name: str
    accuracy: Accuracy
    best: bool = False

    @property
    def title(self) -> str:
        """What networks were trained on; of what was chosen on the test images, that it is optimistic."""
        return TITLES[self.name] + (", best on test (optimistic)" if self.best else "")

    @property
    def ends(self) -> tuple[float, float]:
        """Where the interval begins and how wide it is, in percent of the bar's width."""
        low, high = (100 * min(max(end, 0.0), 1.0) for end in self.accuracy.ci95 or (self.accuracy.mean, self.accuracy.mean))
        return round(low, 2), round(high - low, 2)


def measured(run: Run) -> list[tuple[str, str]]:
    """How the accuracies were measured and what else they say, as pairs of name and value."""
    if run.result is None:
        return []
    result, pairs = run.result.evaluation, list[tuple[str, str]]()
    if "name" in result.protocol:
        pairs.append(("Protocol", f"{protocol_name(result.protocol)}, network {result.network}"))
    if said := result.accuracy.best_on_test:
        pairs.append(("As printed elsewhere", said))
    if said := result.accuracy.step_sizes:
        pairs.append(("Step sizes", said))
    if (gain := result.gain) is not None and gain.ci95 is not None:
        pairs.append(("Over random images, paired by seed", f"{gain.points} points, 95 % interval, p = {gain.p:.2g}"))
    if result.coresets is not None:
        for name, one in result.coresets.rows.items():
            on = f"; {one.validation} on validation images" if one.validation.known else ""
            pairs.append((f"Coreset {name}", f"{one.accuracy}{on}; step size {one.accuracy.lr:.3g}, {one.accuracy.origin}"))
        pairs += [(question[0].upper() + question[1:], answer) for question, answer in result.coresets.verdicts]
    if (lossless := result.lossless) is not None and lossless.lossless is not None:
        floor = f" ({percent(lossless.floor)} would be)" if lossless.floor is not None else ""
        pairs.append(("Lossless, to one standard deviation", "yes" if lossless.lossless else f"no{floor}"))
    if result.compression is not None:
        size = result.compression.images
        pairs.append(("Images", f"{size.distilled} instead of {size.real} ({percent(size.ratio)})"))
    pairs += [("Stored", result.stored)] if result.stored else []
    if result.predictions is not None and (error := result.predictions.calibration_error) is not None:
        pairs.append(("Expected calibration error", percent(error.mean)))
    for name, row in result.networks.items():
        judged = [] if row.coresets is None else [" ".join(pair) for pair in row.coresets.verdicts]
        beside = [row.accuracy.best_on_test, row.accuracy.step_sizes, *judged, *told(row.doubts)]
        shown = f"{row.accuracy.distilled} (random {row.accuracy.random})"
        pairs.append((f"With {name}", "; ".join([shown, *filter(None, beside)])))
    return pairs

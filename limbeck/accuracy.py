"""Accuracies and their comparisons as values that show themselves: their text is made here and nowhere else.

`to_dict` gives the layout of the JSON files, `from_dict` reads it, also from files of earlier versions, which lack some keys.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from typing_extensions import Self

from limbeck.runtime.records import Record

MINUS = "−"
TITLES = {
    "distilled": "Distilled images",
    "initial": "Initial images",
    "random": "Random real images, as many",
    "full": "Full training data",
}

BEST_ON_TEST = "best on test (optimistic: chosen on the images that it is measured on)"

# How a step size was come by; {of} says of how many.
ORIGINS = {
    "own": "its own",
    "elsewhere": "its own, learned otherwise",
    "given": "given",
    "protocol": "the protocol's",
    "validation": "the best{of} on validation images",
    "training": "the best{of} on training images",
    "assumed": "assumed, for there are no images to choose on",
}


@dataclass(frozen=True)
class StepSize:
    """What networks are trained with.

    Args:
        value: of it.
        origin: how it was come by, of `ORIGINS`.
        tried: those of which it is the best.
    """

    value: float
    origin: str
    tried: tuple[float, ...] = ()


def percent(share: float | None) -> str:
    """A fraction in percent, to one decimal; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of fractions in points with its sign, such as −1.2; 0.0 has none."""
    rounded = round(100 * difference, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def protocol_name(protocol: Any) -> str:
    """What a stored protocol is called, with its version and its epochs."""
    if not isinstance(protocol, Mapping) or "name" not in protocol:
        return "–"
    named = f"{protocol['name']} {protocol.get('version', '')}".strip()
    return named + (f", {protocol['epochs']} epochs" if "epochs" in protocol else "")


@dataclass(frozen=True, kw_only=True)
class Accuracy(Record):
    """Mean and spread of the accuracies of several networks, or of another figure of theirs.

    Args:
        mean: of the values, fractions in [0, 1]; NaN where nothing is known.
        std: standard deviation (n − 1); None for a single value, as `ci95`.
        ci95: the ends of the 95 % interval of the mean.
        n: how many networks.
        values: of each.
        epochs: that the networks were trained for, where that is said beside the figure.
        lr: their step size, likewise.
        lr_from: how it was come by, of `ORIGINS`; empty where that is not said.
        lr_tried: those of which it is the best.
        trained: of networks of the full data, their mean accuracy on images that they were trained on.
        failed: how many of the networks diverged while they were trained and say nothing finite, whose accuracy counts as 0.
        failed_of: of how many networks, where `n` counts something else, such as distillation seeds.
        best_on_test: where the protocol is one whose authors print that, the best accuracy on the test images themselves, of each
            network at any look or of any checkpoint: optimistic, for it was chosen on what it is measured on.

    Example:
        >>> from limbeck.evaluation.statistics import summarise
        >>> str(summarise([0.50, 0.54, 0.52]))
        '52.0 ± 2.0 %'
    """

    mean: float = math.nan
    std: float | None = None
    ci95: tuple[float, float] | None = None
    n: int | None = None
    values: tuple[float, ...] = ()
    epochs: int | None = None
    lr: float | None = None
    lr_from: str = ""
    lr_tried: tuple[float, ...] = ()
    trained: float | None = None
    failed: int | None = None
    failed_of: int | None = None
    best_on_test: "Accuracy | None" = None

    LEFT_OUT: ClassVar[tuple[str, ...]] = (
        *("epochs", "lr", "lr_from", "lr_tried", "trained", "failed", "failed_of", "best_on_test"),
    )

    @classmethod
    def from_dict(cls, held: Any) -> Self:
        """Of a JSON object; an unknown accuracy (`known` is False) of anything that has no mean."""
        if not isinstance(held, Mapping) or not isinstance(held.get("mean"), (int, float)):
            return cls()
        ends = held.get("ci95")
        return super().from_dict({**held, "ci95": None if isinstance(ends, (list, tuple)) and None in ends else ends})

    def __json__(self) -> Any:
        """In the JSON of others; null where it is unknown."""
        return self.to_dict() if self.known else None

    def at(self, step: StepSize) -> Self:
        """The same, of networks trained with that step size."""
        return replace(self, lr=step.value, lr_from=step.origin, lr_tried=step.tried)

    @property
    def origin(self) -> str:
        """How the step size was come by, in words; empty where that is not said."""
        of = f" of {len(self.lr_tried)}" if self.lr_tried else ""
        return ORIGINS[self.lr_from].format(of=of) if self.lr_from in ORIGINS else self.lr_from

    @property
    def known(self) -> bool:
        """Whether there is a figure at all."""
        return not math.isnan(self.mean)

    @property
    def all_failed(self) -> bool:
        """Whether not one of the networks could be trained."""
        return self.failed is not None and self.failed == self._networks

    @property
    def failure(self) -> str:
        """How many networks diverged, as a sentence; empty where none has."""
        if not self.failed:
            return ""
        rate = "" if self.lr is None else f"; the step size {self.lr:.3g} ({self.origin}) is too large for them"
        return f"training failed of {self.failed} of {self._networks} networks, which diverged and count as 0 %{rate}"

    @property
    def _networks(self) -> int | None:
        return self.n if self.failed_of is None else self.failed_of

    def __str__(self) -> str:
        """Mean ± standard deviation, such as 50.2 ± 2.8 %."""
        if not self.known or self.all_failed:
            return "failed training" if self.known else "–"
        return percent(self.mean) if self.std is None else f"{100 * self.mean:.1f} ± {100 * self.std:.1f} %"

    @property
    def interval(self) -> str:
        """The 95 % interval, such as 48.1 … 52.3 %."""
        if self.ci95 is None:
            return "–"
        low, high = (min(max(100 * end, 0.0), 100.0) for end in self.ci95)  # of two networks it may end where no accuracy does
        return f"{low:.1f} … {high:.1f} %"

    @property
    def test_mean(self) -> float | None:
        """The mean of the best on the test images, where it is known."""
        return None if self.best_on_test is None else self.best_on_test.mean

    @property
    def with_margin(self) -> str:
        """Mean ± half the 95 % interval in %, without the sign: 50.2 ± 3.1."""
        if not self.known or self.all_failed:
            return "failed" if self.known else "–"
        return f"{100 * self.mean:.1f}" + ("" if self.ci95 is None else f" ± {50 * (self.ci95[1] - self.ci95[0]):.1f}")


@dataclass(frozen=True, kw_only=True)
class Accuracies(Record):
    """Test accuracies side by side; one that was not measured is unknown.

    Args:
        distilled: of networks trained on the distilled images.
        initial: on the images that those began as.
        random: on as many random real images.
        full: on the full training data.
    """

    distilled: Accuracy = Accuracy()
    initial: Accuracy = Accuracy()
    random: Accuracy = Accuracy()
    full: Accuracy = Accuracy()

    LEFT_OUT: ClassVar = tuple(TITLES)

    @classmethod
    def from_dict(cls, held: Any) -> Self:
        """Of a JSON object; what it lacks is unknown."""
        return super().from_dict(held if isinstance(held, Mapping) else {})

    def items(self) -> Iterator[tuple[str, Accuracy]]:
        """Names and accuracies of those that are known."""
        return ((name, accuracy) for name in TITLES if (accuracy := getattr(self, name)).known)

    @property
    def failures(self) -> Iterator[str]:
        """A sentence for each kind of images of which networks diverged."""
        for name, one in self.items():
            if one.failure:
                yield f"{TITLES[name].lower()}: {one.failure}"

    @property
    def step_sizes(self) -> str:
        """With which step sizes the networks were trained and how they were come by, in a line; empty where that is not said."""
        said = {name: f"{one.lr:.3g} ({one.origin})" for name, one in self.items() if one.lr is not None and one.lr_from}
        return ", ".join(f"{name} {text}" for name, text in said.items())

    @property
    def best_on_test(self) -> str:
        """The best figures on the test images themselves, as they are printed elsewhere, in a line; empty where there are none."""
        said = {name: str(one.best_on_test) for name, one in self.items() if one.best_on_test is not None}
        return f"{BEST_ON_TEST}: " + ", ".join(f"{name} {text}" for name, text in said.items()) if said else ""

    def __getitem__(self, name: str) -> Accuracy:
        """The accuracy of that name.

        Raises:
            KeyError: for another name than the four.
        """
        if name not in TITLES:
            raise KeyError(name)
        found: Accuracy = getattr(self, name)
        return found


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Accuracies a and b from the same seeds, d_i = a_i − b_i.

    Args:
        n: how many seeds.
        mean: of the differences.
        std: their standard deviation; with one seed None, as `ci95`, `p` and `effect`.
        ci95: the 95 % interval of the mean.
        p: of the two-sided paired t-test. Where all differences are equal it knows no doubt: 1 if they are 0, and else 0.
        effect: d_z = mean / std; None where all differences are equal.
        effect_note: what that is.
        wins: the share of seeds in which a > b.
        ties: in which a = b.
        p_exact: of the sign flips, at least 2^{1−n}.
        p_exact_note: which flips those were.
        a: what is compared, where it has a name.
        b: with what.
        network: under which network.
        seeds: which seeds.
        p_adjusted: for the number of tests (Holm) and of looks; None where there is no p.
        verdict: who is better, as the one who compared says it; None where nobody judged.
        seeds_needed: how many would decide; None where they decide already, or no number would.

    Example:
        >>> from limbeck.evaluation.statistics import compare
        >>> found = compare([0.50, 0.54, 0.52], [0.40, 0.45, 0.43])
        >>> round(found.mean, 3), found.n, found.wins
        (0.093, 3, 1.0)
    """

    n: int
    mean: float
    std: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    effect: float | None = None
    effect_note: str = ""
    wins: float = 0.0
    ties: float = 0.0
    p_exact: float = 1.0
    p_exact_note: str = ""
    a: str | None = None
    b: str | None = None
    network: str | None = None
    seeds: tuple[int, ...] | None = None
    p_adjusted: float | None = None
    verdict: str | None = None
    seeds_needed: int | None = None

    LEFT_OUT: ClassVar = ("a", "b", "network", "seeds", "verdict")

    def _is_left_out(self, name: str, value: Any) -> bool:
        """Of a comparison whose sides have no names, also what is made of the figures."""
        return super()._is_left_out(name, value) or (self.a is None and name in ("p_adjusted", "seeds_needed"))

    @property
    def points(self) -> str:
        """The mean difference with its interval, such as +1.2 [−0.3, +2.7]."""
        return points(self.mean) + ("" if self.ci95 is None else f" [{points(self.ci95[0])}, {points(self.ci95[1])}]")

    @property
    def judgement(self) -> str:
        """The verdict, or how many seeds it would take."""
        if self.verdict != "undecided":
            return self.verdict or ""
        return "undecided" + (f"; {self.seeds_needed} seeds would decide" if self.seeds_needed else "")

    def __str__(self) -> str:
        """What, how much, by how many seeds, the verdict, in a line."""
        named = "" if self.a is None else f"{self.a} {MINUS} {self.b}: "
        p = "" if self.p_adjusted is None else f", p {self.p_adjusted:.3g} (Holm)"
        text = f"{named}{self.points} points, {self.n} seed{'' if self.n == 1 else 's'}{p}"
        return f"{text}: {self.judgement}" if self.judgement else text


@dataclass(frozen=True, kw_only=True)
class UnpairedComparison(Record):
    """Accuracies of independent seeds, on two machines say.

    Args:
        n: how many on either side.
        mean: the difference of the means.
        ci95: its 95 % interval; one point where neither side has a spread.
        degrees_of_freedom: Welch's; None without spread.
        p: of Welch's two-sided test; without spread 1 or 0.
        agree: whether 0 lies in the interval. Few seeds make a wide interval, in which 0 lies easily: read the two together.
    """

    n: tuple[int, int]
    mean: float
    ci95: tuple[float, float]
    degrees_of_freedom: float | None
    p: float
    agree: bool

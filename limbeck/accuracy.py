"""Accuracies as values that show themselves: their text is made here and nowhere else.

`to_dict` gives the layout of the JSON files, `from_dict` reads it, also from files of earlier versions, which lack some keys.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

MINUS = "−"
TITLES = {
    "distilled": "Distilled images",
    "initial": "Initial images",
    "random": "Random real images, as many",
    "full": "Full training data",
}


def percent(share: float | None) -> str:
    """A fraction in percent, to one decimal; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of fractions in points with its sign, such as −1.2; 0.0 has none."""
    rounded = round(100 * difference, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Mean and spread of the accuracies of several networks, or of another figure of theirs.

    Args:
        mean: of the values, fractions in [0, 1]; NaN where nothing is known.
        std: standard deviation (n − 1); None for a single value, as `ci95`.
        ci95: the ends of the 95 % interval of the mean.
        n: how many networks.
        values: of each.
        epochs: that the networks were trained for, where that is said beside the figure.
        lr: their step size, likewise.
    """

    mean: float = math.nan
    std: float | None = None
    ci95: tuple[float, float] | None = None
    n: int | None = None
    values: tuple[float, ...] = ()
    epochs: int | None = None
    lr: float | None = None

    @classmethod
    def from_dict(cls, held: Any) -> Self:
        """Of a JSON object; an unknown accuracy (`known` is False) of anything that has no mean."""
        if not isinstance(held, Mapping) or not isinstance(held.get("mean"), (int, float)):
            return cls()
        ends = held.get("ci95")
        return cls(
            mean=float(held["mean"]),
            std=held.get("std"),
            ci95=(float(ends[0]), float(ends[1])) if ends and None not in ends else None,
            n=held.get("n"),
            values=tuple(held.get("values") or ()),
            epochs=held.get("epochs"),
            lr=held.get("lr"),
        )

    def to_dict(self) -> dict[str, Any]:
        """{mean, std, ci95: [low, high], n, values}, and `epochs` and `lr` where there are any."""
        more = {key: value for key in ("epochs", "lr") if (value := getattr(self, key)) is not None}
        ends = None if self.ci95 is None else list(self.ci95)
        return {"mean": self.mean, "std": self.std, "ci95": ends, "n": self.n, "values": list(self.values), **more}

    @property
    def known(self) -> bool:
        """Whether there is a figure at all."""
        return not math.isnan(self.mean)

    def __str__(self) -> str:
        """Mean ± standard deviation, such as 50.2 ± 2.8 %."""
        if not self.known:
            return "–"
        return percent(self.mean) if self.std is None else f"{100 * self.mean:.1f} ± {100 * self.std:.1f} %"

    @property
    def interval(self) -> str:
        """The 95 % interval, such as 48.1 … 52.3 %."""
        if self.ci95 is None:
            return "–"
        low, high = (min(max(100 * end, 0.0), 100.0) for end in self.ci95)  # of two networks it may end where no accuracy does
        return f"{low:.1f} … {high:.1f} %"

    @property
    def with_margin(self) -> str:
        """Mean ± half the 95 % interval in %, without the sign: 50.2 ± 3.1."""
        if not self.known:
            return "–"
        return f"{100 * self.mean:.1f}" + ("" if self.ci95 is None else f" ± {50 * (self.ci95[1] - self.ci95[0]):.1f}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracies:
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

    @classmethod
    def from_dict(cls, held: Any) -> Self:
        """Of a JSON object; what it lacks is unknown."""
        held = held if isinstance(held, Mapping) else {}
        return cls(**{name: Accuracy.from_dict(held.get(name)) for name in TITLES})

    def to_dict(self) -> dict[str, Any]:
        """Those that are known, by name."""
        return {name: accuracy.to_dict() for name, accuracy in self.items()}

    def items(self) -> Iterator[tuple[str, Accuracy]]:
        """Names and accuracies of those that are known."""
        return ((name, accuracy) for name in TITLES if (accuracy := getattr(self, name)).known)

    def __getitem__(self, name: str) -> Accuracy:
        """The accuracy of that name.

        Raises:
            KeyError: for another name than the four.
        """
        if name not in TITLES:
            raise KeyError(name)
        found: Accuracy = getattr(self, name)
        return found

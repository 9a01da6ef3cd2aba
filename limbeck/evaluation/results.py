"""What an evaluation finds, as values that show themselves: the text of a figure is made here and nowhere else.

`to_dict` gives the layout of the JSON files (results.json, metadata.json, comparison.json), `from_dict` reads it, also from files
of earlier versions, which lack some keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from limbeck.accuracy import MINUS as MINUS
from limbeck.accuracy import Accuracies as Accuracies
from limbeck.accuracy import Accuracy as Accuracy
from limbeck.accuracy import percent as percent
from limbeck.accuracy import points as points


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
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

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Self:
        """Of a JSON object that has at least n and mean."""
        known = {one.name for one in fields(cls)}
        given: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in held.items() if key in known}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """The measured figures; of a comparison whose sides have names also those, and what was made of the figures."""
        order = ("n", "mean", "std", "ci95", "p", "effect", "effect_note", "wins", "ties", "p_exact", "p_exact_note")
        found = {key: list(value) if isinstance(value := getattr(self, key), tuple) else value for key in order}
        if self.a is None:
            return found
        given = {"network": self.network, "seeds": None if self.seeds is None else list(self.seeds), "verdict": self.verdict}
        said = {key: value for key, value in given.items() if value is not None}
        judged = {"p_adjusted": self.p_adjusted, "seeds_needed": self.seeds_needed}
        return {"a": self.a, "b": self.b, **said, **found, **judged}

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


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpairedComparison:
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

    def to_dict(self) -> dict[str, Any]:
        """The same with lists."""
        return {one.name: list(value) if isinstance(value := getattr(self, one.name), tuple) else value for one in fields(self)}

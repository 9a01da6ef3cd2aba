"""Mean and spread of a few accuracies, and whether those of one set are really above those of another.

s² = Σ (x_i − x̄)² / (n − 1)        95 % interval: x̄ ± t_{0.975, n−1} · s / √n

Paired, d_i = a_i − b_i from the same seeds:
    t-test      t = d̄ / (s_d / √n),  p = 2 P(T_{n−1} > |t|),  effect size d_z = d̄ / s_d
    sign flips  p = share of the 2ⁿ patterns ε ∈ {−1, 1}ⁿ with |Σ ε_i d_i| ≥ |Σ d_i|; never below 2^{1−n}
Unpaired, with unequal variances (B. L. Welch, "The generalization of 'Student's' problem when several different population
variances are involved", 1947): v_a = s_a² / n_a, v_b = s_b² / n_b,
    t = (ā − b̄) / √(v_a + v_b)  with  (v_a + v_b)² / (v_a² / (n_a − 1) + v_b² / (n_b − 1))  degrees of freedom
Many tests at once (S. Holm, "A simple sequentially rejective multiple test procedure", 1979): of m sorted p the i-th becomes
    max_{j ≤ i} min(1, (m − j + 1) p_j)
One test looked at again and again (the level is spent over planned looks: K. K. G. Lan and D. L. DeMets, "Discrete sequential
boundaries for clinical trials", 1983): each of K looks is a t-test at level / K. By Bonferroni's inequality the chance that any
of them errs is at most the level, however the looks depend on each other.

All t-tests suppose differences that are normal over the seeds; the sign flips only that they are symmetric.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from limbeck.accuracy import Accuracy, Comparison, UnpairedComparison
from limbeck.runtime.errors import require

Verdict = Literal["a better", "b better", "undecided"]

ROUNDING = 1e-9  # relative; no test set is so large that accuracies could differ by less
MOST_FLIPS = 2**16  # patterns: all of sixteen seeds, drawn ones of more
MOST_SEEDS = 10**6
MOST_LOOKS = 6


def summarise(values: Sequence[float]) -> Accuracy:
    """Mean and spread of one figure or several."""
    mean, std = _moments(values)
    return Accuracy(mean=mean, std=std, ci95=_interval(mean, std, len(values)), n=len(values), values=tuple(map(float, values)))


def over_seeds(found: Sequence[Accuracy]) -> Accuracy:
    """Mean and spread of what was measured at several distillation seeds, and how many of all their networks diverged."""
    failed = sum(one.failed or 0 for one in found)
    networks = sum(one.failed_of or one.n or 0 for one in found)
    whole = summarise([one.mean for one in found])
    return replace(whole, failed=failed, failed_of=networks) if failed else whole


def differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """a_i − b_i, where what is only the rounding of the accuracies is 0.

    Raises:
        ValueError: when the lengths differ, there are none, or a value is not finite.
    """
    _check(a, b)
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same seeds, not {len(a)} and {len(b)} accuracies")
    noise = ROUNDING * max(map(abs, (*a, *b)))
    return [float(x - y) if abs(x - y) > noise else 0.0 for x, y in zip(a, b, strict=True)]


def compare(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Paired comparison of two lists of accuracies (all fractions, or all percentages) from the same seeds.

    Raises:
        ValueError: when the lengths differ, there are none, or a value is not finite.
    """
    found = differences(a, b)
    n = len(found)
    mean, std = _moments(found)
    p_exact, flips = _sign_flips(found)
    note = "d_z: the mean of the differences / their standard deviation"
    if not std:
        note += "; undefined, because " + ("one seed has no spread" if n == 1 else "all differences are equal")
    return Comparison(
        n=n,
        mean=mean,
        std=std,
        ci95=_interval(mean, std, n),
        p=None if std is None else _paired_p(mean, std, n),
        effect=mean / std if std else None,
        effect_note=note,
        wins=sum(d > 0 for d in found) / n,
        ties=sum(d == 0 for d in found) / n,
        p_exact=p_exact,
        p_exact_note=flips,
    )


def deciding_p(found: Comparison) -> float:
    """p of the t-test; of the sign flips where all differences are equal, because coarse accuracies can be so by chance."""
    return found.p_exact if found.p is None or not found.std else found.p


def compare_unpaired(a: Sequence[float], b: Sequence[float]) -> UnpairedComparison:
    """Whether two lists of accuracies from independent seeds agree; Welch's test.

    Raises:
        ValueError: when a list has fewer than two values, or one that is not finite.
    """
    from scipy.stats import ttest_ind

    _check(a, b)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"an unpaired comparison needs two accuracies on either side, not {len(a)} and {len(b)}")
    (mean_a, std_a), (mean_b, std_b) = _moments(a), _moments(b)
    mean = mean_a - mean_b if abs(mean_a - mean_b) > ROUNDING * max(map(abs, (*a, *b))) else 0.0
    freedom, ends, p = None, (mean, mean), float(mean == 0)
    if std_a or std_b:
        # What differs by rounding alone has no spread, and no rounding error that SciPy would warn of.
        test = ttest_ind(
            *([m] * len(x) if not std else x for x, m, std in ((a, mean_a, std_a), (b, mean_b, std_b))), equal_var=False
        )
        interval = test.confidence_interval()
        freedom, ends, p = float(test.df), (float(interval.low), float(interval.high)), float(test.pvalue)
    agree = ends[0] <= 0 <= ends[1]
    return UnpairedComparison(n=(len(a), len(b)), mean=mean, ci95=ends, degrees_of_freedom=freedom, p=p, agree=agree)


def seeds_needed(a: Sequence[float], b: Sequence[float], power: float = 0.8, level: float = 0.05) -> int | None:
    """The least number of seeds with which a paired t-test at `level` would decide, and rightly, with probability `power`.

    It takes the observed d_z for the true one, which after few seeds may be far off: a rough plan, not a promise.

    Returns:
        At least 2; 10⁶ means that many or more; None where the mean difference is 0, or with a single seed.

    Raises:
        ValueError: as `compare`; when `power` is not in (0, 1) or `level` is not in (0, 1).
    """
    if not (0 < power < 1 and 0 < level < 1):
        raise ValueError(f"power and level must be in (0, 1), not {power!r} and {level!r}")
    mean, std = _moments(differences(a, b))
    if std is None or abs(mean) <= ROUNDING * std:
        return None
    if std == 0 or _power(abs(mean) / std, 2, level) >= power:
        return 2
    # Doubling first, because far past the answer the non-central t overflows: `low` is too few, `high` enough.
    low, high = 2, 4
    while high < MOST_SEEDS and _power(abs(mean) / std, high, level) < power:
        low, high = high, min(2 * high, MOST_SEEDS)
    between = range(low + 1, high)
    return low + 1 + bisect_left(between, True, key=lambda n: _power(abs(mean) / std, n, level) >= power)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p, in the order of `ps`: rejecting those ≤ level, the chance of any error is at most the level.

    Raises:
        ValueError: when a p is not in [0, 1].
    """
    if not all(0 <= p <= 1 for p in ps):
        raise ValueError(f"p-values must be in [0, 1], not {list(ps)!r}")
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """At which numbers of seeds one looks, and how strictly.

    Args:
        least: seeds at the first look.
        most: seeds at the last one; in between at most four more, equally far apart.
        level: the chance of a wrong verdict that all looks together may have.
    """

    least: int = 5
    most: int = 30
    level: float = 0.05

    def __post_init__(self) -> None:
        require(self.least >= 2, "least", self.least, "at least 2 (a difference needs a spread)")
        require(self.most >= self.least, "most", self.most, f"at least `least` ({self.least})")
        require(0 < self.level < 1, "level", self.level, "in (0, 1)")

    @property
    def at(self) -> tuple[int, ...]:
        """The numbers of seeds at the planned looks, rising from `least` to `most`."""
        step = max(1, math.ceil((self.most - self.least) / (MOST_LOOKS - 1)))
        return (*range(self.least, self.most, step), self.most)

    def threshold(self, n: int) -> float:
        """The greatest p with which the look at `n` seeds decides.

        Raises:
            ValueError: when no look is planned at `n`.
        """
        if n not in self.at:
            raise ValueError(f"no look is planned at {n} seeds, only at {self.at}")
        return self.level / len(self.at)


def decide(differences: Sequence[float], looks: Looks) -> Verdict | None:
    """The verdict of the first planned look that decides, on the differences a − b in the order of the seeds; see `differences`.

    It depends neither on the batches in which the seeds were measured nor on how many were measured beyond the verdict.

    Returns:
        `undecided` when all looks are over without one, None while looks remain.

    Raises:
        ValueError: when a difference is not finite.
    """
    if not all(map(math.isfinite, differences)):
        raise ValueError(f"differences must be finite: {list(differences)!r}")
    for n in looks.at:
        if n > len(differences):
            return None
        if _look(differences[:n]) <= looks.threshold(n):
            return "a better" if math.fsum(differences[:n]) > 0 else "b better"
    return "undecided"


def _look(differences: Sequence[float]) -> float:
    """`deciding_p` of these alone, without the test that does not decide."""
    mean, std = _moments(differences)
    return _paired_p(mean, std, len(differences)) if std else _sign_flips(differences)[0]


def _moments(values: Sequence[float]) -> tuple[float, float | None]:
    """x̄ and s; s is None for one value, and 0 where the values differ only by rounding."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return mean, None
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, 0.0 if std <= ROUNDING * max(map(abs, values)) else std


def _interval(mean: float, std: float | None, n: int) -> tuple[float, float] | None:
    """x̄ ± t_{0.975, n−1} · s / √n."""
    from scipy.stats import t

    if std is None:
        return None
    half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return mean - half, mean + half


def _paired_p(mean: float, std: float, n: int) -> float:
    """As `scipy.stats.ttest_1samp` has it, which knows no std that is 0 but for rounding."""
    from scipy.stats import t

    return 2 * float(t.sf(math.sqrt(n) * abs(mean) / std, n - 1)) if std else float(mean == 0)


def _sign_flips(differences: Sequence[float]) -> tuple[float, str]:
    """p, and which sign patterns it is of; of drawn ones the observed counts as one more (B. Phipson and G. K. Smyth, 2010)."""
    import numpy as np
    from scipy.stats import permutation_test

    n, size = len(differences), math.fsum(map(abs, differences))
    flips = f"all {2**n} sign flips" if 2**n <= MOST_FLIPS else f"{MOST_FLIPS - 1} drawn sign flips"
    if n == 1 or size == 0:
        return 1.0, flips
    # Rounded, because sums that equal the observed one must not fall short of it.
    found = permutation_test(
        (np.asarray(differences) / size,),
        lambda x, axis: x.sum(axis).round(9),
        permutation_type="samples",
        n_resamples=MOST_FLIPS if 2**n <= MOST_FLIPS else MOST_FLIPS - 1,
        rng=0,
    )
    return float(found.pvalue), flips


def _power(effect: float, n: int, level: float) -> float:
    """P(T > t_{1 − level/2, n−1}) for T non-central t with n − 1 degrees of freedom and non-centrality d_z √n, d_z > 0."""
    from scipy.stats import nct, t

    return float(nct.sf(t.isf(level / 2, n - 1), n - 1, effect * math.sqrt(n)))


def _check(*lists: Sequence[float]) -> None:
    for values in lists:
        if not len(values) or not all(map(math.isfinite, values)):
            raise ValueError(f"accuracies must be finite, and at least one: {list(values)!r}")

"""What a distillation leaves, as a value: the content of `results.json`, and the set itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from typing_extensions import Self

from limbeck.accuracy import Accuracies, percent
from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.results import SetResult
from limbeck.methods.health import STEPS, Return, told
from limbeck.runtime.errors import UsageError
from limbeck.runtime.records import Record
from limbeck.runtime.tables import Grid, Page, duration, paths_text, picture, wrapped

NO_CHANGE = "their loss or gradient was not finite, or above outer.max_match_loss"
NO_GAIN = "no iteration was better on the validation images than the initial images, which are the result"


@dataclass(frozen=True, kw_only=True)
class ExpertsUsed(Record):
    """How many experts there were, and the validation accuracies after the last epoch of those that give labels."""

    num_experts: int | None = None
    last_epoch_accuracy: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class RunResult(Record):
    """What a run made, and how good it is.

    Args:
        evaluation: the final evaluation.
        best_iteration: the iteration whose images are the result; None where there was no outer loop.
        skipped_share: the share of iterations that changed nothing.
        skipped: how many iterations were lost, by what in words.
        returns: of the loop to an earlier state, with smaller steps.
        grown: how many times as large as at the start X, Y and η are, those that have grown beyond what is usual.
        seconds: of every stage.
        cpu_seconds: of every stage, of this process with all its threads.
        peak_memory: bytes until the end of every stage.
        experts: those that the run used, where it did.
        held: the set, where it is not read from `paths`.

    Example:
        >>> result = RunResult.from_dict({"accuracy": {"distilled": {"mean": 0.5, "n": 3}}, "best_iteration": 400})
        >>> result.accuracy.distilled.mean, result.best_iteration
        (0.5, 400)
    """

    evaluation: SetResult
    best_iteration: int | None = None
    skipped_share: float | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    returns: tuple[Return, ...] = ()
    grown: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: Mapping[str, int] = field(default_factory=dict)
    experts: ExpertsUsed | None = None
    held: DistilledSet | None = field(default=None, repr=False, compare=False)

    LEFT_OUT: ClassVar = (
        *("best_iteration", "skipped_share", "skipped", "returns", "grown"),
        *("seconds", "cpu_seconds", "peak_memory", "experts"),
    )

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Self:
        """Of the content of `results.json`."""
        return super().from_dict({**held, "evaluation": held, "held": None})

    def to_dict(self) -> dict[str, Any]:
        """The content of `results.json`."""
        found = super(RunResult, replace(self, held=None)).to_dict()
        measured = found.pop("evaluation")
        return {key: value for key, value in {**measured, **found}.items() if key not in ("notes", "further", "held")}

    @property
    def accuracy(self) -> Accuracies:
        """Test accuracies: `.distilled`, `.initial`, `.random`, `.full`."""
        return self.evaluation.accuracy

    @property
    def recovery_ratio(self) -> float | None:
        """Accuracy of the set / of the full data."""
        return self.evaluation.recovery_ratio

    @property
    def networks(self) -> Mapping[str, SetResult]:
        """The results with other networks."""
        return self.evaluation.networks

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How networks were trained on the set."""
        return self.evaluation.protocol

    @property
    def paths(self) -> Mapping[str, str]:
        """Where `run`, `distilled`, `experts` and `report` lie."""
        return self.evaluation.paths

    def at(self, **paths: str) -> Self:
        """The same with these paths beside its own."""
        return replace(self, evaluation=replace(self.evaluation, paths={**self.paths, **paths}))

    @property
    def distilled(self) -> DistilledSet:
        """The set.

        Raises:
            UsageError: when it is no longer where it was saved.
        """
        if self.held is not None:
            return self.held
        if "distilled" not in self.paths:
            raise UsageError("path: the result does not say where its set is")
        return DistilledSet.load(self.paths["distilled"])

    def table(self) -> Page:
        """What the command prints; a notebook shows it as a table."""
        parts: list[str | Grid] = [*self.evaluation.parts]
        if self.skipped_share:
            why = told(self.skipped) if self.skipped else NO_CHANGE
            parts.append(wrapped(f"warning: {percent(self.skipped_share)} of the iterations changed nothing: {why}"))
        parts += [wrapped(f"warning: {one}") for one in self.warnings]
        if self.no_gain:
            parts.append(wrapped(f"warning: {self.no_gain}"))
        if self.seconds:
            stages = ", ".join(f"{stage} {duration(spent)}" for stage, spent in self.seconds.items())
            parts.append(wrapped(f"time: {stages}"))
        return Page((*parts, *([paths_text(self.paths)] if self.paths else [])))

    @property
    def no_gain(self) -> str:
        """That the initial images are the result, where they are, and why the same images can then have two accuracies."""
        if self.best_iteration != 0:
            return ""
        ours, before = self.accuracy.distilled, self.accuracy.initial
        if ours.lr is None or before.lr is None or f"{ours.lr:.3g}" == f"{before.lr:.3g}" or ours.mean == before.mean:
            return NO_GAIN
        rates = " and ".join(
            f"{one.lr:.3g}, {one.origin}, as the {name} ones" for name, one in (("distilled", ours), ("initial", before))
        )
        return f"{NO_GAIN}; they have two test accuracies by two step sizes: {rates}"

    @property
    def warnings(self) -> Iterator[str]:
        """What speaks against the way that the loop took, a sentence each."""
        if self.returns:
            ways = "; ".join(f"from iteration {one.iteration} to {one.to}, {one.why}" for one in self.returns)
            yield f"the loop went back and on with {self.returns[-1].step:g} of its step sizes in the end: {ways}"
        for name, times in self.grown.items():
            yield f"{name} is {times:.2g} times as large as at the start; {STEPS[name]} may be too large"

    def __repr__(self) -> str:
        found = self.evaluation.accuracy.to_dict()
        means = [f"{name} {summary['mean']:.4f}" for name, summary in found.items() if "mean" in summary]
        return f"RunResult({', '.join(means)})"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        """The table in a notebook, and the images where they still are."""
        from limbeck.distilled.preview import preview

        try:
            sheet = preview(self.distilled)
        except UsageError:  # moved, or removed
            return self.table()._repr_html_()
        return self.table()._repr_html_() + picture(sheet, sheet.height)

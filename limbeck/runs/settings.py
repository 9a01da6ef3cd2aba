"""The whole key tree of a distillation; each room owns its own branch."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.settings import DataSettings
from limbeck.distilled.settings import STARTS, ViewLabelSettings
from limbeck.evaluation.settings import EvalSettings
from limbeck.experts.settings import ExpertSettings
from limbeck.matching.settings import EngineSettings, MatchSettings, ScheduleSettings
from limbeck.methods.method import Method
from limbeck.methods.registry import METHODS, check_name
from limbeck.methods.settings import OuterSettings, RdedSettings, RealSettings, Sre2lSettings
from limbeck.runtime.checked import Checked, Count, Named, Rule
from limbeck.runtime.errors import require
from limbeck.saliency.settings import EnhanceSettings

Init = Annotated[Named[str], Rule(f"one of {', '.join(STARTS)}, or the path of a distilled set", lambda name: name.strip() != "")]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSettings(Checked):
    """Everything that determines a distilled set.

    Args:
        method: the name of a method; it stands for settings too, under those of the recipe (`methods/registry.py`).
            `package.module:METHOD` is one of the user's (docs/add-a-method.md).
        network: the network to distil for, such as `ConvNetD3-w32`.
        ipc: synthetic images per class.
        init: what the outer loop starts from: `correct`, `real`, `noise` or `centre` (`distilled/initial.py`), or the path of a
            distilled set, ours or another program's, or of a run that made one: its images, labels and η, instead of
            `outer.syn_lr_init`, are taken up. Methods without that loop start from nothing; a name, which a recipe may say for
            several methods, is nothing to them, a path is refused.
        labels: `soft` are logits, learned where `outer.lr_label` is above 0; `hard` are the classes, and fixed.
        seed: of every random draw except those of `data.seed`.
        output: the run folder; None takes `runs/<recipe>`.
    """

    data: DataSettings = field(default_factory=DataSettings)
    network: Named[str] = "ConvNetD3"
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    ipc: Count = 1
    init: Init = "correct"
    seed: int = 0
    output: str | None = None
    method: Named[str] = "edf"
    labels: Literal["soft", "hard"] = "soft"
    experts: ExpertSettings = field(default_factory=ExpertSettings)
    match: MatchSettings = field(default_factory=MatchSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    enhance: EnhanceSettings = field(default_factory=EnhanceSettings)
    real: RealSettings = field(default_factory=RealSettings)
    rded: RdedSettings = field(default_factory=RdedSettings)
    sre2l: Sre2lSettings = field(default_factory=Sre2lSettings)
    view_labels: ViewLabelSettings = field(default_factory=ViewLabelSettings)
    outer: OuterSettings = field(default_factory=OuterSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)

    def check_together(self) -> None:
        check_name(self.method)
        loops = self.method not in METHODS or METHODS[self.method].kind == "objective"
        fixed = self.labels == "soft" or self.outer.lr_label == 0 or not loops
        require(fixed, "outer.lr_label", self.outer.lr_label, "0 with labels=hard, which are fixed")
        if self.method in METHODS:  # one of the user's is asked when it is imported, not wherever its settings are read
            self.check_method(METHODS[self.method])

    def check_method(self, method: Method) -> None:
        """Raise `UsageError` for whatever does not fit `method`, the one that is named."""
        accepted = f"one of {', '.join(STARTS)}: {self.method} makes its set at once, and cannot go on from another"
        require(self.init in STARTS or method.kind == "objective", "init", self.init, accepted)
        reached = self.schedule.max_start_epoch - 1 + self.match.expert_epochs
        accepted = f"at least schedule.max_start_epoch − 1 + match.expert_epochs ({reached})"
        enough = not method.experts or self.experts.train_epochs >= reached
        require(enough, "experts.train_epochs", self.experts.train_epochs, accepted)
        require(self.labels == "hard" or method.soft, "labels", self.labels, f"hard, which {self.method} needs")


def value_of(settings: DistillSettings, key: str) -> Any:
    """The value of a dotted key, such as `match.drop_ratio`."""
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value

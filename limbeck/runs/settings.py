"""The whole key tree of a distillation; each room owns its own branch."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal

from limbeck.augmentation_settings import AugmentSettings
from limbeck.data.settings import DataSettings
from limbeck.distilled.settings import STARTS, ViewLabelSettings
from limbeck.evaluation.settings import EvalSettings
from limbeck.experts.settings import ExpertSettings
from limbeck.matching.settings import EngineSettings, MatchSettings, ScheduleSettings
from limbeck.methods.method import Method
from limbeck.methods.registry import CORESETS, EDFS, METHODS, known, method_of, name_of
from limbeck.methods.settings import CoresetSettings, NcfmSettings, OuterSettings, RdedSettings, RealSettings, Sre2lSettings
from limbeck.parametrisations.settings import ParametrisationSettings
from limbeck.runtime.checked import Checked, Chosen, Count, Named, Rule, Seed, kinds_of, shown, typed
from limbeck.runtime.errors import UsageError, require
from limbeck.saliency.settings import EnhanceSettings
from limbeck.tracking.settings import Track

DEFAULT = "edf"
# What Python calls the keys that name objects, and of those that share a last word the one that is meant by it.
SHORT = {
    "parametrisation": "parametrisation.kind",
    "schedule": "schedule.kind",
    "adjoint": "engine.kind",
    "augmentation": "augment.strategy",
    "iterations": "outer.iterations",
}
RATIOS = {1: 0.0, 10: 0.25, 50: 0.375}  # EDF's published α by images per class
Init = Annotated[Named[str], Rule(f"one of {', '.join(STARTS)}, or the path of a distilled set", lambda name: name.strip() != "")]


class Keys(Mapping[str, Any]):
    """Settings by dotted key, in the order given; `low | high` has what `high` says where both say something."""

    def __init__(self, held: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        self._held = dict(held)

    def __getitem__(self, key: str) -> Any:
        return self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __or__(self, high: Mapping[str, Any]) -> "Keys":
        return Keys({**self, **high})


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSettings(Checked):
    """Everything that determines a distilled set.

    Args:
        method: the name of a method; it stands for settings too, under those of the recipe (`methods/registry.py`).
            `package.module:METHOD` is one of the user's (docs/add-a-method.md).
        network: the network to distil for, such as `ConvNetD3-w32`.
        ipc: synthetic images per class; where `parametrisation.kind` is not `pixels`, slots, of which each holds several.
        init: what the outer loop starts from: `correct`, `real`, `noise` or `centre` (`distilled/initial.py`), or the path of a
            distilled set, ours or another program's, or of a run that made one: its images, labels and η, instead of
            `outer.syn_lr_init`, are taken up. Methods without that loop start from nothing; a name, which a recipe may say for
            several methods, is nothing to them, a path is refused.
        labels: `soft` are logits, learned where `outer.lr_label` is above 0; `hard` are the classes, and fixed.
        seed: of every random draw except those of `data.seed`.
        output: the run folder; None takes `runs/<recipe>`.
        track: where else its figures and pictures go: `tensorboard`, `wandb`, `trackio`, or `package.module:Sink`
            (docs/watch.md); a list, or joined by commas.
        features: what the run keeps for its report beside snapshots: `auto` a map of real and distilled images in the feature space
            of a network of the full data, by t-SNE or, of fewer than 300 points, by PCA, with the real images that are nearest;
            `pca` the same by PCA; `none` no map, and no picture of a real image anywhere. No result depends on it.
        laid: no setting: the method whose preset lies under these, as `of` has laid it.
    """

    data: DataSettings = field(default_factory=DataSettings)
    network: Named[str] = "ConvNetD3"
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    ipc: Count = 1
    init: Init = "correct"
    seed: Seed = 0
    output: str | None = None
    track: Track = ()
    features: Literal["auto", "pca", "none"] = "auto"
    method: Named[str] = DEFAULT
    labels: Literal["soft", "hard"] = "soft"
    parametrisation: ParametrisationSettings = field(default_factory=ParametrisationSettings)
    experts: ExpertSettings = field(default_factory=ExpertSettings)
    match: MatchSettings = field(default_factory=MatchSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    enhance: EnhanceSettings = field(default_factory=EnhanceSettings)
    real: RealSettings = field(default_factory=RealSettings)
    ncfm: NcfmSettings = field(default_factory=NcfmSettings)
    rded: RdedSettings = field(default_factory=RdedSettings)
    sre2l: Sre2lSettings = field(default_factory=Sre2lSettings)
    coreset: CoresetSettings = field(default_factory=CoresetSettings)
    view_labels: ViewLabelSettings = field(default_factory=ViewLabelSettings)
    outer: OuterSettings = field(default_factory=OuterSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    laid: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, values: Mapping[str, Any] | None = None, /, **keys: Any) -> "DistillSettings":
        """The preset of a method, with what is given over it, as a recipe has it.

        Args:
            values, keys: dotted keys, groups (`match={"syn_steps": 20}`) or last words of keys (`syn_steps=20`). A group that
                is given as settings, `match=MatchSettings(syn_steps=20)`, is taken whole: one whose default contradicts the
                preset is refused.

        Raises:
            UsageError: for an unknown key, a value of the wrong type or out of range.

        Example:
            >>> DistillSettings.of(method="mtt", ipc=10, **{"match.syn_steps": 20}).labels
            'hard'
        """
        given = dotted({**(values or {}), **keys})
        return settle(flat(given), whole=[name for name, value in given.items() if isinstance(value, Checked)])

    def check_together(self) -> None:
        method = known(self.method)
        coresets_of(self)
        if self.laid != self.method:
            self._refuse_contradictions(method)
        if isinstance(self.match.drop_ratio, Chosen):
            ratio = published_ratio(self.ipc) if self._drops() else 0.0
            object.__setattr__(self, "match", replace(self.match, drop_ratio=Chosen(ratio)))
        loops = method is None or method.kind == "objective"
        fixed = self.labels == "soft" or self.outer.lr_label == 0 or not loops
        require(fixed, "outer.lr_label", self.outer.lr_label, "0 with labels=hard, which are fixed")
        learned = self.labels == "hard" or self.outer.lr_label == 0 or not self.match.relabel
        require(
            learned,
            "outer.lr_label",
            self.outer.lr_label,
            "0 with match.relabel, whose labels are made anew (match.relabel=false learns them)",
        )
        if method is not None:  # one of the user's is asked when it is imported, not wherever its settings are read
            self.check_method(method)

    def _drops(self) -> bool:
        return name_of(self.method) in EDFS and self.match.criterion != "none"

    def _refuse_contradictions(self, method: Method | None) -> None:
        """Raise `UsageError` where the settings are not those that the method stands for, and nobody has laid these under them."""
        lays = f"DistillSettings.of(method={shown(self.method)}, …) lays what it stands for under what is given"
        if method is None:
            raise UsageError(f"method: {shown(self.method)} is one of your own; {lays}")
        for key, value in preset_of(method, name_of(self.method)).items():
            if value_of(self, key) != value:
                name = name_of(self.method)
                raise UsageError(f"{key}: {shown(value_of(self, key))} is not {shown(value)}, which {name} stands for; {lays}")

    def notes(self) -> list[str]:
        """What a user should hear about values that nobody gave, because they depend on others, and about those that cancel."""
        said, method = [], known(self.method)
        if self._drops() and isinstance(self.match.drop_ratio, Chosen):
            near = nearest(self.ipc)
            images = f"{near} image{'s' * (near > 1)} per class" + (f", the nearest to {self.ipc}" if near != self.ipc else "")
            said.append(f"note: match.drop_ratio={self.match.drop_ratio:g}, EDF's published for {images}")
        loops = method is None or method.kind == "objective"  # a recovery weights the steps of its Adam
        if loops and self.outer.adamw and self.enhance.weighting != "none":
            why = "outer.img_optimiser=adamw, which divides every pixel's gradient by its own root mean square"
            said.append(f"note: enhance.weighting changes next to nothing with {why}; it counts with sgd")
        return said

    def check_method(self, method: Method) -> None:
        """Raise `UsageError` for whatever does not fit `method`, the one that is named."""
        name = name_of(self.method)
        accepted = f"one of {', '.join(STARTS)}: {name} makes its set at once, and cannot go on from another"
        named = isinstance(self.init, str) and self.init in STARTS
        require(named or method.kind == "objective", "init", self.init, accepted)
        kind = self.parametrisation.kind
        stored = method.kind == "objective" or kind == "pixels"
        require(stored, "parametrisation.kind", kind, f"pixels, which is all that {name} makes")
        kind, ahead = self.schedule.kind, self.match.expert_epochs
        # A schedule that is an object knows itself which epochs it reaches; a name, and what makes one, is given the keys.
        epochs = None if isinstance(kind, (str, type)) else getattr(kind, "epochs", None)
        reached = max(epochs(ahead)) if epochs else self.schedule.max_start_epoch - 1 + ahead
        accepted = f"at least schedule.max_start_epoch − 1 + match.expert_epochs ({reached})"
        read = method.experts or (method.difficulties and self.coreset.judges == "experts")
        enough = not read or method.ends or self.experts.train_epochs >= reached
        require(enough, "experts.train_epochs", self.experts.train_epochs, accepted)
        require(self.labels in ("hard", method.labels), "labels", self.labels, f"hard, which {name} needs")


def coresets_of(settings: DistillSettings) -> tuple[str, ...]:
    """The names of `eval.baselines`.

    Raises:
        UsageError: for one that is none.
    """
    asked = settings.eval.baselines
    return () if asked is None else named_coresets("eval.baselines", asked)


def as_coreset(settings: DistillSettings, name: str) -> DistillSettings:
    """The same settings of the method of that name, which takes real images as they are."""
    enhance, stored = replace(settings.enhance, weighting="none"), ParametrisationSettings()
    return replace(settings, method=name, laid=name, labels="hard", init="real", enhance=enhance, parametrisation=stored)


def named_coresets(key: str, text: str) -> tuple[str, ...]:
    """The names of coresets in a text, each once.

    Raises:
        UsageError: for one that is none, by that key.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if names == ("all",):
        return CORESETS
    require(set(names) <= set(CORESETS), key, text, f"all, or some of {', '.join(CORESETS)}, joined by commas")
    return names


def nearest(ipc: int) -> int:
    """Of the published numbers of images per class the nearest: 1 for one, of the others by their ratio."""
    return 1 if ipc == 1 else min(list(RATIOS)[1:], key=lambda known: max(known / ipc, ipc / known))


def published_ratio(ipc: int) -> float:
    """EDF's α for so many images per class."""
    return RATIOS[nearest(ipc)]


def settle(given: Mapping[str, Any], *, imports: bool = True, whole: Collection[str] = ()) -> DistillSettings:
    """The settings of dotted keys, over the preset of the method that they name.

    Args:
        given: the keys with their values.
        imports: whether a method of the user's may be imported, for its preset, and files of a benchmark be read; not where
            somebody else wrote the values, and they are whole.
        whole: groups that were given as settings, of which nobody can tell what was meant and what is a default.

    Raises:
        UsageError: for an unknown key, a value of the wrong type or out of range.
    """
    check_keys(given)
    named = given.get("method", DEFAULT)
    method = method_of(named) if imports else known(named)
    preset = Keys() if method is None else preset_of(method, name_of(named))
    for key in preset.keys() & given.keys():
        group, _, name = key.partition(".")
        if group in whole and given[key] == getattr(kinds_of(DistillSettings)[group](), name) != preset[key]:
            accepted = f"{shown(preset[key])}, which {name_of(named)} stands for; {group}={{…}} or {key} leaves no doubt"
            raise UsageError(f"{key}: {shown(given[key])} is not {accepted}")
    named = _shortest(named)
    settings: DistillSettings = _build(DistillSettings, {**preset, **given, "method": named, "laid": named})
    source = settings.data.source
    if imports and isinstance(source, str) and source.startswith("benchmark:"):
        from limbeck.data.benchmarks import settled

        return replace(settings, data=settled(settings.data, {key.removeprefix("data.") for key in given}))
    return settings


def preset_of(method: Method, name: str) -> Keys:
    """The settings that the method stands for, by dotted keys, under those that it was given.

    Raises:
        UsageError: for an unknown key or a value of the wrong type, of a method of the user's.
    """
    return typed_keys({**method.preset, **flat(dotted(method.given))}, f" (in the preset of {name})")


def typed_keys(values: Mapping[str, Any], origin: str = "", read: Callable[[Any, Any], Any] = lambda kind, value: value) -> Keys:
    """The values as the types of their keys, what `read` makes of type and value; `origin` is said where an error is.

    Raises:
        UsageError: for an unknown key or a value of the wrong type.
    """
    check_keys(values, origin)
    kinds = key_types()
    return Keys((key, typed(key, kinds[key], read(kinds[key], value), value, origin)) for key, value in values.items())


def _shortest(method: str | Method) -> str | Method:
    """A method's name, where that says all but what it was given, which is said in the settings then."""
    if isinstance(method, str) or method.name not in METHODS:
        return method
    ours = METHODS[method.name]
    return method.name if replace(method, name=ours.name, given={}) == ours else method


def value_of(settings: DistillSettings, key: str) -> Any:
    """The value of a dotted key, such as `match.drop_ratio`."""
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


@cache
def key_types() -> dict[str, Any]:
    """Every dotted key with what is declared of it, in the order of the settings classes."""
    return dict(_leaves(DistillSettings))


def _leaves(owner: Any) -> Iterator[tuple[str, Any]]:
    for name, kind in kinds_of(owner).items():
        if is_dataclass(kind):
            yield from _leaves(kind)
        else:
            yield owner.key(name), kind


@cache
def _groups() -> frozenset[str]:
    """The dotted names of the groups of keys."""
    return frozenset(key[:place] for key in key_types() for place, letter in enumerate(key) if letter == ".")


def flat(values: Mapping[Any, Any], prefix: str = "") -> Keys:
    """Nested groups as dotted keys; an empty group holds nothing, one that is given as settings all its keys."""
    keys: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        inner: Mapping[str, Any] = {key: value}
        if key in _groups():
            value = dict(value.items()) if isinstance(value, Checked) else value
            inner = flat(value or {}, f"{key}.") if value is None or isinstance(value, Mapping) else inner
        if twice := keys.keys() & inner.keys():
            raise UsageError(f"{min(twice)}: is given twice")
        keys.update(inner)
    return Keys(keys)


def dotted(words: Mapping[str, Any]) -> Keys:
    """Keys in full, of such as are given by their last word alone: `lr_img` means `outer.lr_img`; groups stay as they are."""
    last: dict[str, list[str]] = {}
    for key in key_types():
        last.setdefault(key.rpartition(".")[2], []).append(key)
    starts = {key.partition(".")[0] + "." for key in key_types()}
    keys: dict[str, Any] = {}
    for word, value in words.items():
        group = f"{word}." in starts and (value is None or isinstance(value, (Mapping, Checked)))
        found = [word] if group or word in key_types() else [SHORT[word]] if word in SHORT else last.get(word, [word])
        if len(found) > 1:
            raise UsageError(f"{word}: may be {' or '.join(found)}")
        if found[0] in keys:
            raise UsageError(f"{found[0]}: is given twice")
        keys[found[0]] = value
    return Keys(keys)


def check_keys(keys: Iterable[str], origin: str = "") -> None:
    """Raise `UsageError` for a key that is none, with the nearest ones that are; `origin` is said with it."""
    for key in keys:
        if key not in key_types():
            raise UsageError(_unknown(key, origin))


def _unknown(key: str, origin: str) -> str:
    known = list(key_types())
    if group := [name for name in known if name.startswith(f"{key}.")]:
        return f"{key}: is a group of keys, such as {group[0]}{origin}"
    last = {name: name.rpartition(".")[2] for name in known}
    groups = dict.fromkeys(name.partition(".")[0] for name in known if "." in name)
    sought = key.rpartition(".")[2]
    near = [name for name in known if last[name] == sought]
    near = near or [f"{group}.…" for group in get_close_matches(key, groups, n=1, cutoff=0.8)]
    near = near or get_close_matches(key, known, n=1)
    near = near or [name for name in known if last[name] in get_close_matches(sought, last.values(), n=1)]
    hint = f"did you mean {' or '.join(near)}?" if near else "`limbeck recipes scenes --full` shows all"
    return f"{key}: is not a key{origin}; {hint}"


def _build(owner: Any, values: Mapping[str, Any]) -> Any:
    given = {name: values[name] for name in ("laid",) if owner is DistillSettings}
    for name, kind in kinds_of(owner).items():
        if is_dataclass(kind):
            given[name] = _build(kind, values)
        elif owner.key(name) in values:
            given[name] = values[owner.key(name)]
    return owner(**given)

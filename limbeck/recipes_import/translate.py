"""The research code's YAML files (MTT, FTD, TESLA, DATM, PAD, EDF) as recipes, by a table of names.

    known keys       are translated; what the file leaves out takes the default of the method's own code, not Limbeck's
    paths, tracking  are dropped: they are somebody's own
    the rest         is named, because it would have changed the result there and does nothing here

`lr_teacher` means two things there: η at the start of a distillation, and the experts' step size in a file for experts alone.

TESLA's code steps along half of the gradient of its own loss: with G the sum of the student's gradients g_n,

    ∂L/∂X = 2 Σ_n (η (θ*_{t+M} − θ*_t) + η² G) · ∂g_n/∂X / ‖θ*_t − θ*_{t+M}‖²

is there without the 2. Here it is whole, and `outer.lr_img` half of its `lr_img`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from limbeck.data.registry import find_subset
from limbeck.experts.settings import ExpertSettings
from limbeck.recipes import key_types, settings_from_plain, typed_overrides
from limbeck.recipes_import.names import (
    CURRICULUM,
    DEFAULTS,
    FIRST_DATM,
    FIXED,
    IDLE,
    IMAGENET,
    INITS,
    NAMES,
    NETWORK,
    NORMALISED,
    OF_EXPERTS,
    PARTS,
    PRIVATE,
    SOURCES,
    UNIFORM,
    USUAL,
)
from limbeck.runs.settings import DistillSettings, Keys, flat
from limbeck.runtime.bounded import read_text
from limbeck.runtime.checked import Count, checked, shown
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.yaml_text import MOST_YAML, Bounded, yaml_of

Kind = Literal["edf", "pad", "datm", "tesla", "ftd", "mtt"]


@dataclass(frozen=True)
class Imported:
    """A file of the research code as a recipe.

    Args:
        method: which of them it is taken for.
        values: dotted keys of Limbeck's that differ from what the method stands for.
        notes: what a reader must know, a sentence each.
        dropped: keys that are somebody's own or have no meaning here.
        unknown: keys that are in no table: whatever they did, this recipe does not.
    """

    method: str
    values: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def text(self, origin: str) -> str:
        """The recipe's file."""
        said = [*self.notes]
        if self.unknown:
            said.append(f"unknown keys, left out: {', '.join(self.unknown)}")
        if self.dropped:
            said.append(f"left out because they mean nothing here: {', '.join(self.dropped)}")
        head = [f"# {self.method.upper()} after {origin}, a file of the research code.", "#", *(f"# {note}" for note in said)]
        groups: dict[str, Any] = {}
        for key, value in self.values.items():
            *outer, name = key.split(".")
            place = groups
            for group in outer:
                place = place.setdefault(group, {})
            place[name] = value
        return "\n".join([*head, "", ""]) + str(yaml.safe_dump(groups, sort_keys=False, allow_unicode=True))


def import_recipe(path: Path, method: str | None = None) -> Imported:
    """A YAML file of the research code, translated and checked.

    Args:
        path: of the file.
        method: what it is for; None guesses from the keys that are in it.

    Raises:
        UsageError: when the file cannot be read, holds no keys that are known, or what it says is refused.
    """
    try:
        text = read_text(path, MOST_YAML)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else reason
        raise UsageError(f"FILE: {str(path)!r} cannot be read: {reason}") from error
    try:
        given = yaml_of(text, Bounded)  # as the research code does: of a key given twice the last counts
    except ValueError as error:
        raise UsageError(f"FILE: {str(path)!r} is no YAML: {one_line(error, 200)}") from error
    return import_values(given, method, origin=str(path))


def import_values(given: Any, method: str | None = None, *, origin: str = "FILE") -> Imported:
    """The same from what such a file holds.

    Raises:
        UsageError: when that is no mapping, has no key that is known, or says what is refused.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"{origin}: holds no keys with values")
    given = {str(key): _value(value) for key, value in given.items()}
    if not given.keys() & {*NAMES, *IDLE, *_Translation.READ}:
        raise UsageError(f"{origin}: is no file of the research code: it has none of its keys, such as ipc, syn_steps or lr_img")
    for key, value in given.items():
        # Nothing that is read is more than a word, a number or a list of these.
        if key in (*NAMES, *_Translation.READ) and isinstance(value, (dict, *([list] if key in _Translation.READ else []))):
            raise UsageError(f"{origin}: {key}: {shown(value)} is no word or number")
    for key, value in given.items():
        if key in NAMES and value is not None:
            given[key] = typed_overrides({NAMES[key]: value})[NAMES[key]]
        elif key in ("max_files", "max_experts"):
            given[key] = checked(key, Count | None, value)
    kind = method or guess(given)
    require(kind in DEFAULTS, "--method", kind, f"one of {', '.join(DEFAULTS)}, whose files can be read")
    translated = _Translation(given, kind)
    values = translated.values()
    settings = settings_from_plain({"method": kind, **values}, origin=f"what {origin} says")
    made = flat(plain(settings))
    # What a method stands for may depend on the number of images per class.
    stands_for = flat(plain(DistillSettings.of(method=kind, ipc=settings.ipc))) | {"ipc": 1}
    differing = {key: made[key] for key in key_types() if key in made and made[key] != stands_for[key] and key != "method"}
    return Imported(
        kind,
        {"method": kind, **differing} if kind != "edf" else differing,
        translated.notes,
        [key for key in given if key in PRIVATE or key in IDLE],
        [key for key in given if key not in {*NAMES, *PRIVATE, *IDLE, *_Translation.READ}],
    )


def guess(given: Mapping[str, Any]) -> Kind:
    """Which method's file it is, by the keys that only that one has."""
    if given.keys() & {"loss_threshold", "interval", "beta", "act_threshold"}:
        return "edf"
    if given.keys() & {"loss_ratio", "depth_ratio", "sort_method", *CURRICULUM}:
        return "pad"
    if given.keys() & {"teacher_label", "random_trajectory"}:
        return "tesla"
    own = {key for key in DEFAULTS["datm"][1].keys() | FIRST_DATM.keys() if key not in DEFAULTS["mtt"][1]}
    if given.keys() & {*own, "Sequential_Generation"} or given.get("pix_init") == "samples_predicted_correctly":
        return "datm"
    return "ftd" if "ema_decay" in given else "mtt"


class _Translation:
    """One file's values under Limbeck's names, and what is to be said of them."""

    # Keys that rules beyond the table of names look at.
    READ: tuple[str, ...] = ("dataset", "subset", "model", "pix_init", "dsa", "no_aug", "Sequential_Generation", "max_experts")
    READ += ("max_files", "ema_decay", "depth_ratio", "decay", "texture", "Initialize_Label_With_Another_Model")
    READ += ("Label_Model_Timestamp", "teacher_label", "random_trajectory", "eval_mode", "sort_method", *CURRICULUM)

    def __init__(self, given: Mapping[str, Any], kind: str) -> None:
        self.given, self.kind = given, kind
        self.notes: list[str] = []
        self.experts_only = "train_epochs" in given and "Iteration" not in given and "syn_steps" not in given
        self.sequential = kind not in UNIFORM and bool(given.get("Sequential_Generation", True))
        owner, held = DEFAULTS[kind]
        if kind == "datm" and given.keys() & {"Initial_Step", "learn_end_epoch"}:
            owner, held = "DATM's first release", FIRST_DATM
        dataset = given.get("dataset", held["dataset"])
        defaults = {"res": 64 if kind == "tesla" else USUAL[dataset]} if dataset in USUAL else {}
        defaults |= held
        if self.experts_only:
            defaults = {key: value for key, value in defaults.items() if key in OF_EXPERTS}
        if not self.sequential:
            late = {key for key, name in NAMES.items() if name in ("schedule.first_max_start_epoch", "schedule.iterations")}
            defaults = {key: value for key, value in defaults.items() if key not in late}
        missing = [key for key in defaults if key not in given and (key != "subset" or dataset in IMAGENET and kind != "tesla")]
        if missing:
            self.notes.append(f"not in the file, so by the defaults of {owner}: {', '.join(missing)}")
        self.all = {**defaults, **given}

    def values(self) -> Keys:
        """Dotted keys; later rules see to what one key alone does not say."""
        values = {NAMES[key]: value for key, value in self.all.items() if key in NAMES and value is not None}
        if self.experts_only:
            values["experts.expert_lr"] = values.pop("outer.syn_lr_init", 0.01)
            values["experts.batch_size"] = values.pop("eval.batch_size", 256)
        rules = (self._data, self._network, self._start, self._augment, self._schedule, self._experts, self._parts, self._tesla)
        for rule in (*rules, self._asides):
            rule(values)
        return Keys(values)

    def _data(self, values: dict[str, Any]) -> None:
        name = self.all["dataset"]
        if name in USUAL:
            every = self.kind == "tesla" or name not in IMAGENET  # TESLA's ImageNet has all classes
            values["data.source"] = "imagenet" if every else f"imagenet:{find_subset(str(self.all['subset']), 'subset').name}"
            self.notes.append("ImageNet lies where data.root or LIMBECK_IMAGENET says")
        else:
            values["data.source"] = SOURCES.get(name, str(name))
            self.notes.append(f"data.source: {values['data.source']!r} is to be the path where {name} lies")
        if name in FIXED:
            values["data.size"] = FIXED[name]
        if name in NORMALISED:
            values["data.normalise"] = NORMALISED[name]

    def _network(self, values: dict[str, Any]) -> None:
        name = str(self.all["model"])
        if ":" in name or "-" in name:
            return values.update(network=name)  # as it is called here
        found = NETWORK.fullmatch(name)
        known = found is not None and (found[3] is None or found[3] in PARTS)
        require(
            known, "model", name, "a network of the research code that there is here, such as ConvNetD3, ConvNetW64, ResNet18BN"
        )
        assert found is not None
        size = found[2] or ""
        head = found[1] + (size if size.startswith("D") else "D3") if found[1] == "ConvNet" else found[1]
        width = [f"w{size[1:]}"] if size.startswith("W") else []
        usual = ("IN", "AP", "AR")  # what a ConvNet is anyway
        parts = [PARTS[found[3]]] if found[3] and not (found[1] == "ConvNet" and found[3] in usual) else []
        values["network"] = "-".join([head, *width, *parts])

    def _start(self, values: dict[str, Any]) -> None:
        if "pix_init" in self.all:
            require(self.all["pix_init"] in INITS, "pix_init", self.all["pix_init"], f"one of {', '.join(INITS)}")
            values["init"] = INITS[self.all["pix_init"]]

    def _augment(self, values: dict[str, Any]) -> None:
        if self.all.get("no_aug") or self.all.get("dsa") is False:
            values["augment.strategy"] = "none"
        if self.all.get("no_aug"):
            self.notes.append("no_aug: true leaves augmentation out of experts and evaluation, too, which it did not there")

    def _schedule(self, values: dict[str, Any]) -> None:
        if self.kind in UNIFORM:
            for key in ("outer.lr_label", "outer.label_momentum"):
                values.pop(key, None)  # its labels are fixed
        if self.experts_only:
            return
        if not self.sequential:
            values["schedule.kind"] = "uniform"
            for key in ("schedule.first_max_start_epoch", "schedule.iterations"):
                values.pop(key, None)
        elif values["schedule.first_max_start_epoch"] > values["schedule.max_start_epoch"]:
            # There the range then shrinks at once, because its end is the lesser of both.
            self.notes.append("the first end of the start epochs was beyond the last, which counts")
            values["schedule.first_max_start_epoch"] = values["schedule.max_start_epoch"]

    def _experts(self, values: dict[str, Any]) -> None:
        files, each = self.all.get("max_files"), self.all.get("max_experts")
        if files is not None or each is not None:  # there a file holds ten experts, and there are ten files
            values["experts.num_experts"] = (10 if files is None else files) * (10 if each is None else each)
        said, flat_ones = {"experts.rho_max", "experts.alpha"} & values.keys(), self.kind not in ("mtt", "tesla")
        if said or flat_ones:
            values["experts.optimiser"] = "gsam"
        if flat_ones and not said:
            self.notes.append("experts are trained with GSAM as published; the file does not say how its own were")
        if self.all.get("decay"):
            self._decay(values)

    def _decay(self, values: dict[str, Any]) -> None:
        """There the step size falls to a tenth after epoch E // 2 + 1, counted from 0, of E."""
        epochs = values.get("experts.train_epochs", ExpertSettings().train_epochs)
        values |= {"experts.rate": "steps", "experts.rate_milestones": [min(1.0, (epochs // 2 + 2) / max(epochs, 1))]}
        if self.all.get("mom"):
            self.notes.append("the experts' momentum began anew with the fall of the step size on; here it stays")

    def _parts(self, values: dict[str, Any]) -> None:
        if self.kind == "edf":
            values["enhance.cam"] = "smooth_gradcam_pp"
            self.notes.append("maps are those of the first expert, not of an ImageNet ResNet-18")
        if not self.experts_only:
            values["match.small_chunk"] = "first"  # of a permutation's list of chunks they take the last, the small one, first
        if self.kind in ("pad", "edf"):
            values.setdefault("match.drop_ratio", 0.0)
        if self.kind == "pad":
            self._filter(values)

    def _filter(self, values: dict[str, Any]) -> None:
        """PAD's two ways to leave parameters out, one of which a run has, and its curriculum."""
        deep, low = self.all.get("depth_ratio"), self.all.get("loss_ratio")
        if deep and low:
            self.notes.append(
                f"depth_ratio: {deep} is the share of parameters that PAD's paper leaves out from the first layers on; its release "
                f"goes by loss_ratio, and so does this: match.criterion=first match.drop_ratio={deep} goes by depth"
            )
        elif deep:
            values |= {"match.criterion": "first", "match.drop_ratio": deep}
        measure = str(self.all.get("sort_method", "GraNd")).rpartition("_")[2]
        if measure != "GraNd":
            self.notes.append(f"sort_method: {measure} is left out; difficulty is GraNd, or experts.difficulty=el2n")
        if others := [key for key, usual in CURRICULUM.items() if self.all.get(key, usual) != usual]:
            self.notes.append(f"{', '.join(others)}: left out; the curriculum is as PAD published it")

    def _tesla(self, values: dict[str, Any]) -> None:
        if self.kind != "tesla":
            return
        if (there := values.get("outer.lr_img")) is not None:
            values["outer.lr_img"] = there / 2
            self.notes.append(
                f"lr_img: {there:g} is outer.lr_img {there / 2:g}: TESLA's code steps along half of its loss's gradient, "
                "which is whole here"
            )
        if self.all.get("teacher_label"):
            values["labels"] = "soft"
        if self.all.get("random_trajectory"):
            self.notes.append("random_trajectory: true is left out: here trajectories are those of experts")

    def _asides(self, values: dict[str, Any]) -> None:
        if values.get("eval.epochs") == 1000:
            values.pop("eval.epochs")  # the protocol's own
        if values.get("eval.batch_size") == 128:
            values.pop("eval.batch_size")
        decay = self.all.get("ema_decay")
        if self.kind == "ftd":
            values["outer.ema_decay"] = decay
        elif decay is not None:
            self.notes.append(
                f"ema_decay: {decay} is left out; outer.ema_decay={decay} evaluates the average instead of the images"
            )
        if self.all.get("eval_mode", "S") != "S":
            self.notes.append(f"eval_mode: {self.all['eval_mode']} is left out; eval.networks=ConvNetD3,ResNet18 evaluates several")
        if self.all.get("texture"):
            self.notes.append("texture: true is left out: textures larger than an image are not distilled here")
        if self.all.get("Initialize_Label_With_Another_Model"):
            self.notes.append("labels are those of the experts, not of another network's")
        if self.all.get("Label_Model_Timestamp", -1) != -1:
            self.notes.append("labels are those of the experts' last epoch, not of Label_Model_Timestamp")
        if not self.experts_only:
            self.notes.append(
                "the checkpoint is chosen on validation images, not on the test images; eval.protocol=dd-published has none"
            )


def _value(value: Any) -> Any:
    """What YAML 1.1 takes for text: None, numbers such as 1e-5, and what their command lines call true and false."""
    if not isinstance(value, str):
        return value
    number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value)
    words = {"None": None, "True": True, "False": False}
    return words[value] if value in words else float(value) if number else value

"""The research code's YAML files (MTT, FTD, DATM, PAD, EDF) as recipes, by a table of names.

    known keys       are translated; what the file leaves out takes the research code's default, not Limbeck's
    paths, tracking  are dropped: they are somebody's own
    the rest         is named, because it would have changed the result there and does nothing here

`lr_teacher` means two things there: η at the start of a distillation, and the experts' step size in a file for experts alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from limbeck.data.registry import find_subset
from limbeck.experts.settings import ExpertSettings
from limbeck.methods.registry import METHODS
from limbeck.recipes import key_types, settings_from_plain
from limbeck.recipes_import.names import (
    IDLE,
    IMAGENET,
    INITS,
    NAMES,
    NETWORKS,
    PRIVATE,
    SCHEDULE_DEFAULTS,
    SOURCES,
    THEIR_DEFAULTS,
)
from limbeck.runs.settings import DistillSettings, Keys, flat
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import plain

Kind = Literal["edf", "pad", "datm", "mtt"]


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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"FILE: {str(path)!r} cannot be read: {reason}") from error
    try:
        given = yaml.safe_load(text)  # as the research code does: of a key given twice the last counts
    except yaml.YAMLError as error:
        raise UsageError(f"FILE: {str(path)!r} is no YAML: {' '.join(str(error).split())[:200]}") from error
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
    kind = method or guess(given)
    if kind not in METHODS:
        raise UsageError(f"--method: {kind!r} is not one of {', '.join(METHODS)}")
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
    if given.keys() & {"loss_threshold", "interval", "beta"}:
        return "edf"
    if given.keys() & {"loss_ratio", "depth_ratio"}:
        return "pad"
    soft = {"lr_y", "Momentum_y", "current_max_start_epoch", "Initial_Step", "Sequential_Generation"}
    return "datm" if given.keys() & soft or given.get("pix_init") == "samples_predicted_correctly" else "mtt"


class _Translation:
    """One file's values under Limbeck's names, and what is to be said of them."""

    # Keys that rules beyond the table of names look at.
    READ: tuple[str, ...] = ("dataset", "subset", "model", "pix_init", "dsa", "no_aug", "Sequential_Generation", "max_experts")
    READ += ("max_files", "ema_decay", "depth_ratio", "decay", "texture", "Initialize_Label_With_Another_Model")
    READ += ("Label_Model_Timestamp",)

    def __init__(self, given: Mapping[str, Any], kind: str) -> None:
        self.given, self.kind = given, kind
        self.notes: list[str] = []
        self.experts_only = "train_epochs" in given and "Iteration" not in given and "syn_steps" not in given
        defaults = dict(THEIR_DEFAULTS)
        if kind == "mtt":  # hard labels, and every start epoch from the beginning
            defaults = {key: value for key, value in defaults.items() if key not in ("lr_y", "Momentum_y", "threshold")}
        elif given.get("Sequential_Generation", True):
            old = given.keys() & {"Initial_Step", "learn_end_epoch"}
            # The first release called them so, and ended after 5000 iterations.
            defaults |= {"learn_end_epoch": 5000, "Initial_Step": 20} if old else SCHEDULE_DEFAULTS
        if self.experts_only:
            defaults = {key: defaults[key] for key in ("dataset", "subset", "model", "res", "zca", "dsa_strategy")}
        missing = [key for key in defaults if key not in given and not (key == "subset" and not self._of_imagenet(given))]
        if missing:
            self.notes.append(f"not in the file, so by the research code's defaults: {', '.join(missing)}")
        self.all = {**defaults, **given}

    def values(self) -> Keys:
        """Dotted keys; later rules see to what one key alone does not say."""
        values = {NAMES[key]: value for key, value in self.all.items() if key in NAMES and value is not None}
        if self.experts_only:
            values["experts.expert_lr"] = values.pop("outer.syn_lr_init", 0.01)
            values["experts.batch_size"] = values.pop("eval.batch_size", 256)
        rules = (self._data, self._network, self._start, self._augment, self._schedule, self._experts, self._parts, self._asides)
        for rule in rules:
            rule(values)
        return Keys(values)

    @staticmethod
    def _of_imagenet(given: Mapping[str, Any]) -> bool:
        return given.get("dataset", THEIR_DEFAULTS["dataset"]) in IMAGENET

    def _data(self, values: dict[str, Any]) -> None:
        name = self.all["dataset"]
        if self._of_imagenet(self.all):
            subset = find_subset(str(self.all["subset"]).replace("_", "-"), "subset")
            values["data.source"] = f"imagenet:{subset.name}"
            self.notes.append("ImageNet lies where data.root or LIMBECK_IMAGENET says")
        elif name in ("ImageNet1K", "imagenet1k"):
            values["data.source"] = "imagenet"
        else:
            values["data.source"] = SOURCES.get(name, str(name))
            self.notes.append(f"data.source: {values['data.source']!r} is to be the path where {name} lies")
            if name in ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST"):
                values.pop("data.size", None)  # they have one size

    def _network(self, values: dict[str, Any]) -> None:
        name = str(self.all["model"])
        known = NETWORKS.get(name, name)
        if known == name and name.startswith("ConvNetD") and name.endswith("BN"):
            known = f"{name.removesuffix('BN')}-batchnorm"
        values["network"] = known

    def _start(self, values: dict[str, Any]) -> None:
        first = "real" if self.kind == "mtt" else "samples_predicted_correctly"
        name = self.all.get("pix_init", first)
        if name not in INITS:
            raise UsageError(f"pix_init: {name!r} is not one of {', '.join(INITS)}")
        values["init"] = INITS[name]

    def _augment(self, values: dict[str, Any]) -> None:
        if self.all.get("no_aug") or self.all.get("dsa") is False:
            values["augment.strategy"] = "none"

    def _schedule(self, values: dict[str, Any]) -> None:
        if self.kind == "mtt":
            for key in ("outer.lr_label", "outer.label_momentum"):
                values.pop(key, None)  # its labels are fixed
        if self.experts_only:
            return
        if self.kind == "mtt" or not self.all.get("Sequential_Generation", True):
            values["schedule.kind"] = "uniform"
            for key in ("schedule.first_max_start_epoch", "schedule.iterations"):
                values.pop(key, None)
        elif values["schedule.first_max_start_epoch"] > values["schedule.max_start_epoch"]:
            # There the range then shrinks at once, because its end is the lesser of both.
            self.notes.append("the first end of the start epochs was beyond the last, which counts")
            values["schedule.first_max_start_epoch"] = values["schedule.max_start_epoch"]

    def _experts(self, values: dict[str, Any]) -> None:
        files, each = self.all.get("max_files"), self.all.get("max_experts")
        if files is not None and each is not None:
            values["experts.num_experts"] = files * each
        said = {"experts.rho_max", "experts.alpha"} & values.keys()
        if said or self.kind != "mtt":
            values["experts.optimiser"] = "gsam"
        if self.kind != "mtt" and not said:
            self.notes.append("experts are trained with GSAM as published; the file does not say how its own were")
        if self.all.get("decay"):
            self._decay(values)
        if self.kind == "pad" and self.all.get("batch_syn") is None and "batch_syn" not in self.given:
            values["match.batch_syn"] = 256

    def _decay(self, values: dict[str, Any]) -> None:
        """There the step size falls to a tenth after epoch E // 2 + 1, counted from 0, of E."""
        epochs = values.get("experts.train_epochs", ExpertSettings().train_epochs)
        values |= {"experts.rate": "steps", "experts.rate_milestones": [min(1.0, (epochs // 2 + 2) / epochs)]}
        if self.all.get("mom"):
            self.notes.append("the experts' momentum began anew with the fall of the step size on; here it stays")

    def _parts(self, values: dict[str, Any]) -> None:
        if self.kind == "edf":
            values["enhance.cam"] = "smooth_gradcam_pp"
            self.notes.append("maps are those of the first expert, not of an ImageNet ResNet-18")
        if self.kind in ("pad", "edf"):
            values.setdefault("match.drop_ratio", 0.0)
        if self.kind == "pad" and self.all.get("depth_ratio") and not self.all.get("loss_ratio"):
            values |= {"match.criterion": "first", "match.drop_ratio": self.all["depth_ratio"]}

    def _asides(self, values: dict[str, Any]) -> None:
        if values.get("eval.epochs") == 1000:
            values.pop("eval.epochs")  # the protocol's own
        if values.get("eval.batch_size") == 128:
            values.pop("eval.batch_size")
        if self.all.get("ema_decay") is not None:
            decay = self.all["ema_decay"]
            self.notes.append(
                f"ema_decay: {decay} is left out; outer.ema_decay={decay} evaluates the average instead of the images"
            )
        if self.all.get("depth_ratio") and self.all.get("loss_ratio"):
            self.notes.append("depth_ratio is left out: it belongs to PAD's other program (match.criterion=first has its meaning)")
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
    """What YAML 1.1 takes for text: None, and numbers such as 1e-5."""
    if not isinstance(value, str):
        return value
    number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value)
    return None if value == "None" else float(value) if number else value

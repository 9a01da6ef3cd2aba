"""Protocols: complete, named, versioned ways to train fresh networks on a small set.

    dd             SGD at the learned η, momentum 0.9, weight decay 5e-4, ×0.1 after half of 1000 epochs, batch 128, the
                   distillation's augmentation, soft cross-entropy on the set's labels; the checkpoint is chosen on validation
    dd-published   the same as the papers print it: every training image is distilled, the last iterate is taken
    dd-hard        `dd` with the images' classes instead of their labels
    none           `dd` without augmentation
    kd             a teacher trained on the real images says its logits on the very views that the student sees; the student
                   minimises KL(teacher ‖ student), both / 20: 300 epochs, AdamW 1e-3, cosine, CutMix and random resized crops
    kd-rded        `kd` as RDED does it: where an image is stitched from factor² parts, the parts are shuffled and crops have
                   1/factor of the area or more, else neither; cosine ending at half, batches by ipc
    kd-sre2l       `kd` as SRe2L does it: batch 1024
    soft-ce        `kd` without the teacher: cross-entropy on the set's own soft labels

and those that repeat how others evaluate, who print the best accuracy on the test images. That figure is measured too, and said to
be optimistic; the one that counts is the same networks' at the look, or the checkpoint, that validation images choose.

    edf-2024       `dd` as the releases of MTT … EDF have it: 1001 epochs, of which 502 at η; the best of the checkpoints that the
                   distillation looks at (`eval.every`)
    ncfm-2025      hard labels; AdamW 1e-3, halved after every fifth of 2000 epochs; crops of half of the area or more, DSA, and
                   CutMix of every other batch; the best of looks every 100 epochs
    rded           `kd-rded`; the best of looks every 10 epochs in the last fifth
    sre2l          `kd-sre2l`; the best of looks every 10 epochs
    dd-ranking     hard labels; SGD at the best of several step sizes, ×0.1 after half of 300 epochs, batch 256, CutMix; the best
                   of looks every 10 epochs in the last fifth: the defaults of DD-Ranking's evaluation with hard labels

Wang et al., "Emphasizing Discriminative Features for Dataset Distillation in Complex Scenarios" (EDF), 2024, arXiv:2410.17193. Wang
et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective" (NCFM), 2025, arXiv:2502.20653. Li et al.,
"DD-Ranking: Rethinking the Evaluation of Dataset Distillation", 2025, arXiv:2505.13300. Yin, Xing and Shen, "Squeeze, Recover and
Relabel" (SRe2L), 2023, arXiv:2306.13092. Sun et al., "On the Diversity and Realism of Distilled Dataset" (RDED), 2023,
arXiv:2312.03526.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from limbeck.augmentation import NO_AUGMENTATION, Augmentation
from limbeck.data.preprocessing import Identity, Preprocessing
from limbeck.distilled.small_set import Kind
from limbeck.evaluation.policies import STRONGEST, policy_of
from limbeck.evaluation.settings import EvalSettings
from limbeck.losses import Divergence, cross_entropy, soft_cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.bounded import read_text
from limbeck.runtime.checked import Checked, Count, NotNegative, Positive, Rule, Share, kinds_of, shown, within
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.urls import is_url
from limbeck.training.gradient import Loss
from limbeck.training.layers import Layers
from limbeck.training.optimisers import AdamW, Optimiser, Sgd, decays
from limbeck.training.rates import Constant, Cosine, DropAtHalf, Rate, Steps
from limbeck.training.train import Training
from limbeck.views import Views

RATES: dict[str, Rate] = {
    "constant": Constant(),
    "drop_at_half": DropAtHalf(),
    "cosine": Cosine(),
    "cosine_to_half": Cosine(over=2.0),
    "drop_past_half": DropAtHalf(delay=1),
    "step_at_half": Steps((0.5,)),
    "halved_by_fifths": Steps((0.2, 0.4, 0.6, 0.8), by=0.5),
}


# Of these results of earlier versions say nothing.
POLICY = ("policy", "policy_operations", "policy_magnitude")
LATER = (
    "decay_all",
    "flip",
    "mix_share",
    "best",
    "look_every",
    "look_from",
    *POLICY,
)
VIEWED, LOOKED = ("augment", ("views", "views+set")), ("best", ("epoch",))
# Keys that are read with some values of another one only.
READ_WITH: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "temperature": ("labels", ("teacher",)),
    "momentum": ("optimiser", ("sgd",)),
    "decay_all": ("optimiser", ("adamw",)),
    "crop_scale": VIEWED,
    "flip": VIEWED,
    "mix_share": ("mix", ("cutmix", "mixup")),
    "policy_operations": ("policy", ("randaugment",)),
    "policy_magnitude": ("policy", ("randaugment",)),
    "look_every": LOOKED,
    "look_from": LOOKED,
}

Factors = Annotated[
    tuple[tuple[str, float], ...],
    Rule("names of networks with factors above 0", lambda factors: all(factor > 0 for _, factor in factors)),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol(Checked):
    """How fresh networks are trained on a small set.

    Args:
        name: what it is called; of a user's own, the file's name.
        version: raised when its meaning changes.
        labels: `stored` are the set's; `hard` its classes; `teacher` the teacher's logits on the views.
        temperature: that both sides of the divergence to a teacher are divided by.
        optimiser: `sgd` or `adamw`.
        lr: step size; None takes the set's learned η.
        lr_factors: factors on it for networks whose name begins so, as text such as `AlexNet: 0.1`.
        momentum: of SGD.
        weight_decay: of either.
        decay_all: whether AdamW's decay touches parameters of one dimension, too.
        rate: `constant`, `drop_at_half` (to a tenth, momentum starting anew), `drop_past_half` (an epoch later), `step_at_half`
            (momentum going on), `halved_by_fifths`, `cosine` (to 0), `cosine_to_half`.
        epochs: of every network.
        batch_size: of every network; None takes 10, 50 or 100 for ipc below 10, below 50, and above.
        augment: `set` is the distillation's, `views` random resized crops with flips, `views+set` crops, then the distillation's,
            `none` nothing.
        crop_scale: least and greatest area of these crops, as shares; None takes 1/`patches` and 1, and crops nothing where
            `patches` is 1.
        patches: sides are cut into so many, and columns, then rows shuffled; 1 shuffles nothing. None takes the parts that RDED
            stitches a side from, `rded.factor`: 2 from 128 pixels on, else 1.
        flip: whether views are mirrored, where the distillation's augmentation may mirror.
        mix: `cutmix`, `mixup` or `none`, of views.
        mix_share: the share of batches that are mixed.
        policy: what is done to the pixels of every image, after crops and before other augmentation: `randaugment`,
            `autoaugment-imagenet`, `autoaugment-cifar10` or `none` (`policies.py`).
        policy_operations: how many RandAugment draws.
        policy_magnitude: their strength, of 30.
        validation: whether a part of the training images is kept apart to choose the checkpoint on; otherwise the last counts.
        best: which best accuracy on the test images is measured beside the figure that counts: `none`; `epoch`, of the looks at
            each network while it is trained, of which validation images choose the one that counts; `checkpoint`, of the
            checkpoints that a distillation looks at.
        look_every: epochs between two looks; the last epoch is one.
        look_from: the share of the epochs before which nobody looks.

    Example:
        >>> import dataclasses
        >>> dataclasses.replace(PROTOCOLS["dd"], name="short", epochs=100).epochs
        100
    """

    prefix: ClassVar[str] = "protocol."
    name: str
    version: Count = 1
    labels: Literal["stored", "hard", "teacher"] = "stored"
    temperature: Positive = 20.0
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: Positive | None = None
    lr_factors: Factors = ()
    momentum: Share = 0.9
    weight_decay: NotNegative = 5e-4
    decay_all: bool = False
    rate: Literal["constant", "drop_at_half", "drop_past_half", "step_at_half", "halved_by_fifths", "cosine", "cosine_to_half"] = (
        "drop_at_half"
    )
    epochs: Count = 1000
    batch_size: Count | None = 128
    augment: Literal["set", "views", "views+set", "none"] = "set"
    crop_scale: Annotated[
        tuple[float, float] | None,
        Rule("two shares in (0, 1], the smaller first, or null", lambda ends: ends is None or 0 < ends[0] <= ends[1] <= 1),
    ] = (0.08, 1.0)
    patches: Count | None = 1
    flip: bool = True
    mix: Literal["none", "cutmix", "mixup"] = "none"
    mix_share: Annotated[float, within("[0, 1]")] = 1.0
    policy: Literal["none", "randaugment", "autoaugment-imagenet", "autoaugment-cifar10"] = "none"
    policy_operations: Count = 2
    policy_magnitude: Annotated[int, Rule(f"in 0 … {STRONGEST}", lambda value: 0 <= value <= STRONGEST)] = 9
    validation: bool = True
    best: Literal["none", "epoch", "checkpoint"] = "none"
    look_every: Count = 10
    look_from: Share = 0.0

    def check_together(self) -> None:
        plain = self.augment in ("views", "views+set") or (self.mix == "none" and self.patches == 1)
        require(plain, "protocol.augment", self.augment, "views, which protocol.mix and protocol.patches belong to")

    def of_parts(self, factor: int) -> "Protocol":
        """The same for images of which a side has so many parts, where `patches` leaves that open."""
        return self if self.patches is not None else dataclasses.replace(self, patches=factor)

    def training(
        self,
        network: FlatNetwork,
        augment: Augmentation,
        syn_lr: float | None,
        ipc: int,
        kind: Kind,
        preprocessing: Preprocessing = Identity(),
    ) -> Training:
        """How `network` is trained on a set.

        Args:
            network: the fresh one.
            augment: the distillation's augmentation.
            syn_lr: the set's η; None is enough where the protocol has a step size of its own.
            ipc: its images per class.
            kind: what the labels are that the network is given.
            preprocessing: of its images, of which a `policy` changes the pixels.
        """
        return Training(
            optimiser=self._optimiser(network, self.step_size(network.name, syn_lr)),
            loss=self._loss(kind),
            epochs=self.epochs,
            batch_size=self.batch_size or (10 if ipc < 10 else 50 if ipc < 50 else 100),
            augment=self._augmentation(augment, preprocessing),
            rate=RATES[self.rate],
        )

    def step_size(self, network: str, syn_lr: float | None) -> float:
        """The step size for the network of that name on a set whose learned step size is η."""
        factor = next((factor for start, factor in self.lr_factors if network.startswith(start)), 1.0)
        lr = self.lr or syn_lr
        if lr is None:
            raise UsageError(f"syn_lr: {syn_lr!r} is not a step size, which eval.protocol={self.name} takes from the set")
        return lr * factor

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of it: all keys; of those that have come later, such as are not what they are by default."""
        usual = {field.name: field.default for field in dataclasses.fields(self) if field.name in LATER}
        return {key: value for key, value in plain(self).items() if key not in usual or value != usual[key]}

    @property
    def looks(self) -> tuple[int, ...]:
        """After which epochs networks are looked at while they are trained; empty where they are not."""
        if self.best != "epoch":
            return ()
        between = range(self.look_every, self.epochs, self.look_every)
        return (*(epoch for epoch in between if epoch - 1 > self.look_from * self.epochs or not self.look_from), self.epochs)

    @property
    def mixes(self) -> bool:
        """Whether views are mixed, so that labels must be probabilities, which can be mixed alike."""
        return self.mix != "none"

    def _optimiser(self, network: FlatNetwork, lr: float) -> Optimiser:
        if self.optimiser == "sgd":
            return Sgd(lr, self.momentum, self.weight_decay)
        decayed = None if self.decay_all else decays(network.shapes.values())
        return AdamW(lr, weight_decay=self.weight_decay, decayed=decayed)

    def _loss(self, kind: Kind) -> Loss:
        if self.labels == "teacher":
            return Divergence(self.temperature)
        return soft_cross_entropy if kind == "logits" else cross_entropy

    def _augmentation(self, augment: Augmentation, preprocessing: Preprocessing) -> Augmentation | Views | Layers:
        between: tuple[Augmentation, ...] = (augment,) if self.augment in ("set", "views+set") else ()
        if self.policy != "none":
            between = (policy_of(self.policy, preprocessing, self.policy_operations, self.policy_magnitude), *between)
        if self.augment not in ("views", "views+set"):
            if len(between) > 1:
                return Layers(views=Views(crop_scale=None, flip=False), between=between)
            return between[0] if between else NO_AUGMENTATION
        patches = self.patches or 1
        scale = self.crop_scale or ((1 / patches, 1.0) if patches > 1 else None)
        flip = self.flip and augment.flip
        views = Views(crop_scale=scale, patches=patches, mix=self.mix, mix_share=self.mix_share, flip=flip)
        return Layers(views=views, between=between) if between else views


_KD: dict[str, Any] = {
    "labels": "teacher",
    "optimiser": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "rate": "cosine",
    "epochs": 300,
    "augment": "views",
    "mix": "cutmix",
}
_RDED: dict[str, Any] = {"version": 2, "crop_scale": None, "patches": None, "rate": "cosine_to_half", "batch_size": None}
_SMALLER = (("AlexNet", 0.1), ("VGG11", 0.5))
_LAST_FIFTH: dict[str, Any] = {"best": "epoch", "look_from": 0.8}
_NCFM: dict[str, Any] = {
    "labels": "hard",
    "optimiser": "adamw",
    "lr": 1e-3,
    # The release hands its AdamW no decay, so that it is torch's, of all parameters.
    "weight_decay": 0.01,
    "decay_all": True,
    "rate": "halved_by_fifths",
    "epochs": 2000,
    "augment": "views+set",
    "crop_scale": (0.5, 1.0),
    "flip": False,
    "mix": "cutmix",
    "mix_share": 0.5,
    "best": "epoch",
    "look_every": 100,
}
_DD_RANKING: dict[str, Any] = {
    "labels": "hard",
    "rate": "step_at_half",
    "epochs": 300,
    "batch_size": 256,
    "augment": "views",
    "crop_scale": None,
    "flip": False,
    "mix": "cutmix",
    **_LAST_FIFTH,
}

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="dd"),
        Protocol(name="dd-published", validation=False),
        Protocol(name="dd-hard", labels="hard"),
        Protocol(name="none", augment="none"),
        Protocol(name="kd", **_KD),
        Protocol(name="kd-rded", **_KD | _RDED, lr_factors=_SMALLER),
        Protocol(name="kd-sre2l", **_KD, batch_size=1024),
        Protocol(name="soft-ce", **_KD | {"labels": "stored"}),
        Protocol(name="edf-2024", rate="drop_past_half", epochs=1001, best="checkpoint"),
        Protocol(name="ncfm-2025", **_NCFM),
        Protocol(name="rded", **_KD | _RDED, **_LAST_FIFTH, lr_factors=_SMALLER),
        Protocol(name="sre2l", **_KD, batch_size=1024, best="epoch"),
        Protocol(name="dd-ranking", **_DD_RANKING),
    )
}


def resolve(settings: EvalSettings) -> Protocol:
    """The protocol that `eval.protocol` names, with `eval.epochs` and `eval.batch_size` where they are given.

    Raises:
        UsageError: when there is no such protocol or file, or the file holds a key that is unknown or not read, or a value that is
            not accepted.
    """
    protocol = settings.protocol if isinstance(settings.protocol, Protocol) else find(settings.protocol)
    given = {name: value for name in ("epochs", "batch_size") if (value := getattr(settings, name)) is not None}
    return dataclasses.replace(protocol, **given)


def find(name: str) -> Protocol:
    """The protocol of that name, or in the YAML file of that path: `base`, a protocol's name, and what differs from it.

    Raises:
        UsageError: as `resolve` does.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if is_url(name):
        from limbeck.runtime.located import here

        name = here("eval.protocol", name)
    path = Path(name).expanduser()
    from limbeck.runtime.yaml_text import MOST_YAML, yaml_of

    known = f"{', '.join(PROTOCOLS)} or a .yaml file of your own"
    require(path.suffix in (".yaml", ".yml") and path.is_file(), "eval.protocol", name, f"one of {known}")
    try:
        content = yaml_of(read_text(path, MOST_YAML)) or {}
    except (OSError, ValueError) as error:
        raise UsageError(f"eval.protocol: {name!r} cannot be read: {one_line(error)}") from error
    require(isinstance(content, Mapping), "eval.protocol", name, "a file of keys with values")
    base = content.get("base", "dd")
    require(str(base) in PROTOCOLS, "protocol.base", base, f"one of {', '.join(PROTOCOLS)}")
    given = {key: value for key, value in content.items() if key != "base"}
    for key in given:
        require(
            key in kinds_of(Protocol),
            f"protocol.{key}",
            given[key],
            f"a key of protocols; known are base, {', '.join(kinds_of(Protocol))}",
        )
    if isinstance(factors := given.get("lr_factors"), Mapping):
        given["lr_factors"] = tuple(factors.items())
    found = dataclasses.replace(PROTOCOLS[base], **{"name": path.stem, **given})
    _refuse_idle(found, given)
    return found


def _refuse_idle(protocol: Protocol, given: Mapping[str, Any]) -> None:
    """Raise `UsageError` for keys that the protocol does not read, as it is."""
    said = []
    for key in (one for one in given if one in READ_WITH):
        by, values = READ_WITH[key]
        if (held := getattr(protocol, by)) not in values:
            said.append(
                f"protocol.{key}: {shown(given[key])} is not read with protocol.{by} {held}, only with {' or '.join(values)}"
            )
    if said:
        raise UsageError("; ".join(said))

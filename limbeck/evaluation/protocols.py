"""Protocols: complete, named, versioned ways to train fresh networks on a small set (PAPER § 8).

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

Yin, Xing and Shen, "Squeeze, Recover and Relabel" (SRe2L), 2023, arXiv:2306.13092. Sun et al., "On the Diversity and Realism of
Distilled Dataset" (RDED), 2023, arXiv:2312.03526.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from limbeck.augmentation import NO_AUGMENTATION, Augmentation
from limbeck.distilled.small_set import Kind
from limbeck.evaluation.settings import EvalSettings
from limbeck.losses import Divergence, cross_entropy, soft_cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.bounded import read_text
from limbeck.runtime.checked import Checked, Count, NotNegative, Positive, Rule, Share, kinds_of
from limbeck.runtime.errors import UsageError, one_line, require
from limbeck.runtime.urls import is_url
from limbeck.runtime.yaml_text import MOST_YAML, yaml_of
from limbeck.training.gradient import Loss
from limbeck.training.optimisers import AdamW, Optimiser, Sgd, decays
from limbeck.training.rates import Constant, Cosine, DropAtHalf, Rate
from limbeck.training.train import Training
from limbeck.views import Views

RATES: dict[str, Rate] = {
    "constant": Constant(),
    "drop_at_half": DropAtHalf(),
    "cosine": Cosine(),
    "cosine_to_half": Cosine(over=2.0),
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
        weight_decay: of either; AdamW's leaves parameters of one dimension alone.
        rate: `constant`, `drop_at_half` (to a tenth, momentum starting anew), `cosine` (to 0), `cosine_to_half`.
        epochs: of every network.
        batch_size: of every network; None takes 10, 50 or 100 for ipc below 10, below 50, and above.
        augment: `set` is the distillation's, `views` random resized crops with flips, `none` nothing.
        crop_scale: least and greatest area of these crops, as shares; None takes 1/`patches` and 1, and crops nothing where
            `patches` is 1.
        patches: sides are cut into so many, and columns, then rows shuffled; 1 shuffles nothing. None takes the parts that RDED
            stitches a side from, `rded.factor`: 2 from 128 pixels on, else 1.
        mix: `cutmix`, `mixup` or `none`, of views.
        validation: whether a part of the training images is kept apart to choose the checkpoint on; otherwise the last counts.

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
    rate: Literal["constant", "drop_at_half", "cosine", "cosine_to_half"] = "drop_at_half"
    epochs: Count = 1000
    batch_size: Count | None = 128
    augment: Literal["set", "views", "none"] = "set"
    crop_scale: Annotated[
        tuple[float, float] | None,
        Rule("two shares in (0, 1], the smaller first, or null", lambda ends: ends is None or 0 < ends[0] <= ends[1] <= 1),
    ] = (0.08, 1.0)
    patches: Count | None = 1
    mix: Literal["none", "cutmix", "mixup"] = "none"
    validation: bool = True

    def check_together(self) -> None:
        plain = self.augment == "views" or (self.mix == "none" and self.patches == 1)
        require(plain, "protocol.augment", self.augment, "views, which protocol.mix and protocol.patches belong to")

    def of_parts(self, factor: int) -> "Protocol":
        """The same for images of which a side has so many parts, where `patches` leaves that open."""
        return self if self.patches is not None else dataclasses.replace(self, patches=factor)

    def training(self, network: FlatNetwork, augment: Augmentation, syn_lr: float | None, ipc: int, kind: Kind) -> Training:
        """How `network` is trained on a set.

        Args:
            network: the fresh one.
            augment: the distillation's augmentation.
            syn_lr: the set's η; None is enough where the protocol has a step size of its own.
            ipc: its images per class.
            kind: what the labels are that the network is given.
        """
        return Training(
            optimiser=self._optimiser(network, self.step_size(network.name, syn_lr)),
            loss=self._loss(kind),
            epochs=self.epochs,
            batch_size=self.batch_size or (10 if ipc < 10 else 50 if ipc < 50 else 100),
            augment=self._augmentation(augment),
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
    def mixes(self) -> bool:
        """Whether views are mixed, so that labels must be probabilities, which can be mixed alike."""
        return self.mix != "none"

    def _optimiser(self, network: FlatNetwork, lr: float) -> Optimiser:
        if self.optimiser == "sgd":
            return Sgd(lr, self.momentum, self.weight_decay)
        return AdamW(lr, weight_decay=self.weight_decay, decayed=decays(network.shapes.values()))

    def _loss(self, kind: Kind) -> Loss:
        if self.labels == "teacher":
            return Divergence(self.temperature)
        return soft_cross_entropy if kind == "logits" else cross_entropy

    def _augmentation(self, augment: Augmentation) -> Augmentation | Views:
        if self.augment == "views":
            patches = self.patches or 1
            scale = self.crop_scale or ((1 / patches, 1.0) if patches > 1 else None)
            return Views(crop_scale=scale, patches=patches, mix=self.mix, flip=augment.flip)
        return augment if self.augment == "set" else NO_AUGMENTATION


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

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="dd"),
        Protocol(name="dd-published", validation=False),
        Protocol(name="dd-hard", labels="hard"),
        Protocol(name="none", augment="none"),
        Protocol(name="kd", **_KD),
        Protocol(name="kd-rded", **_KD | _RDED, lr_factors=(("AlexNet", 0.1), ("VGG11", 0.5))),
        Protocol(name="kd-sre2l", **_KD, batch_size=1024),
        Protocol(name="soft-ce", **_KD | {"labels": "stored"}),
    )
}


def resolve(settings: EvalSettings) -> Protocol:
    """The protocol that `eval.protocol` names, with `eval.epochs` and `eval.batch_size` where they are given.

    Raises:
        UsageError: when there is no such protocol or file, or the file holds an unknown key or a value that is not accepted.
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
    return dataclasses.replace(PROTOCOLS[base], **{"name": path.stem, **given})

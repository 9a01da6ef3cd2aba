"""The methods by name: a line each.

A trajectory method is a composition of the same parts:

    mtt     uniform start epochs, hard labels, real images, experts by SGD   Cazenavette et al., 2022, arXiv:2203.11932
    ftd     mtt on experts trained by GSAM, X averaged over iterations       Du et al., 2023, arXiv:2211.11004
    tesla   mtt with λ taken as constant; with labels=soft on the target
            checkpoint's softmax outputs, anew in each iteration             Cui et al., 2023, arXiv:2211.10586
    datm    start epochs from early to late, learned soft labels,
            images that experts classify correctly                           Guo et al., 2024, arXiv:2310.05773
    pad     datm on experts trained from easy to difficult images,
            parameters of lowest loss dropped                                Li et al., 2024, arXiv:2408.03360
    edf     datm with Common Pattern Dropout and Discriminative Area
            Enhancement                                                      Wang et al., 2025, arXiv:2410.17193
    edf-plus edf with four images in every slot, and as many images in a
            student step as the set has slots                                ours, with IDC's decoder, arXiv:2205.14959

The others match gradients (`dc`, `dsa`) or features (`dm`, `ncfm`) of the real images. Coresets are real images, with hard labels:
random ones, ones chosen by features (`herding`, `k-center`, `k-means`, `moderate`) or by difficulty (`el2n`, `forgetting`, `ccs`),
and RDED's crops (`rded-hard`). Or a teacher labels images that are made from its batch norms (`sre2l`), from crops (`rded`), or
from both:

    cda     sre2l with crops from whole images to small ones                 Yin and Shen, 2023, arXiv:2311.18838
    sre2l++ cda from RDED's crops instead of noise                           ours, of the two
    fadrm   sre2l from RDED's crops, in stages at two resolutions, with
            the crops blended in between                                     Cui et al., 2025, arXiv:2506.24125

`docs/add-a-method.md` adds one.
"""

from collections.abc import Mapping
from typing import Any

from limbeck.methods.method import Method
from limbeck.runtime.errors import require
from limbeck.runtime.plugins import FORM, imported, is_foreign

# Presets say what is the method's own even where that is the default, because a recipe of another method gives way to them.
# X, not its average, is evaluated; EDF alone shifts images by up to a quarter of their side, when it distils and when it evaluates.
ITSELF: dict[str, Any] = {"outer.ema_decay": None, "augment.crop_ratio": 0.125}
PLAIN: dict[str, Any] = {**ITSELF, "match.criterion": "none", "enhance.weighting": "none"}
HARD: dict[str, Any] = {"labels": "hard", "outer.lr_label": 0.0}
REAL: dict[str, Any] = {**PLAIN, **HARD, "init": "real", "outer.lr_lr": 0.0, "outer.img_momentum": 0.5}
# Four images cost no more a step than one, where a step takes a quarter of them.
EDF_PLUS: dict[str, Any] = {"parametrisation.kind": "multi", "parametrisation.factor": 2, "match.batch_syn": "slots"}
PAD: dict[str, Any] = {**ITSELF, "enhance.weighting": "none", "match.drop_ratio": 0.25, "experts.curriculum": "pad"}
MTT: dict[str, Any] = {**PLAIN, **HARD, "schedule.kind": "uniform", "init": "real", "experts.optimiser": "sgd"}
FTD: dict[str, Any] = {**MTT, "experts.optimiser": "gsam", "experts.alpha": 0.4, "outer.ema_decay": 0.999}
NCFM: dict[str, Any] = {**REAL, "outer.img_optimiser": "adamw", "outer.lr_img": 0.001, "real.batch": 1024}
RECOVERED = "limbeck.methods.recovered"
DC: dict[str, Any] = {**REAL, "outer.lr_img": 0.1, "init": "noise", "eval.protocol": "none", "eval.epochs": 300}


def trajectories(preset: Mapping[str, Any]) -> Method:
    """A way to match trajectories."""
    return Method(make="limbeck.methods.trajectory:make", preset=preset, experts=True, steps=True, shards="images", labels="soft")


def classes(make: str, preset: Mapping[str, Any], **more: Any) -> Method:
    """A way to match classes with the real images of each."""
    return Method(make=f"limbeck.methods.{make}", preset=preset, shards="classes", **more)


def labelled(module: str, protocol: str, **own: Any) -> Method:
    """Images that a teacher labels, evaluated by a protocol of their own; `own` keys of `sre2l.*`."""
    preset = {**PLAIN, "eval.protocol": protocol, **{f"sre2l.{name}": value for name, value in own.items()}}
    return Method(make=f"{module}:make", check=f"{module}:check", preset=preset, kind="images", labels="soft")


def selection(name: str, difficulties: bool = False) -> Method:
    """Real images as they are."""
    return Method(make=f"limbeck.methods.subsets:{name}", preset=REAL, kind="selection", difficulties=difficulties)


METHODS: Mapping[str, Method] = {
    "edf": trajectories({}),
    "edf-plus": trajectories(EDF_PLUS),
    "pad": trajectories(PAD),
    "datm": trajectories(PLAIN),
    "tesla": trajectories({**MTT, "engine.kind": "tesla", "match.relabel": True}),
    "ftd": trajectories(FTD),
    "mtt": trajectories(MTT),
    "dsa": classes("gradient_matching:dsa", {**REAL, "outer.lr_img": 0.1}, norms=True),
    "dc": classes("gradient_matching:dc", DC, norms=True),
    "dm": classes("distribution_matching:make", {**REAL, "outer.lr_img": 1.0}),
    "ncfm": classes(
        "characteristic_matching:make", NCFM, experts=True, ends=True, check="limbeck.methods.characteristic_matching:check"
    ),
    "sre2l": labelled(RECOVERED, "kd-sre2l"),
    "cda": labelled(RECOVERED, "kd-sre2l", crop_curriculum="cosine"),
    "sre2l++": labelled(RECOVERED, "kd-sre2l", crop_curriculum="cosine", start="patches"),
    "fadrm": labelled(RECOVERED, "kd-sre2l", iterations=2000, start="patches", stages=4, residual=0.5, low_resolution=200 / 224),
    "rded": labelled("limbeck.methods.realistic_patches", "kd-rded"),
    "rded-hard": Method(
        make="limbeck.methods.realistic_patches:make", check="limbeck.methods.realistic_patches:check", preset=REAL, kind="images"
    ),
    "ccs": selection("ccs", difficulties=True),
    "forgetting": selection("forgetting", difficulties=True),
    "el2n": selection("el2n", difficulties=True),
    "moderate": selection("moderate"),
    "k-means": selection("k_means"),
    "k-center": selection("k_center"),
    "herding": selection("herding"),
    "random": selection("random"),
}
EDFS = ("edf", "edf-plus")  # drop the share of parameters that is published for the number of images per class
CORESETS = ("herding", "k-center", "k-means", "moderate", "el2n", "forgetting", "ccs", "rded-hard")  # beside a figure on request


def known(method: str | Method) -> Method | None:
    """The method that is one or has that name; None for `package.module:METHOD`, the user's own, which is not imported.

    Raises:
        UsageError: when it is none, has no such name, nor that form.
    """
    if not isinstance(method, str):
        accepted = "a Method, such as limbeck.methods.edf() gives, nor the name of one"
        require(isinstance(method, Method), "method", method, accepted)
        return method
    if is_foreign(method):
        require(FORM.fullmatch(method) is not None, "method", method, "of the form package.module:METHOD")
        return None
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    return METHODS[method]


def name_of(method: str | Method) -> str:
    """What the method is called, in settings and messages."""
    return method if isinstance(method, str) else getattr(method, "name", "") or "the method"


def method_of(method: str | Method) -> Method:
    """The same, the user's own too: its module is imported.

    Raises:
        UsageError: when there is none.
    """
    found = known(method)
    if found is None:
        found = imported("method", str(method), "METHOD")
        require(isinstance(found, Method), "method", method, f"a limbeck.methods.method.Method, it is a {type(found).__name__}")
    return found

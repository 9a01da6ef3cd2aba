"""What a run owes to whom: the papers of its method and of the parts that it used, its data sets where they are known, and Limbeck.

One table says which values of which keys stand for whose work, and `references.bib` has the entries. A key that the method never
reads stands for nothing, and neither does a part that is switched off.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from limbeck.methods.registry import name_of
from limbeck.runs.settings import DistillSettings, coresets_of, value_of
from limbeck.runs.unread import idle_keys
from limbeck.runtime.records import Record
from limbeck.runtime.version import VERSION

BIBLIOGRAPHY = Path(__file__).with_name("references.bib")
EDF, PAD, DATM, MTT = "wang2025edf", "li2024pad", "guo2024datm", "cazenavette2022mtt"
SRE2L, RDED, CDA, FADRM = "yin2023sre2l", "sun2024rded", "yin2023cda", "cui2025fadrm"
IMAGENET = "deng2009imagenet"
METHODS: Mapping[str, tuple[str, ...]] = {
    "edf": (EDF,),
    "edf-plus": (EDF,),
    "pad": (PAD,),
    "datm": (DATM,),
    "tesla": ("cui2023tesla",),
    "ftd": ("du2023ftd",),
    "mtt": (MTT,),
    "dsa": ("zhao2021dsa",),
    "dc": ("zhao2021dc",),
    "dm": ("zhao2023dm",),
    "ncfm": ("wang2025ncfm",),
    "sre2l": (SRE2L,),
    "cda": (CDA, SRE2L),
    "sre2l++": (SRE2L, CDA, RDED),
    "fadrm": (FADRM, SRE2L),
    "rded": (RDED,),
    "rded-hard": (RDED,),
    "ccs": ("zheng2023ccs",),
    "forgetting": ("toneva2019forgetting",),
    "el2n": ("paul2021el2n",),
    "moderate": ("xia2023moderate",),
    "k-means": ("lloyd1982",),
    "k-center": ("gonzalez1985", "sener2018"),
    "herding": ("welling2009herding", "rebuffi2017icarl"),
    "random": (),
}
CAMS: Mapping[str, tuple[str, ...]] = {
    "gradcam": ("selvaraju2017gradcam",),
    "smooth_gradcam_pp": ("omeiza2019smooth",),
    "layercam": ("jiang2021layercam",),
    "average": ("selvaraju2017gradcam", "omeiza2019smooth", "jiang2021layercam"),
}
PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("dd", "dd-published", "dd-hard", "none"), (MTT,)),
    **dict.fromkeys(("kd", "soft-ce"), ("hinton2015kd", "shen2022fkd")),
    **dict.fromkeys(("kd-rded", "rded"), (RDED,)),
    **dict.fromkeys(("kd-sre2l", "sre2l"), (SRE2L,)),
    "edf-2024": (EDF,),
    "ncfm-2025": ("wang2025ncfm",),
    "dd-ranking": ("li2025ddranking",),
}
# Of every other key the values that stand for somebody's work.
VALUES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "method": METHODS,
    "init": {"correct": (DATM,)},
    "match.criterion": {"loss": (EDF,), "first": (PAD,)},
    "schedule.kind": {"sequential": (DATM,)},
    "enhance.weighting": dict.fromkeys(("activation", "constant", "shuffled"), (EDF,)),
    "enhance.cam": CAMS,
    "experts.optimiser": {"gsam": ("zhuang2022gsam",)},
    "experts.curriculum": {"pad": (PAD,)},
    "engine.kind": {"tesla": ("cui2023tesla",), "truncated": ("feng2023ratbptt",)},
    "parametrisation.kind": {"multi": ("kim2022idc",), "dct": ("shin2023fred",)},
    "outer.img_optimiser": {"adamw": ("loshchilov2019adamw",)},
    "coreset.score": {"el2n": METHODS["el2n"], "forgetting": METHODS["forgetting"]},
    "sre2l.crop_curriculum": {"cosine": (CDA,)},
    "sre2l.start": {"patches": (RDED,)},
    "eval.protocol": PROTOCOLS,
}
# Data sets by what names and paths of sources have in them; the first that fits.
SOURCES: Mapping[str, tuple[str, ...]] = {
    r"^scenes\b": ("alpaydin1998digits", "pedregosa2011sklearn"),
    r"imagenette|imagewoof": ("howard2019imagenette", IMAGENET),
    r"comp-?dd|^imagenet:(in1k-cifar10|[\w-]+-(easy|hard))": (EDF, IMAGENET),
    r"imagemeow|imagesquawk|imagefruit|imageyellow": (MTT, IMAGENET),
    r"tiny[-_]?imagenet": ("le2015tiny", IMAGENET),
    r"imagenet|ilsvrc": (IMAGENET,),
    r"cifar[-_]?100?\b": ("krizhevsky2009cifar",),
    r"fashion[-_]?mnist": ("xiao2017fashion",),
    r"medmnist|(blood|derma|path|oct|pneumonia|retina|breast|tissue)mnist|organ[acs]mnist": ("yang2023medmnist",),
    r"(?<![a-z])mnist": ("lecun1998mnist",),
    r"svhn": ("netzer2011svhn",),
}


@dataclass(frozen=True)
class Reference(Record):
    """An entry of a bibliography.

    Args:
        key: by which it is cited.
        why: what of the run it stands for, such as `method=edf`.
        bibtex: the entry.
    """

    key: str
    why: tuple[str, ...]
    bibtex: str


@cache
def entries() -> Mapping[str, str]:
    """All entries of BibTeX by their keys."""
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    return {found[1]: found[0] for found in re.finditer(r"^@\w+\{(\S+),\n.*?^\}", text, re.MULTILINE | re.DOTALL)}


def references_of(settings: DistillSettings, version: str = VERSION) -> list[Reference]:
    """What a run with these settings used, made by that version of Limbeck, which is the first.

    Example:
        >>> [one.key for one in references_of(DistillSettings.of(method="random"))][:2]
        ['limbeck', 'cazenavette2022mtt']
    """
    why: dict[str, list[str]] = {"limbeck": [f"Limbeck {version}"]}
    for said, keys in _used(settings):
        for key in keys:
            why.setdefault(key, []).append(said)
    return [Reference(key, tuple(said), entries()[key].replace("{VERSION}", f"{{{version}}}")) for key, said in why.items()]


def data_of(source: str) -> tuple[str, ...]:
    """The keys of the entries of a data set, by the name or path of its source; none where it is not known."""
    return next((keys for pattern, keys in SOURCES.items() if re.search(pattern, source.lower())), ())


def _used(settings: DistillSettings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What was used, in the words of the settings, with the keys of its entries."""
    idle = idle_keys(settings, VALUES)
    for key, meant in VALUES.items():
        value = name_of(settings.method) if key == "method" else value_of(settings, key)
        if key not in idle and not _is_off(settings, key):
            found = meant.get(value, ()) if isinstance(value, str) else ()
            yield f"{key}={value}", found
            if key == "enhance.cam":
                yield f"{key}={value}, by torch-cam", ("torchcam",)
    if settings.augment.strategy != "none":
        yield f"augment.strategy={settings.augment.strategy}", ("zhao2021dsa",)
    if settings.sre2l.stages > 1 and "sre2l.stages" not in idle_keys(settings, ["sre2l.stages"]):
        yield f"sre2l.stages={settings.sre2l.stages}", (FADRM,)
    for name in coresets_of(settings):
        yield f"eval.baselines={name}", METHODS[name]
    yield f"data.source={settings.data.source}", data_of(str(settings.data.source))


def _is_off(settings: DistillSettings, key: str) -> bool:
    """Whether a part has no effect, whatever the key says."""
    if key == "match.criterion":
        return settings.match.drop_ratio == 0
    if key == "enhance.cam":
        return settings.enhance.weighting == "none"
    return False

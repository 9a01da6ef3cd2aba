"""The items of the paper as declarations: the rows of a grid, what is measured of its cells, and the claims with their tests.

Rows are methods with what replaces their settings; what a scale makes of sizes and sources is its own matter (`scales.py`). Every
row of EDF with a criterion or with weights has a control beside it, the same with the norm of its gradient matched.
"""

from collections.abc import Mapping, Sequence

from limbeck.reproduction.claims import At, Claim, Part, above, above_all, first, gains_more, last, many, over_all, over_places
from limbeck.reproduction.item import Item, Row, better, easy, hard, of_edf, of_value, own, rows_at
from limbeck.runtime.errors import require

ALONE = {"enhance.weighting": "none"}
NETWORKS = ("ResNet18", "VGG11", "AlexNet")
RATIOS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75)
CRITERIA = ("random", "uniform", "first", "middle", "last")


EDF, DATM, FTD, MTT, RANDOM = map(At, ("edf", "datm", "ftd", "mtt", "random"))

FIG1A = Item(
    "fig1a",
    "Recovery ratio on simple and on complex images",
    own("random", "mtt", "datm", "edf"),
    tuple(
        Claim(
            f"falls-{one.row}",
            "g",
            f"The recovery ratio of {one.row.upper()} is lower on hard images than on easy ones.",
            (above(easy(of_value(one, "recovery")), hard(of_value(one, "recovery")), f"{one.row}, easy − hard"),),
        )
        for one in (MTT, DATM, EDF)
    ),
    places="levels",
    shown=("recovery", "accuracy"),
)
SEEN = At("random", "seen.activation")
FIG1B = Item(
    "fig1b",
    "Activation maps of simple and of complex images",
    own("random"),
    tuple(
        Claim(
            f"less-{value}",
            "figure 1b",
            f"{text} of hard images is lower than that of easy ones.",
            (above(easy(of_value(SEEN, f"seen.{value}")), hard(of_value(SEEN, f"seen.{value}")), "easy − hard"),),
        )
        for value, text in (("activation", "The mean activation"), ("high", "The share of high activation"))
    ),
    sizes=("small",),
    places="levels",
    measures=("seen",),
    shown=("seen.activation", "seen.high", "seen.area"),
)
LOW = Row("low losses", "edf", {**ALONE, "match.drop_side": "high", "match.drop_ratio": "0.5"})
HIGH = Row("high losses", "edf", {**ALONE, "match.drop_side": "low", "match.drop_ratio": "0.5"})
FIG2 = Item(
    "fig2",
    "What parameters of low and of high loss teach",
    (Row("all", "datm"), LOW, HIGH),
    (
        Claim(
            "low-lowers-activation",
            "i",
            "Matching only parameters of low loss lowers the mean activation.",
            (above(At("all", "course.activation_growth"), At("low losses", "course.activation_growth")),),
        ),
        Claim(
            "high-raises-activation",
            "i",
            "Matching only parameters of high loss raises the mean activation.",
            (above(At("high losses", "course.activation_growth"), At("all", "course.activation_growth")),),
        ),
        Claim(
            "low-joins-classes",
            "i",
            "Matching only parameters of low loss brings classes closer together than matching those of high loss.",
            (above(At("high losses", "course.separation_growth"), At("low losses", "course.separation_growth")),),
            unit="distance",
        ),
    ),
    measures=("course",),
    shown=("accuracy", "course.activation_growth", "course.area_growth", "course.separation_growth"),
)
TABLE1 = Item(
    "table1",
    "Methods by images per class, with and without knowledge distillation",
    (
        *own("random"),
        *(Row(name, name, without=("large",)) for name in ("mtt", "ftd")),  # of which the paper prints no figures there
        *(Row(name, name, also=("large",)) for name in ("datm", "edf")),
        *own("sre2l", "rded"),
    ),
    (
        better(EDF, DATM),
        better(DATM, FTD),
        better(FTD, MTT),
        better(MTT, RANDOM),
        Claim(
            "gain-grows",
            "a",
            "EDF gains more over DATM with many images per class than with few.",
            (gains_more(EDF, DATM, many, first, "edf − datm, many images − one"),),
        ),
        Claim(
            "kd-loses-few",
            "k",
            "With one image per class EDF is worse under knowledge distillation than without.",
            (above(first(EDF), first(of_value(EDF, "kd.accuracy")), "edf without − with"),),
        ),
        Claim(
            "kd-wins-many",
            "k",
            "With many images per class EDF is on average better under knowledge distillation than without.",
            (above(over_places(many(of_value(EDF, "kd.accuracy"))), over_places(many(EDF)), "edf with − without"),),
        ),
    ),
    measures=("kd",),
    shown=("accuracy", "kd.accuracy", "recovery"),
)
TABLE2 = Item(
    "table2",
    "Many images per class: is anything lost?",
    own("random", "datm", "edf"),
    (
        Claim(
            "lossless",
            "table 2",
            "With many images per class EDF loses nothing: its accuracy is above that of the full data less one deviation.",
            (Part("edf − (full − std)", ((1.0, last(of_value(EDF, "above_full"))),)),),
        ),
        better(EDF, DATM, "With many images per class EDF is better than DATM.", "table 2"),
    ),
    sizes=("large", "huge"),
    places="easy",
    shown=("accuracy", "recovery"),
)
TABLE3 = Item(
    "table3",
    "Comp-DD: methods on easy and on hard subsets",
    own("random", "ftd", "datm", "edf"),
    (better(EDF, DATM, section="table 3"), better(DATM, FTD, section="table 3"), better(FTD, RANDOM, section="table 3")),
    places="levels",
    shown=("accuracy", "recovery"),
)
FIG4 = Item(
    "fig4",
    "Comp-DD: recovery ratios",
    own("datm", "edf"),
    (
        Claim(
            "easy-recovers-more",
            "g",
            "Easy subsets have higher recovery ratios than hard ones.",
            tuple(
                above(easy(of_value(one, "recovery")), hard(of_value(one, "recovery")), f"{one.row}, easy − hard")
                for one in (DATM, EDF)
            ),
        ),
        Claim(
            "edf-recovers-more",
            "figure 4",
            "EDF recovers more than DATM on hard subsets.",
            (above(hard(of_value(EDF, "recovery")), hard(of_value(DATM, "recovery"))),),
        ),
    ),
    places="levels",
    shown=("recovery", "accuracy"),
)
TABLE4 = Item(
    "table4",
    "Common Pattern Dropout and Discriminative Area Enhancement, alone and together",
    (
        Row("neither", "datm"),
        Row("CPD", "edf", {"match.drop_ratio": "0.25", **ALONE}),
        Row("DAE", "edf", {"match.criterion": "none"}),
        Row("both", "edf", {"match.drop_ratio": "0.25"}),
    ),
    (
        Claim("cpd", "b", "Common Pattern Dropout alone improves on the baseline.", (above(At("CPD"), At("neither")),)),
        Claim("dae", "b", "Discriminative Area Enhancement alone improves on the baseline.", (above(At("DAE"), At("neither")),)),
        Claim(
            "both", "b", "Both together are better than each alone.", (above(At("both"), At("CPD")), above(At("both"), At("DAE")))
        ),
    ),
    sizes=("middle",),
    places="parts",
)
TABLE5A = Item(
    "table5a",
    "Drop ratio by images per class",
    of_edf("α", "match.drop_ratio", RATIOS),
    (
        Claim(
            "few",
            "c",
            "With few images per class dropping 12.5 % or 25 % is best.",
            above_all(
                list(map(first, rows_at("α", (0.125, 0.25)))), map(first, rows_at("α", (0.0, 0.375, 0.5, 0.75))), "α=0.125, 0.25"
            ),
        ),
        Claim(
            "many",
            "c",
            "With many images per class dropping 37.5 % or 50 % is best.",
            above_all(
                list(map(last, rows_at("α", (0.375, 0.5)))), map(last, rows_at("α", (0.0, 0.125, 0.25, 0.75))), "α=0.375, 0.5"
            ),
        ),
        Claim("harmful", "c", "Dropping 75 % does harm everywhere.", (above(At("α=0.0"), At("α=0.75")),)),
    ),
    sizes=("small", "middle", "large"),
)
TABLE5B = Item(
    "table5b",
    "How often maps are made, by images per class",
    of_edf("K", "enhance.cam_every", (25, 50, 100, 200)),
    (
        Claim(
            "few",
            "d",
            "With few images per class frequent maps are better.",
            tuple(above(first(At(f"K={k}")), first(At("K=200"))) for k in (25, 50)),
        ),
        Claim(
            "turns",
            "d",
            "Frequent maps gain more with few images per class than with many.",
            (gains_more(At("K=50"), At("K=200"), first, last, "K=50 − K=200, fewest images − most"),),
        ),
    ),
)
TABLE6A = Item(
    "table6a",
    "β, by which discriminative areas are enhanced",
    of_edf("β", "enhance.beta", (0.5, 1, 2, 5, 10)),
    (Claim("best", "e", "β is best in 1 … 2.", above_all(rows_at("β", (1, 2)), rows_at("β", (0.5, 5, 10)), "β=1, 2")),),
)
TABLE6B = Item(
    "table6b",
    "The threshold of discriminative areas",
    of_edf("threshold", "enhance.cam_threshold", ("mean", 0.2, 0.5, 0.8)),
    (
        Claim(
            "mean",
            "e",
            "The mean of the map is a better threshold than any number.",
            tuple(above(At("threshold=mean"), other) for other in rows_at("threshold", (0.2, 0.5, 0.8))),
        ),
    ),
)
FIG5 = Item(
    "fig5",
    "Discriminative areas: at the start, of DATM, of EDF",
    own("datm", "edf"),
    (
        Claim(
            "grows",
            "h",
            "The discriminative area of EDF's images is larger than that of the images they began as.",
            (Part("edf, end − start", ((1.0, of_value(EDF, "course.area_growth")),)),),
        ),
        Claim(
            "more-than-datm",
            "h",
            "The discriminative area of EDF's images is larger than that of DATM's.",
            (above(of_value(EDF, "course.area"), of_value(DATM, "course.area")),),
        ),
    ),
    measures=("course",),
    shown=("course.area_start", "course.area", "course.area_growth", "accuracy"),
)
TABLE7 = Item(
    "table7",
    "By which criterion parameters are dropped",
    (
        Row("loss", "edf", {"match.drop_ratio": "0.25"}),
        *(Row(name, "edf", {"match.criterion": name, "match.drop_ratio": "0.25"}) for name in CRITERIA),
    ),
    (
        Claim(
            "loss",
            "f",
            "Dropping by the loss is better than by any other criterion.",
            tuple(above(At("loss"), At(name)) for name in CRITERIA),
        ),
    ),
)
TABLE9 = Item(
    "table9",
    "Other architectures",
    own("random", "ftd", "datm", "edf"),
    tuple(
        Claim(
            f"edf-above-{other.row}",
            "j",
            f"EDF's images train other architectures better than {other.row.upper()}'s.",
            tuple(
                above(of_value(EDF, f"networks.{name}"), of_value(other, f"networks.{name}"), f"{name}: edf − {other.row}")
                for name in NETWORKS
            ),
        )
        for other in (RANDOM, FTD, DATM)
    ),
    sizes=("middle",),
    measures=("networks",),
    shown=("accuracy", *(f"networks.{name}" for name in NETWORKS)),
)
TABLE10 = Item(
    "table10",
    "SRe2L and RDED without knowledge distillation",
    own("sre2l", "rded", "edf"),
    (
        better(EDF, At("sre2l"), "Without knowledge distillation EDF is better than SRe2L.", "l"),
        better(over_all(EDF), over_all(At("rded")), "Without knowledge distillation EDF is on average better than RDED.", "l"),
    ),
)
FIG6 = Item(
    "fig6",
    "β = 10 distorts the images",
    of_edf("β", "enhance.beta", (1, 10)),
    (
        Claim(
            "rougher",
            "e",
            "β = 10 roughens the images more than β = 1.",
            (above(At("β=10", "course.roughness_growth"), At("β=1", "course.roughness_growth")),),
            unit="distance",
        ),
    ),
    measures=("course",),
    shown=("accuracy", "course.roughness_growth", "course.moved"),
)
FIG7 = Item(
    "fig7",
    "Discriminative areas over the iterations, and the values of maps",
    own("datm", "edf"),
    (
        Claim(
            "grows-more",
            "h",
            "Over the iterations the discriminative area grows more under EDF than under DATM.",
            (above(of_value(EDF, "course.area_growth"), of_value(DATM, "course.area_growth")),),
        ),
        Claim(
            "higher-maps",
            "figure 7",
            "More of EDF's maps is high than of the maps of the images they began as.",
            (Part("edf, end − start", ((1.0, of_value(EDF, "course.high_growth")),)),),
        ),
    ),
    measures=("course",),
    shown=("course.area_growth", "course.high_growth", "course.activation_growth"),
)


BY_CLASS = ("seen.complexity", "seen.least", "seen.most")


def _distribution(name: str, which: str, value: str, text: str) -> Item:
    seen = At("random", f"seen.{value}")
    return Item(
        name,
        f"Complexity by class: {which}",
        own("random"),
        (Claim("harder", "§ 10", text, (above(hard(seen), easy(seen), "hard − easy"),)),),
        sizes=("small",),
        places="levels",
        measures=("seen",),
        shown=(seen.value, *(other for other in BY_CLASS if other != seen.value)),
    )


FIG8 = _distribution("fig8", "the mean", "complexity", "Hard subsets are more complex than easy ones.")
FIG9 = _distribution("fig9", "the most complex", "most", "The most complex class of a hard subset exceeds that of an easy one.")
FIG10 = _distribution(
    "fig10", "the least complex", "least", "The least complex class of a hard subset exceeds that of an easy one."
)

ITEMS: Mapping[str, Item] = {
    one.name: one
    for one in (
        *(FIG1A, FIG1B, FIG2, TABLE1, TABLE2, TABLE3, FIG4, TABLE4, TABLE5A, TABLE5B, TABLE6A, TABLE6B),
        *(FIG5, TABLE7, TABLE9, TABLE10, FIG6, FIG7, FIG8, FIG9, FIG10),
    )
}
ALL = "all"


def chosen(words: Sequence[str], key: str = "ITEM") -> list[Item]:
    """The items that are called so, in the paper's order; `all` is all of them.

    Raises:
        UsageError: for an unknown one, or none.
    """
    for word in words:
        require(word == ALL or word in ITEMS, key, word, f"one of {ALL}, {', '.join(ITEMS)}")
    require(bool(words), key, "", f"one or more of {ALL}, {', '.join(ITEMS)}")
    return [one for name, one in ITEMS.items() if ALL in words or name in words]

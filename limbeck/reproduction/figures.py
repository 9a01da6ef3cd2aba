"""The figures of the paper as declarations."""

from limbeck.reproduction.claims import At, Claim, Part, above
from limbeck.reproduction.item import ALONE, DATM, EDF, MTT, Item, Row, easy, hard, of_edf, of_value, own

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
            (Part("low losses, start − end", ((-1.0, At("low losses", "course.activation_growth")),)),),
        ),
        Claim(
            "high-raises-activation",
            "i",
            "Matching only parameters of high loss raises the mean activation.",
            (Part("high losses, end − start", ((1.0, At("high losses", "course.activation_growth")),)),),
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

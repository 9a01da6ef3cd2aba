"""The tables of the paper as declarations."""

from limbeck.reproduction.claims import (
    At,
    Claim,
    Part,
    above,
    above_all,
    first,
    gains_more,
    last,
    many,
    middle,
    over_all,
    over_places,
)
from limbeck.reproduction.item import (
    ALONE,
    DATM,
    EDF,
    FTD,
    MTT,
    NETWORKS,
    RANDOM,
    Item,
    Row,
    better,
    of_edf,
    of_value,
    own,
    rows_at,
)

RATIOS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75)
CRITERIA = ("random", "uniform", "first", "middle", "last")

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
            "kd-loses-middle",
            "k",
            "With a moderate number of images per class EDF is on average worse under knowledge distillation than without.",
            (above(over_places(middle(EDF)), over_places(middle(of_value(EDF, "kd.accuracy"))), "edf without − with"),),
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

"""Write the recipes with NCFM's published settings: nine data sets at 1, 10 and, where there are such, 50 images per class.

    python benchmarks/make_ncfm_recipes.py

`benchmarks/published/ncfm_settings.csv` holds the settings of the released runs, `ncfm_results.csv` the paper's tables. A recipe
holds what differs from the method's preset, so that these recipes are to be written again when that changes; a test compares.

The release's step sizes are of pixels in [0, 1], Limbeck's of what networks take. With s the mean of the channels' deviations,
AdamW, whose steps do not depend on how long gradients are, has lr / s here, and SGD lr / s²; to two digits, because channels
differ by one or two hundredths.
"""

from statistics import mean
from typing import Any

from make_published_recipes import IMAGES, rows, text_of, write

from limbeck.data.constants import CONSTANTS
from limbeck.recipes import settings_from_plain
from limbeck.runs.settings import flat
from limbeck.runtime.fingerprint import plain

PAPER = (
    'Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective" (CVPR 2025, arXiv:2502.20653)'
)
SOURCES = {
    "cifar10": ("cifar-10-batches-py/", "cifar10"),
    "cifar100": ("cifar-100-python/", "cifar10"),
    "tinyimagenet": ("tiny-imagenet-200/", "imagenet"),
}


def settings(row: dict[str, str]) -> dict[str, Any]:
    """The published settings as dotted keys of Limbeck's."""
    source, normalised = SOURCES.get(row["dataset"], (f"imagenet:{row['dataset']}", "imagenet"))
    adamw, lr, s = row["optimization.optimizer"] == "adamw", float(row["optimization.lr_img"]), mean(CONSTANTS[normalised][1])
    step = lr * float(row["optimization.lr_scale_adam"]) / s if adamw else lr / s**2
    return {
        "data.source": source,
        "data.size": int(row["dataset.size"]) if source.startswith("imagenet:") else None,
        "data.normalise": normalised,
        "data.val_fraction": 0.0,  # every training image is distilled, and the last look counts
        "network": f"ConvNetD{row['network.depth']}",
        "ipc": int(row["condense.ipc"]),
        "method": "ncfm",
        "experts.num_experts": int(row["condense.num_premodel"]),
        "experts.train_epochs": int(row["train.pertrain_epochs"]),
        "experts.expert_lr": float(row["train.lr"]),
        "experts.momentum": float(row["train.momentum"]),
        "experts.weight_decay": float(row["train.weight_decay"]),
        "experts.batch_size": int(row["train.batch_size"]),
        "real.batch": int(row["dataset.batch_real"]),
        "ncfm.frequencies": int(row["condense.num_freqs"]),
        "ncfm.sampling": {"False": "normal", "True": "learned"}[row["condense.sampling_net"]],
        "ncfm.sampling_lr": float(row["optimization.lr_sampling_net"]),
        "ncfm.amplitude": float(row["condense.alpha_for_loss"]),
        "ncfm.phase": float(row["condense.beta_for_loss"]),
        "ncfm.calibration": float(row["condense.calib_weight"]),
        "parametrisation.kind": "multi" if int(row["condense.factor"]) > 1 else "pixels",
        "parametrisation.factor": int(row["condense.factor"]),
        "outer.iterations": int(row["condense.niter"]),
        "outer.lr_img": float(f"{step:.2g}"),
        "outer.img_momentum": float(row["optimization.mom_img"]),
        "outer.img_optimiser": row["optimization.optimizer"],
        **({"outer.img_weight_decay": float(row["train.weight_decay"])} if adamw else {}),
        "eval.protocol": "ncfm-2025",
        "eval.epochs": int(row["train.evaluation_epochs"]),
    }


def recipes() -> dict[str, str]:
    """The texts of all recipes by name."""
    printed = {(row["dataset"], row["note"].partition(";")[0]): row for row in rows("ncfm_results.csv")}
    made = {}
    for row in rows("ncfm_settings.csv"):
        name = f"ncfm/{row['dataset']}-ipc{row['condense.ipc']}"
        table = "table 1" if row["dataset"] in SOURCES else "table 2"
        figure = printed[row["dataset"], table][f"ipc{row['condense.ipc']}"]
        own = flat(plain(settings_from_plain({"method": "ncfm"})))
        made[name] = text_of(_header(name, row, figure), settings(row), {**own, "method": None})
    return made


def _header(name: str, row: dict[str, str], figure: str) -> list[str]:
    root = "" if row["dataset"] in SOURCES else " data.root=/data/imagenet"
    side, data = row["dataset.size"], row["dataset"]
    return [
        f"NCFM with its published settings on {data}, {IMAGES[row['condense.ipc']]} per class at {side}×{side}.",
        "",
        f"Paper:    {PAPER}",
        f"Expected: the paper's {figure} %; not run here",
        "Differs:  the release distils with colours, crops and cutouts alone, steps once for each part of the loss of every class",
        "          where this takes one step along the sum, clamps pixels and halves the step on a plateau (docs/fidelity.md).",
        "          The paper prints the best look at the test images, here beside the last one, and looks more often from 50",
        "          images per class on and on Tiny ImageNet. How its pretrained networks change their step size, AdamW's betas",
        "          and what images are normalised by are in no table: a constant step, torch's, and the usual numbers, in whose",
        "          units lr_img is",
        "Time:     not run here; `limbeck plan` predicts it",
        "Hardware: a CUDA GPU; the paper used an A100",
        f"Command:  limbeck distill {name}{root}",
    ]


if __name__ == "__main__":
    write(recipes())

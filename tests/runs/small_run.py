"""The settings of a small run of EDF."""

from limbeck.recipes import load_recipe
from limbeck.runs.settings import DistillSettings

OVERRIDES = {
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w8",
    "experts.num_experts": "2",
    "experts.train_epochs": "4",
    "experts.batch_size": "32",
    "augment.strategy": "color_crop_cutout_scale",
    "match.syn_steps": "3",
    "match.expert_epochs": "1",
    "match.batch_syn": "7",
    "match.drop_ratio": "0.25",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "3",
    "schedule.iterations": "20",
    "enhance.cam": "smooth_gradcam_pp",
    "enhance.cam_every": "4",
    "outer.iterations": "30",
    "outer.lr_img": "20",
    "outer.ema_decay": "0.9",
    "outer.max_match_loss": "1.5",
    "outer.checkpoint_every": "7",
    "engine.compile": "no",
    "eval.every": "10",
    "eval.every_seeds": "1",
    "eval.epochs": "3",
    "eval.seeds": "2",
    "eval.full_epochs": "1",
}


# Of what a run does besides, what takes longest: choosing a step size for random images, and a map of features.
QUICK = {"eval.random_lr": "0.01", "features": "none"}


def settings(**changes: str) -> DistillSettings:
    return load_recipe("scenes", OVERRIDES | {key.replace("__", "."): value for key, value in changes.items()})


def quick(**changes: str) -> DistillSettings:
    """The same without what takes long."""
    return settings(**{**QUICK, **changes})

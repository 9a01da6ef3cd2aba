"""A scale so small that an item is run in seconds, in the process of the test."""

from limbeck.reproduction.scales import Scale
from limbeck.studies.comp_dd import scenes

SETTINGS = {
    "data.size": "16",
    "data.per_class": "12",
    "network": "ConvNetD2-w4",
    "experts.num_experts": "1",
    "experts.train_epochs": "3",
    "match.syn_steps": "1",
    "match.expert_epochs": "1",
    "schedule.first_max_start_epoch": "1",
    "schedule.max_start_epoch": "2",
    "outer.iterations": "2",
    "eval.every": "2",
    "eval.epochs": "1",
    "eval.every_seeds": "1",
    "eval.seeds": "2",
    "eval.full_epochs": "1",
    "eval.random_lr": "0.01",
    "engine.compile": "no",
    "features": "none",
}
EASY, MEDIUM, HARD = scenes().parts
TOY = Scale(
    "toy",
    {"small": 1, "middle": 2, "large": 3, "huge": 4},
    ("small",),
    {"main": ((MEDIUM,),), "parts": ((HARD,),), "levels": ((EASY, HARD),), "easy": ((EASY,),)},
    overrides=SETTINGS,
    eye="ConvNetD2-w4",
    seeds=(0, 1, 2),
)

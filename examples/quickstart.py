"""From images to an evaluated set: one image for each of ten classes of the built-in scenes, by EDF.

    python examples/quickstart.py [--small]

Takes about five minutes on two cores, and leaves a page to look at, runs/quickstart/report.html; a run that was stopped goes on
by the same command. `--small` tries the lines in seconds, in runs/quickstart-small; its figures say nothing.
"""

import sys

import limbeck

output = "runs/quickstart"
settings = {
    "network": "ConvNetD3-w32",
    "augmentation": limbeck.Dsa("crop_scale", crop_ratio=0.125),  # a mirrored digit may be another one
    "num_experts": 6,  # networks trained on the real images, whose ways are imitated
    "train_epochs": 6,
    "expert_lr": 0.1,
    "syn_steps": 30,
    "expert_epochs": 3,
    "first_max_start_epoch": 1,
    "max_start_epoch": 3,
    "schedule.iterations": 220,
    "iterations": 240,
    "lr_img": 1500.0,
    "syn_lr_init": 0.05,
    "max_match_loss": 3.0,
    "every": 120,
    "eval.seeds": 5,
    "epochs": 100,
    "full_epochs": 12,
    "full_lr": 0.1,
}
if "--small" in sys.argv:
    output += "-small"
    settings |= {"network": "ConvNetD2-w4", "size": 16, "per_class": 12, "num_experts": 1, "syn_steps": 2, "iterations": 2}
    settings |= {"schedule.iterations": 2, "eval.seeds": 2, "epochs": 1, "full_epochs": 1, "random_lr": 0.01, "compile": "no"}

run = limbeck.distill("scenes:easy", "edf", ipc=1, output=output, resume=True, **settings)
print(run)

distilled = limbeck.DistilledSet.load(f"{output}/distilled")
images, probabilities = distilled.as_dataset()[:]
print(f"{distilled}: train any network on images {tuple(images.shape)} and probabilities {tuple(probabilities.shape)}")

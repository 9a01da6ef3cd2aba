"""What the research code calls things, and the values that it takes where a file is silent."""

import re
from collections.abc import Mapping
from typing import Any

# What means the same under another name.
NAMES: Mapping[str, str] = {
    "ipc": "ipc",
    "seed": "seed",
    "res": "data.size",
    "zca": "data.zca",
    "dsa_strategy": "augment.strategy",
    "num_experts": "experts.num_experts",
    "train_epochs": "experts.train_epochs",
    "batch_train": "eval.batch_size",
    "mom": "experts.momentum",
    "l2": "experts.weight_decay",
    "rho_min": "experts.rho_min",
    "rho_max": "experts.rho_max",
    "alpha": "experts.alpha",
    "syn_steps": "match.syn_steps",
    "expert_epochs": "match.expert_epochs",
    "batch_syn": "match.batch_syn",
    "loss_threshold": "match.drop_ratio",
    "loss_ratio": "match.drop_ratio",
    "min_start_epoch": "schedule.min_start_epoch",
    "max_start_epoch": "schedule.max_start_epoch",
    "current_max_start_epoch": "schedule.first_max_start_epoch",
    "Initial_Step": "schedule.first_max_start_epoch",
    "expansion_end_epoch": "schedule.iterations",
    "learn_end_epoch": "schedule.iterations",
    "beta": "enhance.beta",
    "act_threshold": "enhance.cam_threshold",
    "interval": "enhance.cam_every",
    "Iteration": "outer.iterations",
    "lr_img": "outer.lr_img",
    "lr_y": "outer.lr_label",
    "Momentum_y": "outer.label_momentum",
    "lr_lr": "outer.lr_lr",
    "lr_teacher": "outer.syn_lr_init",
    "threshold": "outer.max_match_loss",
    "eval_it": "eval.every",
    "num_eval": "eval.every_seeds",
    "epoch_eval_train": "eval.epochs",
}
# Somebody's own paths and accounts, how a run is watched, where it runs.
PRIVATE: tuple[str, ...] = ("data_path", "buffer_path", "expert_path", "cam_path", "save_path", "save_dir", "log_path", "logdir")
PRIVATE += ("load_path", "project", "name", "entity", "device", "cfg", "Initialize_Label_Model_Dir")
# What has no meaning here.
IDLE: tuple[str, ...] = ("load_all", "force_save", "skip_first_eva", "parall_eva", "record_loss", "batch_real", "lr_init")
IDLE += ("save_interval", "adaptive", "canvas_size", "canvas_samples", "init_frozen", "Initialize_Label_Model", "distributed")
# What the code of each method takes where a file is silent, of the keys that matter.
MTT: Mapping[str, Any] = {
    "dataset": "CIFAR10",
    "subset": "imagenette",
    "model": "ConvNet",
    "ipc": 1,
    "num_eval": 5,
    "eval_it": 100,
    "epoch_eval_train": 1000,
    "Iteration": 5000,
    "lr_img": 1000.0,
    "lr_teacher": 0.01,
    "lr_lr": 1e-5,
    "batch_train": 256,
    "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
    "pix_init": "real",
    "expert_epochs": 3,
    "syn_steps": 20,
    "max_start_epoch": 25,
    "zca": False,
    "train_epochs": 50,
}
TESLA: Mapping[str, Any] = {**MTT, "num_eval": 3, "Iteration": 10_000}
# DATM's first release called the schedule otherwise.
FIRST_DATM: Mapping[str, Any] = {
    **{key: value for key, value in MTT.items() if key != "train_epochs"},
    "zca": True,
    "lr_y": 2.0,
    "Momentum_y": 0.9,
    "threshold": 1.0,
    "min_start_epoch": 0,
    "Initial_Step": 20,
    "learn_end_epoch": 5000,
}
DATM: Mapping[str, Any] = {
    **{key: value for key, value in FIRST_DATM.items() if key not in ("Initial_Step", "learn_end_epoch")},
    "pix_init": "samples_predicted_correctly",
    "expert_epochs": 2,
    "syn_steps": 80,
    "expansion_end_epoch": 3000,
    "current_max_start_epoch": 20,
}
# By method, and whose they are. EDF's files say whatever differs from DATM, whose code it goes on from.
DEFAULTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "edf": ("DATM", DATM),
    "pad": ("PAD", {**DATM, "batch_syn": 256, "loss_ratio": 0.0}),
    "datm": ("DATM", DATM),
    "tesla": ("TESLA", TESLA),
    "ftd": ("FTD", {**MTT, "ema_decay": 0.999}),
    "mtt": ("MTT", MTT),
}
# What a file for experts alone has.
OF_EXPERTS = ("dataset", "subset", "model", "res", "zca", "dsa_strategy")
# Of methods whose labels are the classes, and whose start epochs are all there from the beginning.
UNIFORM = ("mtt", "ftd", "tesla")
# The side of images in pixels: whatever `res` says (None is what they have), and where it says nothing.
FIXED: Mapping[str, int | None] = {"CIFAR10": None, "CIFAR100": None, "MNIST": None, "FashionMNIST": None, "Tiny": 64}
USUAL: Mapping[str, int] = {"ImageNet": 128, "imagenet": 128, "ImageNet1K": 64, "imagenet1k": 64}
# PAD's curriculum, as published and as it is here.
CURRICULUM: Mapping[str, Any] = {
    "init_ratio": 0.75,
    "add_end_epoch": 20,
    "rm_epoch_first": 40,
    "rm_epoch_second": 60,
    "rm_easy_ratio_first": 0.1,
    "rm_easy_ratio_second": 0.2,
}
SOURCES: Mapping[str, str] = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "Tiny": "tiny-imagenet-200",
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
}
# By which the research code normalises what it does not whiten: CIFAR-100 as CIFAR-10.
NORMALISED: Mapping[str, str] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100"), "cifar10"),
    **dict.fromkeys(("ImageNet", "imagenet", "ImageNet1K", "imagenet1k", "Tiny"), "imagenet"),
    "MNIST": "mnist",
    "FashionMNIST": "fashion-mnist",
}
IMAGENET = ("ImageNet", "imagenet")
INITS: Mapping[str, str] = {"samples_predicted_correctly": "correct", "real": "real", "noise": "noise"}
NETWORK = re.compile(r"(ConvNet|ResNet18|VGG11|AlexNet|MLP|LeNet)(D[1-8]|W[0-9]+)?([A-Z]{2})?(?:_Tiny)?")
# What the last two letters of a network's name say.
PARTS: Mapping[str, str] = {
    "BN": "batchnorm",
    "IN": "instancenorm",
    "GN": "groupnorm",
    "NN": "nonorm",
    "AP": "avgpool",
    "MP": "maxpool",
    "NP": "nopool",
    "AR": "relu",
    "AL": "leaky",
    "AS": "sigmoid",
}

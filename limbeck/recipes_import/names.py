"""What the research code calls things, and the values that it takes where a file is silent."""

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
IDLE += ("eval_mode", "canvas_size", "canvas_samples", "init_frozen", "Initialize_Label_Model", "distributed")
# The research code's own defaults, of the keys that matter: a file names only what differs from them.
THEIR_DEFAULTS: Mapping[str, Any] = {
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
    "lr_y": 2.0,
    "Momentum_y": 0.9,
    "batch_train": 256,
    "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
    "expert_epochs": 2,
    "syn_steps": 80,
    "min_start_epoch": 0,
    "max_start_epoch": 25,
    "zca": True,
    "threshold": 1.0,
    "res": 32,
}
SCHEDULE_DEFAULTS: Mapping[str, Any] = {"expansion_end_epoch": 3000, "current_max_start_epoch": 20}
SOURCES: Mapping[str, str] = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "Tiny": "tiny-imagenet-200",
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
}
IMAGENET = ("ImageNet", "imagenet")
INITS: Mapping[str, str] = {"samples_predicted_correctly": "correct", "real": "real", "noise": "noise"}
NETWORKS: Mapping[str, str] = {
    "ConvNet": "ConvNetD3",
    "ConvNetBN": "ConvNetD3-batchnorm",
    "ResNet18": "ResNet18",
    "ResNet18BN": "ResNet18-batchnorm",
    "VGG11": "VGG11",
    "VGG11BN": "VGG11-batchnorm",
    "AlexNet": "AlexNet",
    "MLP": "MLP",
    "LeNet": "LeNet",
}

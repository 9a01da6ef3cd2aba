"""Does complexity say what it is meant to? On scenes, whose object's area is known, and on photographs.

    python benchmarks/complexity.py scenes --seed 0            one network for easy, medium and hard, and one for each
    python benchmarks/complexity.py photographs --seed 0       one network for CIFAR-10, Imagenette and ImageNet's samples
    python benchmarks/complexity.py own --seed 0               a network for each of CIFAR-10 and Imagenette
    python benchmarks/complexity.py table                      the tables of docs/complexity.md, and the figures

Each command is one training or a few; what is done is kept in `benchmarks/results/complexity/` and not measured again.
Photographs are read from `--data`, a folder with cifar10.npz, imagenette_128.npz and imagenet_samples_1000.npz.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import pearsonr, spearmanr

from limbeck.complexity.networks import Judge, judge
from limbeck.complexity.run import Complexity, measure_complexity
from limbeck.complexity.settings import ComplexitySettings
from limbeck.data.imageset import ImageSet, Split, content_fingerprint, whole
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.data.split import cap, hold_out
from limbeck.evaluation.areas import box_share
from limbeck.evaluation.statistics import compare, summarise
from limbeck.figures.complexity import class_distribution, extreme_images, map_statistics
from limbeck.figures.engine import png
from limbeck.methods.workspace import Workspace
from limbeck.recipes import settings_from_plain
from limbeck.runtime.files import read_json, write_bytes, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.progress import PlainProgress

RESULTS = Path(__file__).parent / "results" / "complexity"
LEVELS = ("easy", "medium", "hard")
CAMS = ("gradcam", "smooth_gradcam_pp", "layercam")
KEPT = ("complexity", "spread", "by_threshold", "without_blank", "mean_activation", "area", "accuracy", "images", "blank", "reliability")

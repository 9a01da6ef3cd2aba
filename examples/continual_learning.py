"""A memory for continual learning: distilled images against random exemplars of exactly as many bytes, and who is better.

    python examples/continual_learning.py [--small]

Ten classes arrive in five tasks; after each, a fresh network is trained on the memory of the classes so far and tested on them
(Prabhu et al., "GDumb", 2020). The images are made by DM, which sees one class at a time, so that a memory could be filled task by
task; they are rounded to 8 bits and labelled by their class alone, so that each takes the bytes of a real image. The verdict is
that of the 95 % interval of the difference, seed by seed, of the mean accuracy over the tasks: it may well say that
nothing was shown.

Takes about five minutes on two cores; `--small` tries the lines in seconds.
"""

import sys
from dataclasses import replace

import torch

import limbeck
from limbeck.runs.evaluate import EvaluationOptions

network, seeds, sizes = "ConvNetD3-w16", 5, {}
making = {"ipc": 5, "batch": 64, "iterations": 600, "lr_img": 3.0, "every": 300}
training = {"epochs": 150, "full_epochs": 30, "full_lr": 0.1, "random_lr": 0.01}
if "--small" in sys.argv:
    network, seeds, sizes = "ConvNetD2-w4", 2, {"size": 16, "per_class": 12}
    making |= {"ipc": 1, "batch": 8, "iterations": 2, "every": 2}
    training |= {"epochs": 1, "full_epochs": 1, "compile": "no"}

data = limbeck.load_data("scenes:medium", **sizes)
run = limbeck.distill(data, "dm", network=network, augmentation=limbeck.Dsa("crop_scale", crop_ratio=0.125), **making, **training)

held = run.distilled
levels = (held.to_pixels() * 255).round().to(torch.uint8)
bytes_each = levels[0].numel()
assert data.train.images()[:1].numel() == bytes_each  # a byte for each pixel and channel, as of real images
small = limbeck.SmallSet.of_classes(held.preprocessing.prepare(levels), held.classes, held.num_classes, held.syn_lr)
memory = replace(held, set=small)

options = EvaluationOptions(further=["continual"], keep=False)
found = limbeck.evaluate(memory, data, networks=[network], seeds=seeds, options=options, **training)
course = found.measurements["continual"]
print(f"{len(memory)} images of {bytes_each} bytes in either memory; mean accuracy over the classes so far, after each task:")
for name, one in course.memories.items():
    print(f"  {name:<10} {' | '.join(str(step) for step in one.steps)} | mean {one.average}")


def verdict(difference: limbeck.Comparison) -> str:
    low, high = difference.ci95
    if low <= 0 <= high:
        return "undecided: the interval holds 0, so that nothing was shown"
    return f"{'distilled images' if low > 0 else 'random exemplars'} are the better memory"


lead = course.differences["random"].average
print(f"distilled − random: {lead.points} points over {lead.n} seeds")
print(f"verdict: {verdict(lead)}")

"""Your own images and your own network: scikit-learn's handwritten digits, and the distilled set in a plain loop of torch.

    python examples/own_data.py [--small]

Takes about a minute on two cores; `--small` tries the lines in seconds.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import limbeck

small = "--small" in sys.argv

# Arrays (N, H, W) or (N, H, W, C); a folder (photos/train/CLASS/*.jpg), an .npz file or a torch Dataset will do as well.
digits = load_digits()
x, y = digits.images / 16, digits.target
data = limbeck.ImageSet.from_arrays(x[:1400], y[:1400], x[1400:], y[1400:])


def my_network(channels: int, height: int, width: int, classes: int) -> nn.Module:
    features = nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.GroupNorm(32, 32), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(features, nn.Linear(32 * (height // 2) * (width // 2), classes))


sizes = (
    {"iterations": 3, "epochs": 2, "full_epochs": 1, "eval.seeds": 2, "compile": "no"}
    if small
    else {"iterations": 300, "every": 100}
)
run = limbeck.distill(data, "dm", network=my_network, ipc=2, augmentation="none", batch=64, random_lr=0.01, **sizes)
print(f"distilled {run.accuracy.distilled}, random images {run.accuracy.random}, all images {run.accuracy.full}")

# The set needs no Limbeck to be trained on: images as a network takes them, and a distribution over the classes for each.
images, probabilities = run.distilled.as_dataset()[:]
network = my_network(*data.shape, data.num_classes)
optimiser = torch.optim.SGD(network.parameters(), lr=run.distilled.syn_lr, momentum=0.9)
for _ in range(5 if small else 300):
    optimiser.zero_grad()
    cross_entropy(network(images), probabilities).backward()
    optimiser.step()
with torch.no_grad():
    test = run.distilled.preprocessing.prepare(data.test.images())  # as the set itself was prepared
    right = (network(test).argmax(1) == torch.from_numpy(data.test.labels)).float().mean()
print(f"one network of a plain loop: {right:.1%} of the test images")

run.distilled.save("digits")
print(limbeck.DistilledSet.load("digits"))

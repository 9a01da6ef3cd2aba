"""A method of your own in thirty lines: images whose classes have the mean of the real ones, in colour and in small.

    python examples/own_method.py [--small]

    L = Σ_k Σ_s ‖ pool_s(mean R_k) − mean pool_s(X_k) ‖²        R_k all real images of class k, X_k the synthetic ones

Saving, going on, evaluation and the report are Limbeck's. docs/add-a-method.md says what else a method may ask for. Takes about a
minute on two cores; `--small` tries the lines in seconds.
"""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import limbeck
from limbeck.matching.adjoint import Gradients
from limbeck.methods.materials import Materials
from limbeck.methods.objective import Engine, Objective, State, Update
from limbeck.methods.registry import REAL


@dataclass(frozen=True, eq=False)
class Means(Objective):
    """The mean image of every class, at three sizes."""

    targets: Tensor  # (K, C, H, W)
    classes: Tensor  # (N,)

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        x = images.detach().requires_grad_()
        means = torch.stack([x[self.classes == k].mean(0) for k in range(len(self.targets))])
        apart = means - self.targets.to(x.device)
        loss = sum(avg_pool2d(apart, size).square().sum() for size in (1, 2, 4))
        (by_images,) = torch.autograd.grad(loss, x)
        gradients = Gradients(loss.detach(), by_images, torch.zeros_like(labels), torch.zeros_like(syn_lr))
        return Update(gradients, plain=by_images if plain else None)


def make(materials: Materials, classes: Tensor, engine: Engine | None) -> Objective:
    train = materials.data.train
    means = [materials.train_images.fetch(torch.from_numpy(train.of_class(k))).mean(0) for k in range(materials.data.num_classes)]
    return Means(torch.stack(means).cpu(), classes)


# `REAL`: real images to start from, hard labels, and nothing of other methods: no dropout, no weights on the gradient.
method = limbeck.Method(make=make, preset={**REAL, "outer.lr_img": 0.1}, name="means")
settings = {"network": "ConvNetD3-w16", "iterations": 200, "every": 100, "epochs": 300, "full_epochs": 60, "full_lr": 0.1}
if "--small" in sys.argv:
    settings |= {"network": "ConvNetD2-w4", "size": 16, "per_class": 12, "iterations": 3, "epochs": 1, "full_epochs": 1}
    settings |= {"eval.seeds": 2, "random_lr": 0.01, "compile": "no"}

run = limbeck.distill("scenes:easy", method, ipc=1, **settings)
print(run.distilled)
print(f"distilled {run.accuracy.distilled}, random images {run.accuracy.random}, all images {run.accuracy.full}")

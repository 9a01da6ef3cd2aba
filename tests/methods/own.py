"""A method of a user's: images drawn to the mean of the real images of their class, with a little noise that is keyed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.matching.adjoint import Gradients
from limbeck.methods.materials import Materials
from limbeck.methods.method import Method
from limbeck.methods.objective import Engine, Objective, State, Update
from limbeck.methods.registry import REAL
from limbeck.runtime.random import generator


@dataclass(frozen=True, eq=False)
class ToMeans(Objective):
    """L = ½ ‖X − mean − 0.1 noise‖², the noise one state long."""

    means: Tensor
    seed: int

    def init(self) -> State:
        return {"noise": torch.zeros_like(self.means)}

    def gradients(self, state: State, images: Tensor, labels: Tensor, syn_lr: Tensor, iteration: int, *, plain: bool) -> Update:
        away = images - self.means - 0.1 * state["noise"]
        gradients = Gradients(0.5 * away.square().sum(), away, torch.zeros_like(labels), torch.zeros_like(syn_lr))
        noise = torch.randn(images.shape, generator=generator(self.seed, "own", iteration))
        return Update(gradients, away if plain else None, {"noise": 0.5 * state["noise"] + noise})


def make(materials: Materials, classes: Tensor, engine: Engine | None) -> Objective:
    images, labels = materials.train_images, torch.from_numpy(materials.data.train.labels)
    means = [images.fetch((labels == k).nonzero()[:, 0]).mean(0) for k in classes.tolist()]
    return ToMeans(torch.stack(means), materials.seed)


METHOD = Method(make=make, preset={**REAL, "outer.lr_img": 0.1})

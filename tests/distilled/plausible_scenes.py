"""Scenes, a network that knows them, and sets that fit them or are refused, to test with."""

from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from limbeck.augmentation import Dsa
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.preprocessing import Normalise, Preprocessing, fit_normalise
from limbeck.data.settings import DataSettings
from limbeck.distilled.initial import real_subset
from limbeck.distilled.plausibility import check_fit
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.losses import cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.random import generator
from limbeck.training.images import prepare_split
from limbeck.training.optimisers import Sgd
from limbeck.training.train import Training, train

K = 10


class Scenes(NamedTuple):
    data: ImageSet
    preprocessing: Normalise
    network: nn.Module


@cache
def trained_scenes() -> Scenes:
    """Scenes, and a network that was trained on them for a second."""
    data = load_data(DataSettings(source="scenes", size=16, per_class=60))
    preprocessing = fit_normalise(data.train)
    network = flat_network("ConvNetD2-w16", data.shape, K)
    plain = Dsa("none")
    how = Training(optimiser=Sgd(0.05, 0.9, 0.0), loss=cross_entropy, epochs=8, batch_size=32, augment=plain)
    start, labels = network.initial(generator(0, "fit")), one_hot(torch.from_numpy(data.train.labels), K).float()
    images = prepare_split(data.train, preprocessing, torch.device("cpu"))
    theta = train(network, start, images, labels, how, seed=0, key=("fit",))
    return Scenes(data, preprocessing, network.with_parameters(theta))


def real(scenes: Scenes, ipc: int = 10, preprocessing: Preprocessing | None = None, **changes: Any) -> DistilledSet:
    """A sound set: real images, logits that favour their class."""
    index = real_subset(scenes.data.train, K, ipc, 0, "test")
    made = preprocessing or scenes.preprocessing
    classes = torch.arange(K).repeat_interleave(ipc)
    logits = 5 * one_hot(classes, K) + torch.randn(len(classes), K, generator=torch.Generator().manual_seed(0))
    set_parts = {
        "images": made.prepare(scenes.data.train.images(index.numpy())),
        "labels": logits,
        "classes": classes,
        "syn_lr": 0.01,
        "kind": "logits",
    }
    parts = {
        "preprocessing": made,
        "class_names": scenes.data.class_names,
        "metadata": {"fingerprints": {"data": scenes.data.fingerprint}},
    }
    small = SmallSet(**{name: changes.pop(name, value) for name, value in set_parts.items()})  # type: ignore[arg-type]
    return DistilledSet(set=small, **(parts | changes))


def refused(held: DistilledSet, data: ImageSet, preprocessing: Preprocessing, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_fit(held, data, preprocessing)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)

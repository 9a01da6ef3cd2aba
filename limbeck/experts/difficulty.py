"""How difficult the training images of a task are, computed once and kept in the cache."""

from typing import Any

import torch
from torch import Tensor

from limbeck.augmentation_settings import AugmentSettings
from limbeck.experts.curriculum import EPOCHS, NETWORKS, Curriculum, Measure, difficulty
from limbeck.losses import cross_entropy
from limbeck.networks.flat import FlatNetwork
from limbeck.runtime.cache import cache_root, lock
from limbeck.runtime.errors import Failure
from limbeck.runtime.files import read_tensors, write_tensors
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.progress import Progress
from limbeck.runtime.random import generator
from limbeck.training.images import Images
from limbeck.training.optimisers import Sgd
from limbeck.training.targets import Labels
from limbeck.training.train import Training, train

FORMAT = 1


def curriculum_of(
    network: FlatNetwork,
    images: Images,
    labels: Tensor,
    measure: Measure,
    *,
    lr: float,
    batch_size: int,
    augment: AugmentSettings,
    identity: dict[str, Any],
    seed: int,
    progress: Progress,
) -> Curriculum:
    """PAD's curriculum, by the difficulties after a few epochs of a few networks of plain SGD.

    Args:
        network: that the scores are taken with.
        images: the training images.
        labels: one-hot, with shape (N, K).
        measure: `grand` or `el2n`.
        lr, batch_size, augment: of that SGD.
        identity: what the images are, such as their fingerprint.
        seed: of the draws.
        progress: where to report.

    Raises:
        Failure: when these networks diverge.
    """
    made = {"format": FORMAT, "network": network.name, "measure": measure, "lr": lr, "batch_size": batch_size, "augment": augment}
    made |= {"images": identity, "seed": seed, "networks": NETWORKS, "epochs": EPOCHS}
    path = cache_root() / "difficulty" / f"{fingerprint(made)}.safetensors"
    classes = labels.argmax(1).cpu().numpy()
    with lock(path):
        if path.exists():
            held = read_tensors(path)[0]["scores"]
            if held.shape == (len(images),) and bool(held.isfinite().all()):
                return Curriculum(held.numpy(), classes)
        how = Training(optimiser=Sgd(lr), loss=cross_entropy, epochs=EPOCHS, batch_size=batch_size, augment=augment)
        thetas = []
        with progress.stage("difficulty of images", NETWORKS * EPOCHS + NETWORKS) as stage:
            for number in range(NETWORKS):
                key = ("difficulty", number)
                start = network.initial(generator(seed, *key, "initial")).to(images.device)
                thetas.append(
                    train(network, start, images, Labels(labels), how, seed=seed, key=key, after_epoch=lambda *_: stage.advance())
                )
            scores = torch.from_numpy(difficulty(network, thetas, images, labels, cross_entropy, measure))
            stage.advance(NETWORKS)
        if not bool(scores.isfinite().all()):
            raise Failure(f"a network diverged while images were scored; experts.expert_lr ({lr}) is too large")
        write_tensors(path, {"scores": scores}, made)
    return Curriculum(scores.numpy(), classes)

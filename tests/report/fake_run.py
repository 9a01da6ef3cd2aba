"""A run folder as a finished run leaves it, made in a moment: random blobs that turn into brighter ones."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from distilled.samples import NAMES, normalise, sample_set, summary
from torch import Tensor

from limbeck.distilled.set import DistilledSet
from limbeck.methods.settings import OuterSettings
from limbeck.methods.snapshots import SNAPSHOT
from limbeck.runs.folder import RESULTS as FOUND
from limbeck.runs.folder import SETTINGS, STATE
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.files import write_json, write_tensors
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.metrics import MetricsLog

LAYERS = [f"blocks.{k}.{part}" for k in range(3) for part in ("convolution.weight", "convolution.bias", "norm.weight", "norm.bias")]
KEPT = [*LAYERS, "classifier.weight", "classifier.bias"]
RESULTS = {
    "accuracy": {
        "distilled": summary(0.3725, 0.0081),
        "initial": summary(0.1417, 0.0121),
        "random": summary(0.1312, 0.0154),
        "full": summary(0.8815, 0.0032, n=2),
    },
    "recovery_ratio": 0.42257,
    "skipped_share": 0.02,
    "seconds": {"experts": 95.25, "initial": 0.412, "compile": 40.5, "distil": 7325.0, "evaluate": 61.0},
    "protocol": {"protocol": "dd", "epochs": 1000},
    "experts": {"num_experts": 3, "last_epoch_accuracy": [0.871, 0.884, 0.879]},
    "environment": {"limbeck": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "device": "x86_64", "threads": 2, "cores": 2},
}


def make_run(
    path: Path,
    names: tuple[str, ...] = NAMES,
    ipc: int = 2,
    shape: tuple[int, int, int] = (3, 16, 16),
    iterations: int = 400,
    every: int = 100,
    finished: bool = True,
    maps: bool = True,
) -> Path:
    """Write the folder and return its path."""
    generator = torch.Generator().manual_seed(1)
    start, end = (_blobs(len(names) * ipc, shape, strength, generator) for strength in (0.4, 1.0))
    outer = OuterSettings(iterations=iterations, max_match_loss=math.inf)
    settings = DistillSettings(ipc=ipc, network="ConvNetD3-w32", outer=outer)
    write_json(path / "settings.json", settings, SETTINGS)
    resolved = {"device": "cpu", "threads": 2, "compiled": True}
    write_json(path / "state.json", {"resolved": resolved, "stages": RESULTS["seconds"]}, STATE)
    _metrics(path / "metrics.jsonl", iterations, every)
    labels = 4 * torch.eye(len(names)).repeat_interleave(ipc, dim=0)
    labels += torch.randn(labels.shape, generator=generator)
    for iteration in range(0, iterations + 1, every):
        done = iteration / iterations
        noise = torch.randn(start.shape, generator=generator) * 0.12 * done
        tensors = {"X": normalise(shape[0]).forward((1 - done) * start + done * end + noise), "Y": labels}
        weights = torch.ones(len(start), 1, *shape[1:]) + (end.mean(dim=1, keepdim=True) if maps else 0)
        tensors |= {"syn_lr": torch.tensor(0.1), "weights": weights}
        if maps:
            tensors["maps"] = end.mean(dim=1)
        share = {} if iteration == 0 else {name: 0.6 + 0.4 * k / len(KEPT) - 0.1 * done for k, name in enumerate(KEPT)}
        header = {
            "iteration": iteration,
            "accuracy": summary(_accuracy(done)),
            "kept_share": share,
            "loss": 0.9 if iteration else None,
        }
        write_tensors(path / "snapshots" / f"iteration-{iteration:06d}.safetensors", tensors, header, SNAPSHOT)
    if finished:
        best = max(range(0, iterations + 1, every), key=lambda iteration: _accuracy(iteration / iterations))
        write_json(path / "results.json", RESULTS | {"best_iteration": best}, FOUND)
        _distilled(names, ipc, shape, tensors["X"], settings).save(path / "distilled")
    return path


def _distilled(
    names: tuple[str, ...], ipc: int, shape: tuple[int, int, int], images: Tensor, settings: DistillSettings
) -> DistilledSet:
    metadata = {
        "method": "edf",
        "settings": plain(settings),
        "versions": RESULTS["environment"],
        "fingerprints": {"data": "0123456789abcdef", "experts": "fedcba9876543210"},
        "evaluation": RESULTS,
    }
    return sample_set(names=names, ipc=ipc, shape=shape, images=images, metadata=metadata)


def _metrics(path: Path, iterations: int, every: int) -> None:
    random = np.random.default_rng(0)
    rows = []
    skipped, reached = 0, -1.0
    for iteration in range(iterations):
        done = iteration / iterations
        if iteration % every == 0:
            best = _accuracy(done) > reached
            reached = max(_accuracy(done), reached)
            rows.append({"kind": "evaluation", "iteration": iteration, "accuracy": summary(_accuracy(done)), "best": best})
        if iteration % 50 == 0:
            change = {"cosine": 0.999 - 0.004 * done, "norm_ratio": 1.08 + 0.2 * done}
            rows.append({"kind": "comparison", "iteration": iteration} | change)
        loss = 0.9 * math.exp(-1.5 * done) * math.exp(0.12 * random.standard_normal())
        skip = iteration % 50 == 7
        skipped += skip
        rows.append(
            {
                "kind": "iteration",
                "iteration": iteration,
                "loss": None if iteration == 57 else 3.1 if skip else loss,
                "grad_norm_images": 0.02 * loss,
                "grad_norm_labels": 0.004 * loss,
                "grad_lr": -0.8 * loss,
                "syn_lr": 0.1 + 0.05 * done,
                "skipped": skip,
                "skipped_share": skipped / (iteration + 1),
                "start_epoch": iteration % 4,
                "expert": iteration % 3,
                "seconds": 0.3,
            }
        )
    rows.append({"kind": "evaluation", "iteration": iterations, "accuracy": summary(_accuracy(1.0)), "best": False})
    MetricsLog(path)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _accuracy(done: float) -> float:
    return 0.14 + 0.24 * math.sin(2 * done)


def _blobs(count: int, shape: tuple[int, int, int], strength: float, generator: torch.Generator) -> Tensor:
    """Bright spots of random place, size and colour on a dull ground, in [0, 1]."""
    channels, height, width = shape
    y = torch.linspace(0, 1, height).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, width).view(1, 1, 1, -1)
    centre, size = torch.rand(count, 2, generator=generator) * 0.6 + 0.2, 0.1 + 0.15 * torch.rand(count, generator=generator)
    down, right = (centre[:, k].view(-1, 1, 1, 1) for k in range(2))
    spot = torch.exp(-((y - down) ** 2 + (x - right) ** 2) / (2 * size.view(-1, 1, 1, 1) ** 2))
    colour, ground = torch.rand(2, count, channels, 1, 1, generator=generator)
    return 0.3 * ground + strength * colour * spot

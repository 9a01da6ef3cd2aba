"""What expert trajectories take on disk and to read, beside the research code's lists; what half width changes in them.

    python benchmarks/experts_disk.py --output benchmarks/results/experts-disk.json
    python benchmarks/experts_disk.py --store STORE --output benchmarks/results/experts-displacement.json

The first form writes random walks of the published sizes (ConvNetD3 of width 128 at 32×32, ConvNetD5 at 128×128, ten classes, 101
checkpoints an expert) once as `torch.save` of lists of experts, epochs and parameters, and once as stores that keep what ten
images per class read: epochs 0 … 21 and the last. It prints the share of the lists' bytes, and the time to open and read one
random checkpoint with all files in the page cache, in turn in one process. The arithmetic is in `limbeck/experts/estimate.py`.

The second form takes a store in fp32 that holds successive epochs, such as `limbeck experts RECIPE` makes, and prints the relative
error ‖δ̂ − δ‖ / ‖δ‖ of displacements δ = θ*_{t+M} − θ*_t in each coding: the largest over all experts and t, and over t.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.experts.blocks import blocks_of, runs_of
from limbeck.experts.coding import CODINGS, encode
from limbeck.experts.estimate import estimate
from limbeck.experts.notes import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.files import write_json
from limbeck.runtime.progress import default_progress

NETWORKS = {"ConvNetD3": 32, "ConvNetD5": 128}
EPOCHS, REACHED, STEP = 100, 22, 0.01


def trajectory(network: FlatNetwork, expert: int) -> Tensor:
    """θ after epochs 0 … 100, with shape (101, P): steps of about 1 % of θ's length."""
    draws = torch.Generator().manual_seed(expert)
    thetas = torch.empty(EPOCHS + 1, network.num_parameters)
    thetas[0] = network.initial(draws)
    size = STEP * float(thetas[0].square().mean().sqrt())
    for epoch in range(EPOCHS):
        thetas[epoch + 1] = thetas[epoch] + size * torch.randn(network.num_parameters, generator=draws)
    return thetas


def lists_of(network: FlatNetwork, thetas: Tensor) -> list[list[Tensor]]:
    """An expert as the research code keeps it."""
    return [[part.clone() for part in network.parameters(theta).values()] for theta in thetas]


def milliseconds(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    work()
    taken = []
    for _ in range(repeats):
        gc.collect()  # or the lists of the call before are given back within this one
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}


def measure(name: str, experts: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Sizes and times of one network."""
    size = NETWORKS[name]
    network = flat_network(name, (3, size, size), 10)
    kept = (*range(REACHED), EPOCHS)
    identity = {"network": name, "num_parameters": network.num_parameters}
    stores = {coding: TrajectoryStore(folder / coding, identity) for coding in CODINGS}
    lists = []
    for expert in range(experts):
        thetas = trajectory(network, expert)
        lists.append(lists_of(network, thetas))
        for coding, store in stores.items():
            store.write(expert, {epoch: thetas[epoch] for epoch in kept}, [0.5] * EPOCHS, coding)
    file = folder / "replay_buffer_0.pt"
    torch.save(lists, file)
    del lists
    draws = torch.Generator().manual_seed(0)

    def place() -> tuple[int, int]:
        return int(torch.randint(experts, (), generator=draws)), kept[int(torch.randint(len(kept), (), generator=draws))]

    def read_lists() -> Tensor:
        expert, epoch = place()
        return torch.cat([part.flatten() for part in torch.load(file, weights_only=True)[expert][epoch]])

    row: dict[str, Any] = {
        "network": name,
        "parameters": network.num_parameters,
        "experts": experts,
        "lists": {"bytes": file.stat().st_size, "open and read": milliseconds(read_lists, max(3, repeats // 30))},
    }
    for coding, store in stores.items():
        bytes_ = store.summary().bytes
        predicted = estimate(Want(experts, kept[:-1], EPOCHS, experts, coding), network.num_parameters)
        row[coding] = {
            "bytes": bytes_,
            "share": bytes_ / row["lists"]["bytes"],
            "predicted share": predicted.share,
            "open and read": milliseconds(lambda path=store.path: TrajectoryStore(path).read(*place()), repeats),
            "read": milliseconds(lambda store=store: store.read(*place()), repeats),
        }
    return row


def print_row(row: dict[str, Any]) -> None:
    lists = row["lists"]
    print(f"\n{row['network']}, {row['parameters']} parameters, {row['experts']} experts of 101 epochs")
    print("| | size | of the lists | predicted | open and read one | read one |\n|---|---|---|---|---|---|")
    print(f"| lists | {lists['bytes'] / 1e6:.1f} MB | | | {lists['open and read']['median']:.0f} ms | |")
    for coding in CODINGS:
        held = row[coding]
        shares = f"{100 * held['share']:.2f} % | {100 * held['predicted share']:.2f} %"
        times = f"{held['open and read']['median']:.2f} ms | {held['read']['median']:.2f} ms"
        print(f"| {coding} | {held['bytes'] / 1e6:.1f} MB | {shares} | {times} |", flush=True)


def displacements(store: TrajectoryStore, ahead: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    """By coding and M: the largest relative error over the experts for every t."""
    errors: dict[str, dict[int, dict[int, float]]] = {}
    for expert in store.experts:
        run = max(runs_of(store.held(expert)), key=len)
        exact = torch.stack([store.read(expert, epoch) for epoch in run])
        read = {"bf16": exact.bfloat16().float(), "fp16": exact.half().float()}  # without the exact ends of blocks
        rows = [[epoch - run[0] for epoch in block] for block in blocks_of(run)]
        read["half"] = torch.cat([_read_back(exact[block]) for block in rows])
        for name, thetas in read.items():
            for m in ahead:
                kept = errors.setdefault(name, {}).setdefault(m, {})
                for t in range(len(run) - m):
                    true = exact[t + m].double() - exact[t].double()
                    lost = float(((thetas[t + m].double() - thetas[t].double()) - true).norm() / true.norm())
                    kept[run[t]] = max(kept.get(run[t], 0.0), lost)
    return {name: {str(m): by_t for m, by_t in by_m.items()} for name, by_m in errors.items()}


def _read_back(thetas: Tensor) -> Tensor:
    name, tensors, _ = encode(thetas, "half")
    rows = range(len(thetas))
    return torch.stack([CODINGS[name].decode(lambda key, i: tensors[key][i], row, len(thetas)) for row in rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="size and reading time of trajectory stores beside lists; error of half width")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.store:
        errors = displacements(TrajectoryStore(arguments.store))
        result: dict[str, Any] = {"displacement_error": errors}
        print("| coding | M | largest error | over t |\n|---|---|---|---|")
        for coding, by_m in errors.items():
            for m, by_t in by_m.items():
                row = " ".join(f"{100 * value:.3f}" for value in by_t.values())
                print(f"| {coding} | {m} | {100 * max(by_t.values()):.3f} % | {row} |")
    else:
        result = {"rows": []}
        for name in arguments.networks:
            with tempfile.TemporaryDirectory() as scratch:
                result["rows"].append(measure(name, arguments.experts, arguments.repeats, Path(scratch)))
            print_row(result["rows"][-1])
        result["threads"] = torch.get_num_threads()
    if arguments.output:
        write_json(arguments.output, result)
        default_progress().say(f"written to {arguments.output}")

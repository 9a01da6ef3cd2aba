"""Memory and time of the soft labels that a distillation starts with, of many images, classes and experts.

    python benchmarks/start_memory.py --images 100000 --classes 200 --experts 20

Random images of 8x8, and networks of width 4 that were never trained, as experts: the network costs nothing here, and what is held
of its answers is what grows with the data. Prints the growth of the process's peak, and the bytes that all answers would take.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from limbeck.data.imageset import ImageSet
from limbeck.data.preprocessing import Identity
from limbeck.data.split import whole
from limbeck.distilled.initial import Correct, Initial
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import flat_network

EPOCH = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--experts", type=int, default=20)
    given = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 255, (given.images, 3, 8, 8), dtype=np.uint8)
    split = whole(pixels, np.arange(given.images) * given.classes // given.images)
    data = ImageSet(split, split, split, tuple(map(str, range(given.classes))), "random", "random")
    network = flat_network("ConvNetD1-w4", (3, 8, 8), given.classes)
    with tempfile.TemporaryDirectory() as folder:
        store = TrajectoryStore(Path(folder), {"num_parameters": network.num_parameters, "dtype": "float32"})
        for expert in range(given.experts):
            store.write(expert, {EPOCH: network.initial(torch.Generator().manual_seed(expert))})
        parts = (data, Identity(), network, lambda: store, given.experts, EPOCH, 1, 0, torch.device("cpu"), 0.01)
        before, began = peak(), time.perf_counter()
        Correct()(Initial(*parts, lambda: torch.empty(0)), "logits")
        seconds = time.perf_counter() - began
    answers = 4 * given.experts * given.images * given.classes
    print(f"{seconds:.1f} s; peak + {(peak() - before) / 1e6:.0f} MB (images as numbers {4 * pixels.size / 1e6:.0f} MB of them)")
    print(f"all answers of all experts: {answers / 1e6:.0f} MB")


def peak() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

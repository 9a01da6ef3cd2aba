"""How far TF32 takes the pixel gradient from float64, emulated on any machine: nothing here needs a GPU, and no time is measured.

    python benchmarks/tf32.py --output benchmarks/results/tf32.json

Tensor cores that compute in TF32 round the factors of a product to ten bits behind the point, half away from zero, multiply exactly
and add in single precision. So every convolution, its gradients and every matrix product get factors rounded like that, and compute
in single precision; nothing else is touched. The order of the additions is the CPU's, not a GPU's. The problem is that of
`benchmarks/engine.py` (ConvNetD3 of width 64, images of 32×32, all augmentations, α = 0.25); beside it single precision as it is.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from engine_worker import Problem, Way, iteration_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.matching.adjoint import Gradients
from limbeck.runtime.files import write_json

DROPPED_BITS = 23 - 10
aten = torch.ops.aten
# Which arguments are factors of the products: those after them are sizes, strides or a bias, which is added.
FACTORS = {
    aten.convolution.default: (0, 1),
    aten.convolution_backward.default: (0, 1, 2),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
}


def rounded(values: Tensor) -> Tensor:
    """Float32 values to the nearest of TF32, half away from zero; other types as they are."""
    if values.dtype != torch.float32:
        return values
    bits = values.contiguous().view(torch.int32)
    # The sign is a bit of its own, so that adding half a step to the magnitude rounds away from zero.
    return ((bits + (1 << (DROPPED_BITS - 1))) & ~((1 << DROPPED_BITS) - 1)).view(torch.float32)


class Tf32(TorchDispatchMode):
    """Rounds the factors of products inside the block; counts them in `products`."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FACTORS:
            self.products += 1
            args = tuple(rounded(value) if n in FACTORS[func] else value for n, value in enumerate(args))
        return func(*args, **(kwargs or {}))


def errors(found: Gradients, exact: Gradients) -> dict[str, float]:
    """Relative error and cosine of the pixel gradient."""
    a, b = found.images.double().flatten(), exact.images.flatten()
    return {"relative": float((a - b).norm() / b.norm()), "cosine": float(torch.cosine_similarity(a, b, dim=0))}


def row(ipc: int, steps: int) -> dict[str, Any]:
    """Both precisions at T steps and ten classes of `ipc` images, all of them in every step."""
    images, threads = 10 * ipc, torch.get_num_threads()
    problem = Problem(
        network="ConvNetD3-w64", size=32, classes=10, images=images, batch=images, steps=steps, device="cpu", threads=threads
    )
    way = Way(kind="exact")
    exact = iteration_of(problem, way, torch.float64)()
    plain = errors(iteration_of(problem, way, torch.float32)(), exact)
    iteration = iteration_of(problem, way, torch.float32)
    with Tf32() as mode:
        found = errors(iteration(), exact)
    assert mode.products, "no product was seen"
    return {"ipc": ipc, "steps": steps, "fp32": plain, "tf32": found, "products": mode.products}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tf32.json"))
    given = parser.parse_args()
    rows = json.loads(given.output.read_text()) if given.output.exists() else []
    print("| images per class | T | fp32: relative error | cosine | tf32: relative error | cosine |\n|---|---|---|---|---|---|")
    for ipc in given.ipc:
        for steps in given.steps:
            held = next((one for one in rows if (one["ipc"], one["steps"]) == (ipc, steps)), None)
            if held is None:
                held = row(ipc, steps)
                rows.append(held)
                write_json(given.output, rows)
            cells = [f"{held[name]['relative']:.0e} | {held[name]['cosine']:.4f}" for name in ("fp32", "tf32")]
            print(f"| {ipc} | {steps} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

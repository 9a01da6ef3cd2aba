"""How exactly the adjoint gives the gradient of the unroll: relative errors in float64 and float32.

    python benchmarks/exactness.py

A ConvNetD3 of width 16 per norm, 12 images of 32×32, T = 20 steps of 5 images (the last chunk of a permutation is smaller), all
augmentations, a quarter of the parameters dropped. The reference is back-propagation through the whole unroll in float64.
"""

import torch

from limbeck.augmentation import Dsa
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, Gradients, InnerLoop, Unroll
from limbeck.matching.criteria import LowLossDropout
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime.random import generator

NORMS = ("instancenorm", "groupnorm", "batchnorm", "nonorm")


def gradients(norm: str, adjoint: Adjoint, dtype: torch.dtype, compiled: bool) -> Gradients:
    draws, network = generator(0, "case"), flat_network(f"ConvNetD3-w16-{norm}", (3, 32, 32), 10)
    theta = network.initial(draws).to(dtype)
    target = theta + 0.02 * torch.randn(theta.shape, generator=draws).to(dtype)
    images, labels = torch.randn(12, 3, 32, 32, generator=draws).to(dtype), torch.randn(12, 10, generator=draws).to(dtype)
    inner = InnerLoop(StudentStep(network, soft_cross_entropy, compiled), theta, draw_steps((12, 3, 32, 32), 5, 20, Dsa(), 0, 0))
    loss = MatchingLoss(theta, target, LowLossDropout(0.25))
    return adjoint(inner, images, labels, torch.tensor(0.02, dtype=dtype), loss)[0]


def errors(value: Gradients, reference: Gradients) -> str:
    pairs = ((getattr(value, name).double(), getattr(reference, name)) for name in ("images", "labels", "syn_lr"))
    return " | ".join(f"{((own - other).norm() / other.norm()).item():.1e}" for own, other in pairs)


if __name__ == "__main__":
    print("| norm | engine | images | labels | η |")
    print("|---|---|---|---|---|")
    for norm in NORMS:
        reference = gradients(norm, Unroll(), torch.float64, False)
        print(f"| {norm} | exact, float64 | {errors(gradients(norm, Exact(), torch.float64, False), reference)} |")
        print(f"| {norm} | unroll, float32 | {errors(gradients(norm, Unroll(), torch.float32, False), reference)} |")
        print(f"| {norm} | exact, float32 | {errors(gradients(norm, Exact(), torch.float32, False), reference)} |")
    torch.compiler.reset()
    reference = gradients("instancenorm", Unroll(), torch.float64, False)
    compiled = gradients("instancenorm", Exact(), torch.float32, True)
    print(f"| instancenorm | exact, float32, compiled | {errors(compiled, reference)} |")

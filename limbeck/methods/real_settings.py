"""What a user may say about methods that compare synthetic images with batches of real ones: the keys `real.*`."""

from dataclasses import dataclass

from limbeck.runtime.errors import require

# What Zhao, Mopuri and Bilen used: by images per class, how often a network is matched and the epochs it is trained in between.
PUBLISHED_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RealSettings:
    """Batches of real images, and the networks that gradients are matched in (PAPER § 9: DC, DSA, DM).

    DM draws a new network for every iteration and never trains it: of these keys it has only `batch`.

    Args:
        batch: real images of a class in an iteration; a class that has fewer gives them all.
        outer_loops: iterations that a network is matched in before the next is drawn. None takes the published number of the
            number of images per class that is nearest, as a ratio: 1, 10, 20, 30, 40, 50 for 1, 10, 20, 30, 40, 50 images per
            class, so that 3 of them take 1, and 4 take 10. The published 1000 networks are as many times this number of iterations.
        inner_loops: epochs on the synthetic images that it is trained for between two of them; None takes 1, 50, 25, 20, 15, 10
            in the same way.
        network_lr: step size of SGD in that training.
        network_momentum: of that SGD.
        network_weight_decay: of that SGD.
        network_batch: synthetic images per step of it.
    """

    batch: int = 256
    outer_loops: int | None = None
    inner_loops: int | None = None
    network_lr: float = 0.01
    network_momentum: float = 0.0
    network_weight_decay: float = 0.0
    network_batch: int = 256

    def __post_init__(self) -> None:
        require(self.batch >= 1, "real.batch", self.batch, "at least 1")
        require(self.outer_loops is None or self.outer_loops >= 1, "real.outer_loops", self.outer_loops, "at least 1")
        require(self.inner_loops is None or self.inner_loops >= 0, "real.inner_loops", self.inner_loops, "at least 0")
        require(0 < self.network_lr < float("inf"), "real.network_lr", self.network_lr, "above 0 and finite")
        require(0 <= self.network_momentum < 1, "real.network_momentum", self.network_momentum, "in [0, 1)")
        decays = 0 <= self.network_weight_decay < float("inf")
        require(decays, "real.network_weight_decay", self.network_weight_decay, "at least 0 and finite")
        require(self.network_batch >= 1, "real.network_batch", self.network_batch, "at least 1")

    def loops(self, ipc: int) -> tuple[int, int]:
        """`outer_loops` and `inner_loops` for so many images per class, at least 1."""
        outer, inner = PUBLISHED_LOOPS[min(PUBLISHED_LOOPS, key=lambda known: max(known / ipc, ipc / known))]
        return (outer if self.outer_loops is None else self.outer_loops, inner if self.inner_loops is None else self.inner_loops)

"""What `limbeck bench engine` measures: its options, its variants, and what its processes are told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from limbeck.matching.settings import Kind, Precision
from limbeck.runtime.checked import Count, Options, at_least
from limbeck.runtime.errors import require

BATCH_SYN = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to the pixel gradient.

    Args:
        kind: `unroll`, `exact`, `tesla` or `truncated`.
        compiled: whether the step is compiled.
        precision: of convolutions and matrix products.
        micro_batch: images that a step differentiates at a time; None takes a batch whole.
        kept: how many of the last steps keep their intermediate results.
        last_steps: through how many steps `truncated` walks back.
    """

    kind: Kind
    compiled: bool = False
    precision: Precision = "fp32"
    micro_batch: int | None = None
    kept: int = 0
    last_steps: int = 0

    def walked(self, steps: int) -> int:
        """Of how many of T = `steps` steps the product is taken."""
        return self.last_steps if self.kind == "truncated" else steps


VARIANTS: dict[str, Callable[[int], Way]] = {  # by T
    "unroll": lambda steps: Way(kind="unroll"),
    "eager": lambda steps: Way(kind="exact"),
    "compiled": lambda steps: Way(kind="exact", compiled=True),
    "compiled-tf32": lambda steps: Way(kind="exact", compiled=True, precision="tf32"),
    "compiled-bf16": lambda steps: Way(kind="exact", compiled=True, precision="bf16"),
    "tesla": lambda steps: Way(kind="tesla", compiled=True),
    "truncated": lambda steps: Way(kind="truncated", compiled=True, last_steps=max(1, steps // 4)),
    "kept-half": lambda steps: Way(kind="exact", compiled=True, kept=steps // 2),
    "kept-all": lambda steps: Way(kind="exact", compiled=True, kept=steps),
}
CUDA_ONLY = ("compiled-tf32",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What one process computes the gradient of.

    Args:
        network: f, by name.
        size: H = W of the images, which have three channels.
        classes: K.
        images: N.
        batch: B, images per student step.
        steps: T.
        device: where, such as `cpu` or `cuda:0`.
        threads: of the CPU.
    """

    network: str
    size: int
    classes: int
    images: int
    batch: int
    steps: int
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineBenchSettings(Options):
    """The options of `limbeck bench engine`.

    Args:
        network: by name.
        size: H = W of the images.
        classes: K.
        steps: the numbers of student steps T to measure.
        ipc: the numbers of images per class to measure; above 100 images a step takes 100 of them.
        variants: names out of `VARIANTS`; None takes all that the device can do.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        repeats: iterations that are timed, after one that is not.
        threads: of the CPU; None leaves them as torch has them.
        reference_seconds: float64 gradients that will take longer are not computed, and errors not known; 0 computes none.
    """

    network: str = "ConvNetD3-w64"
    size: Count = 32
    classes: Annotated[int, at_least(2)] = 10
    steps: tuple[int, ...] = (10, 20, 40, 80)
    ipc: tuple[int, ...] = (1, 10, 50)
    variants: tuple[str, ...] | None = None
    device: str = "auto"
    repeats: Count = 3
    threads: Count | None = None
    reference_seconds: Annotated[float, at_least(0)] = 900.0

    def check_together(self) -> None:
        for key, values in (("--steps", self.steps), ("--ipc", self.ipc)):
            distinct = len(set(values)) == len(values) > 0
            require(distinct, key, ",".join(map(str, values)), "one or more different numbers, joined by commas")
            for value in values:
                require(value >= 1, key, value, "at least 1")
        for name in self.variants or ():
            require(name in VARIANTS, "--variants", name, f"some of {','.join(VARIANTS)}")
        if self.variants is not None:
            distinct = len(set(self.variants)) == len(self.variants) > 0
            require(distinct, "--variants", ",".join(self.variants), "one or more different names, joined by commas")

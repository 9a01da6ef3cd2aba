"""What the tests of shared work have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

SMALL = """
    data.size=16 data.per_class=12 network=ConvNetD2-w4 experts.num_experts=3 experts.train_epochs=2 experts.batch_size=32
    match.syn_steps=2 match.expert_epochs=1 schedule.min_start_epoch=0 schedule.first_max_start_epoch=1 schedule.max_start_epoch=1
    outer.iterations=1 engine.compile=no eval.every=1 eval.every_seeds=1 eval.epochs=1 eval.full_epochs=1 eval.full_seeds=2
    eval.random_lr=0.01 eval.seeds=2 features=none
"""


@contextmanager
def counted(module: Any, kept: list[Any]) -> Iterator[None]:
    """Inside the block, the keys of what this process trains are noted."""
    real = module.train

    def noted(*args: Any, **options: Any) -> Tensor:
        kept.append(options["key"])
        return real(*args, **options)

    module.train = noted
    try:
        yield
    finally:
        module.train = real

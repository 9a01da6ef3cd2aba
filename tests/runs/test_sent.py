"""What a rank sends in an iteration is what the plan says."""

import torch
from together import Team

from limbeck.augmentation import NO_AUGMENTATION
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Exact, InnerLoop, Tesla, Truncated, Unroll
from limbeck.matching.distances import MatchingLoss
from limbeck.matching.spread import Spread
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runs.over_devices import sums_of
from limbeck.runs.scaling import Work
from limbeck.runtime.ranks import Ranks

N, K, SHAPE, STEPS = 6, 3, (3, 8, 8), 4
ADJOINTS = {"exact": Exact(), "tesla": Tesla(), "truncated": Truncated(steps=2), "unroll": Unroll()}


def sent(name: str, sharded: bool) -> int:
    """Bytes that this rank sends for a gradient."""
    here, network = Ranks.here(), flat_network("ConvNetD2-w4", SHAPE, K)
    theta, before = network.initial(torch.Generator().manual_seed(0)), here.sent
    spread, steps = Spread(here, N if sharded else None), draw_steps((N, *SHAPE), 4, STEPS, NO_AUGMENTATION, seed=0, iteration=0)
    inner = InnerLoop(StudentStep(network, soft_cross_entropy), theta, steps, spread)
    x, y = torch.randn(N, *SHAPE)[spread.rows], torch.eye(K).repeat(2, 1)[spread.rows]
    ADJOINTS[name](inner, x, y, torch.tensor(0.01), MatchingLoss(theta, theta + 0.1))
    return here.sent - before


def test_ranks_send_what_is_foretold() -> None:
    parameters = flat_network("ConvNetD2-w4", SHAPE, K).num_parameters
    with Team(2) as team:
        for name, adjoint in ADJOINTS.items():
            for sharded in (False, True):
                work = Work(
                    parameters=parameters,
                    sums=sums_of(adjoint, STEPS, 1),
                    ends=1,
                    set_numbers=N * (192 + K),
                    images=N,
                    batch=4,
                )
                assert max(team(sent, name, sharded)) == work.sent(2, sharded), (name, sharded)

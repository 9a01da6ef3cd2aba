"""A batch spread over ranks: every adjoint gives what one process gives, to rounding."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from together import Team
from torch import Tensor

from limbeck.augmentation import Applied, Augmentation, Draw, Dsa
from limbeck.losses import soft_cross_entropy
from limbeck.matching.adjoint import Adjoint, Exact, InnerLoop, Tesla, Truncated, Unroll
from limbeck.matching.criteria import LowLossDropout, RandomDropout, layers_of
from limbeck.matching.distances import LayerCosine, MatchingLoss
from limbeck.matching.spread import Spread
from limbeck.matching.steps import StudentStep, draw_steps
from limbeck.networks.flat import flat_network
from limbeck.runtime.ranks import Ranks

N, K, STEPS = 7, 3, 4


class Mixed(Augmentation):
    """Every image with a part of its neighbour in the batch, so that no image can be changed without the others."""

    def draw(self, generator: torch.Generator, shape: tuple[int, ...], siamese: bool = False) -> Applied:
        amount = torch.rand(shape[0], 1, 1, 1, generator=generator, dtype=torch.float64)
        return lambda x: (1 - amount) * x + amount * x.roll(1, 0)


ADJOINTS: dict[str, Adjoint] = {
    "exact": Exact(),
    "kept": Exact(kept=2, on_host=True),
    "unroll": Unroll(),
    "tesla": Tesla(),
    "truncated": Truncated(steps=2),
    "truncated, kept": Truncated(steps=3, kept=2),
}


def walked(adjoint: str, batch: int | None, augmentation: Augmentation, sharded: bool = False, micro_batch: int | None = None):
    """The gradients of two losses, by X, Y and η, and L, in float64; of this rank's images where X is sharded."""
    here, draws = Ranks.here(), torch.Generator().manual_seed(0)
    network = flat_network("ConvNetD2-w4", (3, 8, 8), K)
    start, target = (network.initial(draws).double() for _ in range(2))
    x = torch.randn(N, 3, 8, 8, generator=draws, dtype=torch.float64)
    y, eta = torch.randn(N, K, generator=draws, dtype=torch.float64), torch.tensor(0.05, dtype=torch.float64)
    steps = draw_steps((N, 3, 8, 8), batch, STEPS, augmentation, seed=0, iteration=0)
    spread = Spread(here, N if sharded else None)
    layers = layers_of(network.slices)
    losses = [
        MatchingLoss(start, target, LowLossDropout(0.3), layers=layers),
        MatchingLoss(start, target, RandomDropout(0.3), LayerCosine(), layers),
    ]
    inner = InnerLoop(StudentStep(network, soft_cross_entropy, micro_batch=micro_batch), start, steps, spread)
    found = ADJOINTS[adjoint](inner, x[spread.rows], y[spread.rows], eta, *losses)
    return [[one.loss, one.images, one.labels, one.syn_lr] for one in found]


def check(team: Team, *case: object, sharded: bool = False) -> None:
    [wanted, found] = walked(*case), team(walked, *case, sharded)
    for number, one in enumerate(wanted):
        for which, tensor in enumerate(one):
            on_ranks: list[Tensor] = [rank[number][which] for rank in found]
            together = [torch.cat(on_ranks)] if sharded and tensor.ndim else on_ranks
            assert all((other - tensor).abs().max() < 1e-10 for other in together)
            assert which != 1 or tensor.abs().max() > 1e-6
            if not (sharded and tensor.ndim):
                assert all(torch.equal(other, on_ranks[0]) for other in on_ranks)


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def team(request: pytest.FixtureRequest) -> Iterator[Team]:
    with Team(request.param) as found:
        yield found


@pytest.mark.parametrize("batch", [None, 3, 1], ids=["all", "three", "one"])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_every_adjoint_gives_what_one_process_gives(team: Team, adjoint: str, batch: int | None) -> None:
    check(team, adjoint, batch, Dsa())


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_a_shard_has_the_gradient_of_its_images(team: Team, adjoint: str) -> None:
    check(team, adjoint, 3, Dsa(), sharded=True)


def test_micro_batches_are_of_the_part(team: Team) -> None:
    check_with = ("exact", None, Dsa())
    wanted = walked(*check_with)
    for found in team(walked, *check_with, False, 2):
        assert all((one - other).abs().max() < 1e-10 for one, other in zip(found[0], wanted[0], strict=True))


@pytest.mark.parametrize("adjoint", ["exact", "unroll"])
def test_an_augmentation_that_mixes_images_is_given_the_whole_batch(team: Team, adjoint: str) -> None:
    check(team, adjoint, 5, Mixed())


def sent(adjoint: str, sharded: bool) -> int:
    before = Ranks.here().sent
    walked(adjoint, 4, Dsa(), sharded)
    return Ranks.here().sent - before


@pytest.mark.parametrize(("adjoint", "back"), [("exact", STEPS - 1), ("unroll", STEPS), ("tesla", 0), ("truncated", 1)])
def test_what_is_sent_has_a_closed_form(team: Team, adjoint: str, back: int) -> None:
    parameters, ranks, losses = flat_network("ConvNetD2-w4", (3, 8, 8), K).num_parameters, team.count, 2

    def around(numbers: int) -> int:
        return 2 * 8 * numbers * (ranks - 1) // ranks

    for sharded in (False, True):
        by_data = 1 + (0 if sharded else N * (3 * 8 * 8 + K))
        each = STEPS * around(parameters) + losses * (back * around(parameters) + around(by_data))
        first, *others = team(sent, adjoint, sharded)
        assert others == [each] * (ranks - 1) and first == each + losses * 8 * (parameters + 1)


@pytest.mark.parametrize("operation", ["color", "crop", "cutout", "flip", "scale", "rotate"])
def test_a_part_of_a_draw_is_the_draw_of_a_part(operation: str) -> None:
    x, own = torch.rand(5, 3, 8, 8), torch.tensor([1, 4])
    for siamese in (False, True):
        drawn = Dsa(operation).draw(torch.Generator().manual_seed(1), x.shape, siamese)
        assert isinstance(drawn, Draw) and torch.equal(drawn.part(own)(x[own]), drawn(x)[own])


def test_the_shares_of_a_batch_add_up_to_one() -> None:
    for spread in (Spread(), Spread(total=9)):
        for draw in draw_steps((9, 3, 8, 8), 4, 3, Dsa(), 0, 0):
            parts = [replace(spread, ranks=Ranks(number, 4)).part(draw) for number in range(4)]
            assert sum(part.share for part in parts) == pytest.approx(1)

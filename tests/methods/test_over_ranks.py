"""The outer loop over ranks: every method ends with what one process ends with, to rounding, whether X is sharded or not."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from together import Team
from torch import Tensor

from limbeck.matching.spread import Spread, SpreadImages
from limbeck.matching.steps import StudentStep
from limbeck.methods.characteristic_matching import CharacteristicMatching
from limbeck.methods.distribution_matching import DistributionMatching
from limbeck.methods.enhance import Enhancement
from limbeck.methods.gradient_matching import GradientMatching
from limbeck.methods.objective import Objective
from limbeck.methods.outer import OuterLoop
from limbeck.methods.registry import METHODS
from limbeck.methods.state import OuterState
from limbeck.methods.trajectory import TrajectoryMatching
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.parametrisations.multi_formation import MultiFormation
from limbeck.parametrisations.parametrisation import Decoder
from limbeck.runs import build
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.ranks import Ranks
from limbeck.training.images import TensorImages

K, IPC, SHAPE = 3, 3, (3, 8, 8)
LOOPS = [name for name, method in METHODS.items() if method.kind == "objective"]
SMALL: dict[str, Any] = {
    "ipc": IPC,
    "outer.iterations": 4,
    "outer.checkpoint_every": 3,
    "outer.lr_img": 1.0,
    "outer.ema_decay": 0.9,
    "outer.syn_lr_init": 0.05,
    "match.syn_steps": 3,
    "match.batch_syn": 4,
    "match.expert_epochs": 1,
    "schedule.first_max_start_epoch": 1,
    "schedule.max_start_epoch": 2,
    "enhance.cam_every": 2,
    "real.batch": 4,
    "real.outer_loops": 2,
    "real.inner_loops": 1,
    "real.network_batch": 5,
    "ncfm.frequencies": 20,
    "ncfm.sampling": "learned",
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = drawn(K * IPC, *SHAPE, seed=2), torch.eye(K, dtype=torch.float64).repeat_interleave(IPC, 0)


class Experts:
    """Trajectories in float64, which a store would round."""

    path = Path("experts")

    def __init__(self, network: FlatNetwork) -> None:
        self.network = network

    def read(self, expert: int, epoch: int, device: torch.device | None = None) -> Tensor:
        start = self.network.initial(torch.Generator().manual_seed(expert)).double()
        return start + 0.05 * epoch * drawn(len(start), seed=expert + 10)


def loop(folder: Path, method: str, sharded: bool = False, network: str = "ConvNetD2-w4", **changes: Any) -> OuterLoop:
    """The loop of a method's preset on small random images, over the ranks that there are."""
    soft = {} if METHODS[method].preset.get("labels") == "hard" else {"outer.lr_label": 0.1}
    given = {key.replace("__", "."): one for key, one in changes.items()}
    settings = DistillSettings.of({"method": method, **SMALL, **soft, **given})
    ranks, f = Ranks.here(), flat_network(network, SHAPE, K)
    whole, classes = IPC if METHODS[method].shards == "classes" else 1, torch.arange(K).repeat_interleave(IPC)
    spread = Spread(ranks, K * IPC if sharded else None, whole)
    matching, augmentation = build.matching_of(settings, K * IPC), build.augmentation_of(settings.augment)
    real = TensorImages(drawn(5 * K, *SHAPE, seed=1)), torch.arange(K).repeat(5), classes, f, settings.real
    made: Objective
    if method == "dm":
        made = DistributionMatching(*real, matching.criterion, augmentation, spread=spread)
    elif method == "ncfm":
        own = (Experts(f), 2, 3, settings.real, settings.ncfm, augmentation)
        made = CharacteristicMatching(*real[:-1], *own, spread=spread)  # type: ignore[arg-type]
    elif not METHODS[method].steps:
        change = augmentation if method == "dsa" else replace(augmentation, strategy="none")
        made = GradientMatching(*real, matching.criterion, change, spread=spread)
    else:
        step, adjoint = StudentStep(f, build.loss_of(settings)), build.adjoint_of(settings.engine)
        made = TrajectoryMatching(Experts(f), 2, step, adjoint, matching, augmentation, 0, spread)  # type: ignore[arg-type]
    module = f.with_parameters(f.initial(torch.Generator().manual_seed(5))).double()
    cam, weighting = build.cam_of(settings.enhance), build.weighting_of(settings.enhance)
    return OuterLoop(
        objective=made,
        enhancement=Enhancement(module, classes, 0, cam, weighting, settings.enhance.cam_every),
        settings=settings.outer,
        evaluate=lambda x, y, eta: None,
        every=2,
        match_norm=settings.match.match_norm,
        folder=folder,
        spread=spread,
        decoder=Decoder(build.parametrisation_of(settings.parametrisation), SHAPE),
    )


def found(state: OuterState) -> dict[str, Tensor]:
    names = ("images", "labels", "syn_lr", "images_velocity", "labels_velocity", "syn_lr_velocity", "average", "weights")
    if state.images_second is not None:
        names += ("images_second",)
    return {name: getattr(state, name) for name in names} | state.objective


def run(*case: Any, **changes: Any) -> dict[str, Tensor]:
    """X, Y, η, what goes with them, and the objective's state after the loop."""
    made = loop(*case, **changes)
    return found(made.run(made.decoder.encoded(X), 3 * Y, 0.05))


def run_with(case: tuple[Any, ...], changes: dict[str, Any]) -> dict[str, Tensor]:
    return run(*case, **changes)


def same(team: Team, wanted: dict[str, Tensor], on_ranks: list[dict[str, Tensor]], sharded: bool) -> None:
    assert wanted.keys() == on_ranks[0].keys()
    for name, value in wanted.items():
        every = [rank[name] for rank in on_ranks]
        together = [torch.cat(every)] if sharded and value.ndim and len(value) == K * IPC else every
        assert all(((one - value).abs().max() < 1e-10 * max(1.0, value.abs().max())) for one in together), name
    start = X if wanted["images"].shape == X.shape else Decoder(MultiFormation(3), SHAPE).encoded(X)
    moved = (wanted["images"] - start).abs().max()
    assert moved > 1e-4


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def team(request: pytest.FixtureRequest) -> Iterator[Team]:
    with Team(request.param) as found:
        yield found


OWN = {"edf-plus": {"parametrisation__factor": 3}}  # X has nine images


def check(team: Team, folder: Path, method: str, sharded: bool = False, **changes: Any) -> None:
    case, changes = (method, sharded), {**OWN.get(method, {}), **changes}
    wanted = run(folder / "one", method, False, **changes)
    same(team, wanted, team(run_with, (folder / "several", *case), changes), sharded)
    assert sorted(path.name for path in (folder / "several").rglob("*.*")) == sorted(
        path.name for path in (folder / "one").rglob("*.*")
    )


@pytest.mark.parametrize("method", LOOPS)
def test_every_method_ends_with_what_one_process_ends_with(team: Team, tmp_path: Path, method: str) -> None:
    check(team, tmp_path, method)


@pytest.mark.parametrize("method", [name for name in LOOPS if METHODS[name].shards != "no" and name not in OWN])
def test_a_sharded_set_ends_the_same(team: Team, tmp_path: Path, method: str) -> None:
    if METHODS[method].shards == "classes" and team.count > K:
        pytest.skip("a rank would have no class, which is refused")
    check(team, tmp_path, method, sharded=True, match__match_norm=True)


@pytest.mark.parametrize("method", ["dsa", "dm"])
def test_a_sharded_set_ends_the_same_with_a_criterion(team: Team, tmp_path: Path, method: str) -> None:
    if team.count <= K:
        check(team, tmp_path, method, sharded=True, match__criterion="loss", match__drop_ratio=0.25)


def test_a_sharded_set_of_gradient_matching_with_batch_norm_ends_the_same(team: Team, tmp_path: Path) -> None:
    if team.count <= K:
        check(team, tmp_path, "dc", sharded=True, network="ConvNetD2-w4-batchnorm")


def fetched() -> tuple[bool, int]:
    here = Ranks.here()
    spread, index = Spread(here, K * IPC, IPC), torch.tensor([8, 0, 3, 3, 5])
    return torch.equal(SpreadImages(spread, X[spread.rows]).fetch(index), X[index]), len(X[spread.rows])


def test_images_of_a_sharded_set_are_fetched_by_all(team: Team) -> None:
    found = team(fetched)
    assert all(same for same, _ in found) and sum(count for _, count in found) == K * IPC
    assert all(count % IPC == 0 for _, count in found)


def test_moments_of_adamw_go_with_their_images(team: Team, tmp_path: Path) -> None:
    check(team, tmp_path, "mtt", sharded=True, outer__img_optimiser="adamw", outer__lr_img=0.01)


def test_what_images_are_decoded_from_ends_the_same(team: Team, tmp_path: Path) -> None:
    check(team, tmp_path, "edf", parametrisation__kind="multi", parametrisation__factor=3)


@pytest.mark.parametrize("criterion", ["random", "uniform", "first", "none"])
def test_every_criterion_drops_the_same(team: Team, tmp_path: Path, criterion: str) -> None:
    check(team, tmp_path, "edf", match__criterion=criterion, match__drop_ratio=0.25)


@pytest.mark.parametrize("method", ["mtt", "dc", "dm", "ncfm"])
def test_batch_norm_is_of_whole_batches(team: Team, tmp_path: Path, method: str) -> None:
    check(team, tmp_path, method, network="ConvNetD2-w4-batchnorm")


@pytest.mark.parametrize("adjoint", ["unroll", "truncated"])
def test_other_adjoints_end_the_same(team: Team, tmp_path: Path, adjoint: str) -> None:
    check(team, tmp_path, "datm", engine__kind=adjoint, engine__last_steps=2)


def test_loops_go_on_with_other_numbers_of_ranks(team: Team, tmp_path: Path) -> None:
    """One process, then several with shards, then one again."""
    wanted = run(tmp_path / "one", "edf", outer__iterations=9)
    run(tmp_path / "changing", "edf", outer__iterations=3)
    team(run_with, (tmp_path / "changing", "edf", True), {"outer__iterations": 6})
    same(team, wanted, [run(tmp_path / "changing", "edf", outer__iterations=9)], False)


def broken_on_one_rank(folder: Path, sharded: bool) -> tuple[int, dict[str, int], dict[str, Tensor]]:
    one = loop(folder, "mtt", sharded)
    broken: list[int] = []
    gradient = StudentStep.gradient

    def counted(self: StudentStep, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        value = gradient(self, theta, x, y)
        broken.append(1)
        return value * float("nan") if Ranks.here().number == 1 and len(broken) < 3 else value

    StudentStep.gradient = counted  # type: ignore[method-assign]
    try:
        state = one.run(X, Y, 0.05)
    finally:
        StudentStep.gradient = gradient  # type: ignore[method-assign]
    return state.skipped, dict(state.health.causes), found(state)


@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_not_finite_on_one_rank_is_lost_on_all(team: Team, tmp_path: Path, sharded: bool) -> None:
    on_ranks = team(broken_on_one_rank, tmp_path / "several", sharded)
    assert all((skipped, causes) == (1, {"the loss was not finite": 1}) for skipped, causes, _ in on_ranks)
    assert all(bool(value.isfinite().all()) for _, _, values in on_ranks for value in values.values())
    if not sharded:
        assert all(torch.equal(values["images"], on_ranks[0][2]["images"]) for _, _, values in on_ranks)
    shutil.rmtree(tmp_path / "several")

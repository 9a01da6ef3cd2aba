"""Memory: what control groups leave, and one line that names the setting where something would not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.preprocessing import Identity, Whiten
from limbeck.data.settings import DataSettings
from limbeck.data.split import whole
from limbeck.evaluation.distances import features_in_parts, features_of
from limbeck.matching.adjoint import InnerLoop, Unroll
from limbeck.matching.engine import Problem, unrolled_bytes
from limbeck.matching.steps import StepDraw, StudentStep
from limbeck.networks.flat import flat_network
from limbeck.runs.api import settings_of
from limbeck.runs.needs import check_held
from limbeck.runs.workspace import Workspace
from limbeck.runtime import devices
from limbeck.runtime.cgroup import memory_left
from limbeck.runtime.errors import UsageError
from limbeck.runtime.memory import check_memory, free_memory, measure, total_memory
from limbeck.runtime.progress import NoProgress
from limbeck.training.images import LazyImages, TensorImages, prepare_split

CPU = torch.device("cpu")
TINY = {"size": 16, "per_class": 12, "network": "ConvNetD2-w4", "num_experts": 1, "train_epochs": 2, "max_start_epoch": 1}
TINY |= {"first_max_start_epoch": 1, "expert_epochs": 1, "syn_steps": 2}


def groups(root: Path, kind: str, own: str, limits: dict[str, tuple[str, int, int]], mounted: str = "/") -> Path:
    """A /proc/self of a process in the group `own`; limit, usage and what can be forgotten by path of the group."""
    process, top = root / "proc", root / "groups"
    process.mkdir()
    names = ("memory.max", "memory.current", "inactive_file")
    if kind == "cgroup":
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for path, (limit, used, forgettable) in limits.items():
        (top / path).mkdir(parents=True, exist_ok=True)
        (top / path / names[0]).write_text(f"{limit}\n")
        (top / path / names[1]).write_text(f"{used}\n")
        (top / path / "memory.stat").write_text(f"anon 7\n{names[2]} {forgettable}\nactive_file 9\n")
    controllers = "0:" if kind == "cgroup2" else "4:memory"
    (process / "cgroup").write_text(f"9:name=systemd:/\n{controllers}:{own}\n")
    options = "rw" if kind == "cgroup2" else "rw,memory"
    (process / "mountinfo").write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        f"36 31 0:33 {mounted} {top} rw,relatime shared:9 - {kind} {kind} {options}\n"
    )
    return process


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
def test_the_tightest_group_counts(tmp_path: Path, kind: str) -> None:
    limits = {
        "": ("max" if kind == "cgroup2" else str(2**63 - 4096), 900, 0),
        "job": ("1000", 700, 100),
        "job/step": ("5000", 300, 0),
    }
    assert memory_left(groups(tmp_path, kind, "/job/step", limits)) == (400, 1000)


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
def test_a_container_sees_its_own_group_on_top(tmp_path: Path, kind: str) -> None:
    process = groups(tmp_path, kind, "/docker/abc", {"": ("2000", 500, 200)}, mounted="/docker/abc")
    assert memory_left(process) == (1700, 2000)


def test_without_limits_or_groups_there_is_none(tmp_path: Path) -> None:
    assert memory_left(groups(tmp_path, "cgroup2", "/job", {"job": ("max", 3, 0)})) is None
    assert memory_left(tmp_path / "nothing") is None


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    assert memory_left(groups(tmp_path, "cgroup2", "/job", {"job": ("1000", 1200, 0)})) == (0, 1000)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets a control group leave so many bytes."""
    return lambda left: monkeypatch.setattr(devices, "memory_left", lambda: (left, 2 * left))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_group_bounds_what_the_machine_has(little: Callable[[int], None]) -> None:
    before = free_memory(CPU)
    little(10**6)
    assert (free_memory(CPU), total_memory(CPU)) == (10**6, 2 * 10**6)
    little(2**60)
    assert free_memory(CPU) == pytest.approx(before, rel=0.5)
    little(500_000)
    assert refused(lambda: check_memory(2e6, CPU, "ipc: 9", "holding nine", "a lower ipc takes less")) == (
        "ipc: 9 is not possible here: holding nine takes about 2.0 MB of memory, of which 500.0 kB are free; a lower ipc takes less"
    )


def test_images_that_are_held_in_memory(little: Callable[[int], None]) -> None:
    message = refused(lambda: load_data(DataSettings(source="scenes:easy", per_class=10**9)))
    what = "holding 10000000000 images of 3×32×32 takes about 30720.0 GB of memory"
    assert message.startswith(f"data.source: 'scenes:easy' is not possible here: {what}")
    assert message.endswith("data.per_class or a smaller data.size takes less")
    little(10_000)
    x, y = np.zeros((20, 8, 8), dtype=np.uint8), np.arange(20) % 2
    resized = DataSettings(size=64)
    assert "images of 1×64×64" in refused(lambda: limbeck_arrays(x, y, resized))
    items = [(torch.zeros(3, 40, 40), k % 2) for k in range(6)]
    assert "holding 6 images of 3×40×40" in refused(lambda: ImageSet.from_dataset(items))


def limbeck_arrays(x: np.ndarray, y: np.ndarray, settings: DataSettings) -> ImageSet:
    from limbeck.data.items import of_arrays

    return ImageSet.of(*of_arrays({"": (x, y)}, None, settings))


def test_prepared_images_are_made_one_by_one_where_they_do_not_fit(little: Callable[[int], None]) -> None:
    split = whole(np.arange(4 * 3 * 8 * 8, dtype=np.uint8).reshape(4, 3, 8, 8), np.arange(4))
    held = prepare_split(split, Identity(), CPU)
    assert isinstance(held, TensorImages)
    little(3000)
    lazy = prepare_split(split, Identity(), CPU)
    assert isinstance(lazy, LazyImages)
    index = torch.tensor([3, 1])
    assert torch.equal(lazy.fetch(index), held.fetch(index))
    one = torch.eye(192)
    assert refused(lambda: prepare_split(split, Whiten(torch.zeros(192), one, one), CPU)).startswith(
        "data.zca: True is not possible"
    )


def workspace(**changes: object) -> Workspace:
    return Workspace(settings_of("scenes:easy", "mtt", {**TINY, **changes}), NoProgress())


@pytest.mark.parametrize(
    ("changes", "left", "setting"),
    [
        ({"ipc": 5}, 100_000, "ipc: 5"),
        ({"adjoint": "unroll", "syn_steps": 500}, 10**8, "engine.kind: 'unroll'"),
        ({"network": "ConvNetD2-w256"}, 2 * 10**7, "network: 'ConvNetD2-w256'"),
    ],
)
def test_what_a_run_holds(little: Callable[[int], None], changes: dict[str, object], left: int, setting: str) -> None:
    held = workspace(**changes)
    held.data  # noqa: B018 (loaded while there is room)
    check_held(held)
    little(left)
    assert refused(lambda: check_held(held)).startswith(f"{setting} is not possible here: ")


def test_an_epoch_of_labels_of_views(little: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    held = workspace(protocol="kd", **{"view_labels.store": True})
    held.data  # noqa: B018 (loaded while there is room)
    monkeypatch.setattr("limbeck.runs.needs._label_bytes", lambda workspace: 10**12)
    assert refused(lambda: check_held(held)).startswith("view_labels.top: None is not possible here: an epoch of labels of views")


@pytest.mark.parametrize("batch", [4, 10])
def test_the_graph_of_all_steps_is_counted_as_it_is(batch: int) -> None:
    network, steps = flat_network("ConvNetD2-w8", (3, 16, 16), 10), 6
    problem = Problem(network, (10, 3, 16, 16), 10, [batch], steps, 1)
    theta, x, y, _ = problem.example(10)
    inner = InnerLoop(StudentStep(network, problem.loss), theta, [StepDraw(torch.arange(batch), lambda images: images)] * steps)
    eta = torch.tensor(0.01)
    taken = measure(lambda: Unroll()(inner, x, y, eta, lambda end: end.square().sum()), CPU)[1].peak
    assert unrolled_bytes(problem) == pytest.approx(taken, rel=0.25)


def test_features_are_fetched_in_parts(little: Callable[[int], None]) -> None:
    network = flat_network("ConvNetD2-w4", (3, 16, 16), 10).module
    images = TensorImages(torch.rand(700, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(features_in_parts(network, images, "init: 'centre'"), features_of(network, images.images))
    little(100_000)
    assert refused(lambda: features_in_parts(network, images, "init: 'centre'")).startswith("init: 'centre' is not possible here: ")

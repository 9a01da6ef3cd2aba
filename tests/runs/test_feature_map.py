"""What a run keeps of its feature space: against brute force, how it is switched off, and that no result depends on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.pictures import Said
from torch import nn

from limbeck.evaluation.distances import features_of
from limbeck.methods import snapshots
from limbeck.recipes import load_recipe
from limbeck.runs import data_card, feature_map
from limbeck.runs.data_card import DataCard
from limbeck.runs.distill import distill
from limbeck.runs.feature_map import FEATURES, FILE, FeatureMap, looked_at
from limbeck.runs.results import RunResult
from limbeck.runs.settings import DistillSettings
from limbeck.runs.workspace import Workspace
from limbeck.runtime.files import read_json, read_tensors, write_tensors
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.sealed import Damaged
from limbeck.training.images import LazyImages

TINY = {
    "data.source": "scenes:easy",
    "data.size": "16",
    "data.per_class": "12",
    "data.val_fraction": "0.25",
    "network": "ConvNetD2-w4",
    "method": "dm",
    "ipc": "2",
    "real.batch": "4",
    "outer.iterations": "8",
    "outer.checkpoint_every": "4",
    "engine.compile": "no",
    "eval.every": "1",
    "eval.epochs": "1",
    "eval.seeds": "2",
    "eval.full_epochs": "2",
    "eval.random_lr": "0.01",
}


def tiny(**changes: str) -> DistillSettings:
    return load_recipe("scenes", TINY | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunResult]:
    """Runs that share a cache."""
    monkeypatch.setenv("LIMBECK_CACHE", str(cache))
    return lambda name="run", progress=None, resume=False, **changes: distill(
        tiny(**changes), tmp_path / name, progress=progress, resume=resume
    )


def features(settings: DistillSettings) -> tuple[nn.Module, Workspace]:
    workspace = Workspace(settings, NoProgress())
    evaluator = workspace.evaluator()
    return evaluator.full_data.teacher(lambda: evaluator.images_of("test")), workspace


def test_near_images_are_those_of_all_pairs_and_paths_those_of_the_snapshots(
    run: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, settings = run(features="pca"), tiny()
    held = FeatureMap.read(tmp_path / "run")
    module, workspace = features(settings)
    train = workspace.data.train
    real = features_of(
        module, LazyImages(train, workspace.preprocessing, workspace.device).fetch(torch.arange(len(train)))
    ).double()
    own = features_of(module, result.distilled.images).double()
    distances = (own[:, None] - real).norm(dim=2)
    positions = held.picture_positions[held.near]
    assert held.asked.tolist() == list(range(20)) and held.near.shape == (20, 5)
    np.testing.assert_allclose(held.distances, distances.sort(1).values[:, :5], rtol=1e-5)
    np.testing.assert_allclose(distances.gather(1, positions), held.distances, rtol=1e-5)
    assert torch.equal(held.pictures, train.images(held.picture_positions.numpy()))
    assert held.picture_classes.tolist() == train.labels[held.picture_positions.numpy()].tolist()
    between = (real[:, None] - real).norm(dim=2).fill_diagonal_(torch.inf).amin(1)
    assert held.about.typical == pytest.approx(float(np.median(between)), rel=1e-6)
    assert (held.about.searched, held.about.real, held.about.dimensions) == (len(train), len(train), real.shape[1])
    assert held.about.network == "ConvNetD2-w4, trained on the full data"
    # Eight iterations make nine snapshots, of which six are shown; PCA of all points is that of the features put together.
    best = result.best_iteration
    assert best is not None and held.about.iterations[0] == 0 and held.about.iterations[-1] == 8
    assert (
        held.about.best == best and held.about.iterations[held.result] == best and len(held.about.iterations) == feature_map.LOOKS
    )
    looks = [read_tensors(tmp_path / "run" / "snapshots" / f"iteration-{i:06d}.safetensors")[0]["X"] for i in held.about.iterations]
    points = torch.cat([real, *(features_of(module, look).double() for look in looks)])
    centred = points - points.mean(0)
    coordinates = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    kept = torch.cat([held.real, held.paths.flatten(0, 1)])
    np.testing.assert_allclose(torch.cdist(kept, kept), torch.cdist(coordinates, coordinates), atol=1e-3)
    assert held.about.way == "PCA" and held.real_classes.tolist() == train.labels.tolist()
    assert held.classes.tolist() == [k for k in range(10) for _ in range(2)]


def test_no_result_depends_on_it_and_none_keeps_no_picture(run: Callable[..., RunResult], tmp_path: Path) -> None:
    kept, without = run("kept", features="pca"), run("without", features="none")
    assert kept.accuracy == without.accuracy and torch.equal(kept.distilled.images, without.distilled.images)
    assert "features" in kept.seconds and "features" not in without.seconds
    assert not (tmp_path / "without" / FILE).exists() and len(DataCard.read(tmp_path / "without").examples) == 0
    assert len(DataCard.read(tmp_path / "kept").examples) == 60
    # The same run again has the same bits, and a resumed one those of its own key.
    first = (tmp_path / "kept" / FILE).read_bytes()
    (tmp_path / "kept" / "results.json").unlink()
    run("kept", resume=True, features="auto")
    assert (tmp_path / "kept" / FILE).read_bytes() == first  # PCA too: there are few points
    (tmp_path / "kept" / "results.json").unlink()
    run("kept", resume=True, features="none")
    assert not (tmp_path / "kept" / FILE).exists()
    assert read_json(tmp_path / "kept" / "settings.json")["features"] == "none"


def test_a_run_that_has_not_begun_may_be_another(
    run: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card alone, as the settings alone, is no result that another start would lose."""
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Workspace, "initial", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run()
    assert (tmp_path / "run" / data_card.FILE).exists()
    run(data__per_class="16", method="random")
    assert sum(DataCard.read(tmp_path / "run").about.counts["train"]) == 120
    held = FeatureMap.read(tmp_path / "run")
    assert (
        held.about.iterations == () and held.about.best is None and held.result == 0 and held.paths.shape == (1, 20, 2)
    )  # the set alone, where there was no loop


def test_large_sets_and_many_images_are_shown_in_part(
    run: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "LOOKED_AT", 10 * 4 * 3 * 16 * 16)  # snapshots on the way have ten of twenty images
    for name, value in {"SEARCHED": 30, "REAL": 10, "ASKED": 10, "MANY": 5, "LOOKS": 4}.items():
        monkeypatch.setattr(feature_map, name, value)
    run(features="pca", eval__every="2")
    held = FeatureMap.read(tmp_path / "run")
    assert (held.about.searched, held.about.real) == (30, 90)
    assert held.real.shape == (10, 2) and held.real_classes.tolist().count(3) == 1
    assert held.asked.tolist() == list(range(0, 20, 2)) and held.near.shape == (10, 3)
    assert held.positions.tolist() == list(range(0, 20, 2)) and held.paths.shape == (4, 10, 2)


def test_what_has_no_features_is_said_and_the_run_ends(
    run: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    with monkeypatch.context() as patched:
        patched.setattr(feature_map, "features_in_parts", lambda *_: torch.full((20, 4), torch.nan))
        assert run(progress=said).accuracy.distilled.n == 2
    assert [line for line in said.lines if "features" in line] == [
        "note: features: the report will have no map of features: features: 'a value that is NaN or infinite' is not finite"
    ]
    assert not (tmp_path / "run" / FILE).exists()


def test_a_broken_snapshot_is_left_out(run: Callable[..., RunResult], tmp_path: Path) -> None:
    result = run(eval__every="2")
    snapshots = tmp_path / "run" / "snapshots"
    best = result.best_iteration or 0
    kept = looked_at(tmp_path / "run", "", best)
    assert kept.keys() == {0, 2, 4, 6, 8}
    bad, cut, *_ = (iteration for iteration in kept if iteration not in (0, 8, best))
    for iteration, change in ((bad, lambda content: content[:-1] + bytes([content[-1] ^ 1])), (cut, lambda content: content[:40])):
        path = snapshots / f"iteration-{iteration:06d}.safetensors"
        path.write_bytes(change(path.read_bytes()))
    assert not {bad, cut} & looked_at(tmp_path / "run", "", best).keys()
    assert looked_at(tmp_path / "run", "another", best) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"real": torch.zeros(3, 3)},
        {"paths": torch.zeros(1, 2, 2)},
        {"paths": torch.full((6, 20, 2), torch.nan)},
        {"near": torch.full((20, 5), 10**6)},
        {"near": torch.full((20, 5), -1)},
        {"distances": torch.zeros(20, 4)},
        {"pictures": torch.zeros(7, 3, 4, 4)},
        {"picture_classes": torch.zeros(2, dtype=torch.int64)},
        {"asked": torch.zeros(3, dtype=torch.int64)},
        {"real_classes": torch.zeros(90)},
        {"iterations": [0]},
        {"way": "by hand"},
    ],
)
def test_what_no_run_can_have_written_is_refused(sound: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    tensors, metadata = read_tensors(sound / FILE)
    for name, value in change.items():
        (tensors if isinstance(value, torch.Tensor) else metadata)[name] = value
    write_tensors(tmp_path / FILE, tensors, metadata, FEATURES)
    with pytest.raises(Damaged):
        FeatureMap.read(tmp_path)
    for name in feature_map.TENSORS:
        write_tensors(
            tmp_path / FILE, {key: one for key, one in read_tensors(sound / FILE)[0].items() if key != name}, metadata, FEATURES
        )
        with pytest.raises(Damaged):
            FeatureMap.read(tmp_path)


@pytest.fixture(scope="module")
def sound(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a map that is sound."""
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(cache))
        distill(tiny(), folder / "run")
    return folder / "run"

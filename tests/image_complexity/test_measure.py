"""Blocks: the same figures whoever computes them and whatever was there before; images that are odd."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_complexity.material import image_set, pictures_of, tiny, tiny_judge, workspace_of
from torch import Tensor, nn

from limbeck.data.imageset import ImageSet
from limbeck.data.split import whole
from limbeck.image_complexity import measure
from limbeck.image_complexity.maps import blend, complexity, look
from limbeck.image_complexity.measure import Measurement, choose, fill
from limbeck.image_complexity.results import extremes, reliability
from limbeck.image_complexity.run import Complexity, measure_complexity
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import Shard
from limbeck.runtime.kept import elsewhere
from limbeck.runtime.progress import NoProgress
from limbeck.runtime.random import generator

SETTINGS = ComplexitySettings(layer="pool", workers=1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BLOCK", 4)


class Heard(NoProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def found(data: ImageSet | None = None, **options: Any) -> Complexity:
    judge = options.pop("network", None) or tiny_judge()
    result = measure_complexity(replace(SETTINGS, **options), workspace_of(data or image_set()), network=judge)
    assert result is not None
    return result


@pytest.mark.parametrize("where", ["layer", "image"])
def test_figures_are_those_of_the_maps(where: str) -> None:
    data, judge = image_set(), tiny_judge()
    result = found(data, maps=where)
    images = torch.cat([data.train.images(), data.val.images()])
    labels = np.concatenate([data.train.labels, data.val.labels])
    seen = look(judge.module, images.float() / 255, torch.from_numpy(labels), ["pool"], "gradcam", generator(0))
    maps = blend(seen.maps, (8, 8) if where == "image" else None)
    for column, threshold in enumerate(SETTINGS.thresholds):
        assert result.images.complexity[:, column] == pytest.approx(complexity(maps, threshold).numpy())
    own = complexity(maps).numpy()
    classes = [own[labels == k].mean() for k in range(3)]
    assert result.results.complexity == pytest.approx(np.mean(classes))
    assert [row.complexities["complexity_0.5"] for row in result.results.classes] == pytest.approx(classes)
    assert result.results.mean_activation == pytest.approx(np.mean([100 * maps[labels == k].mean() for k in range(3)]), rel=1e-5)
    assert result.results.accuracy == pytest.approx((seen.logits.argmax(1).numpy() == labels).mean())
    features = [seen.features[labels == k].mean(0).tolist() for k in range(3)]
    assert result.measurement.features() == pytest.approx(np.array(features), rel=1e-5)
    everything = result.measurement.maps(np.array([7, 0]))
    torch.testing.assert_close(everything, blend(seen.maps, (8, 8))[[7, 0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("cam", ["gradcam", "smooth_gradcam_pp"])
def test_a_killed_run_goes_on_where_it_was(cam: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole_run = found(cam=cam)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "other"))
    measurement = Measurement(whole_run.measurement.pictures, tiny_judge(), whole_run.measurement.settings)
    assert measurement.missing() == [0, 4, 8, 12, 16, 20]
    computed: list[int] = []
    compute = Measurement.compute

    def dying(self: Measurement, first: int) -> dict[str, Tensor]:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(first)
        return compute(self, first)

    monkeypatch.setattr(Measurement, "compute", dying)
    with pytest.raises(KeyboardInterrupt):
        fill(measurement)
    measurement.kept(4).path.write_bytes(b"half a file")
    assert measurement.missing() == [4, 8, 12, 16, 20]
    monkeypatch.setattr(Measurement, "compute", compute)
    assert fill(measurement) == []
    assert np.array_equal(measurement.table().complexity, whole_run.images.complexity)


def test_shards_together_are_the_whole(tmp_path: Path) -> None:
    data, settings = image_set(), replace(SETTINGS, cam="smooth_gradcam_pp")
    with elsewhere(tmp_path):
        whole_run = found(data, cam=settings.cam)
    heard = Heard()
    options: dict[str, Any] = {"network": tiny_judge(), "progress": heard}
    assert measure_complexity(settings, workspace_of(data), shard=Shard(2, 2), **options) is None
    assert "3 of 6 blocks are other shards'" in heard.said[0]
    result = measure_complexity(settings, workspace_of(data), shard=Shard(1, 2), **options)
    assert result is not None and result.measurement.folder != whole_run.measurement.folder
    assert np.array_equal(result.images.complexity, whole_run.images.complexity)


def test_a_second_run_computes_nothing_and_other_thresholds_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    first = found()
    monkeypatch.setattr(Measurement, "compute", None)
    again = found(thresholds=(0.25,), maps="layer")
    assert again.measurement.folder == first.measurement.folder
    assert again.images.complexity.shape == (21, 1)


def test_what_maps_depend_on_gives_another_folder() -> None:
    data, judge = image_set(), tiny_judge()
    pictures = pictures_of(data)
    base = Measurement(pictures, judge, SETTINGS).folder
    for changes in ({"cam": "layercam"}, {"layer": "body"}, {"classes": "predicted"}, {"batch_size": 3}):
        assert Measurement(pictures, judge, replace(SETTINGS, **changes)).folder != base
    assert Measurement(pictures, tiny_judge(module=tiny(seed=1)), SETTINGS).folder != base
    assert Measurement(pictures_of(image_set(per_class=5)), judge, SETTINGS).folder != base
    for changes in ({"maps": "layer"}, {"thresholds": (0.3,)}, {"seed": 1}, {"workers": 3}):
        assert Measurement(pictures, judge, replace(SETTINGS, **changes)).folder == base
    noisy = replace(SETTINGS, cam="smooth_gradcam_pp")
    assert Measurement(pictures, judge, noisy).folder != Measurement(pictures, judge, replace(noisy, seed=1)).folder


def test_splits_and_numbers_of_images() -> None:
    data = image_set(per_class=6, val=1, test=2)
    sizes = {split: len(choose(data, replace(SETTINGS, split=split))) for split in ("train", "test", "all")}
    assert sizes == {"train": 21, "test": 6, "all": 27}
    few = choose(data, replace(SETTINGS, split="all", per_class=4))
    assert np.bincount(few.labels).tolist() == [4, 4, 4]
    expected = [(data.train, data.val, data.test)[part].images()[at] for part, at in zip(few.part, few.position, strict=True)]
    assert torch.equal(few.images(np.arange(12)), torch.stack(expected))


def test_an_empty_split_is_refused() -> None:
    data = image_set()
    empty = data.test.take(np.arange(0))
    with pytest.raises(UsageError, match="--split: 'test' holds no image of 'random'"):
        found(replace(data, test=empty), split="test")
    assert len(found(replace(data, test=empty, val=empty), split="all").images.blank) == 18


class Flat(nn.Module):
    """Says the same of every image, so that maps are zero, or nothing that is finite where the first pixel is black."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits = 0 * self.head(self.body(x).mean((2, 3)))
        return torch.where(x[:, 0, 0, :1] == 0, torch.nan, logits)


def test_blank_maps_count_as_100_and_are_said() -> None:
    judge = tiny_judge(module=Flat().eval().requires_grad_(False))
    data = image_set()
    storage = data.train.storage.copy()
    storage[:, 0, 0, 0] = 1
    storage[[0, 5], 0, 0, 0] = 0
    data = replace(data, train=whole(storage, data.train.labels), val=data.val.take(np.arange(0)))
    heard = Heard()
    result = measure_complexity(replace(SETTINGS, layer="body"), workspace_of(data), network=judge, progress=heard)
    assert result is not None
    assert result.results.not_finite == 2
    assert result.results.blank == 16
    assert result.results.complexity == 100
    assert result.results.without_blank is None
    assert np.isnan(result.images.complexity[[0, 5]]).all()
    assert len(heard.said) == 2 and "16 maps" in heard.said[0] and "not finite for 2 images" in heard.said[1]
    assert all(len(index) == 0 for index in extremes(result.images, 5))
    storage[:, 0, 0, 0] = 0
    data = replace(data, train=whole(storage, data.train.labels), fingerprint="other")
    with pytest.raises(Failure, match="finite for none of the 18 images"):
        measure_complexity(replace(SETTINGS, layer="body"), workspace_of(data), network=judge)


def test_one_class_one_image_one_channel(tmp_path: Path) -> None:
    data = image_set(per_class=1, names=("only",), channels=1, val=0, test=0)
    judge = tiny_judge(names=("only", "other"))
    settings = replace(SETTINGS, maps="layer")
    result = measure_complexity(settings, workspace_of(data), tmp_path, network=judge)
    assert result is not None
    assert result.results.spread.std is None
    assert result.results.reliability is None
    assert (tmp_path / "images.csv").read_text().count("\n") == 2
    colour = torch.cat([data.train.images()] * 3, 1)
    assert torch.equal(judge.prepare(data.train.images()), judge.prepare(colour))


def test_grey_network_and_other_sizes() -> None:
    judge = tiny_judge(channels=1, size=4)
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255
    assert judge.prepare(red).shape == (1, 1, 4, 4)
    torch.testing.assert_close(judge.prepare(red), torch.full((1, 1, 4, 4), 0.299))


def test_unknown_classes_need_predicted_ones() -> None:
    with pytest.raises(UsageError, match="'true' is not possible, the 3 classes of tiny lack 'a' and 1 more; predicted"):
        found(network=tiny_judge(names=("x", "b", "z")))
    result = found(network=tiny_judge(names=("x", "b", "z")), classes="predicted")
    assert result.results.accuracy is None
    assert np.array_equal(result.images.target, result.images.predicted)


def test_unknown_layer_is_one_line_that_lists_them() -> None:
    with pytest.raises(UsageError, match=r"^--layer: 'layer4' is not last or, joined by \+, some of .*pool.*$") as raised:
        found(layer="layer4")
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="--layer: 'head'"):
        found(layer="head")


def test_extremes_are_ordered() -> None:
    result = found()
    easy, hard = extremes(result.images, 5)
    assert result.images.blank.any()
    values, seen = result.images.complexity[:, 0], result.images.complexity[~result.images.blank, 0]
    assert values[easy].tolist() == sorted(seen)[:5]
    assert values[hard].tolist() == sorted(seen, reverse=True)[:5]


def test_reliability_tells_classes_that_differ_from_those_that_do_not() -> None:
    names = tuple("abcdefgh")
    result = found(image_set(per_class=30, names=names, val=0), network=tiny_judge(names))
    table, rng = result.images, np.random.default_rng(0)
    labels = result.measurement.pictures.labels
    noise = rng.normal(size=table.complexity.shape)
    differing = replace(table, complexity=50 + 5 * labels[:, None] + noise)
    alike = replace(table, complexity=50 + noise)
    assert reliability(result.measurement, differing) == pytest.approx(1, abs=0.01)
    assert reliability(result.measurement, alike) < 0.8
    # The variance of class means over 30 images each, 1/30 by chance and 1/30 real: half of the differences would come again.
    drawn = [
        reliability(
            result.measurement,
            replace(table, complexity=(draw.normal(0, 30**-0.5, 8)[labels] + draw.normal(size=len(labels)))[:, None]),
        )
        for draw in map(np.random.default_rng, range(40))
    ]
    assert np.median(drawn) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thresholds": ()}, "--threshold"),
        ({"thresholds": (0.5, 0.5)}, "--threshold"),
        ({"thresholds": (1.1,)}, "--threshold: [1.1] is not one number or more in (0, 1]"),
        ({"cam": "scorecam"}, "--cam: 'scorecam' is not one of gradcam, smooth_gradcam_pp, layercam"),
        ({"maps": "both"}, "--maps"),
        ({"per_class": 0}, "--per-class: 0 is not at least 1"),
        ({"size": 4}, "--size"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        ComplexitySettings(**changes)
    assert said in str(raised.value)

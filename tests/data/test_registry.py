from pathlib import Path

import numpy as np
import pytest

from limbeck.data.registry import find_subset, imagenet_classes, known_names, subsets, wnids
from limbeck.runtime.errors import UsageError

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "imagenet_samples_1000.npz"
OLDER = ["imagenette", "imagewoof", "imagemeow", "imagesquawk", "imagefruit", "imageyellow"]
CATEGORIES = ["bird", "dog", "car", "snake", "insect", "fish", "round", "music"]


def test_the_thousand_classes() -> None:
    assert len(set(wnids())) == 1000
    assert list(wnids()) == sorted(wnids())
    assert (wnids()[0], wnids()[1], wnids()[217], wnids()[999]) == ("n01440764", "n01443537", "n02102040", "n15075141")


def test_the_thousand_classes_are_those_of_the_samples() -> None:
    if not SAMPLES.exists():
        pytest.skip("imagenet_samples_1000.npz is not beside the repository")
    assert np.load(SAMPLES)["classes"].tolist() == list(wnids())


def test_there_are_twenty_three_lists() -> None:
    comp_dd = [f"comp-dd/{category}-{level}" for category in CATEGORIES for level in ("hard", "easy")]
    assert list(subsets()) == [*comp_dd, *OLDER, "in1k-cifar10"]
    for subset in subsets().values():
        assert len(subset.published) == 10
        assert all(wnids()[entry.index] == entry.wnid for entry in subset.published)
        assert "arXiv:" in subset.provenance or "github.com" in subset.provenance


def test_no_class_is_both_easy_and_hard() -> None:
    comp_dd = [subset for name, subset in subsets().items() if name.startswith("comp-dd/")]
    assert sum(len(subset.classes) for subset in comp_dd) == len({entry for subset in comp_dd for entry in subset.classes}) == 159


def test_music_hard_is_as_published_and_has_nine_classes() -> None:
    subset = find_subset("music-hard")
    assert [entry.index for entry in subset.published] == [420, 594, 420, 579, 402, 776, 486, 401, 546, 558]
    assert [entry.index for entry in subset.classes] == [420, 594, 579, 402, 776, 486, 401, 546, 558]
    assert "banjo (420) twice: nine distinct classes" in subset.note
    assert [name for name, other in subsets().items() if other.note or len(other.classes) != 10] == ["comp-dd/music-hard"]


def test_known_names() -> None:
    assert imagenet_classes()[0].name == "tench"
    unknown = [entry for entry in imagenet_classes() if entry.name == entry.wnid]
    assert len(unknown) == 1000 - len(known_names()) == 788
    assert len({entry.name for entry in imagenet_classes()}) == 1000


@pytest.mark.parametrize("name", ["comp-dd/bird-easy", "bird-easy", "Bird-Easy", "COMP-DD/bird-easy"])
def test_lists_are_found_with_and_without_their_folder(name: str) -> None:
    assert find_subset(name) is subsets()["comp-dd/bird-easy"]


def test_an_unknown_list() -> None:
    with pytest.raises(UsageError) as caught:
        find_subset("imagenete")
    assert str(caught.value).startswith("data.source: 'imagenete' is none of ImageNet's published subsets, which are bird-hard, ")
    assert str(caught.value).endswith("in1k-cifar10; did you mean imagenette?")


def test_the_documentation_lists_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for name in subsets():
        assert f"`{name.removeprefix('comp-dd/')}`" in text
    assert "**`music-hard` has nine classes.**" in text

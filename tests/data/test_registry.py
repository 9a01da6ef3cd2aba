import json
from pathlib import Path

import numpy as np
import pytest

from limbeck.cli.main import main
from limbeck.data.registry import find_subset, imagenet_classes, known_names, names, subsets, wnids, words_of
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


def test_names_are_those_of_the_samples() -> None:
    if not SAMPLES.exists():
        pytest.skip("imagenet_samples_1000.npz is not beside the repository")
    held = np.load(SAMPLES)
    assert {wnid: words[0] for wnid, words in names().items()} == dict(zip(held["classes"], held["class_names"], strict=True))


def test_names() -> None:
    assert tuple(names()) == wnids()
    assert [entry.name for entry in imagenet_classes()[:2]] == ["tench", "goldfish"]
    assert {words_of(wnids()[k]) for k in (134, 517)} == {("crane",)}
    assert words_of(wnids()[744]) == ("projectile", "missile")
    assert words_of("cat") == ()


def test_a_class_whose_name_could_be_anothers_goes_by_its_wordnet_id() -> None:
    nameless = [entry.index for entry in imagenet_classes() if entry.name == entry.wnid]
    assert nameless == [86, 124, 134, 264, 358, 474, 517, 577, 594, 638, 639, 657, 876]
    assert len({entry.name.casefold() for entry in imagenet_classes()}) == 1000


def test_published_names_stay_as_they_are() -> None:
    """Of the ambiguous names two are published: each is its class's in the list, where no other is of that name."""
    published = {entry for subset in subsets().values() for entry in subset.classes}
    assert len(published) == 212
    assert all(known_names()[entry.wnid] == entry.name for entry in published)
    assert {entry.name for entry in published if imagenet_classes()[entry.index] != entry} == {"crane", "harp"}
    assert len({name.casefold() for name in known_names().values()}) == len(known_names()) == 1000 - 13 + 2


def test_numbers_of_images() -> None:
    subset = find_subset("imagefruit")
    assert (subset.val_images, subset.train_images) == (500, (7320, 13000))
    assert find_subset("music-hard").val_images == 450


@pytest.mark.parametrize("name", ["comp-dd/bird-easy", "bird-easy", "Bird-Easy", "COMP-DD/bird-easy"])
def test_lists_are_found_with_and_without_their_folder(name: str) -> None:
    assert find_subset(name) is subsets()["comp-dd/bird-easy"]


def test_an_unknown_list() -> None:
    with pytest.raises(UsageError) as caught:
        find_subset("imagenete")
    assert str(caught.value).startswith("data.source: 'imagenete' is none of ImageNet's published subsets, which are bird-hard, ")
    assert str(caught.value).endswith("in1k-cifar10; did you mean imagenette?")


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--subsets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(subsets())
    (music,) = (line for line in lines if line.startswith("comp-dd/music-hard "))
    assert "9 classes, 6588 to 11700 training and 450 validation images; Comp-DD: Wang et al." in music
    assert "published with banjo (420) twice" in music
    assert main(["recipes", "--subsets", "--json"]) == 0
    held = json.loads(capsys.readouterr().out)["subsets"]["imagefruit"]
    assert (held["val_images"], held["classes"][0]) == (500, {"wnid": "n07753275", "index": 953, "name": "pineapple"})
    assert main(["recipes", "--subsets", "scenes"]) == 2
    assert main(["recipes", "import", "x.yaml", "--subsets"]) == 2


def test_the_documentation_lists_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for name in subsets():
        assert f"`{name.removeprefix('comp-dd/')}`" in text
    assert "**`music-hard` has nine classes.**" in text

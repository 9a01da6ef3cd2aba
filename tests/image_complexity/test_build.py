"""Categories in every form, easy and hard subsets, and the settings that a benchmark's name stands for."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_complexity.material import image_set, tiny_judge, workspace_of

from limbeck.data.benchmarks import innermost, load_benchmark
from limbeck.data.load import load_data
from limbeck.data.registry import find_subset, imagenet_classes, wnids
from limbeck.data.settings import DataSettings
from limbeck.image_complexity.build import build_benchmark, categories, split
from limbeck.image_complexity.run import Complexity, measure_complexity
from limbeck.image_complexity.settings import BuildSettings, ComplexitySettings
from limbeck.recipes import settings_from_plain
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import encodable

NAMES = ("robin", "n01443537", "7", "tench", "violin", "n02085620", "n02113978", "wolf")


def no_features() -> np.ndarray:
    raise AssertionError("only clustering asks for features")


def found(names: tuple[str, ...], values: list[float]) -> Complexity:
    """A measurement of one image of each class whose complexities are then what the test wants."""
    data = image_set(per_class=1, names=names, val=0)
    settings = ComplexitySettings(layer="pool", workers=1)
    result = measure_complexity(settings, workspace_of(data), network=tiny_judge(names))
    assert result is not None
    column = np.array(values)[result.measurement.pictures.labels]
    return replace(result, images=replace(result.images, complexity=np.stack([column, column, column], 1)))


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_names_classes_in_every_way(suffix: str, tmp_path: Path) -> None:
    held = {"fish": ["goldfish", "tench", 0], "seven": ["7", 7]}
    path = tmp_path / f"groups{suffix}"
    path.write_text(json.dumps(held))  # JSON is YAML
    assert categories(str(path), NAMES, no_features) == {"fish": [0, 1, 3], "seven": [2, 7]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "holds no mapping"),
        ("a: 3", "'a' in "),
        ("a: []", "is no list of classes"),
        ("a: [yes]", "is no list of classes"),
        ("a: [robin, vioin]", "--categories: in 'a', 'vioin' is not a class of 'the source'; did you mean 'violin'?"),
        ("a: [99]", "99 is not an index of the 8 classes"),
        ("a: [", "cannot be read"),
    ],
)
def test_files_that_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "groups.yaml").write_text(text)
    with pytest.raises(UsageError) as raised:
        categories(str(tmp_path / "groups.yaml"), NAMES, no_features)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_prefixes_and_ranges_of_wordnet_ids() -> None:
    dogs = categories("wordnet:dog=n02085-n02113:fish=n014:n015", [*wnids()], no_features)
    assert list(dogs) == ["dog", "fish", "n015"]
    assert dogs["dog"] == list(range(151, 269))  # from Chihuahua to Mexican hairless
    assert dogs["fish"][:3] == [0, 1, 2]
    assert categories("wordnet:fish=n014:v=vio", NAMES, no_features) == {"fish": [1, 3], "v": [4]}
    for wrong in ("wordnet:", "wordnet:x=", "wordnet:x=n9", "wordnet:=n014", "wordnet:a=n01:a=n02"):
        with pytest.raises(UsageError, match="--categories: "):
            categories(wrong, NAMES, no_features)


def test_published_categories() -> None:
    names = tuple(entry.name for entry in imagenet_classes())
    known = categories("comp-dd", names, no_features)
    assert len(known) == 8
    assert {name: len(members) for name, members in known.items()} == {name: 19 if name == "music" else 20 for name in known}
    expected = {entry.index for level in ("easy", "hard") for entry in find_subset(f"bird-{level}").classes}
    assert set(known["bird"]) == expected
    with pytest.raises(UsageError, match="needs the classes of ImageNet"):
        categories("comp-dd", NAMES, no_features)


def test_clusters_are_those_of_the_features() -> None:
    rng = np.random.default_rng(0)
    truth = rng.permutation([0] * 5 + [1] * 4 + [2] * 3)
    features = np.eye(3)[truth] * 4 + 0.1 * rng.normal(size=(12, 3))
    features[7] = np.nan
    expected = [[k for k in range(12) if truth[k] == group and k != 7] for group in range(3)]
    got = categories("cluster:3", [str(k) for k in range(12)], lambda: features)
    assert sorted(got.values()) == sorted(expected)
    assert [len(members) for members in got.values()] == sorted(map(len, expected), reverse=True)
    assert categories("cluster:1", [], lambda: features)["cluster-1"] == [k for k in range(12) if k != 7]
    for wrong in ("cluster:0", "cluster:12", "cluster:x", "nothing.yaml"):
        with pytest.raises(UsageError, match="--categories: "):
            categories(wrong, [str(k) for k in range(12)], lambda: features)


def test_split_takes_the_ends() -> None:
    values = np.array([5.0, 1.0, 1.0, 9.0, 7.0, 9.0, 3.0])
    assert split(values, [0, 1, 2, 3, 4, 5, 6], 2) == ([1, 2], [3, 5])
    assert split(np.zeros(6), [0, 2, 3, 5], 2) == ([0, 2], [3, 5])


def test_a_benchmark_is_written_and_taken_by_name(tmp_path: Path) -> None:
    names = tuple("0123456789")
    result = found(names, [float(10 * k % 70) + k for k in range(9)] + [float("nan")])
    groups = {"low": [0, 1, 2, 3, 4], "high": [4, 5, 6, 7, 8, 9], "few": [0, 1]}
    source = DataSettings(source="scenes:medium", per_class=20, seed=3, size=16)
    settings = BuildSettings(categories="x", classes_per_subset=2, least=4)
    record = build_benchmark(result, groups, source, tmp_path, settings)
    assert record.left_out == {"few": 2}
    assert list(record.subsets) == ["low-easy", "low-hard", "high-easy", "high-hard"]
    by_name = {name: [entry.index for entry in subset.classes] for name, subset in record.subsets.items()}
    # Complexities of the classes 0 … 8: 0, 11, 22, 33, 44, 55, 66, 7, 18; class 9 has none.
    assert by_name == {"low-easy": [0, 1], "low-hard": [3, 4], "high-easy": [7, 8], "high-hard": [5, 6]}
    assert record.subsets["low-hard"].complexity == 38.5
    card = (tmp_path / "README.md").read_text()
    assert "| `high-easy` | 12.5 % | 7, 8 |" in card
    assert f"benchmark:{tmp_path}:low-easy" in card
    assert "few (2)" in card

    inner = load_benchmark(DataSettings(source=f"benchmark:{tmp_path}:high-easy", per_class=12))
    assert inner == DataSettings(source="scenes:medium", classes=("7", "8"), per_class=12, seed=3, size=16)
    data = load_data(inner)
    assert data.class_names == ("7", "8")
    assert data.shape == (3, 16, 16)
    chosen = DataSettings(source=f"benchmark:{tmp_path}:low-hard", classes=("4", 0), size=32, crop="centre", seed=1)
    assert load_benchmark(chosen) == DataSettings(source="scenes:medium", classes=("4", "3"), size=32, crop="centre", seed=1)

    file = tmp_path / "benchmark.json"
    file.write_text(file.read_text().replace('"name": "7"', '"name": "6"'))
    with pytest.raises(UsageError, match="cannot be read: it has changed since it was written"):
        load_benchmark(DataSettings(source=f"benchmark:{tmp_path}:high-easy"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("benchmark:{at}:low-hrd", "has no 'low-hrd', but low-easy, low-hard; did you mean low-hard?"),
        ("benchmark:{at}", "does not say which subset; benchmark:{at}:NAME with one of low-easy, low-hard is accepted"),
        ("benchmark:{at}/none:x", "there is no '{at}/none/benchmark.json'"),
        ("benchmark:low", "is not of the form benchmark:FOLDER:NAME"),
    ],
)
def test_names_that_are_none(source: str, said: str, tmp_path: Path) -> None:
    settings = BuildSettings(categories="x", classes_per_subset=2, least=4)
    build_benchmark(found(("a", "b", "c", "d"), [1, 2, 3, 4]), {"low": [0, 1, 2, 3]}, DataSettings(), tmp_path, settings)
    with pytest.raises(UsageError) as raised:
        load_benchmark(DataSettings(source=source.format(at=tmp_path)))
    assert said.format(at=tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"format": 2}', '{"format": 1, "source": {"size": 3}, "subsets": {}}', '{"format": 1}']
)
def test_a_broken_benchmark_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text(content)
    with pytest.raises(UsageError, match=r"^data.source: the benchmark '.*' cannot be read: ") as raised:
        load_benchmark(DataSettings(source=f"benchmark:{tmp_path}:x"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("groups", "changes", "said"),
    [
        ({"few": [0, 1, 2]}, {}, "none has the 4 classes that are needed (few has 3); --least and --classes-per-subset"),
        ({"all": [0, 1, 2, 3]}, {"least": 20}, "none has the 20 classes"),
        ({"a:b": [0, 1, 2, 3]}, {}, "a name without colons and slashes"),
        ({"": [0, 1, 2, 3]}, {}, "a name without colons and slashes"),
    ],
)
def test_groups_that_make_no_benchmark(groups: Any, changes: dict[str, int], said: str, tmp_path: Path) -> None:
    settings = BuildSettings(**{"categories": "x", "classes_per_subset": 2, "least": 2, **changes})
    with pytest.raises(UsageError) as raised:
        build_benchmark(found(("a", "b", "c", "d"), [1, 2, 3, 4]), groups, DataSettings(), tmp_path, settings)
    assert said in str(raised.value)
    assert not (tmp_path / "benchmark.json").exists()


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    result = found(("a", "b", "c", "d"), [1, 2, 3, 4])
    settings = BuildSettings(categories="x", classes_per_subset=2, least=4)
    build_benchmark(result, {"all": [0, 1, 2, 3]}, DataSettings(source="photos", root="net"), Path("made"), settings)
    inner = load_benchmark(DataSettings(source="benchmark:made:all-easy"))
    assert (inner.source, inner.root) == (str(tmp_path / "photos"), str(tmp_path / "net"))


def test_the_name_of_code_is_kept_and_asked_for_where_the_benchmark_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, settings = tuple("abcd"), BuildSettings(categories="x", classes_per_subset=2, least=2)
    result = found(names, [1.0, 2.0, 3.0, 4.0])
    record = build_benchmark(result, {"all": range(4)}, DataSettings(source="my.data:photos"), tmp_path / "made", settings)
    assert record.source.source == "my.data:photos"
    with pytest.raises(UsageError, match="which is code; data.source=my.data:photos takes it"):
        load_benchmark(DataSettings(source=f"benchmark:{tmp_path / 'made'}:all-easy"))
    (tmp_path / "my.data:photos").mkdir()
    record = build_benchmark(result, {"all": range(4)}, DataSettings(source="my.data:photos"), tmp_path / "made", settings)
    assert record.source.source == str(tmp_path / "my.data:photos")


def test_what_lies_inside_other_names_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p1", "scenes"):
        Path(name).mkdir()
    result = found(("a", "b", "c", "d"), [1, 2, 3, 4])
    settings = BuildSettings(categories="x", classes_per_subset=2, least=4)

    def kept(source: str, root: str | None = None) -> tuple[str, str | None]:
        build_benchmark(result, {"all": [0, 1, 2, 3]}, DataSettings(source=source, root=root), Path("made"), settings)
        inner = load_benchmark(DataSettings(source="benchmark:made:all-easy"))
        return inner.source, inner.root

    assert kept("hf:p1", "hf:p1") == (f"hf:{tmp_path}/p1", f"hf:{tmp_path}/p1")
    assert kept("hf:name/there", "hf:name/there") == ("hf:name/there", "hf:name/there")
    assert kept("benchmark:../o1:all-hard")[0] == f"benchmark:{tmp_path}/../o1:all-hard"
    assert kept("hf:p1:config")[0] == f"hf:{tmp_path}/p1:config"
    assert kept("s3://bucket/p1", "s3://bucket/net") == ("s3://bucket/p1", "s3://bucket/net")
    assert kept("benchmark:s3://bucket/o1:all-hard")[0] == "benchmark:s3://bucket/o1:all-hard"
    assert kept("scenes")[0] == "scenes"  # names go first
    card = Path("made/README.md").read_text()
    assert f"--data benchmark:{tmp_path}/made:all-easy\n" in card


def test_a_card_is_a_table_whatever_classes_are_called(tmp_path: Path) -> None:
    names = ("a|b", "two\nlines", "c", "d")
    settings = BuildSettings(categories="x", classes_per_subset=2, least=4)
    build_benchmark(found(names, [1, 2, 3, 4]), {"all": [0, 1, 2, 3]}, DataSettings(), tmp_path / "it's", settings)
    card = (tmp_path / "it's" / "README.md").read_text()
    assert "| `all-easy` | 1.5 % | a\\|b, two lines |" in card
    words = shlex.split(next(line for line in card.splitlines() if line.startswith("limbeck distill")))
    assert words[-1] == f"benchmark:{tmp_path}/it's:all-easy"


def write_benchmark(folder: Path, **source: Any) -> str:
    folder.mkdir()
    subsets = {"few-easy": {"classes": [{"name": "7"}, {"name": "2"}]}}
    (folder / "benchmark.json").write_text(json.dumps({"format": 1, "source": source, "subsets": subsets}))
    return f"benchmark:{folder}:few-easy"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, {}),
        ({"data.seed": "0"}, {"seed": 0}),
        ({"data.seed": "5"}, {"seed": 5}),
        ({"data.skip_bad": "false"}, {"skip_bad": False}),
        ({"data.crop": "squash"}, {"crop": "squash"}),
        ({"data.size": "null"}, {"size": None}),
        ({"data.size": "32"}, {"size": 32}),
        ({"data.seed": "0", "data.size": "32"}, {"seed": 0, "size": 32}),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_whatever_is_given_says_otherwise(words: dict[str, str], expected: dict[str, Any], nested: bool, tmp_path: Path) -> None:
    stored = {"source": "scenes:easy", "size": 16, "crop": "centre", "skip_bad": True, "seed": 3}
    source = write_benchmark(tmp_path / "one", **stored)
    if nested:
        source = write_benchmark(tmp_path / "two", **{**stored, "source": source})
    settings = settings_from_plain({}, {"data.source": source, **words})
    assert innermost(settings.data) == DataSettings(**{**stored, "classes": ("7", "2"), **expected})
    assert settings_from_plain(encodable(settings)) == settings  # as a run that goes on reads them
    # Where it can, the name stays.
    assert (settings.data.source == source) == all(value not in (0, False, None, "squash") for value in expected.values())


def test_a_crop_without_a_size_counts(tmp_path: Path) -> None:
    source = write_benchmark(tmp_path / "one", source="scenes:easy", size=16)
    inner = load_benchmark(DataSettings(source=source, crop="centre"))
    assert (inner.size, inner.crop) == (16, "centre")


def test_a_benchmark_that_is_not_there_is_refused_when_it_is_loaded() -> None:
    assert settings_from_plain({"data.source": "benchmark:gone:x"}).data == DataSettings(source="benchmark:gone:x")


def test_the_images_of_a_subset_are_those_of_its_classes(tmp_path: Path) -> None:
    record = {
        "format": 1,
        "source": {"source": "scenes:easy", "size": 16, "per_class": None, "seed": 3},
        "subsets": {"few-easy": {"classes": [{"name": "7"}, {"name": "2"}]}},
    }
    (tmp_path / "benchmark.json").write_text(json.dumps(record))
    source = f"benchmark:{tmp_path}:few-easy"
    found = load_data(DataSettings(source=source, per_class=6))
    plain = load_data(DataSettings(source="scenes:easy", size=16, per_class=6, seed=3, classes=("7", "2")))
    assert (found.class_names, found.source) == (("7", "2"), source)
    assert (found.test.images() == plain.test.images()).all()
    assert found.fingerprint == plain.fingerprint

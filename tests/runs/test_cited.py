"""What a run owes to whom: every method and protocol has its papers, parts that are switched off have none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from distilled.samples import sample_set

from limbeck.cli.main import main
from limbeck.data.registry import subsets
from limbeck.evaluation.protocols import PROTOCOLS
from limbeck.methods.registry import METHODS
from limbeck.recipes import load_recipe
from limbeck.runs import cited
from limbeck.runs.cited import data_of, entries, references_of
from limbeck.runs.folder import SETTINGS
from limbeck.runs.settings import DistillSettings, key_types
from limbeck.runtime.files import write_json
from limbeck.runtime.fingerprint import encodable
from limbeck.runtime.version import VERSION

ROOT = Path(__file__).parents[2]


def why(**keys: Any) -> dict[str, tuple[str, ...]]:
    """The keys of the entries with what they stand for, of those settings over the scenes' recipe."""
    given = {name.replace("__", "."): str(value) for name, value in keys.items()}
    return {one.key: one.why for one in references_of(load_recipe("scenes", given))}


def test_the_tables_are_whole() -> None:
    assert cited.METHODS.keys() == METHODS.keys()
    assert cited.PROTOCOLS.keys() == PROTOCOLS.keys()
    assert [name for name, keys in cited.METHODS.items() if not keys] == ["random"]
    assert cited.VALUES.keys() <= key_types().keys()
    tables = [*cited.VALUES.values(), cited.SOURCES]
    named = {key for table in tables for keys in table.values() for key in keys}
    named |= {"limbeck", "torchcam", "zhao2021dsa", cited.FADRM}  # which no value of a key stands for alone
    assert named == entries().keys()


def test_entries_are_bibtex() -> None:
    text = cited.BIBLIOGRAPHY.read_text(encoding="utf-8")
    assert "\n\n".join(entries().values()) + "\n" == text, "nothing is left over"
    for key, entry in entries().items():
        fields = dict(re.findall(r"^  (\w+) *= \{(.*)\},?$", entry, re.MULTILINE))
        assert {"title", "author"} < fields.keys() and ("year" in fields or key == "limbeck"), key
        assert all(value.count("{") == value.count("}") for value in fields.values()), key
        assert re.fullmatch(r"\d{4}\.\d{5}", fields.get("eprint", "0000.00000")), key


def test_papers_of_the_registry_are_there() -> None:
    """What the registry's table of compositions names, the entries name too."""
    from limbeck.methods import registry

    named = set(re.findall(r"arXiv:(\d{4}\.\d{5})", registry.__doc__ or ""))
    assert named and named <= set(re.findall(r"eprint += \{([\d.]+)\}", cited.BIBLIOGRAPHY.read_text(encoding="utf-8")))


def test_what_a_run_used() -> None:
    found = why()
    assert next(iter(found)) == "limbeck"
    assert "method=edf" in found["wang2025edf"] and "enhance.weighting=activation" in found["wang2025edf"]
    assert found["selvaraju2017gradcam"] == ("enhance.cam=gradcam",) and "torchcam" in found
    assert found["guo2024datm"] == ("init=correct", "schedule.kind=sequential")
    assert found["pedregosa2011sklearn"] == ("data.source=scenes:easy",)
    assert "match.criterion=loss" not in found["wang2025edf"], "nothing is dropped of one image per class"
    assert "match.criterion=loss" in why(match__drop_ratio=0.25)["wang2025edf"]


def test_what_is_off_or_not_read_is_not_cited() -> None:
    assert not {"selvaraju2017gradcam", "torchcam", "guo2024datm", "wang2025edf"} & why(method="dm").keys()
    assert why(method="dm")["zhao2023dm"] == ("method=dm",)
    assert "zhao2021dsa" not in why(augment__strategy="none")
    assert why(method="random").keys() == {"limbeck", "cazenavette2022mtt", "zhao2021dsa", *data_of("scenes")}
    assert why(method="ftd", **{"eval.baselines": "herding"})["welling2009herding"] == ("eval.baselines=herding",)
    assert why(method="ftd")["zhuang2022gsam"] == ("experts.optimiser=gsam",)
    assert "yin2023cda" in why(method="cda") and "sre2l.stages=4" in why(method="fadrm")["cui2025fadrm"]


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("data/cifar-10-batches-py", "krizhevsky2009cifar"),
        ("hf:uoft-cs/cifar100", "krizhevsky2009cifar"),
        ("imagenet:imagenette", "howard2019imagenette"),
        ("imagenet:bird-easy", "wang2025edf"),
        ("/data/tiny-imagenet-200", "le2015tiny"),
        ("FashionMNIST/raw", "xiao2017fashion"),
        ("pathmnist.npz", "yang2023medmnist"),
        ("mnist", "lecun1998mnist"),
        ("hf:zalando-datasets/fashion_mnist", "xiao2017fashion"),
        ("hf:zh-plus/tiny_imagenet", "le2015tiny"),
        ("scenes:hard", "alpaydin1998digits"),
    ],
)
def test_data_sets_that_are_known(source: str, key: str) -> None:
    assert data_of(source)[0] == key
    assert data_of("photos/") == data_of("kmnist.npz") == data_of("/home/cifarelli/photos") == ()


def test_published_subsets_have_their_publisher() -> None:
    for name in subsets():
        assert data_of(f"imagenet:{name}")[-1] == cited.IMAGENET, name
        if "easy" in name or "hard" in name:
            assert data_of(f"imagenet:{name}")[0] == cited.EDF, name


def test_the_package_is_cited_as_its_own_file_says() -> None:
    said = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^ +(\w+) +=? *= \{(.*)\},?$", references_of(DistillSettings())[0].bibtex, re.MULTILINE))
    for name in ("title", "version"):
        assert re.search(rf'^{name}: "?(.*?)"?$', said, re.MULTILINE)[1] == fields[name]  # type: ignore[index]
    assert fields["version"] == VERSION and f"license: {fields['note']}" in said
    assert fields["author"] == "{The Limbeck authors}" and 'name: "The Limbeck authors"' in said


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_recipe("scenes", {"method": "datm", "data.source": "photos"})
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "settings.json", settings, SETTINGS)
    metadata = {"method": "edf", "settings": encodable(load_recipe("scenes")), "versions": {"limbeck": "0.1.0"}}
    sample_set(metadata=metadata).save(tmp_path / "set")
    assert main(["cite", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert f"version = {{{VERSION}}}" in out and "% method=datm\n" in out and "@inproceedings{guo2024datm," in out
    assert out.endswith("% data.source=photos: its references are not known to Limbeck, and are yours to add\n")
    assert main(["cite", str(tmp_path / "set"), str(tmp_path / "run"), "--json"]) == 0
    found = {one["key"]: one for one in json.loads(capsys.readouterr().out)["references"]}
    assert "version = {0.1.0}" in found["limbeck"]["bibtex"], "of the one that made it"
    assert {"wang2025edf", "guo2024datm", "alpaydin1998digits"} < found.keys()
    assert "method=datm" in found["guo2024datm"]["why"]


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite", str(tmp_path)]) == 2
    assert "is neither a run folder nor a distilled set that says how it was made" in capsys.readouterr().err
    (tmp_path / "settings.json").write_text("{")
    assert main(["cite", str(tmp_path)]) == 2
    assert "settings.json" not in capsys.readouterr().out

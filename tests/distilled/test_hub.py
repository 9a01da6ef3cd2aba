"""Pushing and pulling against a stand-in of the Hub: the same bits, whole or not at all, in words that hold no token."""

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from distilled.samples import changed, sample_set, summary
from hubs import OTHERS, TOKEN, Hub, serving, set_environment
from PIL import Image

import limbeck
from limbeck.cli.main import main
from limbeck.distilled import hub as ours
from limbeck.distilled.hub import pull, push
from limbeck.distilled.preview import quantise
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.errors import Failure, UsageError

METADATA = {
    "method": "edf",
    "settings": {"data": {"source": "/home/somebody/pets", "root": None}, "network": "ConvNetD3-w32", "ipc": 2},
    "evaluation": {"accuracy": {"distilled": summary(0.37)}, "protocol": {"name": "dd", "version": 1, "epochs": 1000}},
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as found:
        set_environment(monkeypatch, found, tmp_path)
        yield found


def assert_same(a: DistilledSet, b: DistilledSet) -> None:
    for name in ("images", "labels", "classes"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.syn_lr, a.label_kind, a.class_names) == (b.syn_lr, b.label_kind, b.class_names)
    assert a.preprocessing.kind == b.preprocessing.kind
    held = a.preprocessing.tensors()
    assert all(torch.equal(held[name], tensor) for name, tensor in b.preprocessing.tensors().items())


def head_of(card: bytes) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(re.split("^---$", card.decode(), maxsplit=2, flags=re.MULTILINE)[1])
    return found


@pytest.mark.parametrize("preprocessing", ["identity", "normalise", "whiten"])
def test_what_is_pulled_has_the_same_bits(preprocessing: str, hub: Hub, tmp_path: Path) -> None:
    held = sample_set(preprocessing=preprocessing, hard=preprocessing == "identity", shape=(3, 4, 5), metadata=METADATA)
    address = push(held, "me/pets")
    assert address == f"{hub.endpoint}/datasets/me/pets/commit/{hub.repositories['me/pets'].branches['main']}"
    found = limbeck.pull("me/pets", tmp_path / "pets")
    assert_same(found, held)
    assert {path.name for path in (tmp_path / "pets").iterdir()} == {
        "distilled.safetensors",
        "metadata.json",
        "README.md",
        "preview.png",
        "data",
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # nothing passing is left


def test_the_rows_are_those_of_the_set(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pulled folder as `datasets` reads it, without network."""
    datasets = pytest.importorskip("datasets")
    held = sample_set(names=("owl", "mole", "owl"), metadata=METADATA)
    push(held, "me/pets")
    pull("me/pets", tmp_path / "pets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    rows = datasets.load_dataset(str(tmp_path / "pets"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["image", "label", "probabilities", "logits"]
    assert rows.features["label"].names == ["owl (0)", "mole", "owl (2)"] and type(rows.features["image"]).__name__ == "Image"
    assert rows["label"][:] == held.classes.tolist()
    assert torch.equal(torch.tensor(rows["logits"][:]), held.labels)
    assert torch.equal(torch.tensor(rows["probabilities"][:]), held.probabilities())
    levels = quantise(held.to_pixels())
    assert all(np.array_equal(np.asarray(image), level) for image, level in zip(rows["image"], levels, strict=True))


def test_grey_images_are_rows_too_and_others_are_refused(hub: Hub) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    grey = sample_set(shape=(1, 4, 4), hard=True)
    push(grey, "me/grey")
    table = parquet.read_table(io.BytesIO(hub.repositories["me/grey"].files["data/train-00000-of-00001.parquet"]))
    assert table.column_names == ["image", "label", "probabilities"]
    image = Image.open(io.BytesIO(table["image"][0].as_py()["bytes"]))
    assert np.array_equal(np.asarray(image), quantise(grey.to_pixels())[0, :, :, 0])
    with pytest.raises(UsageError, match="set: '2 channels' is not images of 1 or 3 channels"):
        push(sample_set(shape=(2, 4, 4)), "me/odd")
    assert "me/odd" not in hub.repositories


def test_the_card_says_what_the_hub_and_its_readers_want_to_know(hub: Hub, tmp_path: Path) -> None:
    push(sample_set(metadata=METADATA), "me/pets", licence="cc-by-4.0")
    card = hub.repositories["me/pets"].files["README.md"]
    head, text = head_of(card), card.decode()
    assert head["license"] == "cc-by-4.0" and "viewer" not in head
    assert head["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-00000-of-00001.parquet"}]}
    ]
    columns = {column["name"]: column for column in head["dataset_info"]["features"]}
    assert columns["label"]["dtype"]["class_label"]["names"] == {"0": "owl", "1": "mole", "2": "newt"}
    assert list(columns) == ["image", "label", "probabilities", "logits"] and columns["logits"]["sequence"] == "float32"
    for said in (
        "EDF (",
        "| Data it was distilled from | `pets` |",
        "2 per class",
        "under the protocol dd 1, 1000 epochs",
        "37.0 ±",
    ):
        assert said in text
    assert "load_dataset(" in text and "| Licence | cc-by-4.0 |" in text
    # A later evaluation is noted in the pulled set, whose card still says what its rows are.
    pull("me/pets", tmp_path / "pets")
    DistilledSet.append_evaluation(tmp_path / "pets", {"accuracy": {"distilled": summary(0.4)}})
    assert head_of((tmp_path / "pets" / "README.md").read_bytes()) == head


def test_the_licence_is_unknown_unless_given(hub: Hub) -> None:
    push(sample_set(), "me/a")
    push(sample_set(), "me/b", licence="as the photographs")
    assert [head_of(hub.repositories[f"me/{name}"].files["README.md"])["license"] for name in "ab"] == ["unknown", "other"]
    assert "| Licence | as the photographs |" in hub.repositories["me/b"].files["README.md"].decode()


def test_no_path_of_somebodys_machine_is_published(hub: Hub, tmp_path: Path) -> None:
    places = {"root": "~/photos", "store": "s3://our-bucket/store", "here": "./own/init.pt", "words": ["C:\\Users\\me\\x", "a/b"]}
    own = {"recipe": "acme/own.yaml", "init": "runs/secret/distilled"}
    push(sample_set(metadata={**METADATA, **own, "settings": {**METADATA["settings"], **places}}), "me/pets")  # type: ignore[dict-item]
    content = b"".join(hub.repositories["me/pets"].files.values())
    assert not [word for word in (b"/home", b"~/", b"bucket", b"Users", b"acme", b"secret") if word in content]
    said = pull("me/pets", tmp_path / "pets").metadata["settings"]
    assert [said[name] for name in places] == ["photos", "store", "init.pt", ["x", "a/b"]]
    assert said["data"]["source"] == "pets"


def test_no_path_is_published_in_the_name_of_a_network_either(hub: Hub, tmp_path: Path) -> None:
    named = "transformers:/home/me/secret/net"
    networks = {f"ConvNetD3,{named}, timm:resnet18": 1, named: {"accuracy": 0.5}, "my.module:Net": 2}
    push(sample_set(metadata={**METADATA, "evaluated": networks, "said": "read from a/b, as they say"}), "me/pets")
    assert b"secret" not in b"".join(hub.repositories["me/pets"].files.values())
    found = pull("me/pets", tmp_path / "pets").metadata
    assert list(found["evaluated"]) == ["ConvNetD3,transformers:net, timm:resnet18", "transformers:net", "my.module:Net"]
    assert found["said"] == "read from a/b, as they say"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("source", "clients/acme/xrays", "xrays"),
        ("source", "clients/acme", "acme"),
        ("source", "clients\\acme\\xrays.npz", "xrays.npz"),
        ("source", "benchmark:clients/acme:hard", "acme:hard"),
        ("data.source", "/home/jane,doe/x", "x"),
        ("source", "hf:ILSVRC/imagenet-1k:default", "hf:ILSVRC/imagenet-1k:default"),
        ("source", "hf:clients/acme/xrays", "xrays"),
        ("source", "hf:clients/xrays.parquet", "xrays.parquet"),
        ("source", "hf:here/it-is", "it-is"),
        ("source", "scenes:easy", "scenes:easy"),
        ("source", "own.module:Made(root='/home/jane/x', size=3)", "own.module:Made(…)"),
        ("root", "hf:ILSVRC/imagenet-1k", "hf:ILSVRC/imagenet-1k"),
        ("root", "photos/imagenet/", "imagenet"),
        ("init", "runs/secret/distilled", "distilled"),
        ("init", "correct", "correct"),
        ("init", "zoo:scenes-edf-ipc1", "zoo:scenes-edf-ipc1"),
        ("store", "runs/acme-experts", "acme-experts"),
        ("output", "runs/secret", "secret"),
        ("protocol", "clients/acme/mine.yaml", "mine.yaml"),
        ("recipe", "clients/acme/mine.yaml", "mine.yaml"),
        ("recipe", "cifar10/datm-ipc1", "cifar10/datm-ipc1"),
        ("network", "transformers:clients/acme/net,ConvNetD3", "transformers:net,ConvNetD3"),
        ("network", "transformers:/home/jane,doe/net, timm:resnet18", "transformers:net, timm:resnet18"),
        ("said", "/home/jane,doe/x", "x"),
        ("said", "/home/me/a,/home/me/b", "a,b"),
        ("said", "owner/name, owner/other", "owner/name, owner/other"),
    ],
)
def test_of_relative_paths_the_last_part_is_published_too(
    key: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "it-is").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ours.public({"settings": {key: [value]}}) == {"settings": {key: [said]}}


def test_a_refusal_leaves_no_branch_behind(hub: Hub) -> None:
    push(sample_set(), "me/pets")
    with pytest.raises(UsageError, match="holds another set"):
        push(sample_set(ipc=3), "me/pets", revision="three")
    assert list(hub.repositories["me/pets"].branches) == ["main"]


def test_another_set_is_replaced_only_where_that_is_asked(hub: Hub, tmp_path: Path) -> None:
    first = sample_set(metadata=METADATA)
    push(first, "me/pets")
    push(changed(first, metadata={**METADATA, "note": "the same tensors"}), "me/pets")  # no other set
    other = sample_set(ipc=3)
    with pytest.raises(UsageError, match="repo: 'me/pets' holds another set; --replace"):
        push(other, "me/pets")
    assert_same(pull("me/pets", tmp_path / "before"), first)
    hub.repositories["me/pets"].files.update({"views.safetensors": b"of the first", "notes.txt": b"mine"})
    push(other, "me/pets", replace_other=True)
    assert_same(pull("me/pets", tmp_path / "after"), other)
    files = hub.repositories["me/pets"].files
    assert "views.safetensors" not in files and files["notes.txt"] == b"mine"  # what is no part of a set is left


def test_what_is_no_set_is_not_written_over_either(hub: Hub) -> None:
    push(sample_set(), "me/mine")
    hub.repositories["me/mine"].commit("main", {"README.md": b"# Mine", ".gitattributes": b""})
    with pytest.raises(UsageError, match=r"repo: 'me/mine' holds something else \(README.md\); --replace"):
        push(sample_set(), "me/mine")
    assert hub.repositories["me/mine"].files["README.md"] == b"# Mine"


@pytest.mark.parametrize("place", ["/repos/create", "/lfs/", "/commit/"])
def test_a_push_that_breaks_off_leaves_what_was_there(
    place: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub tries again
    first, second = sample_set(), sample_set(ipc=3)
    push(first, "me/pets")
    before = hub.repositories["me/pets"].files
    for repo in ("me/pets", "me/new"):
        hub.breaks = place
        with pytest.raises(Failure, match=f"repo: '{repo}' cannot be pushed to: the Hub"):
            push(second, repo, replace_other=True)
        hub.breaks = None
    assert hub.repositories["me/pets"].files is before
    assert_same(pull("me/pets", tmp_path / "old"), first)
    if "me/new" in hub.repositories:
        with pytest.raises(UsageError, match="repo: 'me/new' is not a repository with a distilled set"):
            pull("me/new", tmp_path / "new")
    push(second, "me/new")  # the same again goes on
    assert_same(pull("me/new", tmp_path / "new"), second)


def test_who_pushes_meanwhile_is_not_overwritten(hub: Hub) -> None:
    push(sample_set(), "me/pets")
    theirs = {"distilled.safetensors": b"theirs", ".gitattributes": b""}

    def meanwhile(path: str) -> None:
        if "/preupload/" in path:
            hub.repositories["me/pets"].commit("main", theirs)

    hub.before = meanwhile
    with pytest.raises(Failure, match="somebody else has changed it meanwhile"):
        push(sample_set(ipc=3), "me/pets", replace_other=True)
    assert hub.repositories["me/pets"].files == theirs


def test_a_pull_leaves_a_whole_set_or_nothing(hub: Hub, tmp_path: Path) -> None:
    held = sample_set()
    push(held, "me/pets")
    files = hub.repositories["me/pets"].files
    whole = files["distilled.safetensors"]
    files["distilled.safetensors"] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(UsageError, match="repo: 'me/pets' cannot be pulled: 'me/pets' is not a sound distilled set") as told:
        pull("me/pets", tmp_path / "pets")
    assert str(tmp_path) not in str(told.value) and not (tmp_path / "pets").exists()
    files["distilled.safetensors"] = whole
    hub.breaks = "preview.png"
    with pytest.raises(Failure, match="repo: 'me/pets' cannot be pulled: the Hub"):
        pull("me/pets", tmp_path / "pets")
    hub.breaks = None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(UsageError, match="folder: .* is not a new or an empty folder"):
        pull("me/pets", tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert_same(pull("me/pets", tmp_path / "empty"), held)


def test_branches_commits_and_private_repositories(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sample_set(), sample_set(ipc=3)
    address = push(first, "me/pets", private=True)
    push(second, "me/pets", revision="three", replace_other=True)
    assert hub.repositories["me/pets"].private
    assert_same(pull("me/pets", tmp_path / "a"), first)
    assert_same(pull("me/pets", tmp_path / "b", revision="three"), second)
    push(second, "me/pets", replace_other=True)
    assert_same(pull("me/pets", tmp_path / "c", revision=address.rpartition("/")[2]), first)
    with pytest.raises(UsageError, match="it has no revision 'nine'"):
        pull("me/pets", tmp_path / "d", revision="nine")
    push(first, "me/open")
    with pytest.raises(UsageError, match="private: True is not possible with 'me/open', which is there and public"):
        push(first, "me/open", private=True)
    monkeypatch.setenv("HF_TOKEN", OTHERS)
    with pytest.raises(UsageError, match="no such repository, or it is private"):
        pull("me/pets", tmp_path / "e")
    assert_same(pull("me/open", tmp_path / "f"), first)


def test_what_is_missing_is_said(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = sample_set()
    with pytest.raises(UsageError, match="no such repository, or it is private and no token"):
        pull("me/none", tmp_path / "none")
    with pytest.raises(UsageError, match="the token of the environment or of the library's login does not allow that"):
        push(held, "you/pets")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match=r"cannot be pushed to without a token: set HF_TOKEN, or log in by `hf auth login`"):
        push(held, "me/pets")
    assert hub.repositories == {}
    (tmp_path / "token").write_text(TOKEN)  # where the library's login keeps it
    push(held, "me/pets")
    with pytest.raises(UsageError, match="repo: '…' is not OWNER/NAME"):
        push(held, f"https://me:{TOKEN}@host/me/pets")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for call in (lambda: push(held, "me/pets"), lambda: pull("me/pets", tmp_path / "none")):
        with pytest.raises(UsageError, match=r"needs the extra hub: pip install 'limbeck\[hub\]'"):
            call()


def test_a_hub_that_is_not_there(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Failure, match="repo: 'me/pets' cannot be pulled: the Hub cannot be reached"):
        pull("me/pets", tmp_path / "pets")


def test_the_token_is_written_nowhere(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LIMBECK_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    sample_set(metadata=METADATA).save("pets")
    assert main(["push", "pets", "me/pets"]) == 0
    assert main(["push", "pets", "you/pets"]) == 2
    assert main(["pull", "me/pets", "again"]) == 0
    hub.breaks = "/commit/"
    assert main(["push", "pets", "me/other"]) == 1
    said = capfd.readouterr()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    files += hub.repositories["me/pets"].files.values()
    assert len(files) > 10 and not [content for content in files if TOKEN.encode() in content]
    assert TOKEN not in said.out + said.err + caplog.text


def test_the_commands(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    held = sample_set(metadata=METADATA)
    held.save("runs/pets/distilled")
    assert main(["push", "runs/pets", "me/pets", "--private", "--revision", "first", "--licence", "cc0-1.0"]) == 0
    assert f"{hub.endpoint}/datasets/me/pets/commit/" in capsys.readouterr().out
    assert main(["pull", "me/pets", "--revision", "first"]) == 0
    found = DistilledSet.load("pets")
    assert_same(found, held)
    assert hub.repositories["me/pets"].private and found.metadata["licence"] == "cc0-1.0"
    sample_set(ipc=3).save("other")
    assert main(["push", "other", "me/pets", "--revision", "first"]) == 2
    assert main(["push", "other", "me/pets", "--revision", "first", "--replace"]) == 0
    assert main(["report", "pets", "--output", "page.html"]) == 0
    assert "owl" in Path("page.html").read_text(encoding="utf-8")


def test_files_of_a_repository_that_are_no_part_of_a_set_stay_there(hub: Hub, tmp_path: Path) -> None:
    push(sample_set(), "me/pets")
    hub.repositories["me/pets"].files.update({"evil.py": b"x", "data/more.parquet": b"x", "../up": b"x"})
    pull("me/pets", tmp_path / "pets")
    assert {path.relative_to(tmp_path / "pets").as_posix() for path in (tmp_path / "pets").rglob("*") if path.is_file()} <= set(
        ours.OURS
    )

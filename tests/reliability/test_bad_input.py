"""Damaged and malicious files of every kind: refused in one line, or read within bounds; nothing is run or written elsewhere."""

import copy
import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from distilled.foreign_files import PREPARED
from distilled.samples import sample_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reliability.attack import MOST_MEMORY, Outcome, Template, attack, watched
from reliability.kinds import EVALUATION, KINDS, PROTOCOL, SETTINGS

from limbeck.distilled.set import DistilledSet
from limbeck.evaluation.protocols import find
from limbeck.recipes import settings_from_plain, settings_yaml
from limbeck.runtime.bounded import json_of
from limbeck.runtime.errors import UsageError
from limbeck.runtime.yaml_text import yaml_of

LIGHT = 190  # files of the default tests
HEAVY = 5600  # and of the slow one
OF_LIBRARIES = ("parquet", "saved dataset")  # which take seconds to be imported
# By kind and number, what was found out when these tests were written; numbers mean the same while the kind's files do.
FOUND = {
    "set npz": (13,),
    "export npz": (200_111,),
    "cifar archive": (12,),
    "store": (5, 15, 200_135),
    "research recipe": (1004, 1028),
    "csv": (1077,),
    "jsonl": (1137,),
    "run": (200_050,),
    "shards": (300_123,),
    "checkpoint": (300_132,),
    "comparison": (500_007, 500_103),
    "comp-dd": (600_043,),
}


def instead(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new, 1)


def sized(content: bytes) -> bytes:
    """An archive whose first member declares 2⁶³ bytes."""
    held = bytearray(gzip.decompress(content))
    held[124:136] = b"\x80\0\0\0" + (2**63 - 1).to_bytes(8, "big")
    held[148:156] = b" " * 8
    held[148:156] = b"%06o\0 " % sum(held[:512])
    return gzip.compress(bytes(held))


# The same as files: kind, file, and what is done to it.
CORPUS: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {
    "deep json": ("submission", "in/submission.json", lambda content: b"[" * 100_000),
    "deep yaml": ("recipe", "mine.yaml", lambda content: b"[" * 100_000),
    "deep lines": ("jsonl", "train/metadata.jsonl", lambda content: b'{"a":' * 100_000 + b"\n"),
    "deep labels": ("shards", "val-0000.tar", instead(b'{"label": 0, "width": 11}', b"[" * 25)),
    "long number": ("benchmark", "benchmark.json", instead(b'"seed": 0', b'"seed": ' + b"9" * 5000)),
    "no Unicode text": ("run", "run/state.json", instead(b'"cpu"', b'"\\ud800"')),
    "no text": ("run", "run/metrics.jsonl", instead(b"iteration", b"\xff\xfe")),
    "name that is no text": (
        "shards",
        "train-0000.tar",
        lambda content: content[:1024] + renamed(content[1024:1536]) + content[1536:],
    ),
    "a member of 2⁶³ bytes": ("cifar archive", "cifar.tar.gz", sized),
    "a null in a name": ("csv", "labels.csv", instead(b"3.png", b"3\0.png")),
    "a surrogate in a name": ("jsonl", "train/metadata.jsonl", instead(b"3.png", b"\\ud800.png")),
    "an object for a word": ("research recipe", "old.yaml", instead(b"CIFAR10", b"{a: [b]}")),
    "a flipped bit in a listed name": ("export npz", "a.npz", lambda content: flipped(content, content.rindex(b"label_kind"))),
    "a flipped bit in a tensor": (
        "set pt",
        "a.pt",
        lambda content: flipped(content, content.index(PREPARED.numpy().tobytes()[:64])),
    ),
    "a flipped bit in an array": (
        "set npz",
        "a.npz",
        lambda content: flipped(content, content.index(PREPARED.numpy().tobytes()[:64])),
    ),
}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def renamed(header: bytes) -> bytes:
    held = bytearray(b"\xff\xfe" + header[2:148] + b" " * 8 + header[156:])
    held[148:156] = b"%06o\0 " % sum(held)
    return bytes(held)


def faults(outcomes: list[Outcome]) -> list[str]:
    return [f"{one.what}: {one.kind}/{one.number} {one.name}: {one.said}" for one in outcomes if one.is_fault]


def test_a_few_of_every_kind(tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind not in OF_LIBRARIES]
    outcomes = list(attack(LIGHT, tmp_path, kinds))
    assert len(outcomes) == LIGHT and {one.kind for one in outcomes} == set(kinds)
    assert faults(outcomes) == []
    assert sum(one.what == "refused" for one in outcomes) > LIGHT / 3, "the changes are too small to be noticed"


@pytest.mark.parametrize("kind", FOUND)
def test_what_was_found_out_stays_mended(kind: str, tmp_path: Path) -> None:
    made = Template(kind, tmp_path)
    assert faults([made.attack(number) for number in FOUND[kind]]) == []


@pytest.mark.parametrize("what", CORPUS)
def test_files_that_were_faults(what: str, tmp_path: Path) -> None:
    kind, name, edit = CORPUS[what]
    made = Template(kind, tmp_path)
    written = (made.folder / name).read_bytes()
    assert edit(written) != written
    found = made.attack_with(name, edit(written), blind=what.startswith("a flipped"))
    assert not found.is_fault, found
    assert what.startswith(("no ", "name that")) or found.what == "refused", found


@pytest.mark.slow
def test_thousands_of_every_kind(tmp_path: Path) -> None:
    assert faults(list(attack(HEAVY, tmp_path, first=100_000))) == []


# ---- whatever JSON can hold, in the places that are read

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["evil:run", "NaN", "hf:x", "../x", "{of}", "<b>", "\x1b[2J", "edf", "dd", "logits"]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8
)
QUICK = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, one in inner for place in places(one, (*path, key))]


def put(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    held = copy.deepcopy(value)
    at = held
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = other
    return held


METADATA: dict[str, Any] = {"method": "edf", "settings": SETTINGS, "evaluation": EVALUATION, "evaluations": [EVALUATION]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_set().save(tmp_path_factory.mktemp("sets") / "set")


@QUICK
@given(place=st.sampled_from(places(METADATA)), value=VALUES)
def test_whatever_metadata_hold_a_set_is_refused_or_takes_an_evaluation(saved: Path, place: tuple[Any, ...], value: Any) -> None:
    file = saved / "metadata.json"
    said = json.loads(file.read_text())["set"]
    file.write_text(json.dumps({"set": said, **put(METADATA, place, value)}))
    try:
        DistilledSet.load(saved)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    finally:
        left = file.read_text()
    DistilledSet.append_evaluation(saved, EVALUATION)
    assert len(DistilledSet.load(saved).metadata["evaluations"]) >= 1
    file.write_text(left)


@QUICK
@given(place=st.sampled_from(places(SETTINGS)), value=VALUES)
def test_whatever_settings_hold_they_are_refused_or_can_be_written(place: tuple[Any, ...], value: Any) -> None:
    try:
        made = settings_from_plain(put(SETTINGS, place, value), imports=False)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert settings_from_plain(yaml_of(settings_yaml(made)), imports=False) == made


@QUICK
@given(key=st.sampled_from([*yaml_of(PROTOCOL), "name", "rate", "mix", "patches", "x"]), value=VALUES)
def test_whatever_a_protocol_holds_it_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "protocol.yaml"
    file.write_text(json.dumps({**yaml_of(PROTOCOL), key: value}))
    try:
        assert find(str(file)).epochs >= 1
    except UsageError as error:
        assert "\n" not in str(error)


@QUICK
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_json_and_yaml_raise_nothing_but_value_errors(content: bytes | str) -> None:
    for read in (json_of, yaml_of) if isinstance(content, str) else (json_of,):
        with suppress(ValueError):
            read(content)  # type: ignore[operator]


# ---- the harness itself


def test_the_watch_sees_what_must_not_happen(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "here").mkdir()
    with watched(tmp_path / "here") as seen:
        (tmp_path / "here" / "a").write_text("a")
        (tmp_path / "here" / "a").read_text()
    assert seen == []
    with watched(tmp_path / "here") as seen:
        (tmp_path / "b").write_text("b")
        (tmp_path / "b").unlink()
        subprocess.run(["true"], check=True)
    assert [one.split(" ")[0] for one in seen][:3] == ["open", "os.remove", "subprocess.Popen"]


def test_a_fault_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Template("categories json", tmp_path)
    results = {
        "exception": lambda folder: 1 / 0,
        "lines": lambda folder: raised(TwoLines("a\nb")),
        "memory": lambda folder: len(bytearray(MOST_MEMORY * 5 // 4)),
        "escaped": lambda folder: (tmp_path.parent / "x").write_text("x"),
        "other": lambda folder: "else",
    }
    for what, read in results.items():
        object.__setattr__(made.how, "read", read)
        found = made.attack(1)
        assert (found.what, found.is_fault) == (what, what != "other")
    object.__setattr__(made.how, "read", KINDS["categories json"].read)


class TwoLines(UsageError):
    """One that spells no line ends, as those of ours do."""

    def __str__(self) -> str:
        return str(self.args[0])


def raised(error: UsageError) -> None:
    raise error

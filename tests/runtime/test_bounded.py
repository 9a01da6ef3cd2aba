"""What anybody may have written is opened only where it is a file, and believed only within bounds."""

import gzip
import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.runtime import bounded
from limbeck.runtime.bounded import (
    DEEPEST,
    Limited,
    check_array,
    check_sums,
    inside,
    json_of,
    opened,
    read_bytes,
    read_json,
    read_text,
    unpacked_size,
)
from limbeck.runtime.disk import in_words
from limbeck.runtime.yaml_text import MOST_NODES, Bounded, Core, yaml_of


@pytest.mark.parametrize("make", ["pipe", "endless", "folder", "nothing", "circle"])
def test_what_is_no_file_is_not_opened(make: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if make == "pipe":
        os.mkfifo(path)
    elif make == "endless":
        path.symlink_to("/dev/zero")
    elif make == "circle":
        path.symlink_to(path)
    elif make == "folder":
        path.mkdir()
    for read in (opened, read_json, read_text, lambda path: read_bytes(path, 10)):
        with pytest.raises(OSError) as caught:
            read(path)
        assert caught.value.strerror


def test_a_pipe_behind_a_link_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "metadata.json").symlink_to(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is no regular file"):
        read_json(tmp_path / "metadata.json")


def test_bytes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "x", 10) == b"0123456789"
    with pytest.raises(ValueError, match="it has more than the 9 bytes that are accepted"):
        read_bytes(tmp_path / "x", 9)
    with pytest.raises(ValueError, match="more than the 1.0 kB that are accepted"):  # which says that it has no bytes
        read_bytes("/proc/cpuinfo", 1000)


def test_no_room_is_made_for_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with opened(tmp_path / "x") as file:
        assert file.read(2**62) == b"0123456789"
        assert file.read(2**62) == b""
        file.seek(4)
        assert file.read() == b"456789"


def test_links_may_lead_within_a_folder_and_not_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "set" / "c").symlink_to("a")
    (tmp_path / "set" / "d").symlink_to("../b")
    (tmp_path / "linked").symlink_to("set")
    assert inside(tmp_path / "linked", "c").read_text() == "a"
    assert inside(tmp_path / "set", "not there") == tmp_path / "set" / "not there"
    with pytest.raises(ValueError, match=r"d is a link that leads out of the folder; a copy without links \(cp -rL\) is accepted"):
        inside(tmp_path / "set", "d")


@pytest.mark.parametrize("text", [True, False])
def test_json_is_bounded_in_depth(text: bool) -> None:
    def read(content: str) -> Any:
        return json_of(content if text else content.encode())

    assert read("[" * DEEPEST + "]" * DEEPEST) is not None
    for content in ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), '{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1)):
        with pytest.raises(ValueError, match=f"nested deeper than the {DEEPEST} levels"):
            read(content)
    for content in ("[" * 10**6, '{"a":' * 10**5, '[{"a":' * 5000):
        with pytest.raises(ValueError, match="nested deeper"):
            read(content)


def test_json_is_bounded_in_numbers_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json_of(f"[{2**64 - 1}, {-(2**63)}, 0.12345678901234567890123]") == [2**64 - 1, -(2**63), 0.12345678901234568]
    for digits in (str(2**64), "9" * 30, "9" * 5000):
        with pytest.raises(ValueError, match="whole number of more than 64 bits|digits"):
            json_of(digits)
    monkeypatch.setattr(bounded, "MOST_VALUES", 10)
    assert json_of('{"a": [1, 2, 3]}') == {"a": [1, 2, 3]}
    with pytest.raises(ValueError, match="more than the 10 values"):
        json_of(json.dumps([[]] * 10))
    monkeypatch.setattr(bounded, "MOST_JSON", 10)
    with pytest.raises(ValueError, match="more than the 10 bytes"):
        json_of('"' + "a" * 10 + '"')


@pytest.mark.parametrize("piece", ['{"":0}', "[]", '""', "0.5", '{"a":[{}]}', '"é"', "[[[]]]"])
def test_json_takes_no_more_than_forty_times_its_bytes(piece: str) -> None:
    content = f"[{','.join([piece] * 4_000)}]".encode()
    tracemalloc.start()
    try:
        json_of(content)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(content)
    finally:
        tracemalloc.stop()


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("kind", [Core, Bounded])
def test_yaml_is_bounded_whatever_its_aliases_repeat(kind: type[Bounded]) -> None:
    assert len(bomb(9)) < 500
    with pytest.raises(
        ValueError, match=f"line [5-7]: it has more than the {MOST_NODES} values that are accepted, aliases counted"
    ):
        yaml_of(bomb(9), kind)
    assert yaml_of(bomb(3), kind)["a2"][8][8] == ["x"] * 9
    merged = "a: &a {x: 1}\n" + "\n".join(
        f"b{i}: &b{i} {{<<: [{', '.join(['*a' if i == 0 else f'*b{i - 1}'] * 9)}]}}" for i in range(9)
    )
    with pytest.raises(ValueError, match="aliases counted"):
        yaml_of(merged, kind)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5000, "line 1: it is nested deeper than the 64 levels"),
        ("- " * 3000 + "x", "line 1: it is nested deeper"),
        ("a:\n  b: &b [*b]", "line 2: an alias stands inside of what it repeats"),
        ("x: " + "1" * 5000, "it holds something else than its tags say|digits"),
        ("!!int x", "it holds something else than its tags say"),
        ("!!timestamp x", "it holds something else than its tags say"),
        ("!!bool x", "it holds something else than its tags say"),
        ("!!python/object/apply:os.system ['touch x']", "line 1: could not determine a constructor"),
        ("? [a]\n: 1", "line 1: .*unhashable"),
        ("a: \x1b", "special characters are not allowed"),
        ("#" * (2**20 + 1), "more than the 1048576 letters"),
    ],
)
def test_yaml_that_is_none_or_beyond_a_bound(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        yaml_of(text)
    assert "\n" not in str(caught.value)


def archive(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return made


def test_an_archive_may_not_declare_far_more_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = archive({"a.npy": bytes(10**6)})
    assert unpacked_size(zeros) == 10**6
    assert unpacked_size(io.BytesIO(b"no archive")) == 0
    monkeypatch.setattr(bounded, "ALWAYS", 10**5)
    with pytest.raises(ValueError, match=r"it declares 1.0 MB in an archive of 1.1 kB; at most .* kB are accepted"):
        unpacked_size(zeros)


def test_every_byte_of_a_member_is_compared_with_its_checksum() -> None:
    whole = archive({"a": bytes(range(256)), "b": b"more"}, zipfile.ZIP_STORED).getvalue()
    check_sums(io.BytesIO(whole))
    start = whole.index(bytes(range(256)))
    for at in (start, start + 100, start + 255):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        with pytest.raises(ValueError, match="a does not match its checksum"):
            check_sums(io.BytesIO(flipped))


def test_an_array_is_as_large_as_its_file() -> None:
    assert check_array("x", (2, 3), 4, 24) == 24
    for shape, itemsize in (((2, 3), 5), ((10**30,), 1), ((-1, 3), 1), ((10**12,), 0)):
        with pytest.raises(ValueError, match="x has the shape .*, which is more than is in the file"):
            check_array("x", shape, itemsize, 24)


def test_what_unpacks_without_end_is_not_unpacked() -> None:
    packed = gzip.compress(bytes(10**6))
    assert len(Limited(gzip.GzipFile(fileobj=io.BytesIO(packed)), 10**6).read()) == 10**6
    for size in (-1, 10**7, 1000):
        limited = Limited(gzip.GzipFile(fileobj=io.BytesIO(packed)), 10**5)
        with pytest.raises(ValueError, match=r"it unpacks to more than the 100.0 kB"):
            while limited.read(size):
                pass


def test_amounts() -> None:
    assert [in_words(size) for size in (0, 999, 3_100_000, 2 * 10**9)] == ["0 bytes", "999 bytes", "3.1 MB", "2.0 GB"]


def test_numbers_survive(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=100).tolist()
    (tmp_path / "x.json").write_text(json.dumps(values))
    assert read_json(tmp_path / "x.json") == values

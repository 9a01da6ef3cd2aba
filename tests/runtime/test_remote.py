"""Places in stores of objects: what is read, what is written once, and what is said when that fails."""

import builtins
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from buckets import KEY, SECRET, files, forget_all, set_environment

from limbeck.runtime import remote
from limbeck.runtime.errors import UsageError
from limbeck.runtime.remote import Remote
from limbeck.runtime.urls import is_url, local


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("s3://b/k", True),
        ("gs://b", True),
        ("memory://a/b", True),
        ("runs/a", False),
        ("file:///tmp/a", False),
        ("hf:mnist", False),
        ("scenes:easy", False),
        ("package.module:Name", False),
        ("benchmark:runs/a:b", False),
        ("C:/data", False),
        (None, False),
        (3, False),
    ],
)
def test_a_url_is_told_from_paths_and_names(place: object, wanted: bool) -> None:
    assert is_url(place) is wanted


def test_a_file_url_is_a_path() -> None:
    assert local("file:///tmp/a b") == "/tmp/a b" and local("runs/a") == "runs/a"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{SECRET}@bucket/key",
        f"s3://{SECRET.replace('/', 'x')}@bucket/key",
        f"s3://{KEY}:{SECRET.replace('/', 'x')}@bucket",
        f"https://host/x.npz?X-Amz-Signature={SECRET}",
        f"https://user:{SECRET}@host:80/x",
    ],
)
def test_a_url_with_keys_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="^output: the URL (s3|https)://… holds keys") as error:
        Remote("output", url)
    assert not any(part in str(error.value) for part in (KEY, SECRET, SECRET[-20:]))


def test_what_is_put_where_nothing_is_stays(bucket: str) -> None:
    place = Remote("output", f"{bucket}/a/b")
    assert place.put_new(b"first") and not place.put_new(b"second")
    assert place.read() == b"first" and place.read(1, 3) == b"ir"
    place.put(b"third")
    assert place.read() == b"third"
    place.remove()
    place.remove()
    with pytest.raises(FileNotFoundError):
        place.read()


def test_of_many_writers_one_has_success(bucket: str) -> None:
    place, won = Remote("output", f"{bucket}/race"), list[int]()

    def write(number: int) -> None:
        if place.put_new(str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and place.read() == str(won[0]).encode()


def test_large_files_are_fetched_in_pieces_and_put_in_parts(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PIECE", 2**20)
    content = bytes(range(256)) * (13 * 2**12)  # 13 MiB, beyond what goes in one part
    (tmp_path / "large").write_bytes(content)
    place = Remote("output", f"{bucket}/large")
    place.put_file(tmp_path / "large")
    (tmp_path / "other").write_bytes(b"other")
    place.put_file(tmp_path / "other")  # is there already
    place.fetch(tmp_path / "again", len(content))
    assert (tmp_path / "again").read_bytes() == content
    assert place.files().keys() == {""} and place.files()[""].size == len(content)


def test_what_lies_under_a_place(bucket: str) -> None:
    for name in ("a/x", "a/b/y", "ab/z"):
        Remote("data", f"{bucket}/{name}").put(b"1")
    assert list(Remote("data", f"{bucket}/a").files()) == ["b/y", "x"]
    assert sorted(Remote("data", f"{bucket}/a").names()) == ["b", "x"]
    assert Remote("data", f"{bucket}/c").files() == {} and Remote("data", f"{bucket}/c").names() == []


def test_another_content_has_another_version(bucket: str) -> None:
    place = Remote("data", f"{bucket}/x")
    place.put(b"abc")
    before = place.files()
    place.put(b"abd")
    assert place.files() != before


def _said(call: Any) -> str:
    with pytest.raises(UsageError) as error:
        call()
    assert "\n" not in str(error.value) and not any(part in str(error.value) for part in (KEY, SECRET))
    assert error.value.__cause__ is None
    return str(error.value)


def test_stores_of_every_kind_say_what_tells_a_content_from_another_one() -> None:
    """Such as the Hugging Face Hub's, which has neither etags nor times for a file."""
    for name in remote.SAID:
        one, other = (remote._stored({"size": 3, "type": "file", name: value}) for value in ("a", "b"))
        assert one.version != other.version and one.size == other.size == 3, name


def test_no_such_bucket(bucket: str) -> None:
    place = Remote("data.source", "s3://no-such-bucket-here/x")
    wanted = "data.source: 's3://no-such-bucket-here/x' cannot be {}: there is no such bucket"
    assert _said(place.read) == wanted.format("read")
    assert _said(lambda: place.put_new(b"")) == wanted.format("written")


def test_no_server_is_said_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    set_environment(monkeypatch, "http://user:hunter2@127.0.0.1:9")  # nobody listens there
    began = time.monotonic()
    said = _said(Remote("output", "s3://bucket/x").try_writing)
    assert said == "output: 's3://bucket/x' cannot be written: its server cannot be reached (no network, or another endpoint)"
    assert time.monotonic() - began < 20


def test_no_keys(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    forget_all()
    said = _said(Remote("output", f"{bucket}/x").read)
    assert said.startswith(f"output: '{bucket}/x' cannot be read: there are no keys for it")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403"])
def test_keys_that_do_not_do_are_not_quoted(bucket: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    refusal = ClientError({"Error": {"Code": code, "Message": f"{KEY} {SECRET} is wrong"}}, "GetObject")

    def refuse(*_: Any, **__: Any) -> None:
        raise translate_boto_error(refusal)

    monkeypatch.setattr(files(), "cat_file", refuse)
    said = _said(Remote("data.source", f"{bucket}/x").read)
    assert said.endswith("the keys of the environment or the store's configuration do not allow that")


def test_what_nobody_foresaw_is_said_by_its_kind(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"signed with {SECRET}")

    monkeypatch.setattr(files(), "cat_file", fail)
    assert _said(Remote("data.source", f"{bucket}/x").read).endswith("its server, or the library that asks it, said RuntimeError")


def test_a_store_that_writes_over_what_is_there_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = files().pipe_file
    monkeypatch.setattr(files(), "pipe_file", lambda url, content, mode="overwrite": put(url, content))
    assert "does not keep writers apart" in _said(Remote("output", f"{bucket}/x").try_writing)


def test_stores_of_other_kinds_are_read_only() -> None:
    assert _said(lambda: Remote("output", "https://host/x").put(b"")).startswith(
        "output: 'https://host/x' can be read, not written to: a folder, s3://"
    )


def test_a_scheme_that_nobody_knows() -> None:
    pytest.importorskip("fsspec")
    assert "is no kind of store that fsspec knows" in _said(Remote("data.source", "nonsense://a/b").read)


@pytest.mark.parametrize("missing", ["fsspec", "s3fs"])
def test_the_extra_is_named_where_it_is_missing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    if missing == "s3fs":
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    remote._made.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    assert _said(Remote("output", "s3://a/b").read) == "output: s3:// needs the extra remote: pip install 'limbeck[remote]'"
    remote._made.cache_clear()

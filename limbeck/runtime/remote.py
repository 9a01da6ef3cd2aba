"""Places that are no paths of this machine: `s3://bucket/key`, `gs://…`, whatever fsspec knows.

What is read is fetched into the cache first, under the fingerprint of all that the server says of it (etag, size, time), so that it
is fetched once and another version is another copy. `runtime/published.py` has folders that are written.

Keys come from where each library of a store looks for them: the environment, or its configuration. A URL that holds some is
refused. What such a library says of an error is never passed on, as it may quote them: errors are in our words, by their kind.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.leftovers import part
from limbeck.runtime.urls import URL

KEYS = re.compile(r"[^/]*@|[^/]*:.*@", re.DOTALL)  # key@…, or key:secret@…, as secrets may have slashes
SAID = ("ETag", "etag", "md5Hash", "VersionId", "LastModified", "mtime", "created", "blob_id")  # by stores of different kinds
# Where to write what is not there already is one request of which at most one process has success.
WRITABLE = ("s3", "s3a", "gs", "gcs", "memory")
EXTRA = "pip install 'limbeck[remote]'"
CONNECT, ANSWER, TRIES = 5, 60, 2  # seconds, seconds, and how often a request is tried
PIECE = 2**26  # bytes that are fetched at a time
TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")  # what servers say where something is there already
# Parts of the names of errors, of botocore, aiohttp, ssl and Python.
UNREACHED = ("Endpoint", "ConnectTimeout", "Connection", "Connector", "gaierror", "Disconnected", "HTTPClient", "SSL")
SLOW = ("TimeoutError", "FSTimeoutError", "ServerTimeoutError")
FETCHED: dict[tuple[int, str], Path] = {}  # by process and URL, the copies on this machine
ORIGINS: dict[Path, str] = {}  # of all copies of this process
T = TypeVar("T")


class Unreachable(UsageError):
    """Something at a URL cannot be read or written; the message says why in one line, which names the URL and no keys."""


class Stored(NamedTuple):
    """An object of a store: its size, and what else tells its content from another one."""

    size: int
    version: str


class Remote:
    """A place in a store.

    Args:
        key: what the user calls it, such as `output`, for messages.
        url: of it.

    Raises:
        UsageError: when the URL holds keys, or names nothing.
    """

    def __init__(self, key: str, url: str) -> None:
        found = URL.fullmatch(url)
        assert found is not None, "a URL"
        self.key, (self.scheme, rest) = key, found.groups()
        if KEYS.match(rest) or ("?" in rest and self.scheme.startswith("http")):
            said = "holds keys, which would be written down with it: the environment or the store's configuration is their place"
            raise UsageError(f"{key}: the URL {self.scheme}://… {said}")
        self.url = self.said = f"{self.scheme}://{rest.rstrip('/')}"  # what messages name
        if not rest.strip("/"):
            raise UsageError(f"{key}: {url!r} names no place; such as s3://bucket/folder is accepted")

    def __truediv__(self, name: str) -> "Remote":
        return Remote(self.key, f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """Its last part."""
        return PurePosixPath(self.url).name

    def files(self) -> dict[str, Stored]:
        """What lies under it, by its name from here; under the name "" what is there itself."""

        def found() -> dict[str, Stored]:
            store = self._store()
            root = store._strip_protocol(self.url)
            store.invalidate_cache()
            held = store.find(root, detail=True)
            return {
                path.removeprefix(root).lstrip("/"): _stored(about)
                for path, about in sorted(held.items())
                if path == root or path.startswith(f"{root}/")  # and no folder's own mark
                if not path.endswith("/")
            }

        return self._asked("read", found)

    def names(self) -> list[str]:
        """What lies directly under it, folders too."""

        def found() -> list[str]:
            store = self._store()
            store.invalidate_cache()
            return [PurePosixPath(path).name for path in store.ls(store._strip_protocol(self.url), detail=False)]

        try:
            return self._asked("read", found, absent=True)
        except FileNotFoundError:
            return []

    def read(self, start: int | None = None, end: int | None = None) -> bytes:
        """Its bytes, or those of a range.

        Raises:
            FileNotFoundError: when it is not there.
        """

        def read() -> bytes:
            return bytes(self._store().cat_file(self.url, start=start, end=end))

        return self._asked("read", read, absent=True)

    def fetch(self, target: Path, size: int) -> None:
        """Put its bytes into the file `target`, piece by piece."""
        with part(target) as made:
            with made.open("xb") as file:
                for start in range(0, size, PIECE):
                    file.write(self.read(start, min(start + PIECE, size)))
                file.flush()
                os.fsync(file.fileno())
            if made.stat().st_size != size:
                raise Unreachable(f"{self.key}: {self.url!r} has changed while it was read; try again")
            os.replace(made, target)

    def put_new(self, content: bytes) -> bool:
        """Put it there, where nothing is; False where something is."""
        self.check_writable()

        def put() -> bool:
            try:
                self._store().pipe_file(self.url, content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if _code(error) not in TAKEN:
                    raise
                return False
            return True

        return self._asked("written", put)

    def put_file(self, source: Path) -> None:
        """Put the content of a file there, unless something is there already."""
        self.check_writable()

        def put() -> None:
            try:
                self._store().put_file(str(source), self.url, mode="create")
            except FileExistsError:
                pass
            except OSError as error:
                if _code(error) not in TAKEN:
                    raise

        self._asked("written", put)

    def put(self, content: bytes) -> None:
        """Put it there, whatever is there."""
        self.check_writable()
        self._asked("written", lambda: self._store().pipe_file(self.url, content))

    def remove(self) -> None:
        """Take it away, if it is there."""

        def remove() -> None:
            with suppress(FileNotFoundError):
                self._store().rm_file(self.url)

        self._asked("written", remove)

    def age(self, other: "Remote") -> float:
        """By how many seconds it is older than another one, both by the store's own clock."""

        def age() -> float:
            return float((self._store().modified(other.url) - self._store().modified(self.url)).total_seconds())

        return self._asked("read", age, absent=True)

    def check_writable(self) -> None:
        """Raise `UsageError` unless it is in a store of a kind that can be written to."""
        if self.scheme not in WRITABLE:
            known = ", ".join(f"{scheme}://" for scheme in WRITABLE[:4])
            raise UsageError(f"{self.key}: {self.url!r} can be read, not written to: a folder, {known} are accepted")

    def try_writing(self) -> None:
        """Raise `UsageError` unless something can be written below it, and what is there is not written over."""
        probe = self / f".limbeck-{token_hex(8)}"
        probe.said = self.url
        kept = probe.put_new(b"limbeck") and not probe.put_new(b"limbeck")
        probe.remove()
        if not kept:
            raise UsageError(
                f"{self.key}: {self.url!r} does not keep writers apart: its store knows no writing of what is not there"
            )

    def _store(self) -> Any:
        return _store(self.key, self.scheme)

    def _asked(self, done: str, ask: Callable[[], T], *, absent: bool = False) -> T:
        """What the store answers; errors in our words. With `absent` whoever asks knows what to do where nothing is."""
        reason = ""
        try:
            return ask()
        except (UsageError, KeyboardInterrupt):
            raise
        except Exception as error:
            nothing = absent and isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket"
            reason = "" if nothing else _reason(error)
        if not reason:  # outside the handler, so that no error of the library's is shown as the cause
            raise FileNotFoundError(self.url)
        raise Unreachable(f"{self.key}: {self.said!r} cannot be {done}: {reason}")


def forget(url: str) -> None:
    """Have `fetched` look again at what it knows of a place, and of all in it or around it."""
    for known in [known for known in FETCHED if known[1].startswith(url) or url.startswith(known[1])]:
        del FETCHED[known]


def is_name(name: str) -> bool:
    """Whether something that a store names can be a file inside a folder here."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and "\\" not in name and "\0" not in name


class _NoStore(Exception):
    """There is no file system of a scheme here; the message says why."""


def _store(key: str, scheme: str) -> Any:
    """The file system of a scheme."""
    try:
        return _made(scheme, os.getpid())
    except _NoStore as error:
        raise UsageError(f"{key}: {scheme}:// {error}") from None


@cache
def _made(scheme: str, process: int) -> Any:
    """The same; one a process, as connections belong to one."""
    s3, extra = scheme in ("s3", "s3a"), f"needs the extra remote: {EXTRA}"
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        beside = f"needs a package beside fsspec: {' '.join(str(error).split())}"
        raise _NoStore(extra if s3 or error.name == "fsspec" else beside) from None
    except ValueError:
        raise _NoStore("is no kind of store that fsspec knows; such as s3://bucket/key is accepted") from None
    options: dict[str, Any] = {}
    if s3:
        waits = {"connect_timeout": CONNECT, "read_timeout": ANSWER, "retries": {"max_attempts": TRIES - 1}}
        options = {"config_kwargs": waits, "use_listings_cache": False, "skip_instance_cache": True}
    made = kind(**options)
    if hasattr(made, "retries"):
        made.retries = TRIES
    return made


def _stored(about: Mapping[str, Any]) -> Stored:
    return Stored(int(about.get("size") or 0), fingerprint(*(str(about[name]) for name in SAID if about.get(name))))


def _code(error: BaseException) -> str:
    """What a server calls an error, where it says that."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str((response.get("Error") or {}).get("Code", ""))
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    """What is wrong, in words that quote nothing."""
    code, kinds = _code(error), {type(one).__name__ for one in _chain(error)}
    if code == "NoSuchBucket":
        return "there is no such bucket"
    if "NoCredentialsError" in kinds or "PartialCredentialsError" in kinds:
        return "there are no keys for it; the environment or the store's configuration is where they are looked for"
    if isinstance(error, PermissionError) or code in ("403", "AccessDenied", "Forbidden"):
        return "the keys of the environment or the store's configuration do not allow that"
    if isinstance(error, FileNotFoundError):
        return "nothing is there"
    if isinstance(error, TimeoutError) or any("ReadTimeout" in kind or kind in SLOW for kind in kinds):
        return "its server does not answer in time"
    if any(word in kind for kind in kinds for word in UNREACHED):
        return "its server cannot be reached (no network, or another endpoint)"
    if "ParamValidationError" in kinds or "InvalidBucketName" in code:
        return "that is no name of a bucket"
    return f"its server, or the library that asks it, said {code or type(error).__name__}"

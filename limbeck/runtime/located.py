"""What commands and calls are given to read, on this machine: paths as they are, sets of the zoo, what URLs name in the cache.

A copy lies under the fingerprint of all that the store says of its files (checksum, etag, size, time), so that everything is
fetched once, and another version is another copy. In one process a URL stays what it was when it was first asked for.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from limbeck.runtime import zoo
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import new_folder
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root
from limbeck.runtime.leftovers import passing_folder
from limbeck.runtime.locks import lock
from limbeck.runtime.published import TRIES, Entry, Overtaken, Published, Version
from limbeck.runtime.remote import FETCHED, ORIGINS, Remote, Unreachable, is_name
from limbeck.runtime.urls import is_url, local

LEVELS = 3  # from a file or folder in a published one up to it, such as run/distilled/preview.png


def here(key: str, place: str) -> str:
    """Where what a URL names can be read on this machine, fetched first; a path as it is.

    Args:
        key: what the user calls it.
        place: a URL, a path, or `zoo:NAME`.

    Raises:
        UsageError: when there is nothing, or it cannot be fetched.
    """
    if place.startswith(zoo.PREFIX) and not os.path.lexists(place):
        return str(zoo.place(key, place))
    if not is_url(place):
        return local(place)
    remote = Remote(key, place)
    if (found := FETCHED.get(known := (os.getpid(), remote.url))) is None or not found.exists():
        found = FETCHED[known] = _fetched(remote)
        ORIGINS[found] = remote.url
    return str(found)


def origin(path: Path) -> str | None:
    """The URL from which `path`, or a folder that it lies in, was fetched; None where it is nobody's copy."""
    for copy, url in ORIGINS.items():
        if path.is_relative_to(copy):
            return "/".join((url, *path.relative_to(copy).parts))
    return None


def _fetched(remote: Remote) -> Path:
    """A copy of what is at a place: a file, a published folder or something in it, or a folder as it is."""
    for _ in range(TRIES):
        root, files = _found(remote)
        with suppress(FileNotFoundError):  # a later version has taken its place
            return _copy(remote, Published(root), files)
    raise Unreachable(f"{remote.key}: {remote.url!r} changes faster than it can be read; try again")


def _copy(remote: Remote, published: Published, files: dict[str, Entry]) -> Path:
    """Where these files are kept on this machine, fetched where they are not."""
    known = fingerprint(remote.url, {name: [entry.size, entry.sha256, entry.known] for name, entry in files.items()})
    place = cache_root() / "fetched" / known / remote.name
    if not place.exists():
        with lock(place.parent):
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                if "" in files:
                    published.fetch(files[""], place)
                else:
                    with new_folder(place) as made:
                        for name, entry in files.items():
                            published.fetch(entry, made / name)
    return place


def _found(remote: Remote) -> tuple[Remote, dict[str, Entry]]:
    """The folder that a place lies in, and its files by their name from the place."""
    if found := Published(remote).newest().files:
        return remote, {name: entry for name, entry in found.items() if not name or is_name(name)}
    for root, inner in _parents(remote):
        version = Published(root).latest() or Version()
        if inner in version.files:
            return root, {"": version.files[inner]}
        if files := {
            name.removeprefix(f"{inner}/"): entry for name, entry in version.files.items() if name.startswith(f"{inner}/")
        }:
            return root, files
    raise UsageError(f"{remote.key}: nothing is at {remote.url!r}")


def _parents(remote: Remote) -> Iterator[tuple[Remote, str]]:
    """The places that one lies in, nearest first, each with the name of it from there; no whole buckets."""
    scheme, _, path = remote.url.partition("://")
    parts = path.split("/")
    for cut in range(len(parts) - 1, max(1, len(parts) - 1 - LEVELS), -1):
        yield Remote(remote.key, f"{scheme}://{'/'.join(parts[:cut])}"), "/".join(parts[cut:])


def change(key: str, url: str, edit: Callable[[Path], None]) -> None:
    """Change what is published at a URL, or something in it, by changing a copy; where others do too, one after the other.

    Raises:
        UsageError: when nothing is there, or it cannot be written.
        Overtaken: when others are always faster.
    """
    remote = Remote(key, url)
    remote.check_writable()
    for _ in range(TRIES):
        root, _ = _found(remote)
        published, inner = Published(root), remote.url.removeprefix(root.url).strip("/")
        version = published.newest()
        with passing_folder() as folder, suppress(Overtaken):
            for name, entry in version.files.items():
                if name.startswith(f"{inner}/" if inner else ""):
                    published.fetch(entry, folder / name)
            edit(folder / inner)
            published.publish(folder, version, version.files)
            return
    raise Overtaken(f"{key}: {url!r} changes faster than it can be written; try again")

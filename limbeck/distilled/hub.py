"""The Hugging Face Hub as a place for distilled sets: a repository of a data set holds the files of one, and its images as rows.

    push    one commit, onto the state that was looked at: a repository has the set as a whole or not at all
    pull    the files of one commit, into a folder that is there once all of them are, and are sound

Tokens are the affair of huggingface_hub, which looks for one in the environment (HF_TOKEN) and where its login keeps it: none is
taken as an argument, or written anywhere. Errors are in our words, by their kind, because the library's may quote what was asked.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from limbeck.distilled.card import LICENCE, card
from limbeck.distilled.contents import CARD, METADATA, PREVIEW, SET, TENSORS
from limbeck.distilled.rows import ROWS, write_rows
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.view_labels import VIEWS
from limbeck.runtime.bounded import inside
from limbeck.runtime.errors import Failure, UsageError, Worded, require
from limbeck.runtime.files import new_folder, read_json, write_text
from limbeck.runtime.leftovers import passing_folder, remove
from limbeck.runtime.plugins import library_of
from limbeck.runtime.urls import is_url

OURS = (TENSORS, METADATA, CARD, PREVIEW, VIEWS, ROWS)
PLACES = ("source", "root", "init", "store", "output", "protocol")  # the last words of keys for paths
KIND = "dataset"  # what the Hub calls such a repository
ENDPOINT = "HF_ENDPOINT"
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_NAME = re.compile(f"{_PART}/{_PART}", re.ASCII)
_PATH = re.compile(r"([A-Za-z][\w+.-]*:(//)?)?([/~\\]|[A-Za-z]:[/\\]|\.\.?[/\\])")  # how a path of somebody's machine begins
_MADE = re.compile(r"([\w.]+:[\w.<>]+)\([^()]*[/\\].*\)", re.DOTALL)  # how settings describe an object that holds such a path
_SLASH = re.compile(r"[/\\]+")
_UNREACHED = ("ConnectionError", "ConnectError", "NetworkError", "OfflineModeIsEnabled", "Timeout", "ProtocolError")


def push(
    held: DistilledSet | Path | str,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    replace_other: bool = False,
) -> str:
    """Put a set onto the Hugging Face Hub, with its card, and its images as rows for `datasets`.

    Paths of this machine, which its settings may hold, are published by their last part alone.

    Args:
        held: the set, or its folder.
        repo: OWNER/NAME; the repository of a data set, which is made where there is none.
        private: make it for its owner alone.
        revision: the branch, which is made where there is none; None takes `main`.
        licence: of the images, as the Hub calls it (`cc-by-4.0`), or in words; None leaves what the set says: at first, `unknown`.
        replace_other: replace another set, or what else is there.

    Returns:
        The address of the commit.

    Raises:
        UsageError: when huggingface_hub or a token is missing, the token does not allow it, or something else is there.
        Failure: when the Hub cannot be reached or breaks off. The repository then holds what it held, or the whole set.

    Example:
        >>> from limbeck import UsageError
        >>> try:
        ...     push("tiny", "no repository")
        ... except UsageError as error:
        ...     print(error)
        repo: 'no repository' is not OWNER/NAME of a repository of the Hugging Face Hub
    """
    _check(repo, revision)
    api, library = _api()
    found = held if isinstance(held, DistilledSet) else DistilledSet.load(held)
    with passing_folder() as folder, _asked(f"repo: {repo!r} cannot be pushed to", revision):
        if library.get_token() is None:
            raise UsageError(f"repo: {repo!r} cannot be pushed to without a token: set HF_TOKEN, or log in by `hf auth login`")
        _write(found, folder / "set", licence)
        api.create_repo(repo, repo_type=KIND, private=private or None, exist_ok=True)
        branches = {branch.name for branch in api.list_repo_refs(repo, repo_type=KIND).branches}
        there = api.repo_info(repo, repo_type=KIND, revision=revision if revision in branches else None)
        require(bool(there.private) or not private, "private", private, f"possible with {repo!r}, which is there and public")
        names = {file.rfilename for file in there.siblings or ()} - {".gitattributes"}
        if names and not replace_other and not _is_same(api, repo, there.sha, names, folder):
            what = "another set" if TENSORS in names else f"something else ({', '.join(sorted(names)[:3])})"
            raise UsageError(f"repo: {repo!r} holds {what}; --replace (replace_other=True) replaces it")
        if revision is not None:  # not before it is sure that something goes there
            api.create_branch(repo, repo_type=KIND, branch=revision, revision=there.sha, exist_ok=True)
        files = {name: path for name in OURS if (path := folder / "set" / name).is_file()}
        changes = [library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
        changes += [library.CommitOperationDelete(path_in_repo=name) for name in OURS if name in names and name not in files]
        title = f"{len(found)} images distilled by Limbeck"
        # Onto `there`: who has pushed meanwhile is not overwritten. One commit, so that nobody finds a part.
        done = api.create_commit(repo, changes, commit_message=title, repo_type=KIND, revision=revision, parent_commit=there.sha)
        return str(done.commit_url)


def pull(repo: str, folder: Path | str | None = None, *, revision: str | None = None) -> DistilledSet:
    """Fetch a set from the Hugging Face Hub, the same to the bit as it was pushed.

    Args:
        repo: OWNER/NAME.
        folder: a new or an empty one; None takes NAME, in the current folder.
        revision: a branch, a tag or a commit; None takes `main`.

    Raises:
        UsageError: when huggingface_hub is missing, there is no such repository, or it holds no sound set; no folder is left then.
        Failure: when the Hub cannot be reached or breaks off.

    Example:
        >>> from limbeck import UsageError
        >>> try:
        ...     pull("no repository")
        ... except UsageError as error:
        ...     print(error)
        repo: 'no repository' is not OWNER/NAME of a repository of the Hugging Face Hub
    """
    _check(repo, revision)
    target = Path(repo.partition("/")[2] if folder is None else folder)
    free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    require(free and not is_url(str(target)), "folder", str(target), "a new or an empty folder")
    api, _ = _api()
    with _asked(f"repo: {repo!r} cannot be pulled", revision), new_folder(target) as made:
        there = api.repo_info(repo, repo_type=KIND, revision=revision)
        names = {file.rfilename for file in there.siblings or ()}
        require({TENSORS, METADATA} <= names, "repo", repo, "a repository with a distilled set of Limbeck's")
        for name in OURS:
            if name in names:
                _fetch(api, repo, there.sha, name, made)
        remove(made / ".cache")
        _verify(repo, made)
    return DistilledSet.load(target)


def _verify(repo: str, folder: Path) -> None:
    """Raise `UsageError` unless a sound set has arrived in a folder, whose passing name is nobody's affair."""
    try:
        found = DistilledSet.load(folder)
        if found.views is not None:
            found.views.verify()
    except UsageError as error:
        said = str(error).removeprefix("path: ").replace(str(folder), repo)
        raise UsageError(f"repo: {repo!r} cannot be pulled: {said}") from error


def _write(held: DistilledSet, folder: Path, licence: str | None) -> None:
    """The files that a repository is to hold."""
    said = public(held.metadata)
    held = replace(held, metadata=said if licence is None else {**said, LICENCE: licence})
    held.save(folder)
    write_rows(held, folder)
    write_text(folder / CARD, card(held, with_rows=True))


def public(value: Any, key: str = "") -> Any:
    """Metadata without where things lie on somebody's machine: of a path the last part, also of one in a list with commas.

    Args:
        value: of the metadata, or in them.
        key: that it stands under: of `PLACES` relative paths are paths, too, and elsewhere nothing but names.
    """
    if isinstance(value, Mapping):
        return {public(name): public(one, str(name)) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [public(one, key) for one in value]
    if not isinstance(value, str):
        return value
    text = _MADE.sub(r"\1(…)", value)
    if key.rpartition(".")[2] in PLACES or (key == "recipe" and text.endswith((".yaml", ".yml"))):
        return text if _is_on_hub(text) else _last(text)
    return ",".join(map(_public_name, _split(text)))


def _is_on_hub(text: str) -> bool:
    """Whether `hf:OWNER/NAME`, perhaps with a configuration, is that and no folder or file of this machine."""
    own = text.removeprefix("hf:").partition(":")[0]
    named = text.startswith("hf:") and _NAME.fullmatch(own) is not None
    return named and not own.endswith(".parquet") and not os.path.exists(own)


def _split(text: str) -> list[str]:
    """Names between commas; a comma in a path, which goes on with a slash behind it, is one of its letters."""
    found = list[str]()
    for piece in text.split(","):
        if found and _SLASH.search(piece) and _place_in(found[-1]) and not _place_in(piece):
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    return found


def _place_in(name: str) -> str | None:
    """The path or URL that is named; None where that is a name, such as that of a network of a library."""
    named = name.strip()
    library = library_of(named)
    own = named if library is None else named.partition(":")[2]
    return own if library == "transformers" or _PATH.match(own) or is_url(own) else None


def _public_name(text: str) -> str:
    """A name as it is, of a path or a URL the last part; what says from which library a network comes stays before it."""
    if (place := _place_in(text)) is None:
        return text
    library = library_of(text.strip())
    return _last(place) if library is None else f"{library}:{_last(place)}"


def _last(path: str) -> str:
    return _SLASH.split(path.rstrip("/\\"))[-1]


def _is_same(api: Any, repo: str, commit: str, names: set[str], folder: Path) -> bool:
    """Whether the tensors of the set in a repository are those of the one in `folder / "set"`."""
    if METADATA not in names:
        return False
    _fetch(api, repo, commit, METADATA, folder / "there")
    try:
        known, own = (read_json(inside(folder / place, METADATA), SET)["set"]["sha256"] for place in ("there", "set"))
    except (ValueError, LookupError, TypeError):  # no set of ours
        return False
    return bool(known == own)


def _fetch(api: Any, repo: str, commit: str, name: str, folder: Path) -> None:
    """Put one file of a commit into a folder, past the library's cache, which keeps all that ever went through it."""
    api.hf_hub_download(repo, name, repo_type=KIND, revision=commit, local_dir=folder, cache_dir=folder / ".cache")


def _check(repo: str, revision: str | None) -> None:
    shown = "…" if "@" in repo or "://" in repo else repo  # which may hold keys
    require(_NAME.fullmatch(repo) is not None, "repo", shown, "OWNER/NAME of a repository of the Hugging Face Hub")
    require(revision is None or bool(revision.strip()), "revision", revision, "a branch, a tag or a commit; without one it is main")


def _api() -> tuple[Any, Any]:
    """What asks the Hub, and its library."""
    try:
        library = import_module("huggingface_hub")
    except ImportError as error:
        raise UsageError("repo: the Hugging Face Hub needs the extra hub: pip install 'limbeck[hub]'") from error
    return library.HfApi(endpoint=os.environ.get(ENDPOINT) or None, library_name="limbeck"), library


@contextmanager
def _asked(cannot: str, revision: str | None) -> Iterator[None]:
    """Inside the block errors of the library, and of those that it stands on, are in our words."""
    try:
        yield
    except Worded:
        raise
    except Exception as error:
        raise _said(error, cannot, revision) from None


def _said(error: Exception, cannot: str, revision: str | None) -> Exception:
    """The same in our words."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OSError) and error.errno is not None and status is None:
        return error  # of the disk
    if "RevisionNotFoundError" in kinds:
        return UsageError(f"{cannot}: it has no revision {revision!r}")
    if "RepositoryNotFoundError" in kinds or status in (401, 404):
        return UsageError(f"{cannot}: there is no such repository, or it is private and no token that opens it is given")
    if status == 403:
        return UsageError(f"{cannot}: the token of the environment or of the library's login does not allow that")
    if status in (409, 412):
        return Failure(f"{cannot}: somebody else has changed it meanwhile; look at it, and try again")
    if status is None and any(word in kind for kind in kinds for word in _UNREACHED):
        return Failure(f"{cannot}: the Hub cannot be reached, or has broken off; try again")
    if status is None and type(error).__module__.partition(".")[0] in ("builtins", "numpy", "pyarrow", "PIL"):
        return error  # of the set, not of the Hub
    return Failure(f"{cannot}: the Hub, or the library that asks it, said {status or kinds[0]}; try again")

"""`load_data`: whatever `data.source` names or is, as an `ImageSet`."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.data.benchmarks import PREFIX, innermost
from limbeck.data.cifar import find_cifar, load_cifar, load_cifar_archive
from limbeck.data.columns import say_unread
from limbeck.data.folder import load_folder, readable, refuse_several
from limbeck.data.hub import load_hub
from limbeck.data.idx import find_idx, load_idx
from limbeck.data.imagenet import load_imagenet
from limbeck.data.imageset import ImageSet, load_object
from limbeck.data.lists import SUFFIXES as LISTED
from limbeck.data.lists import Unfit, find_beside, find_lists, load_lists
from limbeck.data.npz import find_npy, load_npy, load_npz
from limbeck.data.parquet import holds_parquet
from limbeck.data.scenes import LEVELS, load_scenes
from limbeck.data.settings import DataSettings
from limbeck.data.shards import BRACES, expanded, holds_shards, load_shards
from limbeck.data.split import Wanted
from limbeck.data.tiny import holds_tiny, load_tiny
from limbeck.runtime.errors import UsageError
from limbeck.runtime.located import here
from limbeck.runtime.plugins import NAMED, blamed, imported
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.urls import is_url, local

ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DESCRIBED = re.compile(r"[\w.]+:[\w.<>]+\(.*\)")  # what settings say of an object


def load_data(settings: DataSettings, progress: Progress = NoProgress(), wanted: Wanted | None = None) -> ImageSet:
    """The images that `settings.source` names or, in Python, is.

    Names go first: a folder that is called `scenes` or `imagenet` is `./scenes` or `./imagenet`. `docs/data.md` lists the sources.

    Args:
        settings: see there.
        progress: where to report.
        wanted: the images to load, where nothing is trained on them; sources that are no single files, such as CIFAR and streams
            of the Hub, are loaded whole all the same. None loads all.

    Raises:
        UsageError: when the source does not exist, or cannot be used as it is; the message is one line.
        Failure: when the disk is too small, or a stream breaks off.

    >>> load_data(DataSettings(source="scenes:easy", size=16, per_class=20))
    ImageSet('scenes:easy', 180 + 20 + 1000 images 3×16×16, 10 classes)
    """
    found = _load(settings, progress, wanted)
    if settings.range is not None and found.levels is None:
        progress.say("data.range: is not read, for no image has more than 8 bits")
    return found


def _load(settings: DataSettings, progress: Progress, wanted: Wanted | None) -> ImageSet:
    source = settings.source
    if not isinstance(source, str):
        return load_object(source, settings, progress)
    if source.startswith(PREFIX):
        with readable("data.source", source):
            inner = innermost(settings)
        return replace(_load(inner, progress, wanted), source=source)
    kind, colon, _ = source.partition(":")
    if settings.root and kind != "imagenet":
        progress.say(f"data.root: is not read, for {source!r} is not imagenet or imagenet:SUBSET")
    if kind == "scenes":
        say_unread(settings, progress)
        return load_scenes(settings, progress)
    if kind == "imagenet":
        settings = replace(settings, root=here("data.root", settings.root)) if settings.root else settings
        return load_imagenet(settings, progress, wanted)
    if kind == "hf" and colon:
        return load_hub(settings, progress, wanted=wanted)
    if local(source) != source or (is_url(source) and not BRACES.search(source)):
        return _load_elsewhere(settings, progress, wanted)
    with readable("data.source", source):
        load = _found(settings, progress, wanted)
    if load is not None:
        return load()
    if archives := expanded(source):
        return load_shards(settings, archives, progress, wanted)
    if NAMED.fullmatch(source):
        found = _named(source)
        if isinstance(found, str):
            return replace(_load(replace(settings, source=found), progress, wanted), source=source)
        return replace(load_object(found, settings, progress), source=source)
    if DESCRIBED.fullmatch(source):
        raise UsageError(f"data.source: the images were an object in Python, {source}; name them, on a command with --data SOURCE")
    raise _refusal(source, "not there")


def _found(settings: DataSettings, progress: Progress, wanted: Wanted | None) -> Callable[[], ImageSet] | None:
    """What loads the folder or the file that the source names; None where there is none."""
    path = Path(local(settings.source)).expanduser()
    if settings.source and path.is_dir():
        return _of_directory(settings, path.resolve(), progress, wanted)
    return partial(_load_file, settings, path.resolve(), progress, wanted) if path.is_file() else None


def _load_elsewhere(settings: DataSettings, progress: Progress, wanted: Wanted | None) -> ImageSet:
    """What a URL names, from its copy on this machine."""
    copy = here("data.source", settings.source)
    try:
        return replace(_load(replace(settings, source=copy), progress, wanted), source=settings.source)
    except UsageError as error:
        raise UsageError(str(error).replace(copy, settings.source)) from error


def _named(source: str) -> Any:
    """What `package.module:Name` names; of a function, what it returns."""
    try:
        found = imported("data.source", source, "Name")
    except UsageError as error:  # a word that was mistyped, rather than a module that is missing
        raise _refusal(source, "not there") if isinstance(error.__cause__, ModuleNotFoundError) else error from error.__cause__
    if isinstance(found, type) or inspect.isroutine(found):
        with blamed("data.source", source, "raised"):
            return found()
    return found


def decodes_at_any_size(settings: DataSettings) -> bool:
    """Whether the source's images are files without a size in common; those of CIFAR, arrays and scenes have one of their own."""
    source = settings.source
    if not isinstance(source, str):
        return False
    kind, colon, _ = source.partition(":")
    if kind in ("scenes", "imagenet") or (kind == "hf" and colon):
        return kind == "imagenet"
    place = here("data.source", source) if is_url(source) and not BRACES.search(source) else local(source)
    with readable("data.source", source):
        if (path := Path(place).expanduser()).is_dir():
            return not (find_cifar(path) or find_idx(path) or find_npy(path, settings) or holds_tiny(path) or holds_parquet(path))
    return source.endswith((".tar", *LISTED))


def _of_directory(settings: DataSettings, root: Path, progress: Progress, wanted: Wanted | None) -> Callable[[], ImageSet]:
    """What loads a folder, by what lies in it; class folders of images where it is nothing else."""
    cifar, idx = find_cifar(root), find_idx(root)
    if cifar and idx and root not in (places := {cifar[0], idx["train images"].parent}):
        refuse_several(root, places)
    if cifar:
        return partial(load_cifar, settings, *cifar, progress)
    if idx:
        return partial(load_idx, settings, idx, progress)
    if arrays := find_npy(root, settings):
        return partial(load_npy, settings, arrays, progress)
    if holds_tiny(root):
        say_unread(settings, progress)
        return partial(load_tiny, settings, root, progress, wanted)
    if holds_shards(root):
        return partial(load_shards, settings, root, progress, wanted)
    if holds_parquet(root):
        return partial(load_hub, settings, progress, wanted=wanted)
    if lists := find_lists(root) or find_beside(root):
        return partial(_load_listed, settings, lists, root, progress, wanted)
    return partial(load_folder, settings, progress, wanted)


def _load_listed(settings: DataSettings, lists: list[Path], root: Path, progress: Progress, wanted: Wanted | None) -> ImageSet:
    """What lists say, or class folders beside which lists lie that say something else."""
    try:
        return load_lists(settings, lists, root, progress, wanted)
    except Unfit as error:
        unfit = f"{settings.source}: the list {lists[0].name} {error}"
    try:
        found = load_folder(settings, progress, wanted)
    except UsageError as error:
        raise UsageError(f"data.source: {unfit}") from error
    progress.say(f"note: {unfit}; classes are the folders' names")
    return found


def _load_file(settings: DataSettings, path: Path, progress: Progress, wanted: Wanted | None) -> ImageSet:
    """A file by its name."""
    name = path.name.lower()
    if name.endswith(".npz"):
        return load_npz(settings, progress)
    if name.endswith(".tar"):
        return load_shards(settings, path, progress, wanted)
    if name.endswith(ARCHIVES):
        return load_cifar_archive(settings, path, progress)
    if name.endswith(".parquet"):
        return load_hub(settings, progress, wanted=wanted)
    if name.endswith(LISTED):
        try:
            return load_lists(settings, [path], path.parent, progress, wanted)
        except Unfit as error:
            raise UsageError(f"data.source: the list {settings.source!r} {error}") from error
    if name.endswith(".npy"):
        beside = "its folder is accepted, where x_train.npy, y_train.npy, x_test.npy and y_test.npy lie, and an .npz file of all"
        raise UsageError(f"data.source: {settings.source!r} is one array, images or labels; {beside}")
    raise _refusal(settings.source, "another kind of file")


def _refusal(source: str, what: str) -> UsageError:
    names = f"scenes, scenes:{'|'.join(LEVELS)}, imagenet, imagenet:SUBSET, hf:NAME, package.module:Name"
    return UsageError(
        f"data.source: {source!r} is {what}; {names}, a folder of images and an .npz, .tar, .parquet or .csv file are accepted"
    )

"""`load_data`: whatever `data.source` names, as an `ImageSet`."""

from dataclasses import replace
from pathlib import Path

from limbeck.data.arrays import load_arrays
from limbeck.data.benchmarks import PREFIX, load_benchmark
from limbeck.data.cifar import find_cifar, load_cifar, load_cifar_archive
from limbeck.data.folder import load_folder
from limbeck.data.hub import holds_parquet, load_hub
from limbeck.data.idx import find_idx, load_idx
from limbeck.data.imagenet import load_imagenet
from limbeck.data.imageset import ImageSet
from limbeck.data.scenes import LEVELS, load_scenes
from limbeck.data.settings import DataSettings
from limbeck.data.shards import holds_shards, load_shards
from limbeck.data.tiny import holds_tiny, load_tiny
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress, Progress

BUILT_IN = {"scenes": load_scenes, "imagenet": load_imagenet, "hf": load_hub}
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def load_data(settings: DataSettings, progress: Progress = NoProgress()) -> ImageSet:
    """The images that `settings.source` names.

    Names go first: a folder that is called `scenes` or `imagenet` is `./scenes` or `./imagenet`. `docs/data.md` lists the sources.

    Raises:
        UsageError: when the source does not exist, or cannot be used as it is; the message is one line.
        Failure: when the disk is too small, or a stream breaks off.
    """
    source = settings.source
    if source.startswith(PREFIX):
        return replace(load_data(load_benchmark(settings), progress), source=source)
    kind, colon, _ = source.partition(":")
    if settings.root and kind != "imagenet":
        progress.say(f"data.root: is not read, for {source!r} is not imagenet or imagenet:SUBSET")
    if kind in BUILT_IN and (colon or kind != "hf"):
        return BUILT_IN[kind](settings, progress)
    path = Path(source).expanduser()
    if source and path.is_dir():
        return _load_directory(settings, path.resolve(), progress)
    if path.is_file():
        return _load_file(settings, path.resolve(), progress)
    raise _refusal(source, "not there")


def _load_directory(settings: DataSettings, root: Path, progress: Progress) -> ImageSet:
    """A folder by what lies in it; class folders of images where it is nothing else."""
    if cifar := find_cifar(root):
        return load_cifar(settings, *cifar, progress)
    if idx := find_idx(root):
        return load_idx(settings, idx, progress)
    if holds_tiny(root):
        return load_tiny(settings, root, progress)
    if holds_shards(root):
        return load_shards(settings, root, progress)
    if holds_parquet(root):
        return load_hub(settings, progress)
    return load_folder(settings, progress)


def _load_file(settings: DataSettings, path: Path, progress: Progress) -> ImageSet:
    """A file by its name."""
    name = path.name.lower()
    if name.endswith(".npz"):
        return load_arrays(settings, progress)
    if name.endswith(".tar"):
        return load_shards(settings, path, progress)
    if name.endswith(ARCHIVES):
        return load_cifar_archive(settings, path, progress)
    if name.endswith(".parquet"):
        return load_hub(settings, progress)
    raise _refusal(settings.source, "another kind of file")


def _refusal(source: str, what: str) -> UsageError:
    names = f"scenes, scenes:{'|'.join(LEVELS)}, imagenet, imagenet:SUBSET, hf:NAME"
    return UsageError(
        f"data.source: {source!r} is {what}; {names}, a folder of images and an .npz, .tar or .parquet file are accepted"
    )

"""`load_data`: whatever `data.source` names, as an `ImageSet`."""

from pathlib import Path

from limbeck.data.arrays import load_arrays
from limbeck.data.folder import load_folder
from limbeck.data.imageset import ImageSet
from limbeck.data.scenes import LEVELS, load_scenes
from limbeck.data.settings import DataSettings
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress, Progress


def load_data(settings: DataSettings, progress: Progress = NoProgress()) -> ImageSet:
    """The images that `settings.source` names: built-in scenes, a folder of images, or an `.npz` file of arrays.

    Built-in names go first: a folder that is called `scenes` is `./scenes`.

    Raises:
        UsageError: when the source does not exist, or cannot be used as it is; the message is one line.
    """
    source = settings.source
    if source.partition(":")[0] == "scenes":
        return load_scenes(settings, progress)
    path = Path(source).expanduser()
    if source and path.is_dir():
        return load_folder(settings, progress)
    if path.is_file() and path.suffix.lower() == ".npz":
        return load_arrays(settings, progress)
    what = "another kind of file" if path.is_file() else "not there"
    accepted = f"scenes, scenes:{'|'.join(LEVELS)}, a folder of images and an .npz file are accepted"
    raise UsageError(f"data.source: {source!r} is {what}; {accepted}")

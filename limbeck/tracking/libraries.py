"""The sinks that Limbeck knows by name. None of them reaches for the network unless the user's environment tells it to."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import Context
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.plugins import imported, is_foreign
from limbeck.tracking.settings import PACKAGES
from limbeck.tracking.sink import About, Sink

if TYPE_CHECKING:
    from PIL import Image

PROJECT = "limbeck"


class TensorBoard(Sink):
    """Event files, for `tensorboard --logdir RUN/track/tensorboard`, or of a folder of runs."""

    overwrites: ClassVar[bool] = True

    def __init__(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A new file; with it TensorBoard forgets what an earlier one has from that iteration on.
        self.writer: Any = SummaryWriter(str(about.folder), purge_step=about.first, flush_secs=30)

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)

    def picture(self, iteration: int, name: str, image: "Image.Image") -> None:
        import numpy as np

        self.writer.add_image(name, np.asarray(image.convert("RGB")), iteration, dataformats="HWC")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb(Sink):
    """Weights & Biases, without the network: `wandb sync --append RUN/track/wandb/offline-run-*` takes it there.

    WANDB_MODE=online sends it at once. Each start of a run that goes on makes a folder, all of them with the same id and one
    row of steps: they are one run there. A run of somebody else's that is active in this process goes on beside it.
    """

    def __init__(self, about: About) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.make_image = wandb.Image
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(about.folder.parent),  # in which wandb makes a folder of its own name
            id=about.run,
            name=about.name,
            config=dict(about.settings),
            mode=mode,
            resume=None if mode == "offline" else "allow",  # without a network nobody can be asked what is there already
            reinit="create_new",  # else it is the run that is active already, or that is finished first
            settings=quiet,
        )

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=iteration)

    def picture(self, iteration: int, name: str, image: "Image.Image") -> None:
        self.run.log({name: self.make_image(image)}, step=iteration)

    def close(self) -> None:
        import wandb

        self.run.finish()
        if wandb.setup().most_recent_active_run is None:  # nobody else's goes on
            wandb.teardown()  # waits for what is still being written, where `finish` does not


class Trackio(Sink):
    """trackio, for `trackio show`, in its own folder (TRACKIO_DIR); TRACKIO_SPACE_ID or TRACKIO_SERVER_URL send it elsewhere.

    A run of somebody else's that is active in this process goes on beside it.
    """

    def __init__(self, about: About) -> None:
        with _local(), redirect_stdout(StringIO()):  # it greets on standard output
            import trackio

            self.make_image, theirs = trackio.Image, trackio.config
            self.run = Context().run(  # elsewhere it finishes the run that is active, and becomes it
                trackio.init,
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=f"{about.name}-{about.run[:8]}",
                config={"settings": dict(about.settings)},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            trackio.config = theirs

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=iteration)

    def picture(self, iteration: int, name: str, image: "Image.Image") -> None:
        self.run.log({name: self.make_image(image)}, step=iteration)

    def close(self) -> None:
        with redirect_stdout(StringIO()):
            self.run.finish()


@contextmanager
def _local() -> Iterator[None]:
    """Inside the block the Hub is not asked who the user is, which trackio does for a local record, too."""
    if os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL"):
        yield
        return
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


SINKS: dict[str, Callable[[About], Sink]] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}


def check_sinks(names: tuple[str, ...]) -> None:
    """Import what is named, before anything is computed.

    Raises:
        UsageError: for a package that is not installed, and for a sink of the user's that cannot be imported.
    """
    for name in names:
        if is_foreign(name):
            require(callable(imported("track", name, "Sink")), "track", name, "a Sink, nor a function that makes one")
        elif find_spec(PACKAGES[name]) is None:
            raise UsageError(f"track: {name} is not installed; pip install 'limbeck[{name}]' brings it")


def make_sink(name: str, about: About) -> Sink:
    """The sink of that name.

    Raises:
        Exception: whatever its library, or the user's own, raises.
    """
    if not is_foreign(name):
        return SINKS[name](about)
    made: Any = imported("track", name, "Sink")(about)
    if not isinstance(made, Sink):
        raise UsageError(f"track: {name!r} is not a Sink (limbeck.tracking.sink), nor a class or a function that makes one")
    return made


def place_of(name: str, folder: Path) -> Path:
    """Where in a run folder the sink of that name writes."""
    return folder / "track" / name.replace(":", "-")

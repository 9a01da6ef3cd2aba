"""The images of a grid: those that its finished cells were measured on, and those that their sources hold today.

Images are told apart by their fingerprint (`ImageSet`), which is known once they were opened. Scenes are built in: they are what
their settings say, and nothing is opened for them.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from limbeck.data.scenes import check_scenes
from limbeck.distilled.initial import content_of
from limbeck.evaluation.protocols import resolve as resolve_protocol
from limbeck.runs.settings import DistillSettings
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.fingerprint import encodable, fingerprint
from limbeck.runtime.progress import NoProgress, Progress

if TYPE_CHECKING:
    from limbeck.runs.workspace import Workspace

N = TypeVar("N", bound=Hashable)
GLIMPSE = 8  # images that are decoded to see whether a source can be used


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The fingerprints of what sources hold, each opened once: for one command, after which files may be others.

    Args:
        known: by `key_of`, and what else they follow from; None where a source could not be opened.
    """

    known: dict[str, str | None] = field(default_factory=dict)

    def fingerprint(self, settings: DistillSettings) -> str | None:
        """Of the images that the settings ask for; None where they cannot be opened."""
        return self._once(settings, (), lambda workspace: workspace.data.fingerprint)

    def start(self, settings: DistillSettings) -> str | None:
        """Of the set that `init` names, as it is taken up for these images; None where it cannot be read."""
        about = (settings.init, settings.ipc, settings.outer.syn_lr_init, encodable(settings.parametrisation))
        return self._once(settings, about, lambda workspace: None if workspace.start is None else content_of(workspace.start))

    def _once(self, settings: DistillSettings, about: tuple[Any, ...], read: "Callable[[Workspace], str | None]") -> str | None:
        from limbeck.runs.workspace import Workspace

        try:
            key = fingerprint(key_of(settings), *about)
            if key not in self.known:
                self.known[key] = None
                self.known[key] = read(Workspace(settings, NoProgress()))
        except (Failure, UsageError):
            return None
        return self.known[key]

    def are_others(self, held: str | None, settings: DistillSettings) -> bool:
        """Whether the source holds other images than those of that fingerprint; False where nobody can tell."""
        return held is not None and not built_in(settings) and self.fingerprint(settings) not in (None, held)

    def are_the_same(self, held: str | None, settings: DistillSettings) -> bool:
        """Whether the source is known to hold the images of that fingerprint."""
        return held is not None and self.fingerprint(settings) == held


def key_of(settings: DistillSettings) -> str:
    """The same for settings that ask for the same images of one source.

    Raises:
        UsageError: when the protocol, which may want no validation images, cannot be read.
    """
    return fingerprint(encodable([settings.data, resolve_protocol(settings.eval).validation]))


def two_of_one_source(measured: Mapping[N, tuple[DistillSettings, str | None]]) -> tuple[N, N] | None:
    """Two that ask for the same images of one source, and have others; None where there are no such two.

    Args:
        measured: settings, and the fingerprint of the images that were there then, where it is known.
    """
    firsts: dict[str, tuple[N, str]] = {}
    for name, (settings, images) in measured.items():
        if images is None or built_in(settings):
            continue
        with suppress(UsageError):  # a protocol that is gone
            first, before = firsts.setdefault(key_of(settings), (name, images))
            if before != images:
                return first, name
    return None


def built_in(settings: DistillSettings) -> bool:
    """Whether the images are made from the settings alone."""
    source = settings.data.source
    return isinstance(source, str) and source.partition(":")[0] == "scenes"


def check_sources(asked: Iterable[DistillSettings], progress: Progress, *, built_in_only: bool = False) -> None:
    """Look once at every different source, before anything is run.

    Args:
        asked: the settings of all that is to be run.
        progress: where to report.
        built_in_only: whether the others were looked at before, or lie where jobs run, and perhaps not here.

    Raises:
        UsageError: when a source is not there, or cannot be used as it is, or a protocol is none.
        Failure: when the disk is too small, or a stream breaks off.
    """
    from limbeck.data.load import load_data
    from limbeck.data.split import Wanted

    for settings in {key_of(one): one for one in asked}.values():
        if built_in(settings):
            check_scenes(settings.data)
        elif not built_in_only:
            own = settings.data if resolve_protocol(settings.eval).validation else replace(settings.data, val_fraction=0.0)
            load_data(own, progress, Wanted(("train", "val", "test"), glimpse=GLIMPSE))

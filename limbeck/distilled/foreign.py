"""What a user may say about sets of other programs, and when there is nothing to say."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from limbeck.data.constants import OWN, Channels, Name
from limbeck.distilled.set import DistilledSet
from limbeck.runtime.checked import Checked, Positive
from limbeck.runtime.errors import UsageError
from limbeck.runtime.located import here

Normalised = Annotated[Literal["auto", "yes", "no", Name, 255] | Channels, OWN]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignOptions(Checked):
    """How sets of other programs are to be understood. What a file says itself goes before.

    Args:
        normalised: whether images in floats are pixels in [0, 1] (`no`), levels from 0 to 255 (255), or as a network takes them:
            normalised like the data (`yes`), or by the means and deviations of that name, `imagenet`, `cifar10`, …, or by numbers,
            [[means], [deviations]]. `auto` decides by their values and by what is usual, where that leaves no doubt.
        labels: what labels are: `logits`, `probabilities` or `hard`; `auto` decides by their values.
        class_order: the names of the classes in the order in which labels, or sorted class folders, count them; None takes that of
            the data.
        syn_lr: η where no file says it; None leaves it to whoever trains on the set.
        resize: bring images of another size to that of the data, instead of refusing them.
    """

    normalised: Normalised = "auto"
    labels: Literal["auto", "logits", "probabilities", "hard"] = "auto"
    class_order: tuple[str, ...] | None = None
    syn_lr: Positive | None = None
    resize: bool = False

    @property
    def given(self) -> list[str]:
        """The names of those that are not left to their defaults."""
        return [name for name, value in self.items() if value != getattr(ForeignOptions(), name)]


def check_needed(paths: Sequence[Path | str], options: ForeignOptions) -> None:
    """Refuse to be told how sets are to be understood where Limbeck has saved all of them, which say it themselves."""
    if options.given and all(DistilledSet.is_at(os.path.expanduser(here("path", str(path)))) for path in paths):
        name, what = options.given[0], repr(str(paths[0])) if paths else "a set in memory"
        said = f"{getattr(options, name)!r} is not accepted for {what}, which says itself what it is"
        raise UsageError(f"{ForeignOptions.key(name)}: {said}")

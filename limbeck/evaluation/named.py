"""Networks that the keys `eval.*` name: what is wrong with one is said by its key, before anything is trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from limbeck.evaluation.protocols import Protocol
from limbeck.evaluation.settings import EvalSettings
from limbeck.networks.flat import FlatNetwork
from limbeck.networks.names import check_network_name
from limbeck.runtime.errors import UsageError


@contextmanager
def called(key: str) -> Iterator[None]:
    """What is wrong with a network inside the block is said of that key, which names it."""
    try:
        yield
    except UsageError as error:
        said = str(error)
        raise UsageError(f"{key}: {said.removeprefix('network: ')}" if said.startswith("network: ") else said) from error


def check_names(settings: EvalSettings) -> None:
    """Raise `UsageError` unless `eval.networks` and `eval.teacher` are names of networks; of a user's own the form is checked."""
    for key in ("networks", "teacher"):
        names: str | None = getattr(settings, key)
        for name in () if names is None else names.split(","):
            with called(settings.key(key)):
                check_network_name(name.strip())


def check_teacher(settings: EvalSettings, protocol: Protocol, build: Callable[[str], FlatNetwork]) -> None:
    """Raise `UsageError` where the protocol asks a teacher whom `eval.teacher` names and whom one cannot `build` for the images."""
    if settings.teacher is not None and protocol.labels == "teacher":
        with called("eval.teacher"):
            build(settings.teacher)

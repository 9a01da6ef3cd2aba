"""Expert trajectories of the research code, `replay_buffer_*.pt`, as a store.

Such a file is a pickled list of experts, each a list of epochs from 0 on, each a list of the network's parameters. It is read by
`torch.load(weights_only=True)`, which makes tensors and containers and runs nothing that a file asks for.
"""

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.experts.blocks import text_of
from limbeck.experts.elsewhere import METADATA
from limbeck.experts.notes import Want
from limbeck.experts.store import CONTENT, STORE, TrajectoryStore
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.bounded import check_sums, opened
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import digest, new_folder, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.leftovers import passing_folder
from limbeck.runtime.progress import NoProgress, Progress
from limbeck.runtime.published import Published, Version
from limbeck.runtime.remote import Remote


def import_lists(
    files: Sequence[Path],
    output: Path,
    network: FlatNetwork,
    *,
    dtype: str = "fp32",
    keep: Sequence[int] | None = None,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> TrajectoryStore:
    """Write the experts of some files, in that order, to a new store: all of them or, where something is wrong, none.

    Args:
        files: of the research code.
        output: a folder that is not there yet.
        network: the one that was trained; its parameters are compared in number and shape.
        dtype: name of a coding.
        keep: the epochs to keep; None keeps all.
        about: what else to note.
        progress: where to report.

    Raises:
        UsageError: when a file cannot be read without running code from it, is no such list, or is of another network.
    """
    require(bool(files), "FILE", [], "at least one file")
    require(not output.exists(), "--output", str(output), "a new folder")
    identity = {
        "network": network.name,
        "num_parameters": network.num_parameters,
        "imported": [file.name for file in files],
    }
    held: list[tuple[int, ...]] = []
    digests: list[list[str]] = []
    with (progress or NoProgress()).stage("import", len(files)) as stage, new_folder(output) as folder:
        store = TrajectoryStore(folder, identity, about)
        for file in files:
            for name, epochs in _experts(file):
                thetas = dict(_trajectory(file, name, epochs, network, keep))
                store.write(len(held), thetas, coding=dtype)
                held.append(tuple(thetas))
                digests.append([digest(theta) for theta in thetas.values()])
            stage.advance(experts=len(held))
        common = tuple(sorted(set.intersection(*map(set, held))))
        store.note(Want(len(held), common, None, 0, dtype))
        noted = {**store.metadata["about"], CONTENT: fingerprint(held, digests)}  # before coding and pruning
        write_json(folder / METADATA, {**store.metadata, "about": noted}, STORE)
    return TrajectoryStore(output)


def put_store(key: str, url: str, make: Callable[[Path], TrajectoryStore]) -> TrajectoryStore:
    """The store that `make` writes to a new folder, at a URL where nothing is but what an earlier call has begun.

    Raises:
        UsageError: where something else is, or nothing can be written.
    """
    remote = Remote(key, url)
    remote.check_writable()
    there, accepted = set(remote.names()), "a new place; something is there"
    begun = METADATA not in there and all(name.startswith(("expert-", "wanted-")) for name in there)
    require(begun, key, url, accepted)
    with passing_folder() as folder:
        made = folder / remote.name
        make(made)
        require(there <= {path.name for path in made.iterdir()}, key, url, accepted)
        for expert in sorted(made.glob("expert-*")):
            place = Published(remote / expert.name)
            place.publish(expert, place.newest() if expert.name in there else Version())
        for file in sorted(made.glob("*.json"), key=lambda file: file.name == METADATA):  # which makes a store of it: the last
            put, content = remote / file.name, file.read_bytes()
            require(put.put_new(content) or (file.name in there and put.read() == content), key, url, accepted)
    return TrajectoryStore.at(url, key)


SIDES = (32, 64, 128, 28, 96, 224, 16, 48, 256, 8)


def network_of(name: str, file: Path) -> FlatNetwork:
    """The network of that name whose parameters a file of the research code has; C, H, W and K follow from their shapes.

    Where images of several sizes have the same parameters, it is for the first of `SIDES`, which changes nothing about them.

    Raises:
        UsageError: when the file cannot be read without running code from it, is no such list, or is of another network.
    """
    _, epochs = next(_experts(file))
    where = f"FILE: epoch 0 of expert 0 of {str(file)!r}"
    listed = isinstance(epochs[0], (list, tuple)) and len(epochs[0]) > 0 and all(isinstance(part, Tensor) for part in epochs[0])
    if not listed:
        raise UsageError(f"{where} is not a list of float tensors")
    shapes = [tuple(part.shape) for part in epochs[0]]
    channels = (shapes[0][1],) if len(shapes[0]) == 4 else (3, 1)
    for side, planes in product(SIDES, channels):
        try:
            network = flat_network(name, (planes, side, side), shapes[-1][0] if shapes[-1] else 1)
        except UsageError:  # too small for it
            continue
        if [tuple(shape) for shape in network.shapes.values()] == shapes:
            return network
    raise UsageError(
        f"{where} has not the parameters of {name} for square images of {min(SIDES)} to {max(SIDES)} pixels; --data says its images"
    )


def load_lists(file: Path) -> Any:
    """What a file of `torch.save` holds, as far as it consists of tensors and containers.

    Raises:
        UsageError: when the file cannot be read, or not without running code from it.
    """
    try:
        with opened(file) as content:
            check_sums(content)  # at which torch does not look
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(file, map_location="cpu", weights_only=True)  # the format of torch before 1.6
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise _unreadable(file) from error
        reason = f"holds more than lists of tensors ({named[1]}); reading it would run code from it"
        raise UsageError(f"FILE: {str(file)!r} {reason}") from error
    except OSError as error:
        raise UsageError(f"FILE: {str(file)!r} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a broken file makes torch and its zip reader raise whatever its bytes lead to
        raise _unreadable(file) from error


def _unreadable(file: Path) -> UsageError:
    return UsageError(f"FILE: {str(file)!r} is no file of torch.save, or broken")


def _experts(file: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    experts = load_lists(file)
    good = isinstance(experts, (list, tuple)) and len(experts) > 0
    if not good or not all(isinstance(epochs, (list, tuple)) and len(epochs) > 0 for epochs in experts):
        raise UsageError(f"FILE: {str(file)!r} is not a list of experts, each a list of epochs")
    for number, epochs in enumerate(experts):
        yield f"expert {number} of {str(file)!r}", epochs


def _trajectory(
    file: Path, name: str, epochs: Sequence[Any], network: FlatNetwork, keep: Sequence[int] | None
) -> Iterator[tuple[int, Tensor]]:
    lacking = sorted(set(keep or ()) - set(range(len(epochs))))
    require(not lacking, "--keep", text_of(keep or ()), f"among the epochs 0-{len(epochs) - 1} of {name}")
    for epoch in range(len(epochs)) if keep is None else sorted(set(keep)):
        theta = _flat(f"FILE: epoch {epoch} of {name}", epochs[epoch], network)
        if not bool(theta.isfinite().all()):
            raise UsageError(f"FILE: epoch {epoch} of {name} has numbers that are not finite")
        yield epoch, theta


def _flat(where: str, parameters: Any, network: FlatNetwork) -> Tensor:
    """θ with shape (P,), float32."""
    listed = isinstance(parameters, (list, tuple))
    if not listed or not all(isinstance(part, Tensor) and part.is_floating_point() for part in parameters):
        raise UsageError(f"{where} is not a list of float tensors")
    if len(parameters) != len(network.shapes):
        raise UsageError(f"{where} has {len(parameters)} parameters, not the {len(network.shapes)} of {network.name}")
    for part, (key, shape) in zip(parameters, network.shapes.items(), strict=True):
        if part.shape != shape:
            raise UsageError(f"{where} has the shape {tuple(part.shape)}, not {tuple(shape)}, for {key} of {network.name}")
    return torch.cat([part.detach().float().flatten() for part in parameters])

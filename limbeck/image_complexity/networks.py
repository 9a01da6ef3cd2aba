"""The network that looks at images: one of Limbeck's, trained on the data or kept in a folder (`network.json` and
`network.safetensors`), or one of `transformers`. Nothing that is read here is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from limbeck.data.preprocessing import preprocessing_from
from limbeck.evaluation.predictions import accuracy
from limbeck.evaluation.settings import EvalSettings
from limbeck.image_complexity.classifier import Classifier, frozen, size_text, unreadable
from limbeck.image_complexity.pretrained import pretrained
from limbeck.image_complexity.settings import ComplexitySettings
from limbeck.networks.flat import flat_network
from limbeck.networks.names import check_network_name
from limbeck.runs.workspace import Workspace
from limbeck.runtime.checked import Count
from limbeck.runtime.errors import UsageError, require
from limbeck.runtime.files import new_folder, read_json, read_tensors, write_json, write_tensors
from limbeck.runtime.plugins import is_code, library_of
from limbeck.runtime.sealed import FileKind
from limbeck.training.images import Images, prepare_split

RECORD, TENSORS = "network.json", "network.safetensors"
ABOUT, NETWORK = FileKind("description of a network"), FileKind("network")


def is_trained_here(named: str) -> bool:
    """Whether `--network` names an architecture, which is trained on the data, and no network that is there already."""
    if library_of(named) is not None:  # such as `transformers:FOLDER`
        return True
    return not (Path(named).expanduser().is_dir() or named.startswith("hf:") or "/" in named)


def judge(settings: ComplexitySettings, workspace: Workspace) -> Classifier:
    """The network that `settings.network` names.

    Args:
        settings: see there.
        workspace: of the data, on which Limbeck's networks are trained; its own key `network` does not count.

    Raises:
        UsageError: when there is no such network, it cannot be read, or it has not the layer asked for.
        Failure: when training diverges.
    """
    named = settings.network
    if is_trained_here(named):
        return trained(settings, workspace)
    path = Path(named).expanduser()
    if path.is_dir():
        found = load_network(path) if (path / RECORD).is_file() else pretrained(path, settings)
    else:
        found = pretrained(named.removeprefix("hf:"), settings)
    if (path / RECORD).is_file():
        check_given(found, settings, named)
    found = replace(found, module=found.module.to(workspace.device))
    found.layers(settings.layer)
    return found


def check_given(found: Classifier, settings: ComplexitySettings, named: str) -> None:
    """Raise `UsageError` where settings are given that a network with a size and a preprocessing of its own has no use for."""
    size = f"possible: {named!r} takes images of {size_text(found.shape)}"
    require(settings.size is None, "--size", settings.size, size)
    whose = f"possible for a pretrained network: {named!r} is given what it was trained with"
    require(settings.normalise == "network", "--normalise", settings.normalise, whose)


def trained(settings: ComplexitySettings, workspace: Workspace) -> Classifier:
    """The network of that name, trained on the training images as `eval.full_*` say, or taken from the cache.

    Raises:
        UsageError: when there is no network of that name, or it has not the layer asked for.
        Failure: when training diverges.
    """
    try:
        check_network_name(settings.network)
    except UsageError as error:
        reason = str(error).removeprefix("network: ")
        raise UsageError(f"--network: {reason}, a folder with a network, or NAME/NAME on the Hugging Face Hub") from None
    require(settings.size is None, "--size", settings.size, "possible for a network that is trained on the data: set data.size")
    own = "possible for a network that is trained on the data: data.normalise says how"
    require(settings.normalise == "network", "--normalise", settings.normalise, own)
    data, network = workspace.data, workspace.network_of(settings.network)
    blank = Classifier(settings.network, network.module, data.shape, workspace.preprocessing, data.class_names)
    blank.layers(settings.layer)  # before anything is trained
    evaluator = workspace.evaluator_of(network)
    full = replace(evaluator.full_data, settings=_OneNetwork(**{**dict(evaluator.settings.items()), "full_seeds": 1}))
    if settings.seed:  # at 0 the first network of `limbeck distill` is taken
        full = replace(full, trials=replace(full.trials, seed=settings.seed))

    def test() -> Images:
        # Somebody has to be asked, and the network need not be tested.
        first = data.train.take(np.arange(1))
        return evaluator.images_of("test") if len(data.test) else prepare_split(first, full.preprocessing, workspace.device)

    module = full.teacher(test, workspace.progress)
    logits = full.found(test, workspace.progress).logits[0]
    about = {
        "trained_on": {"source": data.source, "fingerprint": data.fingerprint},
        "epochs": evaluator.settings.full_epochs,
        "seed": settings.seed,
        "test_accuracy": accuracy(logits, evaluator.labels_of("test")) if len(data.test) else None,
    }
    return replace(blank, module=module, about=about)


def check_folder(output: Path, folder: Path) -> None:
    """Raise `UsageError` where `save_network` would replace what is no network, in a folder of the output."""
    free = folder.is_dir() and ((folder / RECORD).is_file() or not any(folder.iterdir()))
    other = f"a place for the network: '{folder}' is something else; name another folder"
    require(free or not folder.exists(), "output", str(output), other)


def save_network(judge: Classifier, folder: Path) -> None:
    """Write one of Limbeck's networks to a folder that `--network` takes, replacing what is there.

    Raises:
        UsageError: when the network is none that has a name.
    """
    check_network_name(judge.name)
    tensors = {f"module.{name}": value for name, value in judge.module.state_dict().items()}
    tensors |= {f"preprocessing.{name}": value for name, value in judge.preprocessing.tensors().items()}
    record = {
        "format": 1,
        "network": judge.name,
        "shape": judge.shape,
        "class_names": judge.class_names,
        "preprocessing": judge.preprocessing.kind,
        "about": dict(judge.about),
    }
    with new_folder(folder) as part:
        write_tensors(part / TENSORS, tensors, kind=NETWORK)
        write_json(part / RECORD, record, ABOUT)


def load_network(folder: Path) -> Classifier:
    """The network that `save_network` wrote, on the CPU.

    Raises:
        UsageError: when the folder cannot be read or holds something else.
    """
    try:
        record = read_json(folder / RECORD, ABOUT)
        tensors, _ = read_tensors(folder / TENSORS, kind=NETWORK)
        require(record["format"] == 1, "format", record["format"], "1")
        channels, height, width = (int(side) for side in record["shape"])
        names = tuple(str(name) for name in record["class_names"])
        if is_code(str(record["network"])):
            raise ValueError(f"{record['network']!r} is code, which a folder may not name; name it yourself")
        # By way of `FlatNetwork`, which is what puts its own norms in the place of torch's.
        module = flat_network(str(record["network"]), (channels, height, width), len(names)).module
        module.load_state_dict(_under("module.", tensors))
        preprocessing = preprocessing_from(str(record["preprocessing"]), _under("preprocessing.", tensors))
        about = dict(record["about"])
    except Exception as error:  # a file can be broken in many ways
        raise unreadable(folder, error) from error
    return Classifier(record["network"], frozen(module), (channels, height, width), preprocessing, names, about)


@dataclass(frozen=True, kw_only=True, slots=True)
class _OneNetwork(EvalSettings):
    """Settings under which one network on the full data is enough: no interval of its accuracy is wanted."""

    full_seeds: Count = 1


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

"""The research code's lists: imported exactly, or refused without running anything."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.experts.imported import import_lists, put_store
from limbeck.experts.maintain import prune
from limbeck.experts.notes import Want
from limbeck.experts.store import STORE, TrajectoryStore
from limbeck.networks.flat import FlatNetwork, flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import write_json
from limbeck.runtime.fingerprint import array_fingerprint
from limbeck.runtime.remote import Remote, Unreachable


def network() -> FlatNetwork:
    return flat_network("ConvNetD1-w4", (3, 8, 8), 10)


def parameters(seed: int, kind: torch.dtype = torch.float32) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draws).to(kind) for shape in network().shapes.values()]


def experts(number: int, epochs: int, first: int = 0) -> list[list[list[torch.Tensor]]]:
    return [[parameters(100 * (first + expert) + epoch) for epoch in range(epochs)] for expert in range(number)]


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def flat(seed: int) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parameters(seed)])


def test_experts_of_all_files_are_taken_in_order(tmp_path: Path) -> None:
    files = [saved(tmp_path / "replay_buffer_0.pt", experts(2, 4)), saved(tmp_path / "replay_buffer_1.pt", experts(1, 4, first=2))]
    store = import_lists(files, tmp_path / "store", network(), about={"source": "cifar10"})
    assert store.imported
    assert store.metadata["about"] == {"source": "cifar10", "content": store.content}
    for expert in range(3):
        assert store.held(expert) == [0, 1, 2, 3]
        assert all(torch.equal(store.read(expert, epoch), flat(100 * expert + epoch)) for epoch in range(4))
        assert store.accuracies(expert) == [None] * 3
    (want,) = store.wanted()
    assert (want.num_experts, want.epochs, want.last) == (3, (0, 1, 2, 3), None)
    assert not list(tmp_path.glob(".*"))


def test_the_content_is_of_all_experts_however_they_are_kept(tmp_path: Path) -> None:
    def made(name: str, others: int, **options: Any) -> TrajectoryStore:
        lists = experts(1, 4) + experts(1, 4, first=others)
        return import_lists([saved(tmp_path / "replay_buffer_0.pt", lists)], tmp_path / name, network(), **options)

    store, content = made("a", 1), made("a2", 1).content
    assert made("half", 1, dtype="half").content == content == store.content
    assert made("b", 2).content != content
    prune(store, [Want(2, (0, 1), None, 0, "fp32")])
    assert TrajectoryStore(store.path).held(0) == [0, 1] and TrajectoryStore(store.path).content == content
    write_json(store.path / "metadata.json", store.metadata | {"about": {}}, STORE)  # as an earlier version left it
    earlier = TrajectoryStore(store.path)
    assert earlier.content == array_fingerprint(earlier.read(0, 1).numpy()) and torch.equal(earlier.read(1, 0), flat(100))


def test_an_import_to_a_url_that_broke_off_is_repeated(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, url, put_new = tmp_path / "buffer.pt", f"{bucket}/imported", Remote.put_new

    def put(number: int = 3) -> TrajectoryStore:
        saved(file, experts(number, 2))
        return put_store("--output", url, lambda folder: import_lists([file], folder, network()))

    for missing in ("expert-0001/", "metadata.json"):

        def broken_off(remote: Remote, content: bytes, missing: str = missing) -> bool:
            if missing in remote.url:
                raise Unreachable("gone")
            return put_new(remote, content)

        with monkeypatch.context() as there, pytest.raises(Unreachable):
            there.setattr(Remote, "put_new", broken_off)
            put()
    with pytest.raises(UsageError, match="^--output: .* is not a new place; something is there$"):
        put(number=2)  # of which the third expert is not
    store = put()
    assert store.experts == [0, 1, 2]
    assert all(torch.equal(store.read(expert, 1), flat(100 * expert + 1)) for expert in range(3))
    with pytest.raises(UsageError, match="^--output: .* is not a new place; something is there$"):
        put()


def test_experts_of_the_field_on_mnist_are_taken(tmp_path: Path) -> None:
    """Their first convolution pads 28×28 to 32×32, so that their head has 128 · 4 · 4 inputs."""
    blocks = [shape for inputs in (1, 128, 128) for shape in ((128, inputs, 3, 3), (128,), (128,), (128,))]
    epoch = [torch.full(shape, 0.5) for shape in (*blocks, (10, 2048), (10,))]
    store = import_lists([saved(tmp_path / "buffer.pt", [[epoch]])], tmp_path / "store", flat_network("ConvNetD3", (1, 28, 28), 10))
    assert store.read(0, 0).shape == (317_706,)


def test_only_some_epochs_in_half_width(tmp_path: Path) -> None:
    file = saved(tmp_path / "buffer.pt", experts(1, 12))
    store = import_lists([file], tmp_path / "store", network(), dtype="half", keep=[0, 1, 2, 11])
    assert store.held(0) == [0, 1, 2, 11]
    assert torch.equal(store.read(0, 11), flat(11))
    assert torch.equal(store.read(0, 2), flat(2))
    assert 0 < float((store.read(0, 1) - flat(1)).abs().max()) < 0.01


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_and_parameters_are_taken(tmp_path: Path, kind: torch.dtype) -> None:
    lists = [[[torch.nn.Parameter(part) for part in parameters(5, kind)]]]
    store = import_lists([saved(tmp_path / "buffer.pt", lists)], tmp_path / "store", network())
    assert torch.equal(store.read(0, 0), torch.cat([part.float().flatten() for part in parameters(5, kind)]))


def test_the_format_of_old_torch_is_read(tmp_path: Path) -> None:
    file = saved(tmp_path / "buffer.pt", experts(1, 2), _use_new_zipfile_serialization=False)
    assert torch.equal(import_lists([file], tmp_path / "store", network()).read(0, 1), flat(1))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil-was-here",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, options in enumerate(({}, {"_use_new_zipfile_serialization": False})):
        file = saved(tmp_path / f"buffer{number}.pt", [[[Evil()]]], **options)
        with pytest.raises(UsageError) as caught:
            import_lists([file], tmp_path / "store", network())
        reason = "holds more than lists of tensors (posix.mkdir); reading it would run code from it"
        assert str(caught.value) == f"FILE: {str(file)!r} {reason}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["buffer0.pt", "buffer1.pt"]


def wrong(change: str) -> Any:
    lists = experts(2, 2)
    if change == "one missing":
        lists[1][1].pop()
    elif change == "another shape":
        lists[1][1][0] = lists[1][1][0].transpose(0, 1)
    elif change == "nan":
        lists[1][1][0][0, 0, 0, 0] = torch.nan
    elif change == "integers":
        lists[1][1][0] = lists[1][1][0].int()
    return {
        "a dictionary": {"a": 1},
        "empty": [],
        "no epochs": [[]],
        "too deep": [lists],
        "numbers": [[[1, 2]]],
        "flat": lists[0][0],
    }.get(change, lists)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("one missing", r"^FILE: epoch 1 of expert 1 of '.*' has 5 parameters, not the 6 of ConvNetD1-w4$"),
        ("another shape", r"has the shape \(3, 4, 3, 3\), not \(4, 3, 3, 3\), for blocks.0.0.weight of ConvNetD1-w4$"),
        ("nan", r"^FILE: epoch 1 of expert 1 of '.*' has numbers that are not finite$"),
        ("integers", r"^FILE: epoch 1 of expert 1 of '.*' is not a list of float tensors$"),
        ("numbers", "is not a list of float tensors$"),
        ("too deep", "is not a list of float tensors$"),
        ("a dictionary", "is not a list of experts, each a list of epochs$"),
        ("empty", "is not a list of experts, each a list of epochs$"),
        ("no epochs", "is not a list of experts, each a list of epochs$"),
        ("flat", "is not a list of experts, each a list of epochs$"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_left(tmp_path: Path, change: str, message: str) -> None:
    file = saved(tmp_path / "buffer.pt", wrong(change))
    with pytest.raises(UsageError, match=message):
        import_lists([file], tmp_path / "store", network())
    assert list(tmp_path.iterdir()) == [file]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pt", experts(1, 2)).read_bytes()
    for content in (b"", b"no torch file", whole[: len(whole) // 2]):
        (tmp_path / "buffer.pt").write_bytes(content)
        with pytest.raises(UsageError, match=r"^FILE: '.*buffer.pt' (is no file of torch.save, or broken|cannot be read .*)$"):
            import_lists([tmp_path / "buffer.pt"], tmp_path / "store", network())
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(UsageError, match=r"^FILE: .* cannot be read \("):
            import_lists([path], tmp_path / "store", network())
    with pytest.raises(UsageError, match="^FILE: \\[\\] is not at least one file$"):
        import_lists([], tmp_path / "store", network())


def test_an_output_that_is_there_and_epochs_that_are_not_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "buffer.pt", experts(1, 4))
    with pytest.raises(UsageError, match="^--output: .* is not a new folder$"):
        import_lists([file], tmp_path, network())
    with pytest.raises(UsageError, match=r"^--keep: '0-1,9' is not among the epochs 0-3 of expert 0 of "):
        import_lists([file], tmp_path / "store", network(), keep=[0, 1, 9])

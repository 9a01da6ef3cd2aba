"""Files that are broken or meant to harm are refused in one line, and nothing in them is run."""

import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.distilled import formats
from limbeck.distilled.formats import read_arrays, read_pt, shown
from limbeck.runtime.errors import UsageError

IMAGES, LABELS = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Calls:
    """What calls a function where it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).startswith("path: ") and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert message in str(caught.value)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_bomb_in_a_pt_file_does_not_go_off(tmp_path: Path, new: bool) -> None:
    path, mark = tmp_path / "set.pt", tmp_path / "ran"
    torch.save({"images": IMAGES, "labels": LABELS, "lr": Bomb(mark)}, path, _use_new_zipfile_serialization=new)
    refused(lambda: read_pt(path), "holds more than tensors (posix.mkdir), which could run code when it is read; torch.save(")
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Bomb(mark)))
    refused(lambda: read_pt(path), "path: ")
    assert not mark.exists()


def results_file(path: Path, *more: Any, numpy: str = "numpy._core") -> Path:
    """What gradient and distribution matching leave: the sets, and their accuracies as NumPy's scalars."""
    accuracies = [np.float64(0.5), np.float32(0.25), np.int64(3), np.bool_(True), *more]
    torch.save({"data": [[IMAGES, LABELS]], "accs_all_exps": {"ConvNet": accuracies}, "lr": np.float32(0.5)}, path)
    with zipfile.ZipFile(path) as held:
        parts = {name: held.read(name) for name in held.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as written:
        for name, content in parts.items():
            written.writestr(name, re.sub(rb"numpy\._?core\.multiarray", f"{numpy}.multiarray".encode(), content))
    return path


@pytest.mark.parametrize("numpy", ["numpy.core", "numpy._core"])
def test_numbers_of_numpy_beside_the_tensors(tmp_path: Path, numpy: str) -> None:
    path = results_file(tmp_path / "res_DC_CIFAR10_ConvNet_1ipc.pt", numpy=numpy)
    assert f"c{numpy}.multiarray".encode() in path.read_bytes()
    others = torch.serialization.get_safe_globals()
    found = read_pt(path)
    assert torch.equal(found.images, IMAGES) and torch.equal(found.labels, LABELS)
    held = formats.load(path)["accs_all_exps"]["ConvNet"]
    assert held == [0.5, 0.25, 3, True] and [type(one) for one in held] == [float, float, int, bool]
    assert torch.serialization.get_safe_globals() == others  # nobody else reads them
    torch.save({"images": IMAGES, "labels": LABELS, "lr": np.float32(0.5)}, path)
    assert read_pt(path).syn_lr == 0.5


def test_nothing_more_of_numpy_is_read(tmp_path: Path) -> None:
    path, mark = tmp_path / "res.pt", tmp_path / "ran"
    refused(lambda: read_pt(results_file(path, Bomb(mark))), "holds more than tensors (posix.mkdir)")
    refused(lambda: read_pt(results_file(path, np.zeros(2))), "holds more than tensors (numpy._core.multiarray._reconstruct)")
    scalar = np.float64(0).__reduce__()[0]
    for kind in (np.dtype(object), np.dtype([("a", object)]), np.dtype("U4"), np.dtype("M8[s]")):
        for raw in (b"\x00" * 8, Bomb(mark)):
            refused(lambda: read_pt(results_file(path, Calls(scalar, kind, raw))), "path: ")  # noqa: B023 (called at once)
    for raw in (b"\x00" * 4, b"\x00" * 16):
        refused(lambda: read_pt(results_file(path, Calls(scalar, np.dtype("f8"), raw))), "cannot be read")  # noqa: B023
    assert not mark.exists()


def test_a_pickle_bomb_in_an_npz_does_not_go_off(tmp_path: Path) -> None:
    path, mark = tmp_path / "set.npz", tmp_path / "ran"
    np.savez(path, images=np.array([Bomb(mark)], dtype=object), labels=np.zeros(1))
    refused(lambda: read_arrays(path, ("images",)), "holds Python objects as images")
    structured = np.array([(Bomb(mark),)], dtype=[("a", object)])
    np.savez(path, images=structured)
    refused(lambda: read_arrays(path, ("images",)), "holds Python objects as images")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (IMAGES, "holds Tensor, not images and labels"),
        (OrderedDict(weight=IMAGES), "lacks images and labels; torch.save("),
        ({"images": IMAGES}, "lacks labels"),
        ((IMAGES,), "holds tuple of 1, not images and labels"),
        ((IMAGES, LABELS, 0.1, 0.2), "holds tuple of 4"),
        ([], "holds list of 0"),
        ({"data": []}, "holds list of 0"),
        ({"data": [[]]}, "holds list of 0"),
        ({"data": None}, "holds NoneType"),
        (7, "holds int"),
        ({"images": IMAGES, "labels": LABELS, "class_names": [1, 2]}, "holds list of 2 as class_names"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": ["a", "\udc80"]},
            "with '\\udc80', which is no Unicode text",
        ),
        ({"images": [0.5], "labels": LABELS}, "holds list of 1 as images"),
        ({"images": IMAGES, "labels": [2**70]}, "holds list of 1 as labels"),
    ],
)
def test_other_contents_of_pt_files(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "set.pt")
    refused(lambda: read_pt(tmp_path / "set.pt"), message)


def test_labels_may_be_a_list_of_numbers(tmp_path: Path) -> None:
    torch.save((IMAGES, [0, 1]), tmp_path / "set.pt")
    assert read_pt(tmp_path / "set.pt").labels.tolist() == [0, 1]


def test_a_tangle_of_lists_takes_no_time(tmp_path: Path) -> None:
    tangle: list[Any] = []
    for _ in range(60):
        tangle = [tangle, tangle]  # 2^60 when it is walked
    torch.save(tangle, tmp_path / "set.pt")
    refused(lambda: read_pt(tmp_path / "set.pt"), "holds list of 2 as images")


def test_a_module_saved_whole_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "set.pt")
    refused(lambda: read_pt(tmp_path / "set.pt"), "holds more than tensors (torch.nn.modules.linear.Linear)")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    refused(lambda: read_pt(tmp_path / "script.pt"), "cannot be read as a file of tensors")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_broken_files_are_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(("pt", "legacy", "npz")))
    path = tmp_path / f"set.{kind}"
    if kind == "npz":
        np.savez_compressed(path, images=np.arange(192).reshape(1, 3, 8, 8), labels=np.arange(1))
    else:
        torch.save((IMAGES, LABELS), path, _use_new_zipfile_serialization=kind == "pt")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:  # what still can be read is no error
        read_arrays(path, ("images", "labels")) if kind == "npz" else read_pt(path)
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 600


def header(shape: str, dtype: str = "<f4", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (header("(1000000000, 3, 1000, 1000)"), "which is more than is in the file"),
        (header("(99999999999999999999,)"), "which is more than is in the file"),
        (header("(1000000000000,)", "<U0"), "which is more than is in the file"),
        (header("(-1, 3)") + b"0" * 100, "which is more than is in the file"),
        (header("(2, 3)"), "cannot be read"),
        (header("(2,)", version=b"\x09\x00") + b"0" * 8, "cannot be read"),
        (header("__import__('os').mkdir('x')"), "cannot be read"),
        (b"", "cannot be read"),
        (b"hello", "cannot be read"),
    ],
)
def test_what_an_npz_declares_is_checked_first(tmp_path: Path, member: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", member)
    refused(lambda: read_arrays(tmp_path / "set.npz", ("images",)), message)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "set.npz", images=np.zeros((4000, 1000), dtype=np.uint8))
    torch.save((torch.zeros(1000, 1000), LABELS), tmp_path / "set.pt")
    assert (tmp_path / "set.npz").stat().st_size < 10_000
    assert read_arrays(tmp_path / "set.npz", ("images",))["images"].shape == (4000, 1000)
    monkeypatch.setattr(formats, "free_memory", lambda device: 2_000_000)
    refused(lambda: read_arrays(tmp_path / "set.npz", ("images",)), "needs 0.0 GB of memory, where 0.0 GB are free")
    refused(lambda: read_pt(tmp_path / "set.pt"), "needs 0.0 GB of memory, where 0.0 GB are free")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    refused(lambda: read_arrays(tmp_path / "set.npz", ("images",)), "is no .npz archive of arrays, as numpy.savez writes one")


def test_only_a_few_names_are_shown() -> None:
    assert shown(["a"]) == "'a'"
    assert shown(str(k) for k in range(7)) == "'0', '1', '2', '3', '4' and 2 more"
    assert "\n" not in shown(["a\nb"])

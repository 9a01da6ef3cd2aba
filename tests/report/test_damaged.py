"""Whatever lies in the files of a run or a study: there is a page, or an error in one line, and what it says is no programmer's."""

import copy
import json
import math
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from report.fake_run import make_run
from report.kept_files import a_card, a_map

from limbeck.methods.snapshots import SNAPSHOT
from limbeck.report.contents import read_run
from limbeck.report.html import page_of
from limbeck.report.write import write_report
from limbeck.runs.data_card import DATA_CARD
from limbeck.runs.feature_map import FEATURES
from limbeck.runs.folder import RESULTS, SETTINGS, STATE
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import read_json, read_tensors, write_json, write_tensors
from limbeck.watch.look import Watched

PYTHON = re.compile(
    r"__|positional|Nonetype|has no attribute|subscriptable|unsupported operand|not supported between|Traceback|Error\b|object is|"
    r"out of range|must be |unpack|iterable|literal|index ",
    re.IGNORECASE,
)
VALUES = (None, [], {}, "x", -1, math.nan, True, [[3]], {"mean": {}})
JSON = {"settings.json": SETTINGS, "state.json": STATE, "results.json": RESULTS}
TENSORS = {
    "data-card.safetensors": DATA_CARD,
    "features.safetensors": FEATURES,
    "snapshots/iteration-000010.safetensors": SNAPSHOT,
}
SAMPLED = 150


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("runs") / "run", iterations=20, every=10, shape=(3, 8, 8))
    a_card(("owl", "newt", "toad"), (4, 4, 4), [0, 1]).write(path, "")
    a_map(iterations=(0, 10, 20), best=10, classes=3).write(path, "")
    return path


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.report.html.figures", lambda run: [])


def places(held: Any, depth: int = 3) -> Iterator[tuple[Any, ...]]:
    """The way to every value in it."""
    if depth and isinstance(held, dict):
        for key, value in held.items():
            yield (key,)
            for way in places(value, depth - 1):
                yield (key, *way)


def other(held: Any, way: tuple[Any, ...], value: Any) -> Any:
    """It with another value there; `...` takes the key away."""
    held = copy.deepcopy(held)
    inside = held
    for key in way[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[way[-1]]
    else:
        inside[way[-1]] = value
    return held


def notices(page: str) -> list[str]:
    return re.findall(r'<p class="notice">(.*?)</p>', page, re.DOTALL)


def check(path: Path, what: object) -> None:
    """There is a page, and a line of the watch, and neither speaks Python."""
    said = [*notices(page_of(read_run(path))), *Watched(path).look().warnings]
    assert not [one for one in said if PYTHON.search(one)], what


def test_values_of_another_kind(run: Path, tmp_path: Path) -> None:
    """Of files that are whole and sealed, so that nothing but their content is wrong."""
    cases: list[tuple[str, tuple[Any, ...], Any]] = []
    for name in (*JSON, *TENSORS):
        held = read_json(run / name, JSON[name]) if name in JSON else read_tensors(run / name).metadata
        cases += [(name, way, value) for way in places(held) for value in (..., *VALUES)]
    for name in TENSORS:
        cases += [(name, (tensor,), value) for tensor in read_tensors(run / name).tensors for value in (..., 0, 1, 2)]
    for name, way, value in random.Random(0).sample(cases, SAMPLED):
        path = shutil.copytree(run, tmp_path / "run")
        if name in JSON:
            write_json(path / name, other(read_json(path / name, JSON[name]), way, value), JSON[name])
        else:
            tensors, metadata = map(dict, read_tensors(path / name))
            if len(way) == 1 and way[0] in tensors:
                tensors = other(tensors, way, damaged(tensors[way[0]], value))
            else:
                metadata = other(metadata, way, value)
            write_tensors(path / name, tensors, metadata, TENSORS[name])
        check(path, (name, way, value))
        shutil.rmtree(path)


def damaged(tensor: torch.Tensor, how: Any) -> Any:
    """A tensor of another shape, of another type, or of NaN."""
    if how is ...:
        return ...
    if how == 0:
        return tensor[..., :1].clone() if tensor.ndim else tensor[None]
    return tensor.double().clone() if how == 1 else torch.full_like(tensor.float(), math.nan)


@pytest.mark.parametrize("name", [*JSON, *TENSORS, "metrics.jsonl", "distilled/metadata.json", "distilled/distilled.safetensors"])
def test_files_that_are_cut_off(run: Path, tmp_path: Path, name: str) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    whole = (path / name).read_bytes()
    for content in (b"", whole[:1], whole[: len(whole) // 2], whole[:-3], b"\xff" + whole, b"[]", b"null", b"3"):
        (path / name).write_bytes(content)
        check(path, (name, content[:20]))


def test_rows_of_another_kind(run: Path, tmp_path: Path) -> None:
    """Of `metrics.jsonl`, by kind and key."""
    path = shutil.copytree(run, tmp_path / "run")
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    kinds = {row["kind"]: row for row in rows}
    for kind, row in kinds.items():
        for way in places(row, 2):
            bad = [other(row, way, value) for value in (..., *VALUES)]
            (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*rows, *bad]))
            check(path, (kind, way))


def folder_of(path: Path, kind: str, change: Callable[[Any], Any]) -> Path:
    """A study's folder, whose results are changed."""
    from report.test_of_complexity import measured
    from report.test_several import CIFAR, SCENES

    made = (
        measured(path, "a") if kind == "complexity" else Path(shutil.copytree({"comparison": CIFAR, "comp-dd": SCENES}[kind], path))
    )
    file = made / f"{kind}.json"
    held = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("limbeck", "checksum")}
    file.write_text(json.dumps(change(held)))
    return made


@pytest.mark.parametrize("kind", ["comparison", "comp-dd", "complexity"])
def test_results_of_studies_of_another_kind(tmp_path: Path, kind: str) -> None:
    made = folder_of(tmp_path / "made", kind, lambda held: held)
    file = made / f"{kind}.json"
    whole = json.loads(file.read_text())
    cases = [(way, value) for way in places(whole, 2) for value in (..., *VALUES)]
    for way, value in random.Random(0).sample(cases, 25):
        file.write_text(json.dumps(other(whole, way, value)))
        try:
            text = write_report(made, output=tmp_path / "page.html").read_text(encoding="utf-8")
            said = notices(text)
        except UsageError as error:
            said = [str(error).replace(str(file), "")]
        assert not [one for one in said if PYTHON.search(one)], (way, value, said)


def test_where_the_sets_own_snapshot_is_lost_no_other_lies_over_its_images(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", iterations=40, every=20, shape=(3, 8, 8))
    found = read_run(run)
    own = found.images
    assert own is not None and own.snapshot is not None and own.snapshot.iteration == found.best_iteration
    own.snapshot.path.unlink()
    found = read_run(run)
    assert found.snapshots and found.images is not None and found.images.snapshot is None
    page_of(found)

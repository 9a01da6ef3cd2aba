"""The ways that messages name, gone: where that takes no training, what they advise works as they write it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from advice import KEY, OPTION
from data.pictures import png
from distilled.foreign_files import DATA, HARD, NORMALISE, PIXELS
from distilled.samples import sample_set

from limbeck.cli.command import Parser
from limbeck.cli.evaluate import _options
from limbeck.cli.main import COMMANDS, main
from limbeck.data.imageset import ImageSet
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_whiten
from limbeck.data.registry import find_subset
from limbeck.distilled.read import read_set
from limbeck.recipes import load_recipe, parse_overrides, remarks, settings_from_plain
from limbeck.recipes_import.translate import import_values
from limbeck.runs.settings import DistillSettings, key_types
from limbeck.runtime.devices import WITHOUT_BF16
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress


def said(call: Callable[[], object]) -> str:
    """What a call is refused with."""
    with pytest.raises(UsageError) as caught:
        call()
    return str(caught.value)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The error that a command ends with."""
    capsys.readouterr()
    assert main(list(words)) != 0
    return capsys.readouterr().err.splitlines()[-1]


def settings_in(message: str) -> list[str]:
    """Settings, key=value, that a message names."""
    return [f"{key}={value.rstrip(',.')}" for key, value in KEY.findall(message)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(*words: str) -> ImageSet:
    return load_data(settings_from_plain({}, parse_overrides(words)).data, NoProgress())


def photos(root: Path, count: int = 3) -> None:
    for part in ("train", "test"):
        for k, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                (root / part / name / f"{number}.png").write_bytes(png(np.full((8, 8, 3), 90 * k + 7 * number, np.uint8)))


def test_a_broken_image_and_a_class_with_one(folder: Path) -> None:
    photos(folder / "photos")
    (folder / "photos" / "train" / "cat" / "1.png").write_bytes(b"broken")
    message = said(lambda: loaded("data.source=photos"))
    assert settings_in(message) == ["data.skip_bad=true"]
    assert len(loaded("data.source=photos", "data.skip_bad=true", "data.val_fraction=0").train) == 5
    photos(folder / "few", 1)
    message = said(lambda: loaded("data.source=few"))
    assert settings_in(message) == ["data.val_fraction=0"] and len(loaded("data.source=few", *settings_in(message)).train) == 2


def test_arrays_that_leave_a_doubt(folder: Path) -> None:
    x, y = np.zeros((6, 3, 8, 3), np.uint8), np.array([0, 0, 0, 2, 2, 2])
    message = said(lambda: ImageSet.from_arrays(x, y, x, y))
    for layout in re.findall(r"layout='(\w+)'", message):
        message = said(lambda: ImageSet.from_arrays(x, y, x, y, layout=layout))  # noqa: B023 (called at once)
        assert "class_names={label: name, …}" in message
        made = ImageSet.from_arrays(x, y, x, y, layout=layout, class_names={0: "a", 2: "c"})
        assert made.class_names == ("a", "c")
    zeros, ones = np.zeros((6, 3, 8, 8), np.uint8), np.ones((6, 3, 8, 8), np.uint8)
    np.savez("two.npz", x_train=zeros, train_images=ones, y_train=y // 2, x_test=zeros, test_images=ones, y_test=y // 2)
    message = said(lambda: loaded("data.source=two.npz"))
    (setting,) = settings_in(message)
    assert setting == "data.image_field=images" and int(loaded("data.source=two.npz", setting).train.images()[0].min()) == 1


def test_a_broken_item(folder: Path) -> None:
    class Pairs:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
            if number == 3:
                raise OSError("gone")
            return np.full((8, 8, 3), 40 * number, np.uint8), number % 2

    message = said(lambda: ImageSet.from_dataset(Pairs(), Pairs()))
    assert "data.skip_bad=true, in Python skip_bad=True, leaves it out" in message
    assert len(ImageSet.from_dataset(Pairs(), Pairs(), skip_bad=True, val_fraction=0).train) == 5


def test_images_that_are_too_large_to_be_whitened() -> None:
    x = np.zeros((4, 128, 128, 3), np.uint8)
    x[::2] = 200
    data = ImageSet.from_arrays(x, np.arange(4) % 2, x, np.arange(4) % 2, val_fraction=0)
    message = said(lambda: fit_whiten(data.train))
    assert "set data.zca=false or a smaller data.size" in message
    assert settings_from_plain({}, parse_overrides(settings_in(message))).data.zca is False


def test_sets_of_others_that_leave_a_doubt(folder: Path) -> None:
    def read_with(*words: str) -> Any:
        parser = Parser(prog="limbeck evaluate")
        COMMANDS["evaluate"].add_arguments(parser)
        return read_set(
            folder / "theirs.pt", DATA, NORMALISE, options=_options(parser.parse_intermixed_args(["x", *words])).foreign
        )

    published, white = "imagenet, cifar10, … for published numbers", ", or 255 where that is white"
    for images, ways in (
        (PIXELS * 1.2 - 0.02, f"yes or no, {published}"),
        (PIXELS * 1.2, f"yes or no, {published}{white}"),
        (PIXELS * 255, f"yes, {published}{white}"),
        (PIXELS * 2 - 1, f"yes, {published}"),
    ):
        torch.save((images, HARD, 0.01), "theirs.pt")
        message = said(read_with)
        assert message.endswith(f"say --normalised {ways}")
        words = re.findall(r"yes|no\b|imagenet|cifar10|255", message.partition("--normalised")[2])
        assert all(len(read_with("--normalised", word)) == 6 for word in words)
    torch.save((PIXELS[..., :4, :], HARD, 0.01), "theirs.pt")
    message = said(read_with)
    (option,) = OPTION.findall(message)
    assert len(read_with(option)) == 6
    torch.save({"x": PIXELS}, "theirs.pt")
    (way,) = re.findall(r"torch\.save\(.*?, FILE\)", said(read_with))
    eval(way, {"torch": torch, "X": PIXELS, "Y": HARD, "η": 0.01, "FILE": "theirs.pt"})  # as it is written
    assert len(read_with()) == 6


def test_a_set_that_does_not_say_its_images(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save((PIXELS, HARD, 0.01), "theirs.pt")
    assert "give --data SOURCE or --recipe RECIPE" in told(capsys, "evaluate", "theirs.pt")
    asked = list[Any]()
    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", lambda paths, settings, **_: asked.append(settings))
    for words in (("--data", "scenes:hard"), ("--recipe", "scenes")):
        main(["evaluate", "theirs.pt", *words])
    assert [settings.data.source for settings in asked] == ["scenes:hard", "scenes:easy"]


def test_a_run_that_has_not_ended_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "runs" / "scenes").mkdir(parents=True)
    (folder / "runs" / "scenes" / "state.json").write_text("{}")
    message = told(capsys, "evaluate", "runs/scenes")
    assert "finish it with `limbeck distill … --resume`" in message
    asked = list[bool]()

    def distill(*_: Any, resume: bool, **__: Any) -> None:
        asked.append(resume)
        raise UsageError("stop")

    monkeypatch.setattr("limbeck.runs.distill.distill", distill)
    assert told(capsys, "distill", "scenes", "--resume").endswith("stop") and asked == [True]


def test_names_that_are_not_there_say_where_all_are(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ("distill", "zzzzzz"),
        ("distill", "scenes", "zzz=1"),
        ("experts", "--shard"),
        ("distill", "scenes", "--sharpen"),
    ):
        message = told(capsys, *words)
        (way,) = re.findall(r"`limbeck ([^`]*)`", message)
        try:
            assert main(way.split()) == 0
        except SystemExit as error:  # --help
            assert error.code == 0
        assert capsys.readouterr().out


def test_a_grid_that_lacks_something(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMBECK_IMAGENET", raising=False)
    asked = list[int]()

    def cells(cells: Any, *_: Any, **__: Any) -> Any:
        asked.append(len(cells))
        raise UsageError("stop")

    monkeypatch.setattr("limbeck.studies.compare.compare_cells", cells)
    monkeypatch.setattr("limbeck.studies.submission.run_benchmark", lambda benchmark, parts, made, *_, **__: cells(made))
    assert "give either recipes to compare, or --methods NAME,… with --data SOURCE" in told(capsys, "compare")
    assert "or a recipe to start from (--base)" in told(capsys, "compare", "--methods", "mtt")
    assert "name one to start from with --base RECIPE" in told(capsys, "compare", "--methods", "mtt", "--data", "elsewhere")
    ways = ["--methods mtt --data scenes", "--methods mtt --base scenes", "--methods mtt --data elsewhere --base scenes", "scenes"]
    assert all(told(capsys, "compare", *way.split()).endswith("stop") for way in ways) and asked == [3] * 4
    assert "name one or more, such as edf,datm,random" in told(capsys, "comp-dd", "--scenes")
    assert told(capsys, "comp-dd", "--scenes", "--methods", "edf,datm,random").endswith("stop")
    bird = ("comp-dd", "--methods", "edf", "--subsets", "bird-easy")
    message = told(capsys, *bird)
    assert "--data-root DIR, data.root=DIR or the environment variable LIMBECK_IMAGENET" in message
    for entry in find_subset("bird-easy").classes:
        for part in ("train", "val"):
            (folder / "imagenet" / part / entry.wnid).mkdir(parents=True)
    assert told(capsys, *bird, "--data-root", "imagenet").endswith("stop")
    assert told(capsys, *bird, "data.root=imagenet").endswith("stop")
    monkeypatch.setenv("LIMBECK_IMAGENET", "imagenet")
    assert told(capsys, *bird).endswith("stop")


def test_stores_and_complexities_that_ask_for_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "takes either --keep EPOCHS or --recipe RECIPE" in told(capsys, "experts", "prune", "nowhere")
    for way in (("--keep", "1"), ("--recipe", "scenes")):
        assert "'nowhere' is not a trajectory store" in told(capsys, "experts", "prune", "nowhere", *way)
    assert "needs --build-subsets" in told(capsys, "complexity", "scenes:none", "--categories", "cluster:2")
    assert "which --build-subsets needs" in told(capsys, "complexity", "scenes:none", "--build-subsets")
    for words in (("--build-subsets", "--categories", "cluster:2"), ("--build-subsets", "--categories", "comp-dd")):
        assert "'scenes:none' is not" in told(capsys, "complexity", "scenes:none", *words)


def test_an_unforeseen_error_says_how_to_see_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("limbeck.runs.distill.distill", broken)
    assert "(LIMBECK_DEBUG=1 shows where)" in told(capsys, "distill", "scenes")
    monkeypatch.setenv("LIMBECK_DEBUG", "1")
    assert main(["distill", "scenes"]) == 1
    assert "in broken" in capsys.readouterr().err


def test_settings_that_contradict_a_method_say_what_lays_it() -> None:
    message = said(lambda: DistillSettings(method="mtt"))
    (way,) = re.findall(r"DistillSettings\.of\(.*?\)", message)
    assert eval(way.replace(", …", ""), {"DistillSettings": DistillSettings}).labels == "hard"


def test_code_that_a_set_names(capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()
    monkeypatch.setattr("limbeck.runs.evaluate.evaluate", lambda paths, settings, **_: asked.append(settings))
    for key in ("network", "eval.networks", "eval.teacher", "eval.protocol", "augment.strategy"):
        held = sample_set(metadata={"settings": {"data.source": "scenes", key: "os:getcwd"}})
        held.save(folder / key)
        message = told(capsys, "evaluate", key)
        assert message.partition("; ")[2].startswith(
            "--trust allows it" if key == "augment.strategy" else f"give {key}=… yourself, or"
        )
        assert main(["evaluate", key, "--trust"]) == 0
        if key != "augment.strategy":
            assert main(["evaluate", key, f"{key}=os:getcwd"]) == 0
    assert len(asked) == 9
    message = told(capsys, "evaluate", "network", "ipc=3")
    for key in re.findall(r"(\w+)\.\*", message):
        example = next(one for one in key_types() if one.startswith(f"{key}."))
        assert "is settled by" not in told(capsys, "evaluate", "nowhere", f"{example}=1")


def test_precision_that_a_recipe_asks_for(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.matching.engine.slow_bf16", lambda device: WITHOUT_BF16)
    (folder / "mine.yaml").write_text("engine:\n  precision: bf16\n")
    message = told(capsys, "distill", "mine.yaml")
    assert message.endswith("engine.precision=fp32, or =bf16 for all that, says which")

    def distill(settings: DistillSettings, *_: Any, **__: Any) -> None:
        raise UsageError(settings.engine.precision)

    monkeypatch.setattr("limbeck.runs.distill.distill", distill)
    for precision in re.findall(r"=(fp32|bf16)", message):
        assert told(capsys, "distill", "mine.yaml", f"engine.precision={precision}").endswith(precision)


def test_a_method_that_has_its_own_settings(folder: Path) -> None:
    (folder / "mine.yaml").write_text("match:\n  criterion: random\n")
    own = {"method": "mtt"}
    (remark,) = [one for one in remarks("mine.yaml", own, load_recipe("mine.yaml", own)) if "key=value sets them" in one]
    given = own | {"match.criterion": "random"}
    assert "match.criterion" in remark and load_recipe("mine.yaml", given).match.criterion == "random"
    assert not [one for one in remarks("mine.yaml", given, load_recipe("mine.yaml", given)) if "its own match.criterion" in one]


def test_what_notes_of_imports_and_of_data_name_is_accepted() -> None:
    notes = import_values({"lr_y": 1.0, "ema_decay": 0.995, "eval_mode": "M"}).notes
    named = [setting for note in notes for setting in settings_in(note)]
    assert {"outer.ema_decay=0.995", "eval.networks=ConvNetD3,ResNet18", "eval.protocol=dd-published"} <= set(named)
    named += ["data.range=[100,4000]", "data.range=4000", "engine.memory=2GiB", "engine.compile=yes", "match.relabel=false"]
    for setting in named:
        settings_from_plain({}, parse_overrides([setting]))

"""Twelve small inputs as people have them: what comes out of each, in Python and by the command."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.pictures import Said
from files.inputs import INPUTS, TEST, Input, keras

from limbeck.cli.main import main
from limbeck.data.imageset import load_object
from limbeck.data.load import load_data
from limbeck.data.settings import DataSettings
from limbeck.recipes import load_recipe, parse_overrides
from limbeck.runtime.errors import UsageError

TINY = ["data.size=null", "network=ConvNetD2-w8", "ipc=1", "method=dm", "eval.epochs=1", "engine.compile=no", "data.workers=1"]


def settings_of(held: Input, words: tuple[str, ...]) -> DataSettings:
    given = ("data.size=null", f"data.source={held.source}", "data.val_fraction=0", "data.workers=1", *words)
    return load_recipe("scenes", parse_overrides(given)).data


@pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)
def test_what_comes_out(make: Callable[[Path], Input], tmp_path: Path) -> None:
    held = make(tmp_path)
    if held.keys:
        with pytest.raises(UsageError) as caught:
            load_data(settings_of(held, ()))
        assert held.refused in str(caught.value)
    said = Said()
    found = load_data(settings_of(held, held.keys), said)
    assert found.class_names == held.classes
    assert found.shape == held.images.shape[1:]
    train, val, test = len(held.images) - held.val - TEST, held.val, TEST
    assert (len(found.train), len(found.val), len(found.test)) == (train, val, test)
    rows = np.split(np.arange(len(held.images)), [train, train + val])
    for split, part in zip((found.train, found.val, found.test), rows, strict=True):
        np.testing.assert_array_equal(split.images(), held.images[part])
        np.testing.assert_array_equal(split.labels, held.labels[part])
    assert len(said.lines) == len(held.notes), said.lines
    for line, note in zip(said.lines, held.notes, strict=True):
        assert line.startswith(note.replace("…", str(held.source), 1)), line


@pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)
def test_the_command_takes_it_and_says_the_same(
    make: Callable[[Path], Input], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = make(tmp_path)
    command = ["plan", "scenes", "--data", str(held.source), *TINY]
    if held.keys:
        assert main(command) == 2
        assert held.refused in capsys.readouterr().err
    assert main([*command, *held.keys]) == 0
    printed = capsys.readouterr()
    for note in held.notes:
        assert note.replace("…", str(held.source), 1) in printed.out + printed.err


def test_keras_tuples_are_taken_as_they_are(tmp_path: Path) -> None:
    held = keras(tmp_path)
    with np.load(held.source) as arrays:
        pairs = (arrays["x_train"], arrays["y_train"][:, None]), (arrays["x_test"], arrays["y_test"][:, None])
        from_file = load_data(DataSettings(source=str(held.source)))
        assert load_object(pairs, DataSettings()).fingerprint == from_file.fingerprint
        assert load_object(dict(arrays), DataSettings()).fingerprint == from_file.fingerprint


def test_a_set_keeps_what_was_black_and_white(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scans of twelve bits: the images that the set is measured on later are read as those that it was made from."""
    from files.inputs import scans

    from limbeck.distilled.set import DistilledSet

    held = scans(tmp_path)
    quick = "data.size=null network=ConvNetD2-w8 engine.compile=no engine.device=cpu eval.epochs=1 eval.seeds=2 eval.full_epochs=1"
    quick += " eval.full_seeds=2 eval.random_lr=0.01 data.workers=1"
    output = tmp_path / "out"
    assert (
        main(["distill", "scenes", "method=random", "ipc=1", "--data", str(held.source), "--output", str(output), *quick.split()])
        == 0
    )
    stored = DistilledSet.load(output / "distilled").metadata["settings"]
    assert stored["data"]["range"] == [20, 3070]
    (held.source / "test" / "1" / "15.png").unlink()  # the brightest: found anew, white would be another number
    capsys.readouterr()
    assert main(["evaluate", str(output)]) == 0
    assert "15 of 15 images have more than 8 bits: 20 … 3070 is black to white, as data.range says" in capsys.readouterr().err
    others = ["--recipe", "scenes", "--data", str(held.source), "data.size=null", "network=ConvNetD2-w8", "engine.compile=no"]
    others += [word for word in quick.split() if word.startswith("eval.")]
    assert main(["evaluate", str(output), *others]) == 2
    advice = "20 … 3070 was black to white in what it was made from, here 20 … 3000 is: data.range=[20,3070] reads both alike"
    assert advice in capsys.readouterr().err
    assert main(["evaluate", str(output), *others, "data.range=[20,3070]"]) == 0


def test_a_set_in_floats_from_0_to_255_has_a_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else's few images: refused with what may be said of them, and measured like the same in bytes when it is."""
    held, results = keras(tmp_path), []
    quick = "data.size=null network=ConvNetD2-w8 engine.compile=no eval.epochs=1 eval.seeds=2 eval.full_epochs=1 eval.full_seeds=2"
    for kind, options in ((np.uint8, []), (np.int64, []), (np.float32, ["--normalised", "255"])):
        images = held.images[:2].astype(kind)
        np.savez(tmp_path / "few.npz", images=images, labels=held.labels[:2])
        words = ["evaluate", str(tmp_path / "few.npz"), "--data", str(held.source), *quick.split(), "--syn-lr", "0.01", "--json"]
        if options:
            assert main(words) == 2
            assert "or 255 where that is white" in capsys.readouterr().err
        assert main([*words, *options]) == 0
        results.append(json.loads(capsys.readouterr().out)["sets"][0]["accuracy"])
    assert results[0] == results[1] == results[2]

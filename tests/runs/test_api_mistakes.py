"""What goes wrong at the first try of the Python interface is said in a line, and a call leaves torch as it found it."""

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import limbeck
from limbeck.cli.main import main
from limbeck.networks.flat import flat_network
from tests.runs.test_api import DATA, FEW, SIZES, TEST, TRAIN, Small, run


class Net(nn.Module):
    """A network that does something to its logits."""

    def __init__(self, then: Any = lambda logits: logits) -> None:
        super().__init__()
        self.body, self.then = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 3)), then

    def forward(self, x: Tensor) -> Any:
        return self.then(self.body(x))


def made(base: type, **methods: Any) -> Any:
    return type("Own", (base,), methods)()


def half_frozen() -> Net:
    net = Net()
    net.body[2].bias.requires_grad_(False)
    return net


class Dark(limbeck.Augmentation):
    """No data class, and not in a module that can be imported."""

    def __init__(self, most: float) -> None:
        self.most = most

    def draw(self, generator: torch.Generator, shape: Any, siamese: bool = False) -> Any:
        factor = self.most * torch.rand(1 if siamese else shape[0], 1, 1, 1, generator=generator)
        return lambda x: x * factor.to(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": Net(lambda logits: logits.detach())}, "^network: 'Net' is not one whose logits have a gradient"),
        (
            {"criterion": made(limbeck.Criterion, keep=lambda s, losses, **k: losses[:3] > 0)},
            "^match.criterion: 'Own' is not .* mask",
        ),
        ({"criterion": made(limbeck.Criterion, keep=lambda s, losses, **k: None)}, "^match.criterion: 'Own' is not .* mask"),
        ({"distance": made(limbeck.Distance, __call__=lambda s, theta, *a: theta)}, "^match.distance: 'Own' is not .* scalar"),
        ({"distance": made(limbeck.Distance, __call__=lambda s, theta, *a: 1.0)}, "^match.distance: 'Own' is not .* scalar"),
        ({"weighting": made(limbeck.Weighting, __call__=lambda s, maps, g: maps)}, "^enhance.weighting: 'Own' is not .* weights"),
        ({"weighting": made(limbeck.Weighting, __call__=lambda s, maps, g: None)}, "^enhance.weighting: 'Own' is not .* weights"),
        ({"cam": made(limbeck.Cam, __call__=lambda s, module, x, *a: x)}, "^enhance.cam: 'Own' is not .* maps in"),
        ({"cam": made(limbeck.Cam, __call__=lambda s, module, x, *a: x[:, 0] * np.nan)}, "^enhance.cam: 'Own' is not .* maps in"),
        (
            {"schedule": made(limbeck.Schedule, starts=None, reachable=lambda s: range(0))},
            "^schedule.kind: 'Own' is not .* one epoch",
        ),
        (
            {"schedule": made(limbeck.Schedule, starts=None, reachable=lambda s: range(-2, 1))},
            "^schedule.kind: 'Own' is not .* 0 and up",
        ),
        (
            {"schedule": made(limbeck.Schedule, starts=lambda s, i: range(2), reachable=lambda s: range(1))},
            "^schedule.kind: 'Own' is not one whose starts",
        ),
        ({"adjoint": made(limbeck.Adjoint, __call__=lambda s, *a: [])}, "^engine.kind: 'Own' is not one that gives `Gradients`"),
        ({"match.loss": lambda logits, labels: logits}, "^match.loss: '<lambda>' is not .* scalar"),
        ({"match.loss": lambda logits: logits}, "^match.loss: '<lambda>' raised TypeError"),
        ({"callbacks": print}, "^callbacks: "),
        ({"callbacks": [3]}, "^callbacks: "),
        ({"experts": "somewhere"}, "^experts: 'somewhere' is not a TrajectoryStore"),
        ({"progress": 3}, "^progress: 3 is not a limbeck.Progress"),
        ({"output": 3}, "^output: 3 is not "),
        ({"output": ""}, "^output: '' is not the path of a folder"),
        ({"resume": True}, "^resume: True is not possible without output"),
        ({"method": limbeck.methods.edf}, r"^method: .* is not a Method, such as limbeck.methods.edf\(\) gives"),
    ],
)
def test_a_mistake_is_said_in_a_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(limbeck.UsageError, match=message) as raised:
        run(**{"drop_ratio": 0.25, **changes})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: limbeck.LowLossDropout("a"), "^drop_ratio: 'a' is not "),  # type: ignore[arg-type]
        (lambda: limbeck.LayerDropout(0.2, "top"), "^where: 'top' is not one of first, middle, last"),  # type: ignore[arg-type]
        (lambda: limbeck.Uniform(0, 2.5), "^max_start_epoch: 2.5 is not a whole number"),  # type: ignore[arg-type]
        (lambda: limbeck.Sequential(-1), "^min_start_epoch: -1 is not at least 0"),
        (lambda: limbeck.Truncated(steps=0), "^steps: 0 is not at least 1"),
        (lambda: limbeck.Dsa(3), "^strategy: 3 is not "),  # type: ignore[arg-type]
        (lambda: limbeck.Dsa(crop_ratio=2), r"^crop_ratio: 2 is not in \[0, 1\]"),
        (lambda: limbeck.TorchCam(batch_size=0), "^batch_size: 0 is not at least 1"),
        (lambda: limbeck.Activation("x"), "^beta: 'x' is not "),  # type: ignore[arg-type]
        (lambda: limbeck.flat_network("ConvNetD2-w4", (16, 16), 3), r"^shape: \(16, 16\) is not \(C, H, W\)"),  # type: ignore[arg-type]
        (lambda: limbeck.flat_network("ConvNetD2-w4", (3, 16, 16), 0), "^num_classes: 0 is not "),
        (lambda: limbeck.load_data("scenes:easy", sizes=16), "^data.sizes: is not a key"),
        (lambda: limbeck.load_data(Small), "^data.source: type is none of what is known"),
        (lambda: limbeck.train_experts(DATA, Small, train_epochs="x"), "^experts.train_epochs: 'x' is not a whole number"),
        (lambda: limbeck.evaluate([], DATA), "^sets: "),
        (lambda: limbeck.evaluate(DATA, DATA), "^sets: "),
        (lambda: limbeck.evaluate("tiny", DATA, options=3), "^options: "),  # type: ignore[arg-type]
        (lambda: limbeck.compare(["random"], DATA), "^methods: "),  # type: ignore[arg-type]
        (lambda: limbeck.compare({"a": "random"}, DATA, seeds=2), "^seeds: 2 is not "),  # type: ignore[arg-type]
        (lambda: limbeck.compare({"a": "random"}, DATA, seeds=[0, 0]), "^seeds: "),
        (lambda: limbeck.compare({"a": "random"}, (pair for pair in [])), "^data.source: a generator has no items"),
        (lambda: limbeck.complexity(DATA, network=Small), "^network: 'Small' is not the name of a network"),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_in_one_argument_is_said_in_a_line(make: Any, message: str) -> None:
    with pytest.raises(limbeck.UsageError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_call_leaves_torch_as_it_was_and_does_not_depend_on_it() -> None:
    plain, threads = run().distilled.images, torch.get_num_threads()

    def other_threads(snapshot: limbeck.Snapshot) -> None:
        torch.set_num_threads(3)

    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            found = run(callbacks=[other_threads])
            assert not torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
            limbeck.evaluate(found, DATA, networks=["ConvNetD2-w4"], **FEW)
        with torch.inference_mode():
            run()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.distilled.images, plain)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_are_told_apart_by_all_that_they_do() -> None:
    def structure(network: Any) -> str | None:
        return flat_network(network, DATA.shape, 3).structure

    class Blank(Net):
        def __init__(self, then: Any = None) -> None:
            super().__init__()
            nn.init.zeros_(self.body[2].weight)

    buffers = [Net(), Net()]
    for value, net in enumerate(buffers):
        net.register_buffer("shift", torch.full((3,), float(value)))
    different = [Net(), Net(lambda logits: 2 * logits), half_frozen(), *buffers, Blank(), lambda classes: Blank()]
    assert len({structure(one) for one in different}) == len(different)
    assert structure(Net()) == structure(Net())
    assert structure("ConvNetD2-w4") is None
    # Networks of the full data, and experts, of one are not taken for those of the other.
    first, second = (limbeck.train_experts(DATA, net, num_experts=1, train_epochs=1) for net in (buffers[0], half_frozen()))
    assert first.path != second.path
    found = limbeck.evaluate(run("random").distilled, DATA, networks=[Net(), half_frozen()], **FEW)
    assert list(found.sets[0].by_network) == ["Net", "Net-2"]


def test_a_function_that_gives_one_module_counts_as_that_module() -> None:
    net = Net()
    network = flat_network(lambda classes: net, DATA.shape, 3)
    first, second = (network.initial(torch.Generator().manual_seed(seed)) for seed in range(2))
    assert not torch.equal(first, second)


def test_an_augmentation_of_ones_own_needs_to_be_no_data_class() -> None:
    assert Dark(0.5).identity() == Dark(0.5).identity() != Dark(0.9).identity()
    json.dumps(Dark(0.5).identity())
    assert run("mtt", augmentation=Dark(0.5)).accuracy.distilled.n == 2


def test_sets_in_memory_are_compared_and_shown() -> None:
    sets = [run("random", seed=seed) for seed in range(2)]
    found = limbeck.evaluate(iter(sets), DATA, networks=Small, **FEW)
    assert "A \N{MINUS SIGN} B" in str(found.table()) and "<table" in found._repr_html_()
    again = limbeck.Evaluation.from_dict(json.loads(json.dumps(found.to_dict())))
    assert str(again) == str(found)
    assert limbeck.evaluate(sets[0], DATA, networks="ConvNetD2-w4", **FEW).sets[0].network == "ConvNetD2-w4"


def test_methods_may_be_called_anything() -> None:
    table = limbeck.compare(
        {"a/b": "random", "a b": "random", "": "random"}, DATA, seeds=range(2), settings={**SIZES, "network": Small}
    )
    assert [row.method for row in table.sections[0].rows] == ["a/b", "a b", ""]


def test_other_ways_to_give_arrays() -> None:
    x, y = TRAIN.images, TRAIN.labels
    pairs = limbeck.load_data(((x, y), (TEST.images, TEST.labels)))
    assert pairs.fingerprint == DATA.fingerprint == limbeck.load_data((x, y.tolist(), TEST.images, TEST.labels)).fingerprint


def test_what_a_dataset_of_the_hub_is_turned_into_does_not_matter() -> None:
    datasets, image = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    rows = {"image": [image.fromarray(one) for one in TRAIN.images], "label": TRAIN.labels.tolist()}
    held = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    assert limbeck.load_data(held.with_format("torch")).fingerprint == limbeck.load_data(held).fingerprint


def test_complexity_is_json_and_one_line() -> None:
    found = limbeck.complexity(DATA, network="ConvNetD2-w4", full_epochs=1, workers=1)
    json.dumps(found.results.to_dict())
    assert "\n" not in repr(found)


def test_experts_take_keys_in_full(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING):
        store = limbeck.train_experts(DATA, Small, **{"experts.train_epochs": 2}, num_experts=1)
    assert store.held(0) == [0, 1, 2]
    assert copy.deepcopy(store).path == store.path


def test_a_run_on_an_object_says_how_to_name_its_images_and_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("random", network="ConvNetD2-w4", output=tmp_path / "run")
    quick = ["eval.epochs=1", "eval.full_epochs=1", "eval.seeds=2", "eval.random_lr=0.01"]
    assert main(["evaluate", str(tmp_path / "run"), *quick]) == 2
    assert re.fullmatch(
        r"limbeck: error: data.source: the images were an object in Python, .*--data SOURCE", capsys.readouterr().err.strip()
    )
    np.savez(tmp_path / "same.npz", x_train=TRAIN.images, y_train=TRAIN.labels, x_test=TEST.images, y_test=TEST.labels)
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "same.npz"), *quick]) == 0
    assert main(["report", str(tmp_path / "run")]) == 0


def test_values_show_themselves_in_a_line(tmp_path: Path) -> None:
    found = run()
    for value in (found.distilled.set, found.distilled, found):
        assert len(repr(value)) < 200 and "\n" not in repr(value), repr(value)
    assert repr(found.distilled.set).startswith("SmallSet(3 images 3×16×16, ")
    assert f"distilled {found.accuracy.distilled.mean:.4f}, " in repr(found)


def test_a_set_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(limbeck.UsageError, match=r"^output: '.*below' cannot be written: (File exists|Not a directory)$"):
        run().distilled.save(tmp_path / "file" / "below")


def test_options_are_called_as_python_calls_them(tmp_path: Path) -> None:
    for key, value in (("thresholds", [2.0]), ("per_class", 0), ("batch_size", "x")):
        with pytest.raises(limbeck.UsageError, match=rf"^{key}: "):
            limbeck.complexity(DATA, **{key: value})
    store = limbeck.TrajectoryStore(tmp_path, {"num_parameters": 3, "dtype": "float32"})
    for expert, epoch in (("a", 9), (0, "x")):
        with pytest.raises(limbeck.UsageError, match=r"^(expert: 'a'|epoch: 'x') is not a whole number$"):
            store.read(expert, epoch)  # type: ignore[arg-type]

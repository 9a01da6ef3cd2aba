"""Training the experts of a recipe into its store."""

import dataclasses
import importlib
import linecache
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.augmentation import Dsa
from limbeck.data.load import load_data
from limbeck.data.preprocessing import fit_preprocessing
from limbeck.data.settings import DataSettings
from limbeck.experts import curriculum as curriculum_module
from limbeck.experts import trainer as experts
from limbeck.experts.imported import import_lists
from limbeck.experts.maintain import verify
from limbeck.experts.settings import ExpertSettings
from limbeck.experts.store import TrajectoryStore
from limbeck.experts.train import ExpertTask, Identity, material_of, scoring_of, train_experts
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import Failure, UsageError
from limbeck.runtime.executor import Shard
from limbeck.runtime.files import read_tensors
from limbeck.runtime.fingerprint import array_fingerprint
from limbeck.runtime.leftovers import part
from limbeck.runtime.progress import Progress, Stage


def task(**changes: object) -> ExpertTask:
    settings = DataSettings(source="scenes:easy", size=8, per_class=6, val_fraction=0.34)
    data = load_data(settings)
    made = ExpertSettings(num_experts=2, train_epochs=3, expert_lr=0.05, batch_size=16)
    parts = (data, fit_preprocessing(settings, data.train), flat_network("ConvNetD1-w4", data.shape, data.num_classes))
    return ExpertTask(*parts, dataclasses.replace(made, **changes), Dsa(), 0, torch.device("cpu"))


class Calls:
    """Counts what is trained, and may stop before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 99) -> None:
        self.made, self.most, self.real = list[tuple[int, int, int]](), most, experts.train
        monkeypatch.setattr(experts, "train", self)

    def __call__(self, *args: Any, **options: Any) -> torch.Tensor:
        if len(self.made) == self.most:
            raise KeyboardInterrupt
        self.made.append((options["key"][1], options["first_epoch"], options["last_epoch"]))
        return self.real(*args, **options)


def fresh(monkeypatch: pytest.MonkeyPatch, folder: Path, made: ExpertTask, epochs: list[int]) -> TrajectoryStore:
    """The same experts in a cache of their own."""
    with monkeypatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(folder))
        return train_experts(made, epochs)


def assert_same(store: TrajectoryStore, other: TrajectoryStore, experts_: range, epochs: list[int]) -> None:
    for expert in experts_:
        for epoch in epochs:
            assert torch.equal(store.read(expert, epoch), other.read(expert, epoch)), (expert, epoch)


def test_only_what_is_wanted_is_kept_and_a_second_run_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = train_experts(task(), [0, 2])
    assert store.summary().epochs == [0, 2, 3]
    assert not torch.equal(store.read(0, 0), store.read(1, 0))
    assert all(0 <= value <= 1 for value in store.accuracies(1))
    assert len(store.accuracies(1)) == 3
    calls = Calls(monkeypatch, most=0)
    for changes in ({}, {"num_experts": 1}, {"dtype": "half"}, {"label_experts": 1}, {"train_epochs": 2}):
        assert train_experts(task(**changes), [2]).path == store.path
    assert calls.made == []


@pytest.mark.parametrize("name", ["epochs-0003-0003-0000", "state-0003"])
def test_damage_where_training_goes_on_is_noted_and_trained_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = train_experts(task(momentum=0.9), [0, 1]).path / "expert-0001" / f"{name}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    further = task(train_epochs=4, momentum=0.9)
    store = train_experts(further, [0, 1])
    assert caplog.text.count("is broken") >= 1 and path.name in caplog.text
    assert_same(store, fresh(monkeypatch, tmp_path, further, [0, 1]), range(2), [0, 1, 4])


def test_experts_that_give_no_labels_end_where_the_schedule_does(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    store = train_experts(task(num_experts=3, label_experts=1), [0, 1])
    assert sorted(calls.made) == sorted([(0, 0, 3), (1, 0, 1), (2, 0, 1)])
    assert [store.held(expert) for expert in range(3)] == [[0, 1, 3], [0, 1], [0, 1]]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_interrupted_run_goes_on_and_ends_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, momentum: float) -> None:
    made = task(momentum=momentum)
    whole = fresh(monkeypatch, tmp_path, made, [0, 2])
    calls = Calls(monkeypatch, most=1)
    with pytest.raises(KeyboardInterrupt):
        train_experts(made, [0, 2])
    calls.most = 99
    resumed = train_experts(made, [0, 2])
    assert sorted(calls.made) == sorted([(0, 0, 3), (1, 0, 3)])
    assert_same(resumed, whole, range(2), [0, 2, 3])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", ["fp32", "half"])
def test_epochs_and_experts_are_added_without_training_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, momentum: float, dtype: str
) -> None:
    """As if all had been trained at once, to the bit, the optimiser's momentum included."""
    calls = Calls(monkeypatch)
    first = train_experts(task(num_experts=1, momentum=momentum, dtype=dtype), [0, 1])
    more = task(train_epochs=6, momentum=momentum, dtype=dtype)
    store = train_experts(more, [0, 1, 2, 3])
    assert sorted(calls.made) == sorted([(0, 0, 3), (0, 1, 2), (0, 3, 6), (1, 0, 6)])
    assert store.path == first.path
    assert store.held(0) == store.held(1) == [0, 1, 2, 3, 6]
    whole = fresh(monkeypatch, tmp_path, more, [0, 1, 2, 3])
    assert_same(store, whole, range(2), [3, 6])
    assert store.accuracies(0) == whole.accuracies(0)
    assert verify(store) == []
    if dtype == "fp32":
        assert_same(store, whole, range(2), [0, 1, 2, 3, 6])
        assert_same(first, whole, range(1), [0, 1, 2, 3, 6])  # also as it was opened before


def test_shards_together_are_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = task(num_experts=3)
    whole = fresh(monkeypatch, tmp_path, made, [0, 2])
    calls = Calls(monkeypatch)
    assert train_experts(made, [0, 2], shard=Shard(2, 2)).experts == [1]
    assert train_experts(made, [0, 2], shard=Shard(2, 2)).experts == [1]
    store = train_experts(made, [0, 2], shard=Shard(1, 2))
    assert [expert for expert, _, _ in calls.made] == [1, 0, 2]
    assert_same(store, whole, range(3), [0, 2, 3])


def test_the_experts_use_their_own_crop_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    used, real = [], experts.train

    def notes(*args: Any, **options: Any) -> torch.Tensor:
        used.append((args[4].augment, args[4].optimiser.lr))
        return real(*args, **options)

    monkeypatch.setattr(experts, "train", notes)
    train_experts(task(crop_ratio=0.5), [0])
    assert used == [(Dsa(crop_ratio=0.5), 0.05)] * 2


IDENTITY = (
    {"expert_lr": 0.1},
    {"momentum": 0.5},
    {"weight_decay": 0.1},
    {"batch_size": 8},
    {"crop_ratio": 0.5},
    {"optimiser": "gsam"},
    {"curriculum": "pad"},
    {"rate": "cosine"},
)
RATES = {
    "drop_at_half": ({"rate_epochs": 7}, {"train_epochs": 4}),
    "steps": ({"rate_epochs": 7}, {"train_epochs": 4}, {"rate_milestones": (0.1,)}, {"rate_factor": 0.5}),
    "cosine": ({"rate_epochs": 7}, {"train_epochs": 4}, {"lr_min": 0.001}),
}
OF_RATES = ({"rate_epochs": 7}, {"rate_milestones": (0.1,)}, {"rate_factor": 0.5}, {"lr_min": 0.001})
FREE = ({"num_experts": 5}, {"train_epochs": 4}, {"label_experts": 1}, {"dtype": "half"}, {"store": "elsewhere"})
GSAM = ({"rho_min": 0.001}, {"rho_max": 0.5}, {"alpha": 0.1})
PAD = ({"difficulty": "el2n"},)


def test_the_identity_is_what_changes_the_experts() -> None:
    made, names = task(), {name for change in (*IDENTITY, *FREE, *GSAM, *PAD, *OF_RATES) for name in change}
    assert names == {field.name for field in dataclasses.fields(ExpertSettings)}

    def same(change: dict[str, Any], **given: Any) -> bool:
        first = dataclasses.replace(made.settings, **given)
        settings = (first, dataclasses.replace(first, **change))
        one, other = (dataclasses.replace(made, settings=value).identity() for value in settings)
        return one == other

    constant = dataclasses.replace(made, preprocessing=fit_preprocessing(DataSettings(normalise="cifar10"), made.data.train))
    assert constant.identity() != made.identity() and made.identity().preprocessing == "normalise"
    assert not any(same(change) for change in IDENTITY)
    assert all(same(change) for change in (*FREE, *GSAM, *PAD, *OF_RATES))
    for rate, changes in RATES.items():
        assert not any(same(change, rate=rate) for change in changes), rate
        assert all(same(change, rate=rate) for change in (*FREE, *OF_RATES) if change not in changes), rate
        assert same({"train_epochs": 4}, rate=rate, rate_epochs=3, lr_min=0.001), rate  # laid out over the same epochs
        assert same({"rate_epochs": 3}, rate=rate), rate  # said, or meant
    assert all(same(change, optimiser="gsam") for change in (*FREE, *PAD))
    assert not any(same(change, optimiser="gsam") for change in GSAM)
    assert not any(same(change, curriculum="pad") for change in PAD)
    parts = {"seed": 1, "network": flat_network("ConvNetD1-w5", (3, 8, 8), 10), "augment": Dsa("crop")}
    for name, value in parts.items():
        assert dataclasses.replace(made, **{name: value}).identity() != made.identity(), name
    elsewhere = dataclasses.replace(made.data, source="/moved")
    assert dataclasses.replace(made, data=elsewhere).identity() == made.identity()  # the images count, not their path


def test_a_store_may_lie_anywhere(tmp_path: Path) -> None:
    store = train_experts(task(store=str(tmp_path / "experts")), [0])
    assert store.path == tmp_path / "experts"
    with pytest.raises(UsageError, match=r"was made with experts.expert_lr 0.05, not 0.2$"):
        train_experts(task(store=str(tmp_path / "experts"), expert_lr=0.2), [0])
    for place in (tmp_path, tmp_path / "experts" / "metadata.json"):
        with pytest.raises(UsageError, match="^experts.store: .* is not a store, an empty folder or a new one$"):
            train_experts(task(store=str(place)), [0])
    (tmp_path / "empty").mkdir()
    assert train_experts(task(store=str(tmp_path / "empty"), num_experts=1), [0]).experts == [0]


def test_two_that_begin_one_store_at_once_do_not_refuse_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "shared"
    here = task(store=str(place))
    with part(place / "metadata.json") as written:  # by the other one, which has come as far as this
        written.parent.mkdir()
        written.write_text("{")
        assert here.find_store() is None
    looked = Path.iterdir

    def late(path: Path) -> Any:
        """The other one is done between our two looks."""
        monkeypatch.setattr(Path, "iterdir", looked)
        task(store=str(place)).open_store()
        return looked(path)

    monkeypatch.setattr(Path, "iterdir", late)
    found = here.open_store()
    assert found.path == place and found.experts == []


def test_experts_that_were_trained_otherwise_are_not_taken_up(tmp_path: Path) -> None:
    """As those of the first version: without padding a ConvNet has other parameters, and PAD's windows were others."""
    pad = task(curriculum="pad", num_experts=1)
    first = pad.identity().to_dict()
    assert first["experts"].pop("curriculum_windows") == 2
    other = task(store=str(tmp_path / "size"))
    fewer = {**other.identity().to_dict(), "num_parameters": other.network.num_parameters - 70}
    for place, made, identity, said in (
        (
            "pad",
            dataclasses.replace(pad, settings=dataclasses.replace(pad.settings, store=str(tmp_path / "pad"))),
            first,
            "windows",
        ),
        ("size", other, fewer, "num_parameters"),
    ):
        TrajectoryStore(tmp_path / place, identity)
        with pytest.raises(UsageError, match=rf"^experts: the store '.*{place}' was made with .*{said} "):
            train_experts(made, [0])
    assert pad.identity() != dataclasses.replace(pad, network=flat_network("ConvNetD1-w5", (3, 8, 8), 10)).identity()
    assert "curriculum_windows" not in task().identity().to_dict()["experts"]  # without a curriculum nothing has changed


def test_an_imported_store_is_read_and_never_trained(tmp_path: Path) -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 10)
    lists = [[[torch.full(shape, float(epoch)) for shape in network.shapes.values()] for epoch in range(4)] for _ in range(2)]
    torch.save(lists, tmp_path / "replay_buffer_0.pt")
    path = import_lists([tmp_path / "replay_buffer_0.pt"], tmp_path / "store", network).path
    store = train_experts(task(store=str(path)), [0, 1])
    assert store.read(1, 3).unique().tolist() == [3.0]
    with pytest.raises(UsageError, match=r"^experts.store: .* was imported and lacks epochs 4 of expert 0 and"):
        train_experts(task(store=str(path), train_epochs=4), [0, 1])
    with pytest.raises(UsageError, match="was made with network 'ConvNetD1-w4', not 'ConvNetD1-w5'"):
        made = task(store=str(path))
        train_experts(dataclasses.replace(made, network=flat_network("ConvNetD1-w5", (3, 8, 8), 10)), [0])


def test_a_store_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    train_experts(task(), [0])

    def refuses(self: TrajectoryStore, want: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(TrajectoryStore, "note", refuses)
    train_experts(task(), [0])
    with pytest.raises(UsageError, match=r"lacks epochs 1 of expert 0 .* and cannot be written \(Permission denied\)$"):
        train_experts(task(), [0, 1])


def test_a_store_says_which_scores_its_experts_were_trained_on(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert train_experts(task(), [0]).difficulties() == []
    made = task(curriculum="pad", difficulty="el2n", num_experts=1)
    store = train_experts(made, [0])
    (file,) = (cache / "difficulty").glob("*.safetensors")
    scores, labels = read_tensors(file)[0]["scores"].numpy(), made.data.train.labels
    (record,) = store.difficulties()
    assert record.measure == "el2n"
    assert record.fingerprint == array_fingerprint(scores)
    assert [row.name for row in record.classes] == list(made.data.class_names)
    assert [row.mean for row in record.classes] == [pytest.approx(scores[labels == k].mean()) for k in range(10)]
    assert (record.easiest[0], record.hardest[0]) == (scores.argmin(), scores.argmax())
    more = dataclasses.replace(made, settings=dataclasses.replace(made.settings, num_experts=2))
    assert train_experts(more, [0]).difficulties() == [record]  # the scores were found
    file.unlink()
    monkeypatch.setattr(curriculum_module, "difficulty", lambda *args: scores + 1)
    most = dataclasses.replace(made, settings=dataclasses.replace(made.settings, num_experts=3))
    assert len(train_experts(most, [0]).difficulties()) == 2


def test_without_images_to_validate_on_there_are_no_accuracies() -> None:
    made = task(num_experts=1)
    empty = made.data.val.take(made.data.val.rows[:0])
    store = train_experts(dataclasses.replace(made, data=dataclasses.replace(made.data, val=empty)), [0])
    assert store.accuracies(0) == [None] * 3


def test_progress_counts_what_is_left() -> None:
    class Counter(Progress, Stage):
        total = done = 0

        def stage(self, name: str, total: int, done: int = 0) -> Any:
            self.total, self.done = total, done
            return self

        def __enter__(self) -> "Counter":
            return self

        def __exit__(self, *_: object) -> None: ...

        def advance(self, steps: int = 1, **facts: Any) -> None:
            self.done += steps

        def say(self, message: str) -> None: ...

    counter = Counter()
    train_experts(task(num_experts=1), [0], counter)
    assert (counter.total, counter.done) == (3, 3)
    train_experts(task(num_experts=2, train_epochs=5), [0], counter)
    assert (counter.total, counter.done) == (10, 10)
    # From epoch 1 to 2, and from 3 or 5 to 8: also what goes on in two places is counted whole.
    train_experts(task(num_experts=2, train_epochs=8), [0, 1, 2], counter)
    assert (counter.total, counter.done) == (16, 16)


def test_divergence_is_a_failure_that_names_the_key() -> None:
    with pytest.raises(Failure, match=r"experts.expert_lr \(1e\+30\) is too large"):
        train_experts(task(expert_lr=1e30), [0])


def test_a_network_of_ones_own_is_another_when_its_code_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name or as an object, for experts and for the difficulties that their curriculum goes by."""
    monkeypatch.syspath_prepend(tmp_path)
    code = (
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, channels, height, width, classes):\n"
        "        super().__init__()\n        self.head = nn.Linear(channels * height * width, classes)\n\n"
        "    def forward(self, x):\n        return self.head(x.flatten(1).relu())\n"
    )

    def asked(text: str, named: bool) -> tuple[ExpertTask, Identity, Path]:
        (tmp_path / "edited_network.py").write_text(text)
        sys.modules.pop("edited_network", None)
        linecache.clearcache()
        importlib.invalidate_caches()
        made = task(curriculum="pad")
        given = "edited_network:Net" if named else importlib.import_module("edited_network").Net(*made.data.shape, 10)
        made = dataclasses.replace(made, network=flat_network(given, made.data.shape, 10))
        return made, made.identity(), scoring_of(made, material_of(made)).kept.path

    for named in (True, False):
        one, same, other = (asked(text, named) for text in (code, code, code.replace("relu", "sigmoid")))
        assert one[1:] == same[1:] and one[0].network.num_parameters == other[0].network.num_parameters
        assert one[1] != other[1] and one[2] != other[2]
    plain = dataclasses.replace(other[0].settings, curriculum="none", store=str(tmp_path / "store"))
    made = dataclasses.replace(other[0], settings=plain)
    held = train_experts(made, [0])
    made.check_store(held, [0])
    edited = dataclasses.replace(asked(code, False)[0], settings=plain)
    with pytest.raises(UsageError, match="structure"):
        edited.check_store(held, [0])
    with pytest.raises(UsageError, match="structure"):
        train_experts(edited, [0])


def test_what_a_folder_holds_tells_experts_from_others(tmp_path: Path) -> None:
    """A network of `transformers:FOLDER` by its configuration and its weights, which every expert begins with."""
    transformers, safetensors = pytest.importorskip("transformers"), pytest.importorskip("safetensors.torch")
    small = {"embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic", "num_labels": 10}
    found, weights = [], tmp_path / "model.safetensors"

    def note() -> None:
        made = task()
        network = flat_network(f"transformers:{tmp_path}", made.data.shape, 10)
        found.append(dataclasses.replace(made, network=network).identity())

    for act in ("relu", "gelu"):
        transformers.ResNetForImageClassification(transformers.ResNetConfig(**small, hidden_act=act)).save_pretrained(tmp_path)
        note()
    note()
    safetensors.save_file({key: 2 * value for key, value in safetensors.load_file(weights).items()}, weights, {"format": "pt"})
    note()
    assert found[1] == found[2] and len({one.structure for one in found}) == 3

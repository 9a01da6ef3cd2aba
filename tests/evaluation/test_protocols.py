"""The named protocols against the published settings (EDF, NCFM, RDED and SRe2L), and protocols from files."""

import csv
import dataclasses
from pathlib import Path

import pytest

from limbeck.augmentation import Dsa
from limbeck.distilled.small_set import Kind
from limbeck.evaluation.protocols import PROTOCOLS, Protocol, find, resolve
from limbeck.evaluation.settings import EvalSettings
from limbeck.losses import Divergence, cross_entropy, soft_cross_entropy
from limbeck.networks.flat import flat_network
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import plain
from limbeck.training.layers import Layers
from limbeck.training.optimisers import AdamW, Sgd
from limbeck.training.train import Training
from limbeck.views import Views

NETWORK = flat_network("ConvNetD1-w4", (3, 8, 8), 3)
DSA = Dsa(flip=False)


def training(protocol: Protocol, ipc: int = 1, kind: Kind = "logits") -> Training:
    return protocol.training(NETWORK, DSA, 0.02, ipc, kind)


def factors(how: Training, epochs: int) -> list[float]:
    return [round(how.rate.factor(epoch, epochs), 6) for epoch in range(epochs)]


def test_dd_is_the_published_protocol() -> None:
    how = training(PROTOCOLS["dd"])
    assert how.optimiser == Sgd(0.02, 0.9, 5e-4)
    assert (how.epochs, how.batch_size, how.augment, how.loss) == (1000, 128, DSA, soft_cross_entropy)
    assert factors(how, 4) == [1, 1, 0.1, 0.1]
    assert how.rate.restarts
    assert PROTOCOLS["dd"].validation
    assert training(PROTOCOLS["dd"], kind="hard").loss is cross_entropy


def test_the_variants_of_dd_differ_in_one_thing_each() -> None:
    base = PROTOCOLS["dd"]
    changed = {
        name: [
            key for key in Protocol.__dataclass_fields__ if key != "name" and getattr(PROTOCOLS[name], key) != getattr(base, key)
        ]
        for name in ("dd-published", "dd-hard", "none")
    }
    assert changed == {"dd-published": ["validation"], "dd-hard": ["labels"], "none": ["augment"]}
    assert training(PROTOCOLS["none"]).augment == Dsa("none")


def test_kd_is_the_published_protocol() -> None:
    how = training(PROTOCOLS["kd"])
    assert isinstance(how.optimiser, AdamW)
    assert (how.optimiser.lr, how.optimiser.weight_decay) == (1e-3, 0.01)
    decayed = {name: bool(how.optimiser.decayed[part].all()) for name, part in NETWORK.slices.items()}
    assert decayed == {name: NETWORK.shapes[name].numel() > NETWORK.shapes[name][0] for name in NETWORK.shapes}
    assert how.loss == Divergence(20.0)
    assert how.epochs == 300
    assert factors(how, 4) == [1, 0.853553, 0.5, 0.146447]
    assert how.augment == Views(crop_scale=(0.08, 1.0), mix="cutmix", flip=False)
    assert PROTOCOLS["soft-ce"].labels == "stored"
    assert training(PROTOCOLS["kd-sre2l"]).batch_size == 1024


def test_rded_shuffles_and_ends_at_half_the_rate() -> None:
    protocol = PROTOCOLS["kd-rded"]
    assert [training(protocol, ipc).batch_size for ipc in (1, 10, 50)] == [10, 50, 100]
    how = training(protocol)
    assert factors(how, 4)[0] == 1
    assert 0.5 < factors(how, 400)[-1] < 0.51
    # With a factor of 1, as the release has on CIFAR, nothing is shuffled, and crops from 1/1 of the area up are the image.
    assert how.augment == training(protocol.of_parts(1)).augment == Views(crop_scale=None, mix="cutmix", flip=False)
    assert training(protocol.of_parts(2)).augment == Views(crop_scale=(0.5, 1.0), patches=2, mix="cutmix", flip=False)
    assert training(protocol.of_parts(4)).augment == Views(crop_scale=(0.25, 1.0), patches=4, mix="cutmix", flip=False)
    assert PROTOCOLS["kd"].of_parts(2) == PROTOCOLS["kd"]
    assert [protocol.step_size(name, 0.5) for name in ("AlexNet", "VGG11", "ResNet18")] == pytest.approx([1e-4, 5e-4, 1e-3])


def test_settings_replace_epochs_and_batches() -> None:
    protocol = resolve(EvalSettings(protocol="kd", epochs=7, batch_size=3))
    assert (protocol.name, protocol.epochs, protocol.batch_size) == ("kd", 7, 3)
    assert resolve(EvalSettings()) == PROTOCOLS["dd"]


def test_a_protocol_is_checked_wherever_it_is_made() -> None:
    with pytest.raises(UsageError, match=r"^protocol.epochs: 2.5 is not a whole number$"):
        Protocol(name="mine", epochs=2.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="^protocol.momentum: 1 is not in "):
        dataclasses.replace(PROTOCOLS["dd"], momentum=1)


def test_a_given_protocol_is_described_in_settings() -> None:
    said = plain(EvalSettings(protocol=PROTOCOLS["kd"]))["protocol"]
    assert said.startswith("limbeck.evaluation.protocols:Protocol(name='kd', version=1, labels='teacher', ")


def test_a_protocol_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: kd\nversion: 4\nlr: 1\nbatch_size: null\nlr_factors: {VGG11: 0.5}\ncrop_scale: [0.2, 1]\nmix: mixup\n")
    found = find(str(path))
    assert (found.name, found.version, found.lr, found.batch_size) == ("mine", 4, 1.0, None)
    assert (found.lr_factors, found.crop_scale, found.mix, found.epochs) == ((("VGG11", 0.5),), (0.2, 1.0), "mixup", 300)
    assert found.step_size("VGG11BN", 9.0) == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 0", "protocol.epochs: 0 is not at least 1"),
        ("epochs: many", "protocol.epochs: 'many' is not a whole number"),
        ("epochs: true", "protocol.epochs: True is not a whole number"),
        ("colour: red", "protocol.colour: 'red' is not a key of protocols"),
        ("base: best", "protocol.base: 'best' is not one of dd, "),
        ("labels: own", "protocol.labels: 'own' is not one of stored, hard, teacher"),
        ("patches: 2", "protocol.augment: 'set' is not views"),
        ("crop_scale: [0, 1]", "protocol.crop_scale: [0, 1] is not two shares"),
        ("lr_factors: {A: -1}", "protocol.lr_factors: [('A', -1)] is not names of networks with factors above 0"),
        ("lr_factors: {A: B}", "protocol.lr_factors: [('A', 'B')] is not a list of names with numbers"),
        ("lr_factors: 2", "protocol.lr_factors: 2 is not a list of names with numbers"),
        ("crop_scale: 1", "protocol.crop_scale: 1 is not a list of 2 numbers"),
        ("batch_size: 0", "protocol.batch_size: 0 is not at least 1, or null"),
        ("base: [dd]", "protocol.base: ['dd'] is not one of dd, "),
        ("lr: .nan", "protocol.lr: nan is not above 0"),
        ("- 1", "is not a file of keys with values"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        find(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "idle", "read"),
    [
        ("temperature", "4", "base: dd", "base: kd"),
        ("momentum", "0.8", "base: kd", "base: kd\noptimiser: sgd"),
        ("decay_all", "true", "base: dd", "base: ncfm-2025"),
        ("crop_scale", "[0.5, 1]", "base: dd", "augment: views+set"),
        ("flip", "false", "base: kd\naugment: none\nmix: none", "base: kd"),
        ("mix_share", "0.25", "augment: views", "augment: views\nmix: mixup"),
        ("policy_operations", "1", "policy: autoaugment-cifar10", "policy: randaugment"),
        ("policy_magnitude", "5", "base: dd", "policy: randaugment"),
        ("look_every", "5", "base: edf-2024", "base: rded"),
        ("look_from", "0.5", "base: dd", "base: rded"),
    ],
)
def test_a_key_that_the_protocol_does_not_read_is_refused(tmp_path: Path, key: str, value: str, idle: str, read: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{read}\n{key}: {value}\n")
    find(str(path))
    path.write_text(f"{idle}\n{key}: {value}\n")
    with pytest.raises(UsageError, match=rf"^protocol\.{key}: .* is not read with protocol\.") as error:
        find(str(path))
    advised = str(error.value).rpartition("only with ")[2].partition(" or ")[0]
    by = str(error.value).partition("with protocol.")[2].partition(" ")[0]
    path.write_text(f"augment: views\n{by}: {advised}\n{key}: {value}\n".removeprefix("augment: views\n" * (by == "augment")))
    find(str(path))


def test_all_keys_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("flip: false\ntemperature: 4\nmomentum: 0.8\nmix: none\npatches: 1\npolicy: none\n")
    with pytest.raises(UsageError) as error:
        find(str(path))
    assert str(error.value) == (
        "protocol.flip: False is not read with protocol.augment set, only with views or views+set; "
        "protocol.temperature: 4 is not read with protocol.labels stored, only with teacher"
    )


def test_an_unknown_protocol_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"eval.protocol: 'best' is not one of dd, dd-published, .* or a .yaml file of your own"):
        find("best")


# The columns of the releases' settings of NCFM that concern evaluation; they are the same for the ImageNet subsets and CIFAR.
NCFM = {
    "evaluation_epochs": 2000,
    "epoch_eval_interval": 100,
    "batch_size": 128,
    "adamw_lr": 0.001,
    "eval_optimizer": "adamw",
    "mixup": "cut",
    "beta": 1.0,
    "mix_p": 0.5,
    "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
}


def test_ncfm_is_the_published_protocol() -> None:
    protocol = PROTOCOLS["ncfm-2025"]
    strategy = Dsa(str(NCFM["dsa_strategy"]))
    how = protocol.training(NETWORK, strategy, None, 10, "hard")
    assert (how.epochs, how.batch_size) == (NCFM["evaluation_epochs"], NCFM["batch_size"])
    assert how.optimiser == AdamW(float(str(NCFM["adamw_lr"])), weight_decay=0.01)  # that of torch, whose others are ours, too
    assert isinstance(how.optimiser, AdamW) and how.optimiser.decayed is None
    assert (protocol.labels, how.loss) == ("hard", cross_entropy)
    assert isinstance(how.augment, Layers)
    views = how.augment.views
    assert (views.mix, views.alpha, views.mix_share) == ("cutmix", NCFM["beta"], NCFM["mix_p"])
    assert (views.crop_scale, views.flip) == ((0.5, 1.0), False)  # DSA mirrors already
    assert how.augment.between == (strategy,)
    assert protocol.looks == tuple(range(int(str(NCFM["epoch_eval_interval"])), 2001, 100))
    assert factors(how, 10) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625]


def test_edf_takes_the_best_of_checkpoints() -> None:
    protocol, dd = PROTOCOLS["edf-2024"], PROTOCOLS["dd"]
    how = training(protocol)
    assert factors(how, 1001) == [1.0] * 502 + [0.1] * 499
    assert how.rate.restarts
    assert (protocol.best, protocol.looks) == ("checkpoint", ())
    with (Path(__file__).parents[2] / "benchmarks" / "published" / "edf_settings.csv").open(newline="") as file:
        released = {(int(row["eval_every"]), int(row["eval_batch_size"])) for row in csv.DictReader(file)}
    assert released == {(EvalSettings().every, how.batch_size)}
    changed = [key for key in Protocol.__dataclass_fields__ if getattr(protocol, key) != getattr(dd, key)]
    assert changed == ["name", "rate", "epochs", "best"]


def test_rded_and_sre2l_are_theirs_with_looks() -> None:
    for name, base, looks in (("rded", "kd-rded", range(250, 301, 10)), ("sre2l", "kd-sre2l", range(10, 301, 10))):
        found = PROTOCOLS[name]
        assert dataclasses.replace(found, name=base, best="none", look_from=0.0) == PROTOCOLS[base]
        assert found.looks == tuple(looks)
    assert dataclasses.replace(PROTOCOLS["rded"], epochs=7).looks == (7,)


def test_dd_ranking_is_its_defaults() -> None:
    protocol = PROTOCOLS["dd-ranking"]
    how = training(protocol, kind="hard")
    assert how.optimiser == Sgd(0.02, 0.9, 5e-4)
    assert (how.epochs, how.batch_size, how.loss, protocol.labels) == (300, 256, cross_entropy, "hard")
    assert how.augment == Views(crop_scale=None, mix="cutmix", flip=False)
    assert factors(how, 4) == [1, 1, 0.1, 0.1]
    assert not how.rate.restarts
    assert protocol.looks == tuple(range(250, 301, 10))


@pytest.mark.parametrize("name", [name for name, one in PROTOCOLS.items() if one.best != "none"])
def test_who_chooses_on_the_test_images_has_validation_images_to_choose_on(name: str) -> None:
    assert PROTOCOLS[name].validation

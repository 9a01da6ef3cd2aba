"""`limbeck experts show`, `verify`, `prune`, `import` and `--shard`."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from experts.test_store import RECORD

from limbeck.cli.main import main
from limbeck.experts.notes import Difficulty, want_of
from limbeck.experts.store import Summary, TrajectoryStore
from limbeck.experts.train import made_with
from limbeck.networks.flat import flat_network
from limbeck.recipes import load_recipe
from limbeck.runs.build import augmentation_of
from limbeck.runtime.executor import Shard

Run = Any


@pytest.fixture
def limbeck(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What the recipe `scenes` reads (epochs 0 … 5 and the last, 6, of six experts), and epochs 6 … 8 of eight."""
    settings = load_recipe("scenes")
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 10)
    made = made_with(settings.network, settings.experts, augmentation_of(settings.augment), settings.seed)
    store = TrajectoryStore(
        tmp_path / "store", {"num_parameters": network.num_parameters, **made.to_dict()}, {"source": "scenes:easy"}
    )
    for expert in range(8):
        draws = torch.Generator().manual_seed(expert)
        thetas = {epoch: torch.randn(network.num_parameters, generator=draws) for epoch in range(9)}
        store.write(expert, thetas, [0.1 * (epoch + 1) for epoch in range(8)])
    store.note(want_of(settings.experts, range(6)))
    return store.path


def test_show(limbeck: Run, path: Path, tmp_path: Path) -> None:
    status, out, err = limbeck("experts", "show", path, "--plot", tmp_path / "plot.png")
    assert (status, err) == (0, "")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    for line in (
        "network: ConvNetD3-w32, 770 parameters",
        "source (not part of its identity): scenes:easy",
        "experts: 8",
        "epochs: 0-8 of 8 experts",
        "checkpoints: 72 in fp32; at most 0 % of an epoch's step lost",
        "accuracy after epoch 1: 10.0 % (10.0 … 10.0)",
        "accuracy after epoch 8: 80.0 % (80.0 … 80.0)",
        "asked for: epochs 0-5 of 6 experts, epoch 6 of 6, as fp32: complete",
        f"plot:    {tmp_path / 'plot.png'}",
    ):
        assert line in out.splitlines(), line
    status, out, _ = limbeck("experts", "show", path, "--json")
    assert status == 0
    assert json.loads(out)["store"]["num_experts"] == 8


def test_show_prints_the_difficulties_of_a_curriculum(limbeck: Run, path: Path, tmp_path: Path) -> None:
    def widths() -> int:
        assert limbeck("experts", "show", path, "--plot", tmp_path / "plot.png")[0] == 0
        return int.from_bytes((tmp_path / "plot.png").read_bytes()[20:24], "big")

    assert "difficulty of" not in limbeck("experts", "show", path)[1]
    before = widths()
    TrajectoryStore(path).note_difficulty(Difficulty.from_dict(RECORD))
    out = limbeck("experts", "show", path)[1]
    said = "difficulty of 3 training images: grand, the mean over 3 networks after 5 epochs, fingerprint 0123456789abcdef"
    assert said in out.splitlines()
    row = next(line for line in out.splitlines() if "zero" in line)
    assert row.replace("│", " ").split() == ["zero", "3", "2", "1", "1.5", "2", "2.5", "3"]
    assert "easiest training images: 2, 0, 1" in out.splitlines()
    assert "hardest training images: 1, 0, 2" in out.splitlines()
    assert widths() == pytest.approx(2 * before, rel=0.05)
    assert json.loads(limbeck("experts", "show", path, "--json")[1])["store"]["difficulty"] == [RECORD]
    many = [{**RECORD["classes"][0], "class": k, "name": f"[class{k}]", "mean": float(k)} for k in range(50)]
    TrajectoryStore(path).note_difficulty(Difficulty.from_dict({**RECORD, "fingerprint": "fedcba9876543210", "classes": many}))
    out = limbeck("experts", "show", path)[1]
    assert [f"[class{k}]" in out for k in (0, 9, 10, 39, 40, 49)] == [True, True, False, False, True, True]
    assert "warning: the scores were computed anew" in out


def test_verify(limbeck: Run, path: Path) -> None:
    assert limbeck("experts", "verify", path)[:2] == (0, f"8 experts: nothing is broken or missing\nexperts: {path}\n")
    assert limbeck("experts", "verify", path, "--recipe", "scenes")[0] == 0
    status, out, err = limbeck("experts", "verify", path, "--recipe", "scenes", "experts.num_experts=9")
    assert (status, out) == (1, "expert-0008: epochs 0-6 are missing\n")
    assert err.splitlines()[-1] == f"limbeck: failed: 1 thing is broken or missing in {str(path)!r}"
    file = path / "expert-0003" / "epochs-0000-0007-0000.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    status, out, err = limbeck("experts", "verify", path, "--json")
    found = json.loads(out)
    assert status == 1 and found["paths"] == {"experts": str(path)}
    problem = "expert-0003/epochs-0000-0007-0000.safetensors: theta has changed"
    assert found["verified"] == {"num_experts": 8, "problems": [problem]}
    assert err.splitlines()[-1] == f"limbeck: failed: 1 thing is broken or missing in {str(path)!r}"


def test_prune(limbeck: Run, path: Path) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    status, dry, _ = limbeck("experts", "prune", path, "--recipe", "scenes", "--dry-run")
    assert status == 0
    assert "expert-0007/epochs-0000-0007-0000.safetensors: epochs 0-7 (" in dry
    assert "expert-0000/epochs-0000-0007-0000.safetensors: epochs 7 (" in dry
    assert "would free " in dry
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    status, out, _ = limbeck("experts", "prune", path, "--recipe", "scenes")
    assert status == 0
    assert out.splitlines()[:-2] == dry.splitlines()[:-2]
    store = TrajectoryStore(path)
    assert [store.held(expert) for expert in store.experts] == [list(range(7))] * 6
    assert limbeck("experts", "verify", path)[0] == 0
    status, out, _ = limbeck("experts", "prune", path, "--keep", "1-2", "--json")
    assert status == 0
    assert len(json.loads(out)["removed"]) == 6
    assert TrajectoryStore(path).summary().epochs == [1, 2]


def test_a_recipe_that_reads_another_store_prunes_nothing(limbeck: Run, path: Path) -> None:
    words = ("experts", "prune", path, "--recipe", "scenes", "experts.expert_lr=0.02")
    message = f"--recipe: 'scenes' does not read {str(path)!r}, made with experts.expert_lr 0.1, not 0.02"
    assert limbeck(*words) == (2, "", f"limbeck: error: {message}\n")
    assert len(TrajectoryStore(path).experts) == 8


def test_import(limbeck: Run, tmp_path: Path) -> None:
    network = flat_network("ConvNetD1-w4", (3, 8, 8), 10)
    lists = [[[torch.full(shape, float(epoch)) for shape in network.shapes.values()] for epoch in range(6)] for _ in range(2)]
    torch.save(lists, tmp_path / "replay_buffer_0.pt")
    torch.save(lists[:1], tmp_path / "replay_buffer_1.pt")
    files = [tmp_path / f"replay_buffer_{number}.pt" for number in (0, 1)]
    data = ("--network", "ConvNetD1-w4", "--data", "scenes:easy", "data.size=8", "data.per_class=6", "data.val_fraction=0.34")
    status, out, _ = limbeck(
        "experts", "import", *files, "--output", tmp_path / "store", *data, "--keep", "0-2,5", "experts.dtype=half"
    )
    assert status == 0
    assert f"experts.store: {tmp_path / 'store'}\n" in out
    store = TrajectoryStore(tmp_path / "store")
    assert [store.held(expert) for expert in store.experts] == [[0, 1, 2, 5]] * 3
    assert store.metadata["about"]["source"] == "scenes:easy"
    named = ("--network", "ConvNetD1-w4", "data.source=scenes:easy", *data[4:])
    assert (
        limbeck("experts", "import", *files, "--output", tmp_path / "same", *named, "--keep", "0-2,5", "experts.dtype=half")[0] == 0
    )
    assert TrajectoryStore(tmp_path / "same").metadata == store.metadata
    status, _, err = limbeck("experts", "import", *files, "--output", tmp_path / "other", *data, "data.source=scenes")
    assert (status, err) == (2, "limbeck: error: data.source: is given twice, once as --data\n")
    other = ("--network", "ConvNetD1-w5", *data[2:])
    status, _, err = limbeck("experts", "import", *files, "--output", tmp_path / "other", *other)
    assert status == 2
    assert err.splitlines()[-1].endswith("has the shape (4, 3, 3, 3), not (5, 3, 3, 3), for blocks.0.0.weight of ConvNetD1-w5")
    status, _, err = limbeck("experts", "import", *files, "--output", tmp_path / "other", "--network", "ConvNet", *data[2:])
    assert err.startswith("limbeck: error: network: 'ConvNet' is not a name such as")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("ConvNetD3", (3, 32, 32), 10),
        ("ConvNetD3", (1, 28, 28), 10),
        ("ConvNetD4", (3, 64, 64), 200),
        ("ConvNetD5", (3, 128, 128), 10),
        ("ResNet18-w8-batchnorm", (3, 32, 32), 5),
        ("MLP", (1, 28, 28), 10),
        ("MLP", (3, 32, 32), 100),
    ],
)
def test_import_without_the_images(limbeck: Run, tmp_path: Path, name: str, shape: tuple[int, int, int], classes: int) -> None:
    network = flat_network(name, shape, classes)
    torch.save([[[torch.full(one, 0.5) for one in network.shapes.values()]]], tmp_path / "replay_buffer_0.pt")
    words = ("import", tmp_path / "replay_buffer_0.pt", "--network", name, "--output", tmp_path / "store")
    assert limbeck("experts", *words)[0] == 0
    store = TrajectoryStore(tmp_path / "store")
    assert (store.metadata["network"], store.metadata["num_parameters"]) == (name, network.num_parameters)
    assert store.metadata["about"] == {"content": store.content} and bool((store.read(0, 0) == 0.5).all())


def test_import_without_the_images_of_a_network_that_does_not_fit(limbeck: Run, tmp_path: Path) -> None:
    network = flat_network("ConvNetD2-w4", (3, 8, 24), 4)
    torch.save([[[torch.full(one, 0.5) for one in network.shapes.values()]]], tmp_path / "buffer.pt")
    for name in ("ConvNetD2-w4", "ConvNetD1-w4"):
        status, _, err = limbeck("experts", "import", tmp_path / "buffer.pt", "--network", name, "--output", tmp_path / "store")
        said = f"has not the parameters of {name} for square images of 8 to 256 pixels; --data says its images\n"
        assert status == 2 and err.startswith("limbeck: error: FILE: epoch 0 of expert 0 of ") and err.endswith(said)
    torch.save([[7]], tmp_path / "buffer.pt")
    err = limbeck("experts", "import", tmp_path / "buffer.pt", "--network", "ConvNetD1", "--output", tmp_path / "store")[2]
    assert err.endswith("is not a list of float tensors\n") and not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("show", "PATH: `limbeck experts show` takes the folder of one store, not 0"),
        ("show a b", "PATH: `limbeck experts show` takes the folder of one store, not 2"),
        ("verify nowhere", "experts: 'nowhere' is not a trajectory store (no readable metadata.json)"),
        ("prune nowhere", "prune: takes either --keep EPOCHS or --recipe RECIPE"),
        ("prune nowhere --keep 1 --recipe scenes", "prune: takes either --keep EPOCHS or --recipe RECIPE"),
        ("show nowhere --keep 1", "unrecognized arguments: --keep 1; see `limbeck experts show --help`"),
        ("scenes --dry-run", "unrecognized arguments: --dry-run; see `limbeck experts --help`"),
        ("verify nowhere --shard 1/2", "unrecognized arguments: --shard 1/2; see `limbeck experts verify --help`"),
        (
            "import a.pt --network ConvNetD3 --data scenes",
            "the following arguments are required: --output; see `limbeck experts import --help`",
        ),
        ("import --network ConvNetD3 --data scenes --output new", "FILE: [] is not at least one file"),
        ("import a.pt --network ConvNetD1 --data scenes --output .", "--output: '.' is not a new folder"),
        ("import a.pt --network ConvNetD1 --data scenes --output new", "FILE: 'a.pt' is not a file that exists"),
        ("import a.pt --network ConvNetD3 network=ResNet18 --output new", "network: is given twice, once as --network"),
        ("scenes --shard 3/2", "--shard: '3/2' is not of the form i/n with 1 ≤ i ≤ n"),
        ("scenes experts.dtype=bf16", "experts.dtype: 'bf16' is not"),
        ("./show.yaml", "RECIPE: './show.yaml' is not a file that exists"),
    ],
)
def test_bad_words_are_one_line(limbeck: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = limbeck("experts", *words.split())
    assert (status, out) == (2, "")
    assert err.startswith(f"limbeck: error: {message}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_keep_must_name_what_is_held(limbeck: Run, path: Path) -> None:
    assert limbeck("experts", "prune", path, "--keep", "50")[2] == "limbeck: error: --keep: '50' is not an epoch that is held\n"
    assert limbeck("experts", "show", path, "--plot", "plot.svg")[0] == 2


def test_the_shard_is_handed_on(limbeck: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def train_experts(settings: object, **options: object) -> Any:
        asked.append(options.get("shard"))
        return SimpleNamespace(place="experts", summary=lambda: Summary("experts", 1, [], 0, []))

    monkeypatch.setattr("limbeck.runs.distill.train_experts", train_experts)
    assert limbeck("experts", "scenes", "--shard", "2/3")[:2] == (
        0,
        "num_experts: 1\nepochs: []\nbytes: 0\nlast_epoch_accuracy: []\nexperts: experts\n",
    )
    assert limbeck("experts", "scenes")[0] == 0
    assert asked == [Shard(2, 3), None]


def test_a_recipe_called_like_an_action_is_its_file(limbeck: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("show.yaml").write_text("ipc: 3\n")
    seen: list[Any] = []

    def train_experts(settings: Any, **options: object) -> Any:
        seen.append(settings.ipc)
        return SimpleNamespace(place="experts", summary=lambda: Summary("experts", 0, [], 0, []))

    monkeypatch.setattr("limbeck.runs.distill.train_experts", train_experts)
    assert limbeck("experts", "./show.yaml")[0] == 0
    assert seen == [3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "store", "--data", "scenes"], "--data: 'scenes' is not accepted without --recipe"),
        (["prune", "store", "--keep", "0", "--trust"], "--trust: True is not accepted without --recipe"),
        (["import", "a.pt", "--network", "ConvNetD1", "--output", "b", "ipc=10"], "ipc: is not used here; data.*, network and"),
        (
            ["import", "a.pt", "--network", "ConvNetD1", "--output", "b", "--skip-bad"],
            "--skip-bad: True is not accepted without --data",
        ),
    ],
)
def test_experts_refuses_what_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store = TrajectoryStore(tmp_path / "store", {"num_parameters": 2})
    store.write(0, {0: torch.zeros(2)}, [])
    assert main(["experts", *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "b").exists()

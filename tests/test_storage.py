"""Commands whose paths are URLs: everything is read from a bucket, everything is written to it, and no key is written anywhere."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from buckets import KEY, SECRET, forget_all, set_environment

import limbeck
from limbeck.cli.main import main
from limbeck.data.settings import DataSettings
from limbeck.distilled.set import DistilledSet
from limbeck.distilled.small_set import SmallSet
from limbeck.experts.store import TrajectoryStore
from limbeck.networks.flat import flat_network
from limbeck.runtime import files as run_files
from limbeck.runtime import locks
from limbeck.runtime.located import here
from limbeck.runtime.published import put_file
from limbeck.runtime.remote import Remote, forget

TINY = ["data.size=16", "data.per_class=12", "network=ConvNetD2-w4", "eval.epochs=1", "eval.full_epochs=1", "eval.random_lr=0.01"]
QUICK = [*TINY, "eval.seeds=2", "features=none"]
DM = ["method=dm", "outer.iterations=2", "eval.every=1", *QUICK]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in a folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words: str) -> tuple[int, str, str]:
        status = main(list(words))
        out, err = capfd.readouterr()
        return status, out, err

    return run


def _holding_keys(*roots: Path) -> list[str]:
    """Files in which a key stands."""
    found = []
    for path in (path for root in roots for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found += [str(path) for key in (KEY, SECRET, SECRET[-16:]) if key.encode() in content]
    return found


def _assert_secret(said: str, bucket: str, *roots: Path) -> None:
    assert KEY not in said and SECRET not in said
    assert _holding_keys(*roots) == []
    for name in Remote("test", bucket).files():
        content = Remote("test", f"{bucket}/{name}").read()
        assert KEY.encode() not in content and SECRET.encode() not in content, name


def test_a_run_in_a_bucket(bucket: str, run: Run, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"{bucket}/runs/a"
    status, out, err = run("distill", "scenes", "--output", place, *DM)
    assert status == 0 and f"{place}/report.html" in out and f"{place}/distilled" in out, err
    said = out + err
    assert run("distill", "scenes", "--output", place, *DM)[0] == 2  # it is not empty
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
    forget_all()
    assert len(DistilledSet.load(f"{place}/distilled")) == 10
    status, out, err = run("distill", "scenes", "--output", place, "--resume", *DM)  # it is finished
    assert status == 0, err
    said += out + err
    status, out, err = run("report", place)
    assert status == 0 and Path("limbeck-report.html").stat().st_size > 10_000, err
    status, out, err = run("report", place, "--output", f"{bucket}/pages/a.html")
    assert status == 0 and Remote("test", f"{bucket}/pages/a.html").read() == Path("limbeck-report.html").read_bytes()
    status, out, err = run("report", place, "--output", f"{bucket}/pages/a.html")
    assert status == 2 and "something is there" in err
    status, out, err = run("evaluate", place, "eval.seeds=2", "eval.epochs=1")
    assert status == 0, err
    said += out + err
    forget(place)
    assert len(DistilledSet.load(f"{place}/distilled").metadata["evaluations"]) == 1
    status, out, err = run("export", place, "--to", "npz", "--output", "set.npz")
    assert status == 0 and Path("set.npz").exists()
    for form, name in (("npz", "set.npz"), ("folder", "images"), ("research", "tensors")):
        words = ("export", place, "--to", form, "--output", f"{bucket}/exports/{name}")
        status, out, err = run(*words)
        assert status == 0 and out.strip().endswith(f"{bucket}/exports/{name}"), err
        status, _, err = run("evaluate", f"{bucket}/exports/{name}", "--data", "scenes", *TINY, "eval.seeds=2")
        assert status == 0, err
        status, _, err = run(*words)
        assert status == 2 and "a new place; something is there" in err
    assert Remote("test", f"{bucket}/exports/set.npz").read() == Path("set.npz").read_bytes()
    assert not [path for path in Path().iterdir() if ":" in path.name], "a URL is no folder here"
    _assert_secret(said, bucket, cache, tmp_path)


def test_a_stopped_run_goes_on_on_another_machine_with_the_same_bits(
    bucket: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, words = f"{bucket}/runs/a", [*DM, "outer.iterations=4", "outer.checkpoint_every=1"]
    words = [word for word in words if word != "outer.iterations=2"]
    assert run("distill", "scenes", "--output", "whole", *words)[0] == 0

    from limbeck.runtime.published import Work

    publish, calls = Work.publish, []

    def stop(self: Work, *rest: Any) -> None:
        publish(self, *rest)
        calls.append(rest)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(Work, "publish", stop)
        assert run("distill", "scenes", "--output", place, *words)[0] == 130
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
    forget_all()
    status, out, err = run("distill", "scenes", "--output", place, "--resume", *words)
    assert status == 0, err
    again, whole = DistilledSet.load(f"{place}/distilled"), DistilledSet.load("whole/distilled")
    assert torch.equal(again.images, whole.images) and again.syn_lr == whole.syn_lr


def test_experts_in_a_bucket(bucket: str, run: Run, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, tiny = f"{bucket}/experts", ["experts.num_experts=2", "experts.train_epochs=2", "match.expert_epochs=1", *QUICK]
    tiny += ["schedule.max_start_epoch=1", "schedule.first_max_start_epoch=1"]
    status, out, err = run("experts", "scenes", f"experts.store={store}", *tiny)
    assert status == 0 and f"experts: {store}" in out, err
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
    said = out + err
    status, out, err = run("experts", "verify", store)
    assert status == 0 and "2 experts: nothing is broken" in out, err
    status, out, err = run("experts", "show", store)
    assert status == 0 and "experts: 2" in out, err
    assert TrajectoryStore.at(store).experts == [0, 1]
    status, more, err = run("experts", "show", store, "--plot", f"{bucket}/experts.png")
    assert status == 0 and Remote("test", f"{bucket}/experts.png").read().startswith(b"\x89PNG"), err
    status, more, err = run("report", store, "--figures", f"{bucket}/figures", "--formats", "png")
    assert status == 0 and f"figures: {bucket}/figures" in more, err
    assert any(path.suffix == ".png" for path in Path(here("path", f"{bucket}/figures")).rglob("*"))
    status, out, err = run(
        "distill", "scenes", f"experts.store={store}", "outer.iterations=1", "match.syn_steps=1", "--output", "a", *tiny
    )
    assert status == 0, err
    _assert_secret(said + out + err, bucket, cache, tmp_path)
    assert f'"store": "{store}"' in Path("a/settings.json").read_text()


def test_experts_of_research_code_go_from_a_bucket_to_a_bucket(bucket: str, run: Run, tmp_path: Path) -> None:
    network = flat_network("ConvNetD2-w4", (3, 16, 16), 3)
    thetas = [network.initial(torch.Generator().manual_seed(seed)) for seed in range(3)]
    torch.save([[list(network.parameters(theta).values()) for theta in thetas]], tmp_path / "buffer.pt")
    put_file("test", f"{bucket}/buffer.pt", tmp_path / "buffer.pt")
    typed = ("experts", "import", f"{bucket}/buffer.pt", "--network", "ConvNetD2-w4", "--output", f"{bucket}/imported")
    status, out, err = run(*typed)
    assert status == 0 and f"experts.store: {bucket}/imported" in out, err
    held = TrajectoryStore.at(f"{bucket}/imported")
    assert all(torch.equal(held.read(0, epoch), theta) for epoch, theta in enumerate(thetas))
    status, out, err = run(*typed)
    assert status == 2 and "is not a new place; something is there" in err
    status, out, err = run("experts", "prune", f"{bucket}/imported", "--keep", "0")
    assert status == 2 and "of a store elsewhere nothing is removed: fill another one" in err


@pytest.mark.slow  # `docs/scaling.md` has one that its test runs
def test_a_comparison_in_a_bucket(bucket: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, words = f"{bucket}/compare", ["--methods", "random,herding", "--data", "scenes:easy", "--seeds", "0", *QUICK]
    status, out, err = run("compare", *words, "--output", place, "--shard", "1/2")
    assert status == 0, err
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "another machine"))
    status, out, err = run("compare", *words, "--output", place, "--shard", "2/2")
    assert status == 0 and f"{place}/comparison.png" in out, err
    names = sorted(path.name for path in (Path(here("path", place)) / "cells").iterdir())
    assert len([name for name in names if name.endswith(".json")]) == 2
    assert run("report", place)[0] == 0


def test_data_recipes_and_starts_from_a_bucket(bucket: str, run: Run, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    arrays = {f"x_{part}": draws.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "d.npz", **arrays, y_train=np.arange(40) % 4, y_test=np.arange(40) % 4)
    Remote("test", f"{bucket}/d.npz").put_file(tmp_path / "d.npz")
    found = limbeck.load_data(f"{bucket}/d.npz")
    assert found.source == f"{bucket}/d.npz" and found.num_classes == 4
    assert found.fingerprint == limbeck.load_data(str(tmp_path / "d.npz")).fingerprint
    assert limbeck.load_data(f"file://{tmp_path}/d.npz").fingerprint == found.fingerprint
    Remote("test", f"{bucket}/r.yaml").put(b"method: random\nipc: 1\nnetwork: ConvNetD2-w4\n")
    more = [word for word in QUICK if not word.startswith(("data.", "network"))]
    status, out, err = run("distill", f"{bucket}/r.yaml", "--data", f"{bucket}/d.npz", "--output", "a", *more)
    assert status == 0, err
    held = DistilledSet.load("a/distilled")
    assert held.save(f"{bucket}/set") == f"{bucket}/set"
    start = ["method=dm", "outer.iterations=1", f"init={bucket}/set"]
    status, out, err = run("distill", f"{bucket}/r.yaml", "--data", f"{bucket}/d.npz", "--output", "b", *start, *more)
    assert status == 0, err
    status, out, err = run("distill", f"{bucket}/r.yaml", "--data", f"{bucket}/none.npz", "--output", "c", *more)
    assert status == 2 and f"data.source: nothing is at '{bucket}/none.npz'" in err


def test_images_in_folders_and_shards_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    import tarfile

    from PIL import Image

    from limbeck.data.load import load_data

    for number in range(16):
        part, name = ("train" if number < 12 else "test"), "ant" if number % 2 else "bee"
        path = tmp_path / "images" / part / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(path)
        Remote("test", f"{bucket}/images/{part}/{name}/{number}.png").put_file(path)
    there, local = (load_data(DataSettings(source=place, size=8)) for place in (f"{bucket}/images", str(tmp_path / "images")))
    assert there.fingerprint == local.fingerprint
    for part in ("train", "test"):
        for shard in range(2):
            with tarfile.open(tmp_path / f"{part}-{shard}.tar", "w") as tar:
                for path in sorted((tmp_path / "images" / part).rglob("*.png"))[shard::2]:
                    tar.add(path, f"{path.stem}.png")
                    label = tmp_path / f"{path.stem}.cls"
                    label.write_text(str(int(path.parent.name == "bee")))
                    tar.add(label, label.name)
            Remote("test", f"{bucket}/{part}-{shard}.tar").put_file(tmp_path / f"{part}-{shard}.tar")
    pattern = f"{bucket}/{{train,test}}-{{0..1}}.tar"
    assert len(load_data(DataSettings(source=pattern, size=8)).test) == 4


def test_a_set_of_somebody_else_chooses_nothing_that_is_fetched(bucket: str, run: Run) -> None:
    from limbeck.data.preprocessing import Identity

    small = SmallSet.of_classes(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), 2, syn_lr=0.01)
    metadata = {"settings": {"data": {"source": f"{bucket}/d.npz"}}}
    DistilledSet(set=small, preprocessing=Identity(), class_names=("a", "b"), metadata=metadata).save("set")
    status, out, err = run("evaluate", "set")
    assert status == 2 and "is to be fetched, as the metadata of 'set' have it" in err


@pytest.mark.parametrize(
    "words",
    [
        ["distill", "scenes", "--output", "s3://no-such-bucket-7/a", *DM],
        ["evaluate", "s3://no-such-bucket-7/a"],
        ["report", "s3://no-such-bucket-7/a"],
        ["export", "s3://no-such-bucket-7/a", "--to", "npz", "--output", "x.npz"],
        ["experts", "show", "s3://no-such-bucket-7/a"],
        ["experts", "scenes", "experts.store=s3://no-such-bucket-7/a", *QUICK],
        ["compare", "--methods", "random", "--data", "scenes:easy", "--output", "s3://no-such-bucket-7/a"],
        ["distill", "s3://no-such-bucket-7/a.yaml"],
        ["distill", "scenes", "--data", "s3://no-such-bucket-7/a"],
        ["complexity", "s3://no-such-bucket-7/a"],
    ],
)
def test_whatever_fails_is_one_line_that_names_the_url(
    words: list[str], bucket: str, run: Run, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_DEBUG", "1")  # with where it happened, too, no key is shown
    status, out, err = run(*words)
    last = err.strip().splitlines()[-1]
    assert status == 2 and "no-such-bucket-7/a" in last and "there is no such bucket" in last, err
    _assert_secret(out + err, bucket, cache, tmp_path)


def test_keys_in_a_url_are_refused_everywhere(run: Run, tmp_path: Path, cache: Path) -> None:
    url = f"s3://{KEY}:{SECRET}@bucket/a"
    for words in (["--output", url], ["--data", url], [f"init={url}"], [f"experts.store={url}"]):
        status, out, err = run("distill", "scenes", *QUICK, *words)
        assert status == 2 and "holds keys" in err, (words, err)
        assert KEY not in out + err and SECRET not in out + err
    assert _holding_keys(tmp_path, cache) == []


def test_no_server_ends_in_time_and_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="what lies in stores of objects needs the extra remote")
    set_environment(monkeypatch, f"http://{KEY}:{SECRET}@127.0.0.1:9")
    status, out, err = run("evaluate", "s3://bucket/a")
    wanted = "limbeck: error: PATH: 's3://bucket/a' cannot be read: its server cannot be reached (no network, or another endpoint)"
    assert status == 2 and err.strip() == wanted
    assert os.environ["AWS_ENDPOINT_URL"].count(SECRET) == 1


def _like_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What many network file systems do not have: locks, links, room that is set aside, folders that are exchanged."""

    def refuse(number: int) -> Callable[..., None]:
        def refused(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        return refused

    monkeypatch.setattr(locks, "_flock", refuse(errno.ENOLCK))
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP), raising=False)
    monkeypatch.setattr(run_files, "exchanged", lambda one, other: False)


def test_a_network_file_system_that_has_next_to_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["experts.num_experts=1", "experts.train_epochs=2", "match.expert_epochs=1", "schedule.max_start_epoch=1"]
    words += ["schedule.first_max_start_epoch=1", "outer.iterations=2", "outer.checkpoint_every=1", "match.syn_steps=1", *QUICK]
    assert run("distill", "scenes", "--output", "usual", "experts.store=usual-experts", *words)[0] == 0
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "another cache"))
    with monkeypatch.context() as nfs:
        _like_nfs(nfs)
        status, out, err = run("distill", "scenes", "--output", "nfs", "experts.store=nfs-experts", *words)
        assert status == 0, err
        status, out, err = run("evaluate", "nfs", "eval.seeds=2", "eval.epochs=1")
        assert status == 0, err
        held = DistilledSet.load("nfs/distilled")
        held.save("again")
        held.save("again")  # in the place of the first one
    assert Path("nfs-experts/expert-0000.lock.d").is_dir()  # claims, in the place of locks
    assert torch.equal(held.images, DistilledSet.load("usual/distilled").images)
    assert torch.equal(held.images, DistilledSet.load("again").images)


@pytest.mark.parametrize("other", ["reader", "writer"])
def test_another_process_does_not_keep_a_folder_from_its_place(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the old one has stepped aside, a reader brings it back, or a writer puts one of its own there."""
    path, replace, seen = tmp_path / "set", os.replace, list[str]()
    _like_nfs(monkeypatch)

    def replaced(source: str | Path, target: str | Path) -> None:
        replace(source, target)
        if Path(target).name == "old" and not seen:
            seen.append(other)
            if other == "reader":
                run_files.restore(path)
            else:
                path.mkdir()
                (path / "file").write_text("theirs")

    monkeypatch.setattr(os, "replace", replaced)
    for text in ("old", "new"):
        with run_files.new_folder(path) as folder:
            (folder / "file").write_text(text)
    assert seen and (path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["set"]


def test_what_somebody_has_open_does_not_keep_a_folder_from_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS keeps a file that is removed while it is open, under another name, and the folder with it."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    _like_nfs(monkeypatch)
    for text in ("old", "new"):
        with monkeypatch.context() as busy:
            if text == "new":
                busy.setattr(os, "rmdir", full)
            with run_files.new_folder(tmp_path / "set") as folder:
                (folder / "file").write_text(text)
    assert (tmp_path / "set" / "file").read_text() == "new"

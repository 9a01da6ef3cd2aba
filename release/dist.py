"""The wheel and the source distribution, twice and to the same bytes: `python release/dist.py`, or `make dist`.

What is built is the last commit, from a fresh copy without history. Times in the archives are that of the commit
(SOURCE_DATE_EPOCH); of the source distribution, into which setuptools writes the time of day and whoever builds, the tar is written
once more. Two builds, in different folders and with other hashes of Python's, must have the same SHA-256; one lies in `dist/` with
these.

    python release/dist.py           build
    python release/dist.py smoke     install the wheel of `dist/` into a clean environment, and try it: version, a tiny
                                     distillation, an evaluation, the report, the parts' types
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
BUILD = "from setuptools import build_meta as b; b.build_sdist({out!r}); b.build_wheel({out!r})"
TINY = """
    data.size=16 data.per_class=12 network=ConvNetD2-w8 experts.num_experts=2 experts.train_epochs=3 match.syn_steps=2
    match.expert_epochs=1 schedule.min_start_epoch=0 schedule.first_max_start_epoch=1 schedule.max_start_epoch=2
    outer.iterations=3 engine.compile=no eval.every=3 eval.epochs=1 eval.seeds=2 eval.full_epochs=1 eval.random_lr=0.01
"""
FACTS = """
import importlib.resources as r, limbeck, torch
print(limbeck.__version__, torch.__version__)
assert (r.files("limbeck") / "py.typed").is_file()
assert len(limbeck.DistilledSet.load("run/distilled")) == 10
"""


def said(*words: str) -> str:
    """What a command prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def rewritten(archive: Path, when: int) -> None:
    """The same tar in the order of names, at that time, of nobody."""
    with tarfile.open(archive) as held:
        members = [(one, held.extractfile(one)) for one in sorted(held.getmembers(), key=lambda one: one.name)]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
            for member, content in members:
                member.mtime, member.uid, member.gid, member.uname, member.gname, member.pax_headers = when, 0, 0, "", "", {}
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                made.addfile(member, content)
    with archive.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=when) as packed:
        packed.write(buffer.getvalue())


def build(out: Path, when: int, seed: int) -> dict[str, str]:
    """The archives of the last commit in `out`: their SHA-256 by name."""
    with tempfile.TemporaryDirectory() as folder:
        tree = subprocess.run(("git", "archive", "HEAD"), check=True, capture_output=True, cwd=ROOT).stdout
        with tarfile.open(fileobj=io.BytesIO(tree)) as held:
            held.extractall(folder, filter="data")
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(when), "PYTHONHASHSEED": str(seed)}
        words = (sys.executable, "-c", BUILD.format(out=str(out)))
        done = subprocess.run(words, cwd=folder, env=env, umask=0o022, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"the build failed:\n{done.stdout}")
    for archive in out.glob("*.tar.gz"):
        rewritten(archive, when)
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(out.iterdir())}


def dist() -> int:
    """Build twice, compare, and keep the first."""
    if said("git", "status", "--porcelain", "--untracked-files=no"):
        print("what is not committed is not in it", file=sys.stderr)
    when = int(os.environ.get("SOURCE_DATE_EPOCH") or said("git", "log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = build(Path(one), when, 1), build(Path(other), when, 2)
        if first != second:
            print(f"two builds differ: {first} and {second}", file=sys.stderr)
            return 1
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(one, DIST)
    lines = "".join(f"{digest}  {name}\n" for name, digest in first.items())
    (DIST / "SHA256SUMS").write_text(lines, encoding="utf-8")
    print(f"built twice, to the same bytes:\n{lines}", end="")
    return 0


def smoke() -> int:
    """Try the wheel where nothing else is."""
    [wheel] = DIST.glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run((sys.executable, "-m", "venv", f"{folder}/env"), check=True)
        own = Path(folder) / "env" / "bin"
        constraint = ("--constraint", str(ROOT / "constraints.txt"))
        subprocess.run((str(own / "python"), "-m", "pip", "install", "--quiet", *constraint, str(wheel)), check=True)
        env = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "LIMBECK_CACHE": f"{folder}/cache"}
        limbeck = str(own / "limbeck")
        for words in (
            (limbeck, "--version"),
            (limbeck, "distill", "scenes", *TINY.split(), "--output", "run"),
            (limbeck, "evaluate", "run", "--seeds", "2"),
            (limbeck, "report", "run", "--output", "page.html"),
            (limbeck, "cite", "run"),
            (str(own / "python"), "-c", FACTS),
        ):
            print("$", *(word.removeprefix(f"{own}/") for word in words[:3]), flush=True)
            subprocess.run(words, check=True, cwd=folder, env=env)
    print(f"{wheel.name} works in a clean environment")
    return 0


if __name__ == "__main__":
    sys.exit(smoke() if sys.argv[1:] == ["smoke"] else dist())

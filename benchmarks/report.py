"""What looking costs: snapshots in a run, and how long a report takes, how large it is and how soon it is open.

    python benchmarks/report.py run scenes                              # what `limbeck distill` keeps so that one can look
    python benchmarks/report.py run cifar10/edf-ipc10 data.source=cifar10.npz outer.iterations=50
    python benchmarks/report.py page                                    # of a made run: 10 × 10 images of 128×128, 26 snapshots
    python benchmarks/report.py page --classes 100 --ipc 1 --side 64
    python benchmarks/report.py page --of runs/scenes

A run is timed inside the functions concerned while it goes on. A report is written three times by `limbeck report`, each time in a
process of its own, and opened three times in Chromium, each time in a window that knows nothing: until its scripts have run and the
film's first picture is drawn. The least of three is what it takes, on a machine that others use too; with `--name` all are kept
under it in `results/report.json`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:1] = [str(HERE.parent), str(HERE.parent / "tests")]  # in the place of this folder, where `report` is this file
KEPT = HERE / "results" / "report.json"
TIMES = 3
DRAWN = """() => {
    const tile = document.querySelector("canvas.tile");
    return tile === null || tile.getContext("2d").getImageData(0, 0, 1, 1).data[3] > 0;
}"""


class Shares:
    """Seconds of a run by what they were spent on; what is inside a part that is timed counts there alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inside = False

    def timed(self, owner: Any, name: str, called: str | None) -> None:
        """Count the seconds of that function under a word; without a word, neither they nor those of what is inside it count."""
        plain: Callable[..., Any] = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            if self.inside:
                return plain(*given, **named)
            self.inside, began = True, time.perf_counter()
            try:
                return plain(*given, **named)
            finally:
                self.inside = False
                if called is not None:
                    self.seconds[called] = self.seconds.get(called, 0.0) + time.perf_counter() - began

        setattr(owner, name, watched)


def run(words: list[str]) -> dict[str, Any]:
    """A run from nothing to its report, and what of its time goes into what is only looked at."""
    from limbeck.cli.main import main
    from limbeck.methods import snapshots
    from limbeck.methods.enhance import Enhancement
    from limbeck.report import html
    from limbeck.runs import distill
    from limbeck.runtime.kept import elsewhere

    shares = Shares()
    shares.timed(Enhancement, "weights", None)  # its maps are for the method
    shares.timed(Enhancement, "maps", "snapshots")
    shares.timed(snapshots.Snapshots, "thin", "snapshots")
    shares.timed(snapshots, "thinned", "snapshots")
    shares.timed(snapshots, "write_tensors", "snapshots")
    shares.timed(distill.DataCard, "of", "data card")
    shares.timed(distill.DataCard, "write", "data card")
    shares.timed(distill, "_keep_map", "map of features")
    shares.timed(html, "write_report", "report")
    with tempfile.TemporaryDirectory() as folder, elsewhere(Path(folder, "cache")):
        began = time.perf_counter()
        status = main(["distill", *words, "--output", str(Path(folder, "run"))])
        took = time.perf_counter() - began
        written = sorted(Path(folder, "run", "snapshots").iterdir())
        size = sum(path.stat().st_size for path in written)
    assert status == 0, "the run has failed"
    parts = {name: {"seconds": seconds, "share": seconds / took} for name, seconds in shares.seconds.items()}
    told = ", ".join(f"{name} {part['seconds']:.2f} s ({part['share']:.2%})" for name, part in parts.items())
    print(f"limbeck distill {' '.join(words)}: {took:.0f} s; {len(written)} snapshots, {size / 1e6:.1f} MB; {told}")
    return {"seconds": took, "snapshots": len(written), "bytes": size, "parts": parts}


def page(made: Path) -> dict[str, Any]:
    """The report of that run."""
    wall, processor = [], []
    target = made / "report.html"
    for _ in range(TIMES):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        words = [sys.executable, "-m", "limbeck", "report", str(made), "--output", str(target)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - began)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    found: dict[str, Any] = {"write": wall, "write_processor": processor, "bytes": target.stat().st_size, "open": opening(target)}
    opened = f"open in {min(found['open']):.2f} s" if found["open"] else "not opened: there is no browser"
    print(f"report: {min(wall):.1f} s, {min(processor):.1f} s of a core; {found['bytes'] / 1e6:.2f} MB; {opened}")
    return found


def opening(target: Path) -> list[float]:
    """Seconds until the page is there, of every time; none without a browser."""
    from browser.visits import CHROMIUM, visiting

    if CHROMIUM is None:
        return []
    taken = []
    with visiting() as visits:
        for _ in range(TIMES):
            empty = visits.open("about:blank")
            began = time.perf_counter()
            empty.goto(target.as_uri())
            empty.wait_for_function(DRAWN)
            taken.append(time.perf_counter() - began)
            empty.context.close()
        assert not (faults := visits.taken()), faults
    return taken


def keep(name: str, found: dict[str, Any]) -> None:
    """Put what was found into the file, in the place of what had the name."""
    held = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    KEPT.write_text(json.dumps(held | {name: found}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("words", nargs="*", metavar="WORD", help="of `run`: a recipe, then key=value")
    parser.add_argument("--of", type=Path, help="of `page`: a run folder in the place of a made one")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--snapshots", type=int, default=26)
    parser.add_argument("--name", help="in the file of results; without one nothing is kept there")
    given = parser.parse_args()
    if given.what == "run":
        found = run(given.words or ["scenes"]) | {"words": given.words or ["scenes"]}
    elif given.of is not None:
        found = page(given.of) | {"of": given.of.name}
    else:
        from report.fake_run import make_run

        names = tuple(f"class {k}" for k in range(given.classes))
        sizes = {"classes": given.classes, "ipc": given.ipc, "side": given.side, "snapshots": given.snapshots}
        with tempfile.TemporaryDirectory() as folder:
            last = 20 * (given.snapshots - 1)
            made = make_run(Path(folder, "run"), names, given.ipc, (3, given.side, given.side), iterations=last, every=20)
            found = page(made) | sizes
    if given.name:
        keep(given.name, found)


if __name__ == "__main__":
    main()

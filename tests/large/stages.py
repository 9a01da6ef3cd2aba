"""All stages of a run on a problem with ImageNet-1K's 1000 classes, at a hundredth of its images, and the memory that they take.

    python tests/large/stages.py FOLDER IMAGES [STAGE …]

Memory is what a process has beyond the pages of files that it has mapped (`RssAnon`), looked at every few milliseconds: the
greatest of each stage is printed as JSON. Nothing is held that would not be at full size: images are prepared when they are
fetched.
"""

import io
import json
import os
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

CLASSES, SIZE, TEST = 1000, 16, 2000
NETWORK = "ConvNetD2-w8"
SETTINGS = [
    *(f"data.size={SIZE}", "data.val_fraction=0.05", f"network={NETWORK}", "engine.compile=no", "engine.device=cpu"),
    *("experts.num_experts=1", "experts.train_epochs=2", "experts.batch_size=256", "experts.expert_lr=0.01"),
    *("match.expert_epochs=1", "match.syn_steps=2", "schedule.first_max_start_epoch=1", "schedule.max_start_epoch=1"),
    *("outer.iterations=2", "eval.every=2", "eval.every_seeds=1", "eval.seeds=2", "eval.epochs=1"),
    *("eval.full_epochs=1", "eval.full_seeds=2", "eval.random_lr=0.01"),
]


def write_shards(folder: Path, images: int) -> None:
    """So many images to train on, a thousand a shard, and some to test on: each a pattern of its class, with noise."""
    from PIL import Image

    draws, folder = np.random.default_rng(images), folder.resolve()
    patterns = np.random.default_rng(0).integers(0, 256, (CLASSES, SIZE, SIZE, 3))
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", images), ("test", TEST)):
        for shard in range(-(-count // 1000)):
            with tarfile.open(folder / f"{part}-{shard:04d}.tar", "w") as tar:
                for number in range(1000 * shard, min(count, 1000 * (shard + 1))):
                    k, file = number % CLASSES, io.BytesIO()
                    noisy = (patterns[k] // 2 + draws.integers(0, 128, (SIZE, SIZE, 3))).astype(np.uint8)
                    Image.fromarray(noisy).save(file, "PNG", compress_level=1)
                    for name, content in ((f"{number:06d}.png", file.getvalue()), (f"{number:06d}.cls", b"%d" % k)):
                        entry = tarfile.TarInfo(name)
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))


class Peak:
    """The greatest memory of this process beyond mapped files, by what it did."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self._now, self._over = "start", threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stage(self, name: str) -> None:
        self._now = name

    def _look(self) -> None:
        while not self._over.wait(0.003):
            text = Path("/proc/self/status").read_text()
            anonymous = 1024 * int(text.partition("RssAnon:")[2].split()[0])
            self.most[self._now] = max(self.most.get(self._now, 0), anonymous)

    def end(self) -> dict[str, int]:
        self._over.set()
        self._thread.join()
        return self.most


def run(folder: Path, images: int, stages: list[str]) -> dict[str, int]:
    """Do the stages, one after the other, in this process."""
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # one process, whose memory is all that is taken
    os.environ["LIMBECK_CACHE"] = str(folder / "cache")
    import limbeck.training.images
    from limbeck.cli.main import main
    from limbeck.data.load import load_data
    from limbeck.data.settings import DataSettings

    limbeck.training.images.HELD_BYTES = 0  # as of a problem of full size
    if not (folder / "data").exists():
        write_shards(folder / "data", images)
    data, out, peak = str(folder / "data"), folder / "runs", Peak()

    def done(*words: str) -> None:
        assert main([*words]) == 0, words

    distil = ["distill", "scenes", "--data", data, *SETTINGS]
    known: dict[str, Callable[[], object]] = {
        "load": lambda: load_data(DataSettings(source=data, size=SIZE, val_fraction=0.05)),
        "experts": lambda: done("experts", "scenes", "--data", data, *SETTINGS),
        "edf": lambda: done(*distil, "match.batch_syn=250", "--output", str(out / "edf")),
        "edf-ipc10": lambda: done(*distil, "ipc=10", "match.batch_syn=250", "features=none", "--output", str(out / "edf-ipc10")),
        "dm": lambda: done(*distil, "method=dm", "real.batch=8", "--output", str(out / "dm")),
        "evaluate": lambda: done("evaluate", str(out / "edf"), "eval.seeds=2", "eval.epochs=1", "--no-record"),
        "report": lambda: done("report", str(out / "edf")),
        "complexity": lambda: done(
            *("complexity", data, f"data.size={SIZE}", "--network", NETWORK, "eval.full_epochs=1", "engine.compile=no"),
            *("--output", str(out / "complexity")),
        ),
    }
    for name in stages:
        peak.stage(name)
        known[name]()
    return peak.end()


if __name__ == "__main__":
    place, count, *wanted = sys.argv[1:]
    found = run(Path(place), int(count), wanted)
    print(json.dumps(found))

"""1000 classes at a hundredth of ImageNet-1K's images: every stage runs, and takes next to no memory for more images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.distilled.set import DistilledSet

pytestmark = pytest.mark.slow
COUNTS = (6400, 12800, 25600)
STREAMED = ("load", "experts", "edf", "report")
# Bytes of an image, beyond the mapped file: its entry in the index of the shards while they are read, its name, row and class, its
# place in a permutation and in the orders by class. Measured: 1000, 640, 1120 and 1080, and up to 1200, 700 and 2100 before; its
# prepared pixels alone would be 3072 more, its one-hot label 4000, and both grow with the size of images and the number of classes.
MOST_AN_IMAGE = {"load": 1700, "experts": 1400, "edf": 2900, "report": 2900}


def _stages(folder: Path, images: int, *stages: str) -> dict[str, int]:
    """The peak of each stage, in one process; the data stay for others."""
    script = Path(__file__).with_name("stages.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
    words = [sys.executable, str(script), str(folder), str(images), *stages]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("large")


@pytest.fixture(scope="module")
def peaks(folder: Path) -> dict[int, dict[str, int]]:
    return {images: _stages(folder / str(images), images, *STREAMED) for images in COUNTS}


@pytest.mark.parametrize("stage", STREAMED)
def test_memory_is_flat_in_the_number_of_images(peaks: dict[int, dict[str, int]], stage: str) -> None:
    few, _, many = (peaks[images][stage] for images in COUNTS)
    assert many - few < MOST_AN_IMAGE[stage] * (COUNTS[-1] - COUNTS[0]), {images: found[stage] for images, found in peaks.items()}


def test_all_else_runs_on_as_many_classes(peaks: dict[int, dict[str, int]], folder: Path) -> None:
    found = _stages(folder / "12800", 12800, "edf-ipc10", "dm", "evaluate", "complexity")
    assert max(found.values()) < 3 * max(peaks[12800].values())  # 1000 × 1000 at most, and 10 000 images of the set
    runs = folder / "12800" / "runs"
    for name, ipc in (("edf", 1), ("edf-ipc10", 10), ("dm", 1)):
        held = DistilledSet.load(runs / name / "distilled")
        assert (len(held), held.num_classes, held.ipc) == (1000 * ipc, 1000, ipc)
    page = (runs / "edf" / "report.html").stat().st_size
    assert 10**5 < page < 2 * 10**7  # of a thousand classes, and still a page
    assert len(json.loads((runs / "complexity" / "complexity.json").read_text())["classes"]) == 1000

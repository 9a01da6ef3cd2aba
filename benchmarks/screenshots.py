"""The screenshots of README and docs, from a real run and from tables of this repository.

    python benchmarks/screenshots.py                  # of `limbeck distill scenes eval.every=50 eval.every_seeds=1`: 6 minutes
    python benchmarks/screenshots.py --run runs/mine

Chromium opens the pages that `limbeck report` writes, and is asked for parts of them, by day and by night, on a desk and on a
phone. The pictures have a palette of 256 colours, so that they stay small.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:1] = [str(HERE.parent), str(HERE.parent / "tests")]
from browser.visits import PHONE, visiting  # noqa: E402
from PIL import Image  # noqa: E402

IMAGES = HERE.parent / "docs" / "images"
COMPARISON = HERE / "results" / "compare-cifar10-ipc1"
DESK = {"width": 1120, "height": 820}


def keep(page: Any, name: str) -> None:
    """What the window shows."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # for pictures to be decoded and drawn
    shot = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    target = IMAGES / f"{name}.png"
    shot.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.relative_to(HERE.parent)}: {shot.size[0]}×{shot.size[1]}, {target.stat().st_size / 1000:.0f} kB")


def scroll(page: Any, selector: str) -> None:
    """Bring that part to the top of the window."""
    page.locator(selector).evaluate("one => window.scrollTo(0, one.getBoundingClientRect().top + window.scrollY - 18)")


def of_run(visits: Any, report: Path) -> None:
    keep(visits.open(report, DESK["width"], 1260), "report")  # down to the images
    page = visits.open(report, **DESK)
    page.locator("#images button.look").nth(3).click()
    page.locator("#panel-layers").get_by_label("activation map").check()
    keep(page, "report-image")
    night = visits.open(report, **DESK, scheme="dark")
    scroll(night, "#landscape")
    keep(night, "report-map")
    keep(visits.open(report, PHONE, 820), "report-phone")


def of_comparison(visits: Any, report: Path) -> None:
    page = visits.open(report, **DESK)
    scroll(page, "#methods")
    page.locator("#methods-table").get_by_role("button", name="Accuracy, %").dblclick()
    keep(page, "report-comparison")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/screenshots"), help="a run folder; made where there is none")
    run = parser.parse_args().run
    from limbeck.cli.main import main as limbeck
    from limbeck.report.write import write_report

    if not (run / "results.json").exists():
        status = limbeck(
            [
                "distill",
                "scenes",
                "eval.every=50",
                "eval.every_seeds=1",
                "--output",
                str(run),
                *(["--resume"] if run.exists() else []),
            ]
        )
        assert status == 0, "the run has failed"
    with tempfile.TemporaryDirectory() as folder, visiting() as visits:
        of_run(visits, write_report(run, output=Path(folder, "run.html")))
        of_comparison(visits, write_report(COMPARISON, output=Path(folder, "comparison.html")))
        assert not (faults := visits.taken()), faults


if __name__ == "__main__":
    main()

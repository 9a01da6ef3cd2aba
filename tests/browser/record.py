"""Make the pictures in `shots/` anew: `python tests/browser/record.py`. Look at them before they are committed."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.pages import SHOTS, opened  # noqa: E402
from browser.shots import FOLDER, taken  # noqa: E402
from browser.visits import visiting  # noqa: E402


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.png"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder, visiting() as visits:
        for scheme, selectors in SHOTS.items():
            page = opened(visits, Path(folder) / scheme, scheme)
            for name, selector in selectors.items():
                taken(page, selector).save(FOLDER / f"{name}-{scheme}.png", optimize=True)


if __name__ == "__main__":
    main()

"""Pages as a browser has them: the system's Chromium, driven by Playwright, and whatever a page does there that it must not."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run")
OWN = ("file", "data", "blob", "about")  # schemes that ask no server for anything
SCHEMES, PHONE = ("light", "dark"), 390


class Visits:
    """Opens pages, each in a context of its own, and keeps what went wrong in any of them.

    Args:
        browser: Playwright's.
    """

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.faults: list[str] = []

    def open(
        self, where: Path | str, width: int = 1280, height: int = 900, scheme: str = "light", origin: str | None = None, **more: Any
    ) -> Any:
        """The page at that place once it is loaded.

        Args:
            where: a file or an address.
            width: of the window in CSS pixels; likewise `height`.
            scheme: `light` or `dark`, which the reader's system prefers.
            origin: `http://127.0.0.1:8000`: the one server that the page may ask.
            more: of Playwright's `new_context`.
        """
        context = self.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda said: self._blame(said.type == "error", f"console: {said.text}"))
        page.on("pageerror", lambda error: self._blame(True, f"error: {error}"))
        page.on("dialog", lambda dialog: (self._blame(True, f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._blame(not _may_ask(request.url, origin), f"request: {request.url[:200]}"))
        page.goto(where.as_uri() if isinstance(where, Path) else where)
        return page

    def _blame(self, guilty: bool, fault: str) -> None:
        if guilty:
            self.faults.append(fault)

    def taken(self) -> list[str]:
        """The faults so far, which are forgotten."""
        found, self.faults = self.faults, []
        return found


def _may_ask(url: str, origin: str | None) -> bool:
    address = urlsplit(url)
    return address.scheme in OWN or (origin is not None and f"{address.scheme}://{address.netloc}" == origin)


@contextmanager
def visiting() -> Iterator[Visits]:
    """A browser as long as the context lasts; the test is skipped where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: the pages are not tried in a browser")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to try the pages in")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield Visits(browser)
        browser.close()


def violations(page: Any) -> list[str]:
    """What axe-core has to say against a page as it stands: rule and element, nothing where all is well."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]


def overflow(page: Any) -> int:
    """By how many CSS pixels a page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return max(0, wider)

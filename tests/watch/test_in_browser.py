"""A watch as a browser has it: the list, a run's page that is kept up to date, and what somebody has set there."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from browser.visits import Visits, overflow, violations
from reliability.test_browser import HOSTILE, hostile_run
from report.fake_run import make_run
from watch.runs import at_work, goes_on, going

from limbeck.watch.look import Looks, Watched
from limbeck.watch.pages import Pages

TOKEN = "a-token"
LATEST = "iteration-000020.safetensors"


@pytest.fixture(autouse=True)
def sound(visits: Visits) -> Iterator[None]:
    yield
    assert not visits.taken()


class Served:
    """A watch that is going on."""

    def __init__(self, folder: Path, address: str, end: Callable[[], None]) -> None:
        self.folder, self.address, self.end = folder, address, end
        self.origin = address[: address.index("/", 8)]


@contextmanager
def served(folder: Path, *names: str) -> Iterator[Served]:
    """Watches runs in that folder, in another thread, and makes pages as often as there is something new."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    import socket

    from limbeck.watch.server import server_of

    pages = Pages(Looks(tuple(Watched(folder / name, name) for name in names), fresh=0.0), share=1e6, every=200)
    server = server_of(pages, TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join(20)

        try:
            yield Served(folder, f"http://127.0.0.1:{listening.getsockname()[1]}/{TOKEN}/", end)
        finally:
            end()
        assert not thread.is_alive(), "the server ends though browsers keep their connections"


def until(page: Any, holds: str) -> None:
    """Wait for it; Playwright's own way to wait is one of those that the page's policy forbids."""
    last = time.monotonic() + 20
    while time.monotonic() < last:
        with suppress(Exception):  # while another page comes
            if page.evaluate(holds):
                return
        time.sleep(0.05)
    pytest.fail(f"{holds} does not come true")


def words(page: Any, name: str) -> str:
    """What the line on top says."""
    text: str = page.locator(f"#live [data-is={name}]").inner_text()
    return text


def test_the_list_is_kept_up_to_date_and_leads_to_the_runs(tmp_path: Path, visits: Visits) -> None:
    name = HOSTILE[1].replace("/", "")
    going(tmp_path / "going")
    going(tmp_path / name)
    with served(tmp_path, "going", name, "later") as watch, at_work(tmp_path / "going"):
        page = visits.open(watch.address, origin=watch.origin)
        row = page.locator("[data-line='0']")
        assert row.inner_text().split("\t")[:3] == ["going", "edf · scenes", "distilling"]
        assert page.locator("[data-line='1'] a").inner_text() == name and page.locator("main img").count() == 0
        assert violations(page) == []
        goes_on(tmp_path / "going", kind="iteration", iteration=20, loss=0.125, skipped_share=0.5, seconds=0.3)
        until(page, "document.querySelector('[data-is=loss]').textContent === '0.125'")
        assert row.locator(".warnings li").all_inner_texts() == ["50.0 % of the iterations changed nothing"]
        assert row.locator("progress").evaluate("bar => bar.value") == pytest.approx(0.21)
        going(tmp_path / "later")
        until(page, "document.querySelector('[data-line=\"2\"] [data-is=state]').textContent === 'stopped'")
        row.locator("a").click()
        page.wait_for_selector("#live")
        assert page.url == f"{watch.address}1/" and words(page, "progress") == "21 of 100"
        page.get_by_text("all runs").click()
        page.wait_for_selector("#runs")
        page.context.close()


def test_a_snapshot_comes_into_the_page_and_what_was_set_stays(tmp_path: Path, visits: Visits) -> None:
    path = going(tmp_path / "going")
    held = (path / "snapshots" / LATEST).rename(tmp_path / LATEST)
    with served(tmp_path, "going") as watch, at_work(path):
        page = visits.open(f"{watch.address}1/", origin=watch.origin, height=500)
        assert page.locator("#time").get_attribute("max") == "1"
        assert violations(page) == [] and overflow(page) == 0
        page.locator("#settings > summary").click()
        page.locator("#time").evaluate("bar => { bar.value = 0; bar.dispatchEvent(new Event('input', { bubbles: true })); }")
        page.evaluate("scrollTo({ top: 400, behavior: 'instant' }); window.before = true")
        goes_on(path, kind="iteration", iteration=20, loss=0.0625, seconds=0.3)
        until(page, "document.querySelector('#live [data-is=loss]').textContent === '0.0625'")
        assert page.evaluate("window.before"), "a row makes no new page"
        held.rename(path / "snapshots" / LATEST)
        until(page, "!window.before && document.documentElement.dataset.restored === 'true'")
        assert page.locator("#time").get_attribute("max") == "2"
        assert page.locator("#time").input_value() == "0" and "before the first iteration" in page.locator("#moment").inner_text()
        assert page.locator("#settings").evaluate("one => one.open")
        assert page.evaluate("Math.abs(scrollY - 400) < 2")
        page.context.close()


def test_a_slider_at_the_end_stays_at_the_end(tmp_path: Path, visits: Visits) -> None:
    path = going(tmp_path / "going")
    held = (path / "snapshots" / LATEST).rename(tmp_path / LATEST)
    with served(tmp_path, "going") as watch:
        page = visits.open(f"{watch.address}1/", origin=watch.origin)
        page.locator("#time").focus()
        page.keyboard.press("Home")
        page.keyboard.press("End")
        held.rename(path / "snapshots" / LATEST)
        until(page, "document.documentElement.dataset.restored === 'true'")
        assert page.locator("#time").input_value() == "2"
        assert page.evaluate("document.activeElement.id") == "time"
        page.context.close()


def test_an_open_panel_stays_open_on_its_image(tmp_path: Path, visits: Visits) -> None:
    path = make_run(tmp_path / "ended", iterations=20, every=10, shape=(3, 8, 8))
    with served(tmp_path, "ended") as watch:
        page = visits.open(f"{watch.address}1/", origin=watch.origin)
        page.locator("button.look").first.click()
        page.locator("#panel-next").click()
        title = page.locator("#panel-name").inner_text()
        page.evaluate("window.before = true")
        text = (path / "results.json").read_bytes()
        (path / "results.json").write_bytes(text + b"\n")
        until(page, "!window.before && document.documentElement.dataset.restored === 'true'")
        assert page.locator("#panel").evaluate("one => one.open") and page.locator("#panel-name").inner_text() == title
        page.context.close()


def test_a_run_of_anything_runs_nothing_but_the_page_s_own(tmp_path: Path, visits: Visits) -> None:
    hostile_run(tmp_path)
    with served(tmp_path, "run") as watch:
        page = visits.open(f"{watch.address}1/", origin=watch.origin)
        page.wait_for_selector("#live .warnings li", state="attached")
        assert page.evaluate("document.documentElement.dataset.run") is None and page.locator("iframe").count() == 0
        assert " ".join(HOSTILE[1].split()) in " ".join(page.locator("#live .warnings").inner_text().split())
        page.goto(watch.address)
        assert page.evaluate("document.documentElement.dataset.run") is None
        page.context.close()


def test_a_watch_that_has_ended_is_told(tmp_path: Path, visits: Visits) -> None:
    with served(tmp_path, "later") as watch:
        page = visits.open(watch.address, origin=watch.origin)
        watch.end()
        until(page, "document.getElementById('gone').textContent !== ''")
        assert page.locator("#gone").inner_text() == "limbeck watch has ended or cannot be reached; this is what was last seen."
        assert page.locator("[data-line='0'] a").inner_text() == "later"
        page.context.close()
    assert all("ERR_CONNECTION_REFUSED" in fault for fault in visits.taken())

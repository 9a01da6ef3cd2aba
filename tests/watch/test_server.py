"""What the server of a watch answers, and whom: nobody without the token, nothing but the pages of the runs."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reliability.test_browser import HOSTILE
from report.fake_run import make_run
from watch.runs import at_work, goes_on, going

from limbeck.cli.main import main
from limbeck.runtime.errors import UsageError
from limbeck.watch import pages as making
from limbeck.watch.look import Looks, Watched
from limbeck.watch.pages import SHARE, Pages

TOKEN = "a-token"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "ended", iterations=20, every=10, shape=(3, 8, 8))
    going(tmp_path / "going")
    return tmp_path


def pages_of(folder: Path, *names: str, **given: Any) -> Pages:
    return Pages(Looks(tuple(Watched(folder / name, name) for name in names), fresh=0.0), **given)


def client_of(pages: Pages, host: str = "127.0.0.1:45678") -> Any:
    """What asks the server, by that name of the machine."""
    pytest.importorskip("starlette", reason="starlette is not installed")
    pytest.importorskip("httpx", reason="httpx is not installed")
    from starlette.testclient import TestClient

    from limbeck.watch.server import application

    return TestClient(application(pages, TOKEN), base_url=f"http://{host}", follow_redirects=False)


@pytest.fixture
def client(folder: Path) -> Any:
    return client_of(pages_of(folder, "ended", "going", "later"))


def test_without_the_token_everything_is_refused_alike(client: Any) -> None:
    answers = [
        client.get(path) for path in ("/", "/a-toke/", "/a-tokeN/", "/a-token", "/1/", "/favicon.ico", "/%F0%9F%90%88/", "//")
    ]
    answers += [client.post("/"), client.request("OPTIONS", "/", headers={"Origin": "http://evil.example"})]
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (403, "This is not for you: the address that `limbeck watch` prints is needed in full.\n")
    }
    assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)


@pytest.mark.parametrize("path", ["*", "a:1", "", f"x/{TOKEN}/", f"http://127.0.0.1/{TOKEN}/"])
def test_what_is_no_path_is_refused_too(client: Any, path: str) -> None:
    """`OPTIONS *` and `CONNECT a:1` ask for none."""
    sent = list[dict[str, Any]]()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "OPTIONS", "path": path, "headers": [(b"host", b"127.0.0.1")]}
    asyncio.run(client.app(scope, None, send))
    assert (sent[0]["status"], sent[1]["body"][:24]) == (403, b"This is not for you: the")
    assert (b"cache-control", b"no-store") in sent[0]["headers"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:45678", "127.0.0.1.evil.example", "127.0.0.2", "localhost.", "[::2]:80"]
)
def test_another_name_for_this_machine_is_refused(folder: Path, host: str) -> None:
    """A page elsewhere can have its own name lead here; the browser then says that name."""
    answer = client_of(pages_of(folder, "ended")).get(f"/{TOKEN}/", headers={"Host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost:8000", "LOCALHOST", "[::1]:45678"])
def test_through_a_tunnel_the_port_may_be_another(folder: Path, host: str) -> None:
    assert client_of(pages_of(folder, "ended")).get(f"/{TOKEN}/state", headers={"Host": host}).status_code == 200


def test_there_is_nothing_but_the_pages(client: Any, folder: Path) -> None:
    for path in (
        "0/",
        "4/",
        "-1/",
        "1",
        "1/%2e%2e/%2e%2e/etc/passwd",
        "%2e%2e/ended/settings.json",
        "ended/",
        "1/settings.json",
        "1/state/",
    ):
        answer = client.get(f"/{TOKEN}/{path}")
        assert (answer.status_code, answer.text) == (404, "There is nothing here.\n"), path
    assert client.post(f"/{TOKEN}/").status_code == 405 and client.delete(f"/{TOKEN}/1/").status_code == 405


def test_what_is_answered_is_kept_to_itself(client: Any) -> None:
    for path in ("", "state", "1/", "1/state", "9/"):
        headers = client.get(f"/{TOKEN}/{path}").headers
        assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff" and headers["cross-origin-resource-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert not any(name.startswith("access-control") for name in headers)


def test_the_list_and_its_rows(client: Any, folder: Path) -> None:
    lines = client.get(f"/{TOKEN}/state").json()["lines"]
    assert [(line["name"], line["state"], line["progress"]) for line in lines] == [
        ("ended", "ended", "20 of 20"),
        ("going", "stopped", "20 of 100"),
        ("later", "not there yet", "–"),
    ]
    page = client.get(f"/{TOKEN}/").text
    assert re.findall(r'<a href="(\d)/">(\w+)</a>', page) == [("1", "ended"), ("2", "going"), ("3", "later")]


def test_what_has_not_changed_is_not_sent_again(client: Any, folder: Path) -> None:
    first = client.get(f"/{TOKEN}/2/state")
    tag = {"If-None-Match": first.headers["etag"]}
    again = client.get(f"/{TOKEN}/2/state", headers=tag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    with at_work(folder / "going"):
        goes_on(folder / "going", kind="iteration", iteration=20, loss=0.5, seconds=0.3)
        new = client.get(f"/{TOKEN}/2/state", headers=tag)
    assert new.status_code == 200 and new.json()["lines"][0]["progress"] == "21 of 100"
    assert new.json()["mark"] == first.json()["mark"], "one row makes no new page"


def test_pages_of_runs_are_their_reports(client: Any) -> None:
    ended, going_on, later = (client.get(f"/{TOKEN}/{number}/").text for number in (1, 2, 3))
    assert "37.2 %" in ended and 'id="film"' in ended and 'id="live"' in ended
    assert "20 of 100 iterations are done" in going_on
    assert "There is no run in later yet" in later and 'id="live"' in later


def test_a_page_is_made_again_for_what_is_new_and_rarely_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, made = [100.0], list[float]()

    def slow(run: Any, before: Any) -> str:
        made.append(now[0])
        now[0] += 3.0  # seconds that it takes
        return f"page {len(made)}"

    monkeypatch.setattr(making, "page_of", slow)
    pages = pages_of(folder, "going", "ended", clock=lambda: now[0], cost=lambda: now[0])
    assert [pages.page(0) for _ in range(3)] == ["page 1"] * 3
    before = pages.mark(0)
    (folder / "going" / "snapshots" / "iteration-000030.safetensors").write_bytes(b"x")
    assert (pages.mark(0), pages.page(0)) == (before, "page 1"), "not yet: it would take too much of the time"
    now[0] += 3.0 / SHARE - 1
    assert pages.page(0) == "page 1"
    assert pages.page(1) == "page 2", "who opens another need not wait"
    now[0] += 3.0 / SHARE - 1
    assert pages.page(0) == "page 1", "all pages share the time"
    now[0] += 1
    assert pages.mark(0) != before and pages.page(0) == "page 3"
    now[0] += 1e6
    assert pages.page(0) == "page 3", "nothing is new"


def test_a_page_that_cannot_be_made_says_why_and_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, made = [100.0], list[float]()

    def fails(run: Any, before: Any) -> str:
        made.append(now[0])
        now[0] += 3.0
        if len(made) < 3:
            raise PermissionError(13, "Permission denied", "<img src=x>")
        return "page"

    monkeypatch.setattr(making, "page_of", fails)
    pages = pages_of(folder, "going", clock=lambda: now[0], cost=lambda: now[0])
    client = client_of(pages)
    for _ in range(3):
        answer = client.get(f"/{TOKEN}/1/")
        assert answer.status_code == 200 and "The page of going cannot be made: [Errno 13] Permission denied" in answer.text
        assert 'id="live"' in answer.text and "<img src=x>" not in answer.text
    assert len(made) == 1, "not at every request"
    now[0] += 3.0 / SHARE
    assert "cannot be made" in pages.page(0) and "cannot be made" in pages.page(0) and len(made) == 2
    now[0] += 3.0 / SHARE
    assert [pages.page(0) for _ in range(2)] == ["page"] * 2 and len(made) == 3


def test_a_run_that_begins_takes_the_place_of_the_words(tmp_path: Path) -> None:
    pages = pages_of(tmp_path, "later", share=1e6)
    assert "There is no run in later yet" in pages.page(0)
    before = pages.mark(0)
    going(tmp_path / "later")
    assert pages.mark(0) != before and "20 of 100 iterations are done" in pages.page(0)


def test_names_and_warnings_are_text(tmp_path: Path) -> None:
    name = HOSTILE[1].replace("/", "")
    (tmp_path / name).mkdir()
    (tmp_path / name / "settings.json").write_text(json.dumps({"method": HOSTILE[0], "data": {"source": HOSTILE[2]}}))
    pages = pages_of(tmp_path, name)
    for page in (pages.listing(), pages.page(0)):
        assert not any(text in page for text in HOSTILE[:3])
        assert page.count("<script") == page.count("</script>")


def test_files_and_runs_given_twice_are_refused(folder: Path) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from limbeck.watch.server import serve

    file = folder / "a file"
    file.touch()
    with pytest.raises(UsageError, match="^RUN: '.*a file' is not a run folder$"):
        serve([str(file)], print)
    with pytest.raises(UsageError, match="^RUN: '.*' is given twice$"):
        serve([str(folder), f"{folder}/."], print)


def test_missing_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.watch.server import serve

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match=r"^watch: uvicorn is not installed; pip install 'limbeck\[watch\]' brings it$"):
        serve(["runs/a"], print)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_nothing_stays(folder: Path, number: signal.Signals, status: int) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    words = [sys.executable, "-m", "limbeck", "watch", "going", "later"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    port = int(re.findall(r"127\.0\.0\.1:(\d+)/", address)[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as open_one:
        asked = f"GET {address.partition(str(port))[2]} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
        open_one.sendall(asked.encode())
        assert open_one.recv(15) == b"HTTP/1.1 200 OK"
        process.send_signal(number)
        out, error = process.communicate(timeout=30)  # though a browser keeps its connection
    assert process.returncode == status, error
    assert "Traceback" not in error and ("the watch has ended" in out) == (status == 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_what_is_published_is_not_watched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "s3://bucket/runs/a"]) == 2
    said = "'s3://bucket/runs/a' is not a folder on this machine; what is published is a run that has stopped or ended"
    assert capsys.readouterr().err == f"limbeck: error: RUN: {said}\n"

"""Serves the pages of runs to browsers on this machine that know the token, and nothing else to anybody.

    /TOKEN/           the list of runs            /TOKEN/state      its rows as JSON
    /TOKEN/3/         the page of the third run   /TOKEN/3/state    its line, and which state of it there is to see

Numbers alone lead to runs: nothing of a request becomes a path. Whatever lacks the token, or is asked for under a name that is
not this machine's own (a page elsewhere may have a name of its own lead here), is refused in the same words.
"""

import hashlib
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import compare_digest, token_urlsafe
from typing import TYPE_CHECKING, Any

from limbeck.runtime.errors import UsageError, require
from limbeck.watch.look import Looks, Watched
from limbeck.watch.pages import Pages

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
PATIENCE = 2  # seconds that a page which is being made has at the end


class Guard:
    """Lets requests through that have the token and a name of this machine's, with paths behind the token.

    Args:
        app: what answers them.
        token: the first part of every path.
    """

    def __init__(self, app: "ASGIApp", token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        known = len(hosts) == 1 and _named(hosts[0]) in HOSTS
        match scope["path"].split("/", 2):  # `OPTIONS *` has no slash, `CONNECT a:1` neither
            case ["", given, rest] if compare_digest(given.encode(), self.token) and known:
                await self.app({**scope, "path": f"/{rest}", "root_path": ""}, receive, send)
            case _:
                said = "This is not for you: the address that `limbeck watch` prints is needed in full.\n"
                await PlainTextResponse(said, 403, HEADERS)(scope, receive, send)


def _named(host: str) -> str:
    """The name in a Host header, without its port: through a tunnel that may be another."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def application(pages: Pages, token: str) -> "ASGIApp":
    """What answers requests."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

    count = len(pages.looks.runs)

    def number_of(request: "Request") -> int:
        number: int = request.path_params["number"]
        if not 1 <= number <= count:
            raise HTTPException(404)
        return number - 1

    def state(request: "Request", value: object) -> Response:
        body = json.dumps(value).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        same = request.headers.get("if-none-match") == tag
        return Response(b"" if same else body, 304 if same else 200, {**HEADERS, "etag": tag}, "application/json")

    async def listing(request: "Request") -> Response:
        return HTMLResponse(await run_in_threadpool(pages.listing), headers=HEADERS)

    async def lines(request: "Request") -> Response:
        return state(request, {"lines": [line.to_dict() for line in pages.lines()]})

    async def run(request: "Request") -> Response:
        return HTMLResponse(await run_in_threadpool(pages.page, number_of(request)), headers=HEADERS)

    async def line(request: "Request") -> Response:
        number = number_of(request)
        return state(request, {"lines": [pages.looks.line(number).to_dict()], "mark": pages.mark(number)})

    async def refused(request: "Request", error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return PlainTextResponse("There is nothing here.\n", error.status_code, HEADERS)

    routes = [Route("/", listing), Route("/state", lines), Route("/{number:int}/", run), Route("/{number:int}/state", line)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: refused})
    app.router.redirect_slashes = False
    return Guard(app, token)


def serve(paths: Sequence[str], say: Callable[[str], None]) -> None:
    """Serve the pages of the runs in these folders until the process is asked to end.

    Args:
        paths: of run folders, which need not be there yet.
        say: called with the address.

    Raises:
        UsageError: where the server's packages are missing, or one is a file or given twice.
        Interrupted: when the process was asked to end; the port is closed then.
    """
    try:
        import starlette  # noqa: F401 (said now where it is missing)
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"watch: {error.name} is not installed; pip install 'limbeck[watch]' brings it") from error
    for number, path in enumerate(paths):
        require(not Path(path).exists() or Path(path).is_dir(), "RUN", path, "a run folder")
        if Path(path).resolve() in [Path(one).resolve() for one in paths[:number]]:
            raise UsageError(f"RUN: {path!r} is given twice")
    token, pages = token_urlsafe(24), Pages(Looks(tuple(Watched(Path(path), path) for path in paths)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        say(f"http://127.0.0.1:{listening.getsockname()[1]}/{token}/")
        server_of(pages, token).run(sockets=[listening])


def server_of(pages: Pages, token: str) -> "uvicorn.Server":
    """The server, which says nothing by itself and closes connections that browsers keep when it ends."""
    import uvicorn

    quiet: dict[str, Any] = {"log_config": None, "log_level": "error", "access_log": False, "server_header": False}
    alone: dict[str, Any] = {"lifespan": "off", "ws": "none", "http": "h11", "loop": "asyncio", "proxy_headers": False}
    config = uvicorn.Config(application(pages, token), **quiet, **alone, timeout_graceful_shutdown=PATIENCE)
    return uvicorn.Server(config)

"""A server on this machine that speaks as much of the Hugging Face Hub's interface as pushing and pulling a data set asks for."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN, OTHERS = "hf_lImBeCkTeStToKeN0123456789", "hf_oThErSToKeN0123456789abcdef"  # of the owner `me`, and of somebody else
LFS = (".safetensors", ".parquet", ".png")


@dataclass
class Repository:
    """What the server holds of one: the files of every commit, and which one a branch is at.

    Args:
        private: whether only its owner sees it.
    """

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Move a branch on to those files; the name of the commit."""
        name = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> str | None:
        """The commit that is meant."""
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """Those of `main`."""
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """A running server.

    Args:
        endpoint: its URL.
        repositories: by OWNER/NAME.
        blobs: large files that have arrived, by SHA-256.
        asked: methods and paths of all requests.
        breaks: where the connection breaks off, once what was sent is read.
        before: called with the path of every request.
    """

    endpoint: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    breaks: str | None = None
    before: Callable[[str], None] = lambda path: None


@contextmanager
def serving() -> Iterator[Hub]:
    """A server that ends with the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    found = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = found  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def set_environment(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Any, token: str | None = TOKEN) -> None:
    """Where the Hub is, and the token for it; what the machine's user has logged in with is not looked for."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the Hub needs the extra hub")
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # whose protocol is a compiled client's
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is said."""

    @property
    def hub(self) -> Hub:
        found: Hub = self.server.hub  # type: ignore[attr-defined]
        return found

    @property
    def user(self) -> str | None:
        said = self.headers.get("Authorization", "")
        return {f"Bearer {TOKEN}": "me", f"Bearer {OTHERS}": "you"}.get(said)

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.before(path)
        if self.hub.breaks is not None and self.hub.breaks in path:
            self.close_connection = True
            self.connection.close()
            return
        for pattern, answer in ROUTES.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                answer(self, body, *found.groups())
                return
        self.refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def answer(self, value: Any, status: int = 200, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def seen(self, name: str) -> Repository | None:
        """The repository where whoever asks sees it; otherwise it is answered as the Hub answers."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and name.partition("/")[0] != self.user):
            self.refuse(401 if self.user is None else 404, "RepoNotFound")
            return None
        return found

    def owned(self, name: str) -> Repository | None:
        found = self.seen(name)
        if found is not None and name.partition("/")[0] != self.user:
            self.refuse(401 if self.user is None else 403, "Forbidden")
            return None
        return found

    def validate(self, _: bytes) -> None:
        self.answer({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        assert asked["type"] == "dataset"
        url = {"url": f"{self.hub.endpoint}/datasets/{name}"}
        if asked["organization"] != self.user:
            self.refuse(401 if self.user is None else 403, "Forbidden")
        elif name in self.hub.repositories:
            self.answer(url, 409)
        else:
            private = asked.get("visibility") == "private" or asked.get("private") is True
            made = self.hub.repositories[name] = Repository(private)
            made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
            self.answer(url)

    def branch(self, _: bytes, name: str, branch: str) -> None:
        if (held := self.owned(name)) is not None:
            status = 409 if branch in held.branches else 200
            held.branches.setdefault(branch, held.branches["main"])
            self.answer({}, status)

    def about(self, _: bytes, name: str, revision: str | None = None) -> None:
        if (held := self.seen(name)) is None:
            return
        if (commit := held.at(revision or "main")) is None:
            self.refuse(404, "RevisionNotFound")
            return
        files = [{"rfilename": file} for file in held.commits[commit]]
        self.answer({"_id": "1", "id": name, "sha": commit, "private": held.private, "siblings": files, "tags": [], "downloads": 0})

    def refs(self, _: bytes, name: str) -> None:
        if (held := self.seen(name)) is not None:
            branches = [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": commit} for one, commit in held.branches.items()]
            self.answer({"branches": branches, "converts": [], "tags": []})

    def preupload(self, body: bytes, name: str, _: str) -> None:
        if self.owned(name) is not None:
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(LFS) else "regular" for path in files}
            self.answer({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]})

    def batch(self, body: bytes, name: str) -> None:
        if self.owned(name) is not None:
            wanted = json.loads(body)["objects"]
            places = [{**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}} for one in wanted]
            self.answer({"transfer": "basic", "objects": places})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        self.answer({})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if (held := self.owned(name)) is None:
            return
        head, *lines = [json.loads(line) for line in body.splitlines()]
        if head["value"].get("parentCommit") not in (None, held.branches[revision]):
            self.refuse(412, "PreconditionFailed")
            return
        files = dict(held.commits[held.branches[revision]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                del files[value["path"]]
        made = held.commit(revision, files)
        self.answer({"commitUrl": f"{self.hub.endpoint}/datasets/{name}/commit/{made}", "commitOid": made, "pullRequestUrl": None})

    def resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
        if (held := self.seen(name)) is None:
            return
        commit = held.at(revision)
        if commit is None or path not in held.commits[commit]:
            self.refuse(404, "EntryNotFound" if commit else "RevisionNotFound")
            return
        content = held.commits[commit][path]
        self.answer(content, X_Repo_Commit=commit, ETag=f'"{hashlib.sha256(content).hexdigest()}"')


_NAME = "([^/]+/[^/]+)"
ROUTES: dict[str, Callable[..., None]] = {
    "POST /api/validate-yaml": _Handler.validate,
    "POST /api/repos/create": _Handler.create,
    f"POST /api/datasets/{_NAME}/branch/(.+)": _Handler.branch,
    f"GET /api/datasets/{_NAME}": _Handler.about,
    f"GET /api/datasets/{_NAME}/refs": _Handler.refs,
    f"GET /api/datasets/{_NAME}/revision/(.+)": _Handler.about,
    f"POST /api/datasets/{_NAME}/preupload/(.+)": _Handler.preupload,
    rf"POST /datasets/{_NAME}\.git/info/lfs/objects/batch": _Handler.batch,
    "PUT /lfs/([0-9a-f]+)": _Handler.put,
    f"POST /api/datasets/{_NAME}/commit/(.+)": _Handler.commit,
    f"(?:GET|HEAD) /datasets/{_NAME}/resolve/([^/]+)/(.+)": _Handler.resolve,
}

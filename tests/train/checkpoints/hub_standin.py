"""A stand-in for huggingface.co: what `huggingface_hub` asks of it for models, on this machine, without accident.

Written from the requests that huggingface_hub 2 makes. It has repositories, branches, commits, small files in
commits and large ones by Git LFS (one part or several), tokens that may read, write or nothing, private and
gated repositories, ranges and entity tags, and faults that a test orders by request. It has no Xet storage, no
pull requests and no rate limits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_FROM_BYTES = 4096
PART_BYTES = 64 << 10
"""Large files are taken in parts of this size if `Hub.parts` is on."""
WRITER, READER = "hf_writer", "hf_reader"


@dataclass
class Repo:
    """One repository: commits and what they hold."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    """Commit -> path -> SHA-256 of the content."""
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class Fault:
    """What happens to a request whose "METHOD path" matches; once."""

    pattern: str
    kind: str
    """A status code, "cut" (the connection breaks within the body) or "flip" (one bit of the body is wrong)."""


class Hub:
    """The server's state; tests read and change it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        """SHA-256 -> content."""
        self.faults: list[Fault] = []
        self.fired: list[str] = []
        self.requests: list[str] = []
        self.parts = False
        self.url = ""

    def add(self, name: str, files: dict[str, bytes], branch: str = "main", **options: Any) -> str:
        """Make a commit without HTTP; return it."""
        repo = self.repos.setdefault(name, Repo(**options))
        return self.commit(repo, branch, {path: self.store(content) for path, content in files.items()}, [])

    def commit(self, repo: Repo, branch: str, added: dict[str, str], deleted: list[str]) -> str:
        """A new commit on a branch."""
        before = repo.commits.get(repo.branches.get(branch, ""), {})
        files = {path: oid for path, oid in before.items() if path not in deleted} | added
        content = json.dumps([len(repo.commits), sorted(files.items())]).encode()
        sha = hashlib.sha1(content).hexdigest()
        repo.commits[sha] = files
        repo.branches[branch] = sha
        return sha

    def store(self, content: bytes) -> str:
        """Keep an object."""
        oid = hashlib.sha256(content).hexdigest()
        self.objects[oid] = content
        return oid


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve a hub on a port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        split = urlsplit(self.path)
        path, self.query = unquote(split.path), parse_qs(split.query)
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        self.flaw = ""
        for fault in self.hub.faults:
            if re.search(fault.pattern, line):
                self.hub.faults.remove(fault)
                self.hub.fired.append(f"{fault.kind} {line}")
                if fault.kind.isdigit():
                    self._send(int(fault.kind), b"ordered by the test")
                    return
                self.flaw = fault.kind
                break
        try:
            for method, pattern, function in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    function(self, *found.groups())
                    return
            self._send(404, b"no such route")
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        content = bytes([body[0] ^ 1]) + body[1:] if self.flaw == "flip" and body else body
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.flaw == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(content)

    def _json(self, tables: Any, status: int = 200) -> None:
        self._send(status, json.dumps(tables).encode(), {"Content-Type": "application/json"})

    # who may do what

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_write(self) -> None:
        if self._token() == WRITER:
            return
        if self._token() == READER:
            raise _Refused(403, "", "this token may not write")
        raise _Refused(401, "", "Invalid username or password.")

    def _repo(self, name: str) -> Repo:
        token = self._token()
        if token not in ("", WRITER, READER):
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not token):
            raise _Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _commit(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    # routes

    def create(self) -> None:
        self._may_write()
        asked = json.loads(self.body)
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        status = 409 if name in self.hub.repos else 200
        if status == 200:
            self.hub.repos[name] = Repo(private=asked.get("visibility") == "private")
            self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.hub.url}/{name}"}, status)

    def branch(self, name: str, branch: str) -> None:
        self._may_write()
        repo = self._repo(name)
        status = 409 if branch in repo.branches else 200
        repo.branches.setdefault(branch, repo.branches["main"])
        self._json({}, status)

    def info(self, name: str, revision: str | None = None) -> None:
        repo = self._repo(name)
        sha = self._commit(repo, revision or "main")
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        self._json(
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
            }
        )

    def tree(self, name: str, revision: str) -> None:
        repo = self._repo(name)
        files = sorted(repo.commits[self._commit(repo, revision)].items())
        at, page = int(self.query.get("cursor", ["0"])[0]), 5
        listed: list[dict[str, Any]] = []
        for path, oid in files[at : at + page]:
            content = self.hub.objects[oid]
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": _git_oid(content),
            }
            if len(content) >= LFS_FROM_BYTES:
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            listed.append(entry)
        headers = {"Content-Type": "application/json"}
        if at + page < len(files):
            headers["Link"] = (
                f'<{self.hub.url}{self.path.split("?")[0]}?recursive=True&cursor={at + page}>; rel="next"'
            )
        self._send(200, json.dumps(listed).encode(), headers)

    def preupload(self, name: str, revision: str) -> None:
        self._may_write()
        there = self._repo(name)
        files = there.commits[self._commit(there, revision)]
        answers = []
        for asked in json.loads(self.body)["files"]:
            mode = "lfs" if asked["size"] >= LFS_FROM_BYTES else "regular"
            old = self.hub.objects.get(files.get(asked["path"], ""))
            oid = (
                None if old is None else _git_oid(old) if len(old) < LFS_FROM_BYTES else files[asked["path"]]
            )
            answers.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers})

    def batch(self, name: str) -> None:
        self._may_write()
        self._repo(name)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            oid, size = asked["oid"], asked["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.hub.objects:
                upload: dict[str, Any] = {"href": f"{self.hub.url}/lfs/{oid}", "header": {}}
                if self.hub.parts:
                    count = -(-size // PART_BYTES)
                    upload["header"] = {"chunk_size": str(PART_BYTES)}
                    upload["header"] |= {
                        f"{i:05d}": f"{self.hub.url}/lfs-part/{oid}/{i}" for i in range(1, count + 1)
                    }
                    upload["href"] = f"{self.hub.url}/lfs-done/{oid}"
                answer["actions"] = {
                    "upload": upload,
                    "verify": {"href": f"{self.hub.url}/lfs-verify", "header": {}},
                }
            objects.append(answer)
        self._json({"transfer": "multipart" if self.hub.parts else "basic", "objects": objects})

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content does not have its hash")
        self.hub.objects[oid] = self.body
        self._send(200)

    def put_part(self, oid: str, number: str) -> None:
        self.hub.objects[f"{oid}/{int(number):05d}"] = self.body
        self._send(200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def finish_parts(self, oid: str) -> None:
        parts = [self.hub.objects.pop(key) for key in sorted(self.hub.objects) if key.startswith(f"{oid}/")]
        self.body = b"".join(parts)
        self.put(oid)

    def verify(self) -> None:
        asked = json.loads(self.body)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise _Refused(404, "", "no such object")
        self._json({})

    def make_commit(self, name: str, revision: str) -> None:
        self._may_write()
        repo = self._repo(name)
        added: dict[str, str] = {}
        deleted: list[str] = []
        for raw in self.body.splitlines():
            item = json.loads(raw)
            value = item["value"]
            if item["key"] == "file":
                added[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _Refused(400, "", "the LFS object was not uploaded")
                added[value["path"]] = value["oid"]
            elif item["key"] == "deletedFile":
                deleted.append(value["path"])
            elif item["key"] == "header":
                repo.messages.append(value["summary"])
        sha = self.hub.commit(repo, revision, added, deleted)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo.gated and self._token() != WRITER:
            raise _Refused(
                403 if self._token() else 401, "GatedRepo", f"Access to model {name} is restricted."
            )
        sha = self._commit(repo, revision)
        oid = repo.commits[sha].get(path)
        if oid is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = self.hub.objects[oid]
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if len(content) < LFS_FROM_BYTES:
            self._content(content, {**headers, "ETag": f'"{_git_oid(content)}"'})
            return
        headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        elsewhere = self.hub.url.replace(
            "127.0.0.1", "localhost"
        )  # as the Hub does: another host serves them
        self._send(302, b"", {**headers, "Location": f"{elsewhere}/cdn/{oid}"})

    def cdn(self, oid: str) -> None:
        self._content(self.hub.objects[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, content, headers)
            return
        start, stop = int(asked[1]), int(asked[2] or len(content) - 1) + 1
        if start >= len(content):
            self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        ranged = {"Content-Range": f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}"}
        self._send(206, content[start:stop], {**headers, **ranged})


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", rf"/api/models/{_NAME}/branch/(.+)", _Handler.branch),
    ("POST", rf"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/api/models/{_NAME}/commit/(.+)", _Handler.make_commit),
    ("GET", rf"/api/models/{_NAME}/tree/(.+)", _Handler.tree),
    ("GET", rf"/api/models/{_NAME}/revision/(.+)", _Handler.info),
    ("GET", rf"/api/models/{_NAME}", _Handler.info),
    ("GET", rf"/api/datasets/{_NAME}/revision/(.+)", _Handler.info),
    ("GET", rf"/api/datasets/{_NAME}", _Handler.info),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler.put),
    ("PUT", r"/lfs-part/([0-9a-f]{64})/(\d+)", _Handler.put_part),
    ("POST", r"/lfs-done/([0-9a-f]{64})", _Handler.finish_parts),
    ("POST", r"/lfs-verify", _Handler.verify),
    ("GET HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("GET HEAD", r"/cdn/([0-9a-f]{64})", _Handler.cdn),
]

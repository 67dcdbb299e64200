"""A local server that speaks the Hub's HTTP calls, for huggingface_hub itself through HF_ENDPOINT.

Create, preupload, LFS (batch, upload in one or several parts, verify), commit, info, tree and download. Every upload is
kept in memory and checked: what does not hash to its oid is refused, as the Hub does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_localtest"
USER = "someone"
_LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx", ".png", ".jpg", ".parquet")


@dataclass
class Commit:
    """What one commit call brought."""

    oid: str
    message: str
    description: str
    paths: list[str]


@dataclass
class Repository:
    """Files and history of one repository."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    lfs_oids: dict[str, str] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)

    @property
    def sha(self) -> str:
        """The newest commit's id."""
        return self.commits[-1].oid if self.commits else "0" * 40


class HubServer(ThreadingHTTPServer):
    """Serves repositories on a free port of this machine while the `with` block runs.

    Args:
        chunk_size: Size in bytes from which LFS objects are uploaded in parts; None for one part.
        refuse: Part of a path -> status: such calls are refused.
    """

    daemon_threads = True

    def __init__(self, chunk_size: int | None = None, refuse: dict[str, int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.chunk_size = chunk_size
        self.refuse = refuse or {}
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.calls: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class HubHandler(BaseHTTPRequestHandler):
    """One call."""

    server: HubServer
    location: str
    body: bytes
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""

    def do_GET(self) -> None:
        self._dispatch()

    def do_HEAD(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        path = self.location = unquote(urlsplit(self.path).path)
        self.body = self._read_body()
        with self.server.lock:
            self.server.calls.append(f"{self.command} {path}")
            refused = [status for part, status in self.server.refuse.items() if part in path]
            if refused:
                self._answer({"error": f"refused by the test: {path}"}, refused[0])
            elif not path.startswith("/objects/") and not self._is_allowed():
                self._answer({"error": "Invalid username or password."}, 401)
            else:
                self._route()

    def _route(self) -> None:
        for methods, prefix, part, call in self.routes:
            if self.command in methods and self.location.startswith(prefix) and part in self.location:
                call(self)
                return
        self._answer({"error": f"unknown call {self.command} {self.location}"}, 404)

    def _is_allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _find(self, prefix: str) -> tuple[str, Repository, str] | None:
        """Return id, repository and the rest of the path, or answer 404."""
        user, name, *rest = [*self.location.removeprefix(prefix).split("/"), ""]
        repo_id = f"{user}/{name.removesuffix('.git')}"
        if repo_id not in self.server.repositories:
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        return repo_id, self.server.repositories[repo_id], "/".join(rest).rstrip("/")

    def answer_whoami(self) -> None:
        self._answer({"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"type": "access_token"}})

    def create(self) -> None:
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or USER}/{asked['name']}"
        answer = {"url": f"{self.server.url}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.server.repositories:
            self._answer(answer | {"error": "You already created this model repo"}, 409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repositories[repo_id] = Repository(private)
        self._answer(answer)

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        metadata = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else None
        errors = []
        if metadata is not None and not isinstance(metadata, dict):
            errors.append({"message": "metadata is no mapping"})
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        self._answer({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    def preupload(self) -> None:
        if (found := self._find("/api/models/")) is None:
            return
        _, repository, _ = found
        files = []
        for entry in json.loads(self.body)["files"]:
            name = entry["path"]
            base64.b64decode(entry["sample"], validate=True)
            mode = "lfs" if name.endswith(_LFS_SUFFIXES) or entry["size"] > 10_000_000 else "regular"
            oid = repository.lfs_oids.get(name) or (
                _hash_blob(repository.files[name]) if name in repository.files else None
            )
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer({"files": files})

    def plan_objects(self) -> None:
        asked = json.loads(self.body)
        objects = []
        for entry in asked["objects"]:
            oid, size = entry["oid"], entry["size"]
            planned: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.server.objects:
                planned["actions"] = {
                    "upload": self._plan_upload(oid, size),
                    "verify": {"href": f"{self.server.url}/objects/{oid}/verify"},
                }
            objects.append(planned)
        self._answer({"transfer": "multipart" if self.server.chunk_size else "basic", "objects": objects})

    def _plan_upload(self, oid: str, size: int) -> dict[str, Any]:
        href, chunk_size = f"{self.server.url}/objects/{oid}", self.server.chunk_size
        if chunk_size is None or size <= chunk_size:
            return {"href": href, "header": {}}
        parts = {str(part): f"{href}/part?n={part}" for part in range(1, -(-size // chunk_size) + 1)}
        return {"href": f"{href}/complete", "header": {"chunk_size": str(chunk_size), **parts}}

    def put_object(self) -> None:
        oid = self.location.split("/")[2]
        if self.location.endswith("/part"):
            part = int(parse_qs(urlsplit(self.path).query)["n"][0])
            self.server.parts.setdefault(oid, {})[part] = self.body
            self._answer({}, headers={"ETag": hashlib.md5(self.body).hexdigest()})
            return
        self._keep_object(oid, self.body)

    def finish_object(self) -> None:
        oid, asked = self.location.split("/")[2], json.loads(self.body)
        if self.location.endswith("/complete"):
            parts = self.server.parts.pop(oid)
            whole = [hashlib.md5(parts[entry["partNumber"]]).hexdigest() == entry["etag"] for entry in asked["parts"]]
            if len(whole) != len(parts) or not all(whole):
                self._answer({"error": "parts do not match"}, 400)
                return
            self._keep_object(oid, b"".join(parts[number] for number in sorted(parts)))
            return
        is_whole = len(self.server.objects.get(oid, b"")) == asked["size"] and oid == asked["oid"]
        self._answer({}, 200 if is_whole else 422)

    def _keep_object(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            self._answer({"error": "sha256 does not match"}, 422)
            return
        self.server.objects[oid] = content
        self._answer({})

    def commit(self) -> None:
        if (found := self._find("/api/models/")) is None:
            return
        repo_id, repository, _ = found
        header: dict[str, str] = {}
        files: dict[str, bytes] = {}
        lfs_oids: dict[str, str] = {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                header = value
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif entry["key"] == "lfsFile":
                if len(self.server.objects.get(value["oid"], b"")) != value["size"]:
                    self._answer({"error": f"{value['path']} was never uploaded"}, 400)
                    return
                files[value["path"]] = self.server.objects[value["oid"]]
                lfs_oids[value["path"]] = value["oid"]
            else:
                self._answer({"error": f"unknown operation {entry['key']}"}, 400)
                return
        repository.files |= files
        repository.lfs_oids |= lfs_oids
        oid = hashlib.sha1(self.body + str(len(repository.commits)).encode()).hexdigest()
        repository.commits.append(Commit(oid, header["summary"], header["description"], sorted(files)))
        self._answer({"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo_id}/commit/{oid}"})

    def describe(self) -> None:
        if (found := self._find("/api/models/")) is None:
            return
        repo_id, repository, rest = found
        if rest.startswith("tree/"):
            self._answer([_describe_file(repository, name) for name in sorted(repository.files)])
        elif rest == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.sha}
            self._answer({"branches": [main], "tags": [], "converts": []})
        else:
            siblings = [{"rfilename": name} for name in sorted(repository.files)]
            self._answer(
                {"id": repo_id, "modelId": repo_id, "sha": repository.sha, "private": repository.private, "tags": []}
                | {"siblings": siblings, "downloads": 0, "likes": 0}
            )

    def download(self) -> None:
        if (found := self._find("/")) is None:
            return
        _, repository, rest = found
        name = rest.split("/", 2)[2]
        if name not in repository.files:
            self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        content = repository.files[name]
        etag = repository.lfs_oids.get(name) or _hash_blob(content)
        self._answer(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": repository.sha})

    routes: ClassVar[list[tuple[str, str, str, Callable[[HubHandler], None]]]] = [
        ("GET", "/api/whoami-v2", "", answer_whoami),
        ("POST", "/api/repos/create", "", create),
        ("POST", "/api/validate-yaml", "", validate_yaml),
        ("POST", "/api/models/", "/preupload/", preupload),
        ("POST", "/api/models/", "/commit/", commit),
        ("GET", "/api/models/", "", describe),
        ("POST", "/", ".git/info/lfs/objects/batch", plan_objects),
        ("PUT", "/objects/", "", put_object),
        ("POST", "/objects/", "", finish_object),
        ("GET HEAD", "/", "/resolve/", download),
    ]


def _hash_blob(content: bytes) -> str:
    """Return git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _describe_file(repository: Repository, name: str) -> dict[str, Any]:
    content = repository.files[name]
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _hash_blob(content)}
    if name in repository.lfs_oids:
        entry["lfs"] = {"oid": repository.lfs_oids[name], "size": len(content), "pointerSize": 130}
    return entry

"""A Hugging Face hub on the loopback interface: one model at one commit, with the calls that its client makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.loopback_server import run_loopback

REPO = "Lab/Tuned"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1.0", COMMIT)


class FakeHub:
    """The model's folder, the URL of the hub, and the files that were fetched from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.fetched: list[str] = []


@contextmanager
def run_hub(folder: Path) -> Iterator[FakeHub]:
    """Serve a folder as the model REPO at COMMIT, which the revisions REVISIONS mean."""
    hub = FakeHub(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            for revision in REVISIONS:
                if path == f"/api/models/{REPO}/revision/{revision}":
                    return self._json({"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]})
                if path == f"/api/models/{REPO}/tree/{revision}":
                    sized = [{"path": f, "size": (folder / f).stat().st_size} for f in files]
                    return self._json([{"type": "file", "oid": "0" * 40, **entry} for entry in sized])
            name = path.removeprefix(f"/{REPO}/resolve/{COMMIT}/")
            if name in files:
                return self._file(name)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound" if REPO not in path else "RevisionNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def _json(self, value: object) -> None:
            self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, name: str) -> None:
            data = (folder / name).read_bytes()
            if self.command == "GET":
                hub.fetched.append(name)
            digest = hashlib.sha256(data).hexdigest()
            self._answer(data, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

        def _answer(self, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            return

    with run_loopback(Handler) as url:
        hub.url = url
        yield hub

"""No answer about a fault shows where the server keeps its files; the log does."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from rootstock.adapters.errors import StoreFull
from rootstock.adapters.store.folder import FolderStore
from tests.bounds import HANG
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter

PREDICTION = {"model": "mood", "inputs": "Where is my parcel?"}


class Faults:
    """A server with the adapter `mood`, and the answers to what went wrong on it."""

    def __init__(self, running: RunningServer, home: Path, client: httpx.Client) -> None:
        self.running = running
        self.home = home
        self.client = client
        self.server: Any = running.app.state.server
        self.digest: str = self.server.registry.resolve("mood").digest
        self.file: Path = self.server.foundations.first.catalog.store.path(self.digest)
        self.answers: list[httpx.Response] = []

    def forget(self) -> None:
        """Take the adapter out of memory, so that the next request loads it."""
        self.server.foundations.first.engine.cache.drop(self.digest)
        self.server.foundations.first.engine.batcher.drop(self.digest)

    def ask(self) -> None:
        """Keep the answers of every route that reads or writes the adapter."""
        self.forget()
        send, version = self.client.request, "/v1/adapters/mood/versions/1"
        self.answers += [
            send("POST", "/v1/predict", json=PREDICTION),
            send("POST", "/v1/embeddings", json={"model": "mood", "input": "x"}),
            send("GET", f"{version}/bundle"),
            send("GET", f"{version}/card"),
            send("GET", version),
            send("GET", "/v1/adapters"),
            send("GET", "/readyz"),
            send("PUT", "/v1/adapters/mood/aliases/prod", json={"version": 1}),
            send("POST", "/v1/adapters/mood/rollback"),
        ]


@pytest.fixture
def faults(
    serve: Callable[..., RunningServer],
    new_home: Callable[[], Path],
    peft_saved: dict[str, PeftAdapter],
    tmp_path: Path,
) -> Iterator[Faults]:
    home = new_home()
    running = serve(home=home, adapter_folder=tmp_path)
    with running.client() as client:
        assert upload(client, "mood", peft_saved["first"].zip()).status_code == 201
        yield Faults(running, home, client)


def _missing(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    faults.file.unlink()
    faults.ask()


def _unreadable(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    faults.file.unlink()
    faults.file.mkdir()
    faults.ask()


def _damaged(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    faults.file.write_bytes(faults.file.read_bytes()[:-1000])
    faults.ask()


def _failing_disk(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        """A file of a disk that fails after the first bytes."""

        def __init__(self, path: Path) -> None:
            self._path = path

        def seek(self, *place: int) -> int:
            raise OSError(5, "Input/output error", str(self._path))

        tell = read = seek

        def seekable(self) -> bool:
            return True

        def close(self) -> None:
            pass

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(FolderStore, "open", lambda store, digest: Failing(store.path(digest)))
    faults.ask()


def _no_room(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(store: FolderStore, digest: str, data: bytes) -> None:
        raise StoreFull("no room", place=store.path(digest))

    monkeypatch.setattr(FolderStore, "put", put)
    faults.answers.append(upload(faults.client, "other", faults.file.read_bytes()))


def _registry_gone(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in faults.home.glob("registry.db*"):
        path.unlink()
    faults.ask()


def _registry_broken(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(faults.home / "registry.db")) as vandal:
        for table in ("adapters", "versions", "aliases", "revision"):
            vandal.execute(f"ALTER TABLE {table} RENAME TO lost_{table}")
    faults.ask()


def _registry_closed(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    faults.server.registry.close()
    faults.ask()


def _runner_fails(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(batch: object) -> None:
        raise RuntimeError(f"Load model from {faults.home}/foundations/model.onnx failed")

    monkeypatch.setattr(faults.server.foundations.first.engine.runner, "run", run)
    faults.answers.append(upload(faults.client, "other", faults.file.read_bytes()))
    faults.ask()


def _folder_of_adapters(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    root: Path = faults.server.adapter_folder.root
    (root / "loop").symlink_to(root / "loop")
    (root / "outside").symlink_to(faults.home)
    (root / "wrong").mkdir()
    (root / "wrong" / "adapter_config.json").mkdir()
    (root / "wrong" / "file").write_bytes(b"x")
    for path in ("loop", "loop/x", "outside", "nowhere", "wrong", "a\0b", "x" * 5000):
        body = {"lora_name": "new", "lora_path": path}
        faults.answers.append(faults.client.post("/v1/load_lora_adapter", json=body))


KINDS = [
    _missing, _unreadable, _damaged, _failing_disk, _no_room, _registry_gone, _registry_broken, _registry_closed,
    _runner_fails, _folder_of_adapters,
]  # fmt: skip


@pytest.mark.parametrize("happen", KINDS)
def test_an_answer_shows_no_path_of_the_server_and_no_plain_500(
    faults: Faults, happen: Callable[[Faults, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        happen(faults, patched)
    failed = [answer for answer in faults.answers if answer.status_code >= 400]
    assert failed, "nothing went wrong"
    folders = faults.home, faults.server.adapter_folder.root, Path(__file__).parents[3]
    hidden = (*map(str, folders), ".db", "/tmp")
    for answer in failed:
        assert "message" in answer.json()["error"], answer.text
        assert answer.json()["error"]["code"] != "internal_error", answer.text
        assert [path for path in hidden if path in answer.text] == [], answer.text


def test_the_log_has_the_path_that_the_answer_leaves_out(faults: Faults) -> None:
    faults.file.unlink()
    faults.forget()
    with structlog.testing.capture_logs() as logged:
        answer = faults.client.post("/v1/predict", json=PREDICTION)
    assert answer.json()["error"]["code"] == "missing_bundle"
    assert faults.digest in answer.json()["error"]["message"]
    (entry,) = [line for line in logged if line.get("code") == "missing_bundle"]
    assert str(faults.file) in str(entry["exc_info"].__notes__)


def test_an_upload_that_does_not_fit_in_memory_is_received_into_a_file_that_nobody_else_can_open(
    faults: Faults,
) -> None:
    seen: set[int] = set()

    def pieces() -> Iterator[bytes]:
        head = '--x\r\nContent-Disposition: form-data; name="bundle"; filename="a.zip"\r\n\r\n'
        yield head.encode()
        for _ in range(40):
            yield bytes(2**16)
        # The server reads the body in its own thread, so the file appears a moment later.
        late = time.monotonic() + HANG
        while not seen and time.monotonic() < late:
            seen.update(_modes_of_unnamed_files())
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    faults.client.post("/v1/adapters", content=pieces(), headers=headers)
    assert seen == {0o600}


def _modes_of_unnamed_files() -> set[int]:
    """Return the modes of the large files without a name that this process, and so its server, has open."""
    modes = set()
    for handle in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            status = os.stat(f"/proc/self/fd/{handle}")
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_size > 2**19:
                modes.add(stat.S_IMODE(status.st_mode))
    return modes

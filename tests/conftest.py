"""Fixtures that the tests share: the default foundation, its ONNX export, and quiet offline libraries."""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LANGSMITH_TRACING="false")
# OpenMP's threads spin while they wait, and take the cores from the other processes of the tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
for _name in [n for n in os.environ if n.startswith("ROOTSTOCK_") and n != "ROOTSTOCK_DATA"]:
    del os.environ[_name]

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import openai
import pytest
from filelock import FileLock

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.registry.sql.backends import postgres_server
from rootstock.adapters.spec import FoundationSpec
from rootstock.service.app import OpenServer
from rootstock.service.exports.cache import export_path
from rootstock.service.settings import Settings
from tests.bounds import HANG
from tests.chat_foundation import CHAT, chat_folder, find_chat
from tests.live_server import RunningServer, run_server
from tests.object_storage import ObjectStorage, object_storage
from tests.peft_adapters import PeftAdapter, save_adapter
from tests.postgres_process import PostgresProcess, postgres_process

ROOT = Path(__file__).parents[1]
# A busy machine makes an example slow, which is no fault of the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def foundation() -> FoundationFiles:
    return locate("default")


@pytest.fixture(scope="session")
def spec(foundation: FoundationFiles) -> FoundationSpec:
    return describe(foundation)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of a test run share, for what takes long to make."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def exports_home(foundation: FoundationFiles, spec: FoundationSpec, shared_folder: Path) -> Path:
    """Return a home folder whose export cache holds the default foundation."""
    from rootstock.service.engine.runners.onnx.export.export import export

    home = shared_folder / "exports"
    folder = export_path(home, spec.fingerprint)
    with FileLock(shared_folder / "exports.lock"):
        if not folder.exists():
            export(foundation.folder, spec, folder)
    return home


@pytest.fixture(scope="session")
def export_folder(exports_home: Path, spec: FoundationSpec) -> Path:
    return export_path(exports_home, spec.fingerprint)


@pytest.fixture(scope="session")
def new_home(exports_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return a function that makes empty home folders, which share the filled export cache."""

    def make() -> Path:
        home = tmp_path_factory.mktemp("home")
        (home / "foundations").symlink_to(exports_home / "foundations", target_is_directory=True)
        return home

    return make


@pytest.fixture
def serve(new_home: Callable[[], Path]) -> Iterator[Callable[..., RunningServer]]:
    """Yield a function that starts a server with given settings, on an empty registry. Stop all at the end."""
    with ExitStack() as stack:

        def start(opened: OpenServer | None = None, **settings: Any) -> RunningServer:
            chosen = {"home": new_home(), "demo": False, "log_level": "error", **settings}
            return stack.enter_context(run_server(Settings(**chosen), opened))

        yield start


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path]) -> Iterator[RunningServer]:
    """Yield one server without keys for a module's tests."""
    with run_server(Settings(home=new_home(), demo=False, log_level="error", max_body_mb=1)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def api(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no client reach beyond this machine."""
    import litellm

    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(litellm, "telemetry", False)


@pytest.fixture
def current_loop() -> Iterator[None]:
    """Give litellm the event loop that it asks for. Otherwise it makes one that nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    """Yield a PostgreSQL server. A test that kills it starts it again.

    On a busy machine it may answer late, and that must not look as if it were away.
    """
    with postgres_process() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_server, "LOOK_UP_SECONDS", HANG)
        patch.setitem(postgres_server._CONNECTING, "connect_timeout", int(HANG))
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    """Yield an S3 server, which this process and those that it starts reach by the environment."""
    with (
        pytest.MonkeyPatch.context() as patch,
        object_storage(tmp_path_factory.mktemp("s3") / "log") as storage,
    ):
        for name, value in storage.environment.items():
            patch.setenv(name, value)
        yield storage


@pytest.fixture(scope="session")
def chat_foundation(shared_folder: Path) -> Path:
    """Return the folder of the chat foundation, converted by a process that imports no torch itself."""
    home = shared_folder / "chat"
    with FileLock(shared_folder / "chat.lock"):
        converted = chat_folder(home).exists()
        home.mkdir(exist_ok=True)
        done = find_chat(home, ROOT)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{chat_folder(home)}\n"
        if not converted:
            (line,) = done.stderr.splitlines()
            start = f"converting the chat foundation ({CHAT.model}) to safetensors in {chat_folder(home)}"
            assert line.startswith(start)
    return chat_folder(home)


@pytest.fixture(scope="session")
def peft_saved(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PeftAdapter]:
    """Return folders that PEFT saved: three sequence classifiers, a token classifier and an embedder."""
    root = tmp_path_factory.mktemp("saved")
    kinds: dict[str, dict[str, Any]] = {
        "first": {"task_type": "SEQ_CLS", "labels": 3, "r": 4},
        "second": {"task_type": "SEQ_CLS", "labels": 3, "r": 8, "target_modules": "all-linear"},
        "tokens": {"task_type": "TOKEN_CLS", "labels": 5, "r": 8},
        "embedder": {"task_type": "FEATURE_EXTRACTION", "labels": 0, "r": 4},
        "scalar": {"task_type": "SEQ_CLS", "labels": 1, "r": 2},
    }
    return {
        name: save_adapter(foundation.folder, root / name, seed=i, **kind)
        for i, (name, kind) in enumerate(kinds.items())
    }

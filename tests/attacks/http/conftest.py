"""One server for the attacks over HTTP, and clients beside each attack, who lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from rootstock.service.settings import Settings
from tests.attacks.http.wire import HastyProtocol
from tests.faults.clients import Clients
from tests.live_server import RunningServer, run_server
from tests.service.engine.generate.families import make_decoder

# Names of this machine and of its neighbours in many spellings. Naming them must not open them.
MEDIA_HOSTS = (
    "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "::1", "::",
    "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::", "169.254.169.254", "10.0.0.1",
    "192.168.0.1", "100.64.0.1", "fd00::1", "fe80::1", "224.0.0.1", "255.255.255.255",
)  # fmt: skip


@pytest.fixture(scope="module")
def attacked(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server with the demo adapters and a tiny foundation that generates, `tiny-chat`."""
    tiny = make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat", max_position_embeddings=2048)
    settings = Settings(
        home=new_home(),
        foundations=f"default,{tiny.folder}",
        log_level="error",
        max_body_mb=1,
        max_bundle_mb=2,
        media_hosts=",".join(MEDIA_HOSTS),
    )
    with run_server(settings, protocol=HastyProtocol) as running:
        yield running


@pytest.fixture(scope="module")
def traffic(attacked: RunningServer) -> Iterator[Clients]:
    """Yield clients that ask the server without a pause and compare every answer."""
    with Clients(attacked.url, ("review-sentiment",), count=1) as clients:
        yield clients


@pytest.fixture(autouse=True)
def _nothing_lost(traffic: Clients) -> Iterator[None]:
    yield
    traffic.more(1)
    assert not traffic.failed
    assert not traffic.broken


@pytest.fixture(scope="module")
def attacker(attacked: RunningServer) -> Iterator[httpx.Client]:
    with attacked.client() as client:
        yield client

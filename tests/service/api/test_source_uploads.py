"""POST /v1/adapters with JSON: the server fetches an adapter from an address and verifies it as an upload."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import InvalidRequest
from rootstock.adapters.signing.signed_zip import signed_zip
from rootstock.adapters.signing.signing_key import SigningKey
from rootstock.adapters.sources.remote.remote_sources import RemoteSources
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from tests.fake_hub import COMMIT, REPO, run_hub
from tests.live_server import RunningServer
from tests.loopback_server import run_loopback
from tests.peft_adapters import PeftAdapter

DEMO = Path(__file__).parents[3] / "service" / "demo"
BUNDLE = (DEMO / "review-sentiment.zip").read_bytes()
HUB = f"hf://{REPO}@{COMMIT}"


class WebHost:
    """A web server's files by path, and the paths that were asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/mood.zip": BUNDLE}
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def web() -> Iterator[WebHost]:
    host = WebHost()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.asked.append(self.path)
            data = host.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            return

    with run_loopback(Handler) as url:
        host.url = url
        yield host


@pytest.fixture
def fetching(serve: Callable[..., RunningServer], web: WebHost) -> Callable[..., RunningServer]:
    """Return a function that starts a server which may fetch from the web host."""

    def start(**settings: Any) -> RunningServer:
        running = serve(**settings)
        server = running.app.state.server
        hosts = SourceHosts(trusted=[web.url.removeprefix("http://")])
        server.sources = RemoteSources(hosts, server.bundle_limits)
        server._views.clear()
        return running

    return start


def publish(client: httpx.Client, source: str, **fields: Any) -> httpx.Response:
    return client.post("/v1/adapters", json={"name": "mood", "source": source, **fields})


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_bundle_at_an_address_is_fetched_verified_and_published(
    fetching: Callable[..., RunningServer], web: WebHost
) -> None:
    digest = hashlib.sha256(BUNDLE).hexdigest()
    with fetching().client() as client:
        answer = publish(client, f"{web.url}/mood.zip#sha256={digest}", activate=False)
        assert answer.status_code == 201, answer.text
        verification = answer.json()["verification"]
        assert verification["golden"] == "passed"
        assert verification["source"] == f"{web.url}/mood.zip#sha256={digest}"
        shown = client.get("/v1/adapters/mood").json()
        assert (shown["live"], shown["versions"][0]["verification"]["source"]) == (None, verification["source"])
        assert publish(client, f"{web.url}/mood.zip").status_code == 200, "the same content is published already"
        asked = len(web.asked)
        got = client.post("/v1/predict", json={"model": "mood", "inputs": "Could not be happier."})
        assert got.json()["predictions"][0]["label"] == "positive"
        assert len(web.asked) == asked, "a prediction fetches nothing"


def test_a_folder_of_the_hub_is_published_with_the_fields_of_the_body(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = peft_saved["first"]
    labels = [f"label {i}" for i in range(adapter.labels)]
    with ExitStack() as stack:
        hub = stack.enter_context(run_hub(adapter.folder))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        running = serve(source_hosts="127.0.0.1")
        with running.client() as client:
            answer = publish(client, HUB, labels=labels)
            assert answer.status_code == 201, answer.text
            assert answer.json()["verification"]["source"] == HUB
            got = client.post("/v1/predict", json={"model": "mood", "inputs": "x"})
            assert got.json()["predictions"][0]["label"] in labels
        with Client(running.url) as rootstock:
            record = rootstock.publish_from(HUB, "again", labels=labels, activate=False)
            assert (record.version, record.created) == (1, True)
        words = ["publish-from", HUB, "--name", "third", "--labels", ",".join(labels)]
        result = CliRunner().invoke(app, words, env={"ROOTSTOCK_URL": running.url})
        assert result.exit_code == 0, result.output
        assert "third@1 is ready and live" in result.output


def test_a_fetched_adapter_needs_the_signature_of_a_trusted_key(
    fetching: Callable[..., RunningServer], web: WebHost
) -> None:
    key = SigningKey.generate()
    web.files["/signed.zip"] = signed_zip(BUNDLE, key, PlainFields())[0]
    with fetching(trusted_keys=f"release={key.public}").client() as client:
        assert code_of(publish(client, f"{web.url}/mood.zip")) == (422, "rejected_signature")
        answer = publish(client, f"{web.url}/signed.zip")
        assert answer.json()["verification"]["signature"]["signer"] == "release"


def test_a_source_that_fails_a_check_changes_nothing(
    fetching: Callable[..., RunningServer], web: WebHost
) -> None:
    web.files["/page.html"] = b"<html>"
    web.files["/large.zip"] = bytes(2 * 2**20)
    with fetching(max_bundle_mb=1).client() as client:
        assert code_of(publish(client, f"{web.url}/page.html")) == (422, "rejected_members")
        assert code_of(publish(client, f"{web.url}/large.zip")) == (422, "rejected_size")
        assert code_of(publish(client, f"{web.url}/none.zip")) == (422, "source_unavailable")
        wrong = f"{web.url}/mood.zip#sha256={'0' * 64}"
        assert code_of(publish(client, wrong)) == (422, "source_unavailable")
        assert client.get("/v1/adapters").json()["adapters"] == []


def test_what_is_not_allowed_is_refused_before_anything_is_fetched(
    fetching: Callable[..., RunningServer], web: WebHost
) -> None:
    with fetching().client() as client:
        assert code_of(publish(client, "https://models.example/a.zip")) == (403, "source_not_allowed")
        assert code_of(publish(client, "http://127.0.0.1:1/a.zip")) == (403, "source_not_allowed")
        assert code_of(publish(client, "file:///etc/passwd")) == (422, "invalid_source")
        assert code_of(publish(client, f"{web.url}/mood.zip", name="A name")) == (422, "invalid_name")
        assert code_of(publish(client, f"{web.url}/mood.zip", name="foundation")) == (422, "invalid_name")
        assert code_of(publish(client, f"{web.url}/mood.zip", labels=["a", ""])) == (422, "rejected_labels")
        assert code_of(publish(client, f"{web.url}/mood.zip", labels={"a": "b"})) == (422, "rejected_labels")
        assert code_of(publish(client, f"{web.url}/mood.zip", bundle="x")) == (422, "invalid_request")
        assert code_of(publish(client, f"{web.url}/mood.zip", activate="yes")) == (422, "invalid_request")
        assert code_of(client.post("/v1/adapters", json={"name": "mood"})) == (422, "invalid_request")
        assert code_of(client.post("/v1/adapters", json=["mood"])) == (422, "invalid_request")
        big = {"name": "mood", "source": "x" * 2**23}
        assert code_of(client.post("/v1/adapters", json=big)) == (413, "request_too_large")
    assert web.asked == []


def test_a_server_fetches_nothing_unless_its_operator_allows_it(
    serve: Callable[..., RunningServer], web: WebHost
) -> None:
    running = serve()
    with running.client() as client:
        answer = publish(client, f"{web.url}/mood.zip")
        assert code_of(answer) == (403, "source_not_allowed")
        assert "ROOTSTOCK_SOURCE_HOSTS" in answer.json()["error"]["message"]
    with Client(running.url) as rootstock, pytest.raises(Exception, match="ROOTSTOCK_SOURCE_HOSTS") as caught:
        rootstock.publish_from("s3://models/a.zip", "mood")
    assert not isinstance(caught.value, InvalidRequest) or caught.value.status == 403
    assert web.asked == []


@pytest.mark.parametrize("kind", ["text/plain", "application/zip", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_neither_json_nor_a_form_is_refused(kind: str, client: httpx.Client) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = client.post("/v1/adapters", content=b"PK", headers=headers)
    assert code_of(answer) == (415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"", b"{", b"\x80\x04K\x07.", b'{"name": NaN}', b"[" * 300])
def test_a_json_body_that_cannot_be_read_is_refused(body: bytes, client: httpx.Client) -> None:
    answer = client.post("/v1/adapters", content=body, headers={"Content-Type": "application/json"})
    assert code_of(answer) == (400, "invalid_json")

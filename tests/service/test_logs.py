"""The log is one JSON object a line, and each line that a request causes has the request's id."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rootstock.service.composition.server_parts import open_server
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.settings import Settings
from rootstock.service.telemetry.logs import configure_logs
from tests.bounds import HANG
from tests.e2e.test_serve import serving
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.serve_process import ROOTSTOCK, free_port

BODY = {"model": "foundation", "inputs": "Say what happened."}


def lines(captured: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.splitlines()]


def lines_until(capfd: pytest.CaptureFixture[str], event: str) -> list[dict[str, Any]]:
    """Return the lines of the request `find-me` up to this event. Its lines can follow its answer."""
    logged: list[dict[str, Any]] = []
    ends = time.monotonic() + HANG
    while event not in [line["event"] for line in logged if line["request_id"] == "find-me"]:
        assert time.monotonic() < ends, logged
        logged += lines(capfd.readouterr().err)
    return [line for line in logged if line["request_id"] == "find-me"]


def test_a_line_goes_to_the_stderr_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logs("info")
    replaced = io.StringIO()
    monkeypatch.setattr("sys.stderr", replaced)
    structlog.get_logger().info("written now")
    assert [line["event"] for line in lines(replaced.getvalue())] == ["written now"]


def test_what_the_server_and_libraries_log_about_a_request_is_json_with_its_id(
    serve: Callable[..., RunningServer],
    peft_saved: dict[str, PeftAdapter],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    running = serve(log_level="debug")
    engine, registry = running.app.state.server.foundations.first.engine, running.app.state.server.registry
    resolve = registry.resolve

    def resolve_and_warn(reference: str, *viewer: Any) -> Any:
        logging.getLogger("some.library").warning("slow look-up of %s", reference)
        return resolve(reference, *viewer)

    monkeypatch.setattr(registry, "resolve", resolve_and_warn)
    with running.client() as client:
        data = peft_saved["first"].zip()
        assert upload(client, "mood", data).status_code == 201
        digest = client.get("/v1/adapters/mood").json()["versions"][0]["digest"]
        engine.cache.drop(digest)
        running.app.state.server.foundations.first.catalog.store.path(digest).write_bytes(b"damaged")
        capfd.readouterr()
        body = {"models": ["mood", "foundation"], "inputs": "Say what happened."}
        answer = client.post("/v1/predict", json=body, headers={"X-Request-Id": "find-me"})
        assert [set(result) >= {"error"} for result in answer.json()["results"]] == [True, False]
        logged = lines_until(capfd, "request")
    assert [line["event"] for line in logged] == ["slow look-up of mood", "request failed", "request"]
    assert [line["level"] for line in logged] == ["warning", "error", "info"]
    assert logged[0]["logger"] == "some.library"
    assert (logged[-1]["route"], logged[-1]["status"]) == ("/v1/predict", 200)


def test_a_fault_of_the_runner_is_logged_with_what_the_runner_raised(
    serve: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve()

    def run(runner: OnnxRunner, batch: object) -> None:
        raise MemoryError("no room for the batch")

    monkeypatch.setattr(OnnxRunner, "run", run)
    with running.client() as client:
        answer = client.post("/v1/predict", json=BODY, headers={"X-Request-Id": "find-me"})
        assert answer.status_code == 500
    (line,) = lines(capfd.readouterr().err)
    assert (line["request_id"], line["code"]) == ("find-me", "runner_fault")
    assert [raised["exc_type"] for raised in line["exception"]] == ["RunnerFault", "MemoryError"]


def test_what_a_request_leaves_to_be_done_is_logged_with_its_id(
    serve: Callable[..., RunningServer],
    peft_saved: dict[str, PeftAdapter],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    running = serve(log_level="warning", pin="nobody")
    capfd.readouterr()
    with running.client() as client:
        files = {"bundle": ("mood.zip", peft_saved["first"].zip(), "application/zip")}
        headers = {"X-Request-Id": "find-me"}
        assert client.post("/v1/adapters", data={"name": "mood"}, files=files, headers=headers).status_code == 201
        (line,) = lines_until(capfd, "not pinned")
    assert line["reference"] == "nobody"


def test_a_traced_request_s_lines_have_the_trace_s_id(
    new_home: Callable[[], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    exporter = InMemorySpanExporter()
    settings = Settings(home=new_home(), demo=False)
    opened = partial(open_server, span_exporters=[exporter])
    with run_server(settings, opened) as running, running.client() as client:
        capfd.readouterr()
        client.post("/v1/predict", json=BODY, headers={"X-Request-Id": "find-me"})
        (line,) = lines_until(capfd, "request")
    traces = {f"{span.context.trace_id:032x}" for span in exporter.get_finished_spans()}
    assert {line["trace_id"]} == traces


@pytest.mark.parametrize(("level", "routes"), [("info", ["/v1/predict"]), ("debug", ["/readyz", "/v1/predict"])])
def test_a_request_is_one_line_at_info_and_a_health_check_one_at_debug(
    serve: Callable[..., RunningServer], capfd: pytest.CaptureFixture[str], level: str, routes: list[str]
) -> None:
    running = serve(log_level=level)
    headers = {"X-Request-Id": "find-me"}
    with running.client() as client:
        capfd.readouterr()
        # A connection's requests follow one another, so the line of the first is there before that of the last.
        assert client.get("/readyz", headers=headers).status_code == 200
        assert client.post("/v1/predict", json=BODY, headers=headers).status_code == 200
        logged: list[dict[str, Any]] = []
        ends = time.monotonic() + HANG
        while "/v1/predict" not in [line["route"] for line in logged]:
            assert time.monotonic() < ends, logged
            logged += lines(capfd.readouterr().err)
    assert [(line["route"], line["status"], line["method"]) for line in logged] == [
        (route, 200, "GET" if route == "/readyz" else "POST") for route in routes
    ]


@pytest.mark.parametrize("server", ["bentoml", "uvicorn"])
def test_stderr_of_a_server_holds_json_alone_once_it_is_ready(new_home: Callable[[], Path], server: str) -> None:
    with serving(new_home(), server, ROOTSTOCK_DEMO="false") as (process, client):
        client.post("/v1/predict", json=BODY, headers={"X-Request-Id": "find-me"})
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        logged = lines(process.stderr.read())
    assert [line["request_id"] for line in logged if line["event"] == "request"] == ["find-me"]


def test_an_exporter_that_is_not_installed_is_one_clear_line_and_exit_code_2(tmp_path: Path) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(tmp_path), "OTEL_TRACES_EXPORTER": "jaeger"}
    command = [ROOTSTOCK, "serve", "--port", str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'jaeger'" in line

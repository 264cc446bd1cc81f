"""Spans through the real app: who asked, what it resolved to, and where the time went."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rootstock.service.composition.server_parts import open_server
from rootstock.service.settings import Settings
from rootstock.service.telemetry.span_exporters import NoSuchExporter, find_exporters
from tests.live_server import run_server, upload
from tests.loopback_server import run_loopback
from tests.peft_adapters import PeftAdapter

ROOT = Path(__file__).parents[2]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
STAGES = ["load", "tokenize", "queue", "batch"]


class Spans:
    """The spans of a server that has ended: each name's, in order of their start."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def all(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def under(self, parent: ReadableSpan) -> list[ReadableSpan]:
        return [span for span in self.all() if span.parent and span.parent.span_id == parent.context.span_id]


Traced = Callable[[Spans], AbstractContextManager[httpx.Client]]


@pytest.fixture
def traced(new_home: Callable[[], Path]) -> Traced:
    @contextmanager
    def client(spans: Spans) -> Iterator[httpx.Client]:
        settings = Settings(home=new_home(), demo=False, log_level="error")
        opened = partial(open_server, span_exporters=[spans.exporter])
        with run_server(settings, opened) as running, running.client() as client:
            yield client

    return client


def test_a_request_s_spans_go_from_http_through_queue_and_batch_with_reference_and_digest(
    traced: Traced, peft_saved: dict[str, PeftAdapter]
) -> None:
    spans = Spans()
    with traced(spans) as client:
        upload(client, "mood", peft_saved["first"].zip())
        body = {"model": "mood@live", "inputs": ["one", "two words"]}
        answer = client.post("/v1/predict", json=body, headers={**TRACEPARENT, "X-Request-Id": "find-me"})
        assert answer.status_code == 200
    (http,) = spans.named("POST /v1/predict")
    assert (f"{http.context.trace_id:032x}", f"{http.parent.span_id:016x}") == (TRACE, PARENT)  # type: ignore[union-attr]
    assert http.kind is SpanKind.SERVER
    assert http.attributes["http.route"] == "/v1/predict"  # type: ignore[index]
    assert http.attributes["http.response.status_code"] == 200  # type: ignore[index]
    assert http.attributes["rootstock.request_id"] == "find-me"  # type: ignore[index]
    (whole,) = spans.under(http)
    parts = spans.under(whole)
    assert (whole.name, [span.name for span in parts]) == ("predict", STAGES)
    told = answer.json()
    for span in [whole, *parts]:
        known = dict(span.attributes or {})
        assert (known["rootstock.reference"], known["rootstock.name"]) == ("mood@live", "mood")
        assert (known["rootstock.version"], known["rootstock.digest"]) == (1, told["digest"])
    assert parts[-1].attributes["rootstock.batch.adapters"] == 1  # type: ignore[index]
    ends = [(span.start_time or 0, span.end_time or 0) for span in (http, whole, *parts)]
    assert all(http.start_time <= begun <= ended <= http.end_time for begun, ended in ends)  # type: ignore[operator]
    took = (parts[-1].end_time - parts[-1].start_time) / 1e6  # type: ignore[operator]
    assert took == pytest.approx(told["timings"]["inference_ms"], abs=0.01)


def test_each_reference_of_a_fan_out_has_its_spans_and_a_failure_is_marked(
    traced: Traced, peft_saved: dict[str, PeftAdapter]
) -> None:
    spans = Spans()
    with traced(spans) as client:
        upload(client, "mood", peft_saved["first"].zip())
        client.post("/v1/predict", json={"models": ["mood", "foundation"], "inputs": "Both."})
        client.post("/v1/predict", json={"model": "mood", "inputs": "Late.", "timeout": 1e-6})
    both, late = spans.named("POST /v1/predict")
    assert [s.attributes["rootstock.reference"] for s in spans.under(both)] == ["mood", "foundation"]  # type: ignore[index]
    assert late.status.status_code is StatusCode.ERROR
    (failed,) = spans.under(late)
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "deadline_exceeded"  # type: ignore[index]


def test_probes_and_scrapes_leave_no_spans_and_paths_do_not_become_names(
    traced: Traced,
) -> None:
    spans = Spans()
    with traced(spans) as client:
        for path in ("/livez", "/readyz", "/metrics", "/v1/adapters/nobody", "/nowhere"):
            client.get(path)
    assert [span.name for span in spans.all()] == ["GET /v1/adapters/{name}", "GET other"]


def test_a_caller_s_decision_not_to_sample_is_kept(
    traced: Traced,
) -> None:
    spans = Spans()
    with traced(spans) as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        body = {"model": "foundation", "inputs": "Unseen."}
        assert client.post("/v1/predict", json=body, headers=headers).status_code == 200
    assert spans.all() == []


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, []),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, []),
    ],
    ids=str,
)
def test_the_standard_variables_say_where_spans_go(environment: dict[str, str], names: list[str]) -> None:
    assert [found.name for found in find_exporters(environment)] == names


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "'jaeger'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'otlp_proto_grpc'"),
    ],
    ids=str,
)
def test_an_exporter_that_is_not_installed_is_refused_and_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(NoSuchExporter, match=named):
        find_exporters(environment)


def test_without_an_exporter_nothing_of_opentelemetry_s_sdk_is_loaded(new_home: Callable[[], Path]) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from rootstock.service.composition.server_parts import open_server
from rootstock.service.settings import Settings

async def opened():
    async with open_server(Settings(home=Path({str(new_home())!r}), demo=False)) as server:
        assert server.tracing is None

asyncio.run(opened())
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_spans_reach_a_collector_over_otlp(new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *told: object) -> None:
            pass

    with run_loopback(Collector) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        settings = Settings(home=new_home(), demo=False, log_level="error")
        with run_server(settings) as running, running.client() as client:
            client.post("/v1/predict", json={"model": "foundation", "inputs": "Over the wire."})
    resources = [spans for request in received for spans in request.resource_spans]
    names = {span.name for spans in resources for scope in spans.scope_spans for span in scope.spans}
    assert names == {"POST /v1/predict", "predict", *STAGES}
    attributes = {a.key: a.value.string_value for a in resources[0].resource.attributes}
    assert attributes["service.name"] == "rootstock"
    assert attributes["deployment.environment.name"] == "test"

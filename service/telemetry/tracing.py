"""The OpenTelemetry spans of a request: HTTP, and for each reference load, tokenize, queue and batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from rootstock.service.engine.core.answer import RequestRecord
from rootstock.service.engine.core.observer import Observer

_SERVICE = "rootstock"


class Tracing(Observer):
    """The spans of all requests, sent to these exporters.

    The middleware begins and ends the span of a request. The spans below it come from the times that the engine
    reports. The SDK reads the sampler, propagators and resource attributes from its standard variables.
    """

    def __init__(self, exporters: Sequence[SpanExporter]) -> None:
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_SERVICE)
        self._fields = {field.lower().encode("latin-1") for field in propagate.get_global_textmap().fields}

    def begin(self, scope: Mapping[str, Any], request_id: str) -> RequestSpan:
        """Begin the span of an HTTP request (ASGI's scope) as a child of the one that its `traceparent` names."""
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"] if k in self._fields}
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "rootstock.request_id": request_id,
        }
        span = self._tracer.start_span(
            scope["method"], propagate.extract(headers), SpanKind.SERVER, attributes=attributes
        )
        return RequestSpan(span, scope["method"], context.attach(trace.set_span_in_context(span)))

    def served(self, served: RequestRecord) -> None:
        """Record the stages of a reference as spans under the request's span.

        Call it from the task that handles the request.
        """
        parent = trace.get_current_span()
        if not parent.is_recording():
            return
        request, progress, resolved = served.request, served.request.progress, served.resolved
        attributes: dict[str, Any] = {
            "rootstock.reference": served.reference,
            "rootstock.name": resolved.name,
            "rootstock.version": resolved.version or 0,
            "rootstock.digest": resolved.digest,
            "rootstock.task": request.adapter.task,
        }
        if resolved.parts:
            attributes["rootstock.parts"] = [
                f"{part.weight:g}*{part.name}@{part.version}" for part in resolved.parts
            ]
        # The engine's clock has no fixed origin. Read the wall clock once, so that the spans fit together.
        wall = time.time_ns()

        def at(seconds: float) -> int:
            return wall - round((served.ended - seconds) * 1e9)

        whole = self._tracer.start_span(
            "predict",
            attributes={**attributes, "rootstock.tokens": progress.cost},
            start_time=at(request.arrived),
        )
        within = trace.set_span_in_context(whole)
        for name, begun, ended in _stages(served):
            part = self._tracer.start_span(name, within, attributes=attributes, start_time=at(begun))
            if name == "batch" and (batch := progress.batch) is not None:
                part.set_attributes(
                    {
                        "rootstock.batch.rows": batch.rows,
                        "rootstock.batch.adapters": batch.adapters,
                        "rootstock.batch.tokens": batch.tokens,
                        "rootstock.batch.padding": batch.padded - batch.tokens,
                    }
                )
            part.end(at(ended))
        if served.error is not None:
            whole.set_status(Status(StatusCode.ERROR, str(served.error)))
            whole.set_attribute("error.type", served.error.code)
        whole.end(wall)

    def close(self) -> None:
        """Send the remaining spans. This blocks: call it in a thread."""
        self._provider.shutdown()


class RequestSpan:
    """The span of an HTTP request, which is the current span until it ends."""

    def __init__(self, span: Span, method: str, token: Token[context.Context]) -> None:
        self._span = span
        self._method = method
        self._token = token

    @property
    def trace_id(self) -> str:
        """Return the trace id in hex, as in a `traceparent`."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def end(self, route: str, status: int) -> None:
        """End the span after the answer. Call it in the task that began the span."""
        context.detach(self._token)
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _stages(record: RequestRecord) -> list[tuple[str, float, float]]:
    """Return name, start and end of each stage that the request reached. `queue` ends with its first batch."""
    progress = record.request.progress
    stages = [("load", record.request.arrived, progress.ready)]
    if progress.prepared:
        stages.append(("tokenize", progress.preparing, progress.prepared))
        stages.append(("queue", progress.prepared, progress.started or record.ended))
    if progress.started is not None:
        stages.append(("batch", progress.started, progress.finished or record.ended))
    return stages


def _resource() -> Resource:
    """Return the resource that the environment describes, with the service name rootstock if it names none."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: _SERVICE}))
    return resource

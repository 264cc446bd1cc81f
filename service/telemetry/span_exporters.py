"""The exporters of spans, by OpenTelemetry's standard environment variables; nowhere unless they say so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

_GROUP = "opentelemetry_traces_exporter"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class NoSuchExporter(ValueError):
    """The environment names an exporter that is not installed."""


def find_exporters(environment: Mapping[str, str] = os.environ) -> list[EntryPoint]:
    """Return the exporters that OTEL_TRACES_EXPORTER names, none of them loaded; with an endpoint alone, OTLP.

    `otlp` is over HTTP unless OTEL_EXPORTER_OTLP_PROTOCOL says otherwise, as the specification has it. Empty for
    `none`, where OTEL_SDK_DISABLED is true, and where nothing is set. NoSuchExporter for one that no installed
    package brings.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    default = "otlp" if any(environment.get(name) for name in _ENDPOINTS) else "none"
    names = [name.strip() for name in (environment.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    return [_find(name, environment) for name in names if name not in ("", "none")]


def _find(name: str, environment: Mapping[str, str]) -> EntryPoint:
    wanted = name
    if name == "otlp":
        protocol = next(filter(None, map(environment.get, _PROTOCOLS)), "http/protobuf")
        wanted = "otlp_proto_" + {"http/protobuf": "http"}.get(protocol, protocol)
    for entry_point in entry_points(group=_GROUP, name=wanted):
        return entry_point
    known = sorted({"otlp" if e.name == "otlp_proto_http" else e.name for e in entry_points(group=_GROUP)})
    raise NoSuchExporter(
        f"spans cannot be exported: no installed package brings {wanted!r}, which the OTEL_* variables ask for; "
        f"there is {', '.join(known)}, and none for no spans"
    )

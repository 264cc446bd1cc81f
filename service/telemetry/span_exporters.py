"""The choice of span exporters by OpenTelemetry's environment variables; without them, none."""

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
    """Return the entry points of the exporters that OTEL_TRACES_EXPORTER names, without loading them.

    If only an endpoint is set, return OTLP's. `otlp` uses HTTP unless OTEL_EXPORTER_OTLP_PROTOCOL says otherwise,
    as the specification requires. The list is empty for `none`, if OTEL_SDK_DISABLED is true, and if no variable
    is set. Raise NoSuchExporter if no installed package has an exporter.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    default = "otlp" if any(environment.get(name) for name in _ENDPOINTS) else "none"
    names = [name.strip() for name in (environment.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    return [_find(name, environment) for name in names if name not in ("", "none")]


def _find(name: str, environment: Mapping[str, str]) -> EntryPoint:
    entry_name = name
    if name == "otlp":
        protocol = next(filter(None, map(environment.get, _PROTOCOLS)), "http/protobuf")
        entry_name = "otlp_proto_" + {"http/protobuf": "http"}.get(protocol, protocol)
    for entry_point in entry_points(group=_GROUP, name=entry_name):
        return entry_point
    known = sorted({"otlp" if e.name == "otlp_proto_http" else e.name for e in entry_points(group=_GROUP)})
    raise NoSuchExporter(
        f"no installed package has the span exporter {entry_name!r}, which the OTEL_* variables name; "
        f"change them to use one of {', '.join([*known, 'none'])}"
    )

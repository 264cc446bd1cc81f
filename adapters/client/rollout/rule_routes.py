"""The routes of shadows and rollback rules as calls: what each sends, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rootstock.adapters.client.exchange import HttpCall
from rootstock.adapters.client.records import ServerRecord
from rootstock.adapters.client.routes import reader_of
from rootstock.adapters.reference import check_name


@dataclass(frozen=True, kw_only=True)
class ShadowRecord(ServerRecord):
    """An adapter with its shadow, a `version` and a `percent`; None if it has none now."""

    name: str
    shadow: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class RuleRecord(ServerRecord):
    """An adapter with the limits of its rollback rule, by name; None if it has none now."""

    name: str
    rule: Mapping[str, Any] | None


def set_shadow(name: str, version: int, percent: float) -> HttpCall[ShadowRecord]:
    """Return the call that lets a version compute a share of live's requests too."""
    body = {"version": version, "percent": percent}
    return HttpCall("PUT", _path(name, "shadow"), reader_of(ShadowRecord.read), {"json": body})


def end_shadow(name: str) -> HttpCall[ShadowRecord]:
    """Return the call that ends the shadow of an adapter. It is not repeatable: the second time gives 404."""
    return HttpCall("DELETE", _path(name, "shadow"), reader_of(ShadowRecord.read), repeatable=False)


def set_rule(name: str, limits: Mapping[str, float | None]) -> HttpCall[RuleRecord]:
    """Return the call that sets the rollback rule of an adapter."""
    body = {limit: value for limit, value in limits.items() if value is not None}
    return HttpCall("PUT", _path(name, "rollback-rule"), reader_of(RuleRecord.read), {"json": body})


def rule(name: str) -> HttpCall[RuleRecord]:
    """Return the call that shows the rollback rule of an adapter."""
    return HttpCall("GET", _path(name, "rollback-rule"), reader_of(RuleRecord.read))


def remove_rule(name: str) -> HttpCall[RuleRecord]:
    """Return the call that removes the rollback rule. It is not repeatable: the second time gives 404."""
    return HttpCall("DELETE", _path(name, "rollback-rule"), reader_of(RuleRecord.read), repeatable=False)


def _path(name: str, part: str) -> str:
    return f"/v1/adapters/{quote(check_name(name), safe='')}/{part}"

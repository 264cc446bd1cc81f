"""The routes of splits as calls: what each sends, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping

from rootstock.adapters.client.exchange import HttpCall
from rootstock.adapters.client.records import AliasRecord, SplitRecord
from rootstock.adapters.client.routes import reader_of
from rootstock.adapters.reference import check_alias, check_name


def set_split(name: str, candidates: Mapping[int, float], alias: str) -> HttpCall[SplitRecord]:
    """Return the call that shares an alias's requests between versions."""
    body = {"candidates": {f"{version:d}": percent for version, percent in candidates.items()}}
    return HttpCall("PUT", _path(name, alias), reader_of(SplitRecord.read), {"json": body})


def end_split(name: str, alias: str) -> HttpCall[AliasRecord]:
    """Return the call that ends a split. It is not repeatable: the second time gives 404."""
    return HttpCall("DELETE", _path(name, alias), reader_of(AliasRecord.read), repeatable=False)


def _path(name: str, alias: str) -> str:
    return f"/v1/adapters/{check_name(name)}/aliases/{check_alias(alias)}/split"

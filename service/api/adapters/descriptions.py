"""The description of a version: its labels, its kind and sizes, its foundation, licence and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from rootstock.adapters.errors import CorruptBundle, MissingBundle
from rootstock.adapters.registry import AdapterDetail, VersionDetail
from rootstock.service.api.server import Server


class DescribedFoundation(BaseModel):
    """The foundation that a version was trained on.

    `id` is its name on this server, or null if this server does not have it.
    """

    name: str | None
    revision: str | None
    fingerprint: str | None
    id: str | None


class Description(BaseModel):
    """The content of a version's bundle without its weights. A field that the bundle does not state is null.

    `kind` is that of PEFT in lower case, or "dora"; null for a head alone. `head` is the kind of the head.
    `labels` are in the order of their ids. `max_length` is in tokens. `ranks` are the distinct ranks, ascending.
    `targets` names the modules of the foundation that the adapter changes. `parameters` counts the numbers in
    its tensors, the head's included. `evaluation` and `provenance` are as the trainer wrote them. `golden` tells
    whether the bundle has a golden set, and `card` whether it has a model card.
    """

    kind: str | None
    head: str | None
    labels: list[str] | None
    problem_type: str | None
    max_length: int | None
    ranks: list[int]
    targets: list[str]
    parameters: int
    base: DescribedFoundation
    licence: str | None
    provenance: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    golden: bool
    card: bool


def described_version(adapter: AdapterDetail) -> VersionDetail | None:
    """Return the version that describes an adapter: the live one, else the newest; None without versions."""
    live = (version for version in adapter.versions if version.version == adapter.live)
    return next(live, adapter.versions[-1] if adapter.versions else None)


def description_of(server: Server, detail: VersionDetail) -> Description | None:
    """Return the description of a version, or None if the store cannot read its bundle."""
    try:
        bundle = server.foundations.directory.catalog_of(detail.foundation).describe(detail.digest)
    except (MissingBundle, CorruptBundle):
        # The version's record must stay visible, so that someone can repair or delete it.
        return None
    manifest = bundle.manifest
    return Description(
        kind=bundle.kind,
        head=manifest.head.kind,
        labels=list(manifest.labels) or None,
        problem_type=manifest.problem_type,
        max_length=None if manifest.preprocessing is None else manifest.preprocessing.max_length,
        ranks=list(bundle.ranks),
        targets=list(manifest.targets),
        parameters=bundle.parameters,
        base=_foundation(server, detail, manifest.foundation),
        licence=manifest.license,
        provenance=dict(manifest.provenance) or None,
        evaluation=dict(manifest.evaluation) or None,
        golden=bundle.golden,
        card=bundle.card,
    )


def _foundation(server: Server, detail: VersionDetail, stated: Mapping[str, str | None]) -> DescribedFoundation:
    """Return the foundation. A plain PEFT folder states no fingerprint, but its version's record does."""
    host = server.foundations.directory.hosting(detail.foundation)
    return DescribedFoundation(
        name=stated["name"],
        revision=stated["revision"],
        fingerprint=stated["fingerprint"] or detail.foundation,
        id=None if host is None else host.name,
    )

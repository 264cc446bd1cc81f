"""What a reference means to the engine, and where adapters come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adapters.spec import Adapter, AdapterWeights, FoundationSpec, HeadSpec, Preprocessing

FOUNDATION = "foundation"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference meant when the request was admitted."""

    name: str
    version: int | None
    digest: str


class Catalog(Protocol):
    """Where adapters come from: names resolve to digests, digests load. Unknown ones raise its own errors."""

    def resolve(self, reference: str) -> Resolved: ...

    def load(self, digest: str) -> Adapter: ...


def foundation_adapter(spec: FoundationSpec) -> Adapter:
    """The foundation alone as an adapter without weights: it embeds; its digest is its fingerprint."""
    return Adapter(
        digest=spec.fingerprint,
        task="feature-extraction",
        problem_type=None,
        labels=(),
        head=HeadSpec("linear", pooling=spec.embedding.pooling, normalize=spec.embedding.normalize),
        preprocessing=Preprocessing(spec.embedding.max_tokens),
        weights=AdapterWeights({}, {}),
    )

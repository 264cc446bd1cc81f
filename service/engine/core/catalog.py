"""The meaning of a reference to the engine, and the source of adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rootstock.adapters.spec import (
    FILL_MASK,
    Adapter,
    AdapterWeights,
    FoundationSpec,
    HeadSpec,
    MaskedLM,
    Preprocessing,
)
from rootstock.service.engine.core.errors import WrongTask

FOUNDATION = "foundation"


@dataclass(frozen=True, slots=True)
class ResolvedReference:
    """The meaning of a reference when the request was admitted."""

    name: str
    version: int | None
    digest: str


class Catalog(Protocol):
    """The source of adapters: names resolve to digests, digests load. Unknown ones raise its own errors."""

    def resolve(self, reference: str) -> ResolvedReference: ...

    def load(self, digest: str) -> Adapter: ...


def foundation_adapter(spec: FoundationSpec) -> Adapter:
    """Return the foundation alone as an adapter without weights: it embeds; its digest is its fingerprint."""
    return Adapter(
        digest=spec.fingerprint,
        task="feature-extraction",
        problem_type=None,
        labels=(),
        head=HeadSpec("linear", pooling=spec.embedding.pooling, normalize=spec.embedding.normalize),
        preprocessing=Preprocessing(spec.embedding.max_tokens, prefix=spec.embedding.prefix),
        weights=AdapterWeights({}, {}),
    )


def fill_mask_adapter(spec: FoundationSpec, masked_lm: MaskedLM) -> Adapter:
    """Return the foundation with its language-model head as an adapter without weights, by the head's digest."""
    return Adapter(
        digest=masked_lm.digest,
        task=FILL_MASK,
        problem_type=None,
        labels=(),
        head=HeadSpec("masked-lm", masked_lm.class_name),
        preprocessing=Preprocessing(spec.max_tokens),
        weights=AdapterWeights({}, {}),
    )


def own_adapters(spec: FoundationSpec) -> dict[str, Adapter]:
    """Return what the foundation answers alone, by task (FoundationSpec.own_tasks)."""
    own = [foundation_adapter(spec)]
    if spec.masked_lm is not None:
        own.append(fill_mask_adapter(spec, spec.masked_lm))
    return {adapter.task: adapter for adapter in own}


def resolve_own(
    spec: FoundationSpec, own: Mapping[str, Adapter], task: str | None, reference: str = FOUNDATION
) -> ResolvedReference:
    """Resolve the foundation itself for a request of this task, or of none. Raise WrongTask for one it lacks."""
    tasks = spec.own_tasks
    if (adapter := own.get(task or tasks[0])) is None:
        lacks = f": the checkpoint of {spec.name} brings no masked-language-model head"
        raise WrongTask(reference, " and ".join(tasks), f"{task}{lacks if task == FILL_MASK else ''}")
    return ResolvedReference(reference, None, adapter.digest)

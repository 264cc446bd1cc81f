"""Define the engine's source of adapters, and resolve references to the foundation itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rootstock.adapters.language_model import LanguageModel
from rootstock.adapters.spec import (
    EMBEDDING,
    FILL_MASK,
    Adapter,
    AdapterWeights,
    FoundationSpec,
    HeadSpec,
    MaskedLM,
    Preprocessing,
)
from rootstock.service.engine.core.composition import Composition, Wanted
from rootstock.service.engine.core.errors import WrongTask

FOUNDATION = "foundation"
# The name of every composition. No adapter can have it.
COMPOSITION = "(composition)"


@dataclass(frozen=True, slots=True)
class ResolvedPart:
    """A part of a composition: the reference of the request, what it meant, and the factor of its updates.

    `answers` tells whether the composition has this part's head.
    """

    reference: str
    name: str
    version: int
    digest: str
    weight: float
    answers: bool


@dataclass(frozen=True, slots=True)
class ResolvedReference:
    """The version and digest that a reference meant when the request was admitted.

    `parts` are those of a composition, and `composition` is to be made of them. It is None for an adapter itself,
    which is also a composition of one part with the weight 1.
    """

    name: str
    version: int | None
    digest: str
    parts: tuple[ResolvedPart, ...] = ()
    composition: Composition | None = None

    @property
    def wanted(self) -> Wanted:
        """Return what the engine has to have in memory: the composition, or the adapter by its digest."""
        return self.composition or self.digest

    @property
    def flow(self) -> str:
        """Return the name under which its work takes turns: one for all compositions, else the digest.

        A client could vary the weights of a composition without end.
        """
        return self.digest if self.composition is None else COMPOSITION


class Catalog(Protocol):
    """The source of adapters: it resolves references to digests and loads digests.

    It raises its own errors for a reference or a digest that it does not know.
    """

    def resolve(self, reference: str) -> ResolvedReference: ...

    def load(self, digest: str) -> Adapter: ...


def foundation_adapter(spec: FoundationSpec) -> Adapter:
    """Return the bare foundation as an adapter without weights, for embeddings. Its digest is the fingerprint."""
    head = HeadSpec("linear", pooling=spec.embedding.pooling, normalize=spec.embedding.normalize)
    preprocessing = Preprocessing(spec.embedding.max_tokens, prefix=spec.embedding.prefix)
    return _without_weights(spec.fingerprint, EMBEDDING[spec.modality], head, preprocessing)


def fill_mask_adapter(spec: FoundationSpec, masked_lm: MaskedLM) -> Adapter:
    """Return the foundation with its masked-language-model head as an adapter without weights.

    Its digest is the head's (`MaskedLM.digest`).
    """
    head = HeadSpec("masked-lm", masked_lm.class_name)
    return _without_weights(masked_lm.digest, FILL_MASK, head, Preprocessing(spec.max_tokens))


def generation_adapter(spec: FoundationSpec, language: LanguageModel) -> Adapter:
    """Return the foundation with its language-model head as an adapter without weights.

    Its digest is the head's (`LanguageModel.digest`).
    """
    head = HeadSpec("causal-lm" if spec.seq2seq_lm is None else "seq2seq-lm", language.class_name)
    return _without_weights(language.digest, spec.own_tasks[0], head, Preprocessing(spec.max_tokens))


def _without_weights(digest: str, task: str, head: HeadSpec, preprocessing: Preprocessing) -> Adapter:
    return Adapter(digest, task, None, (), head, preprocessing, AdapterWeights({}, {}))


def own_adapters(spec: FoundationSpec) -> dict[str, Adapter]:
    """Return the foundation's own adapters for one pass, by task; the first is the default."""
    own = [foundation_adapter(spec)]
    if spec.masked_lm is not None:
        own.append(fill_mask_adapter(spec, spec.masked_lm))
    return {adapter.task: adapter for adapter in own}


def resolve_own(
    spec: FoundationSpec, own: Mapping[str, Adapter], task: str | None, reference: str = FOUNDATION
) -> ResolvedReference:
    """Resolve the foundation itself for a task, by default the first of `own`. Raise WrongTask for another."""
    task = task or next(iter(own))
    if (adapter := own.get(task)) is None:
        reason = f"the checkpoint of {spec.name} has no masked-language-model head" if task == FILL_MASK else ""
        raise WrongTask(reference, " and ".join(spec.own_tasks), task, reason)
    return ResolvedReference(reference, None, adapter.digest)

"""The part that the decoders on torch have in common: adapters in slots, and the layout of a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch

from rootstock.adapters.spec import Adapter, Array, FoundationSpec
from rootstock.service.engine.generate.decoder import KvCache, Segment
from rootstock.service.engine.runners.decoder.adapter_mix import AdapterMix
from rootstock.service.engine.runners.decoder.attention import Span
from rootstock.service.engine.runners.decoder.changes.token_rows import TokenRows, stage_rows
from rootstock.service.engine.runners.decoder.kv_rows import KvPlace
from rootstock.service.engine.runners.decoder.packed_pass import PackedPart, PackedPass
from rootstock.service.engine.runners.decoder.self_check import CHECK_ROOM, check_passes
from rootstock.service.engine.runners.decoder.site_group import SiteGroup
from rootstock.service.engine.runners.decoder.updates import TensorUpdate, stage_updates
from rootstock.service.engine.runners.torch_cores import TorchCores


class PlacedCache(KvCache, Protocol):
    """A cache that tells where a row's keys and values lie."""

    def __getitem__(self, row: int) -> KvPlace: ...


C = TypeVar("C", bound=PlacedCache)


class StagedTensors(NamedTuple):
    """An adapter as tensors: its updates, by the names of their groups, and its tokens' rows."""

    updates: Mapping[str, TensorUpdate]
    rows: TokenRows | None = None


class PackedDecoder(ABC, Generic[C]):
    """A decoder (generate.decoder.Decoder) whose passes are packed, on a CPU."""

    name = "torch"
    precision: str
    dtype: torch.dtype
    groups: Sequence[SiteGroup]
    cache: C

    def __init__(self, spec: FoundationSpec, slots: int, threads: int | None) -> None:
        """Begin to load: from now on, the calling thread computes on one core."""
        self.spec = spec
        self.slots = slots
        self.cores = TorchCores(threads)
        self._mix = AdapterMix(spec.norms)

    def warm(self, adapter: Adapter) -> None:
        """Do nothing, because every adapter uses the foundation's head."""

    def stage(self, adapter: Adapter) -> StagedTensors:
        """Return the adapter as tensors."""
        weights = adapter.weights
        updates = stage_updates(weights.sites, self.groups, self.dtype)
        return StagedTensors(updates, stage_rows(weights, self.dtype))

    def place(self, slot: int, staged: StagedTensors) -> None:
        """Put a staged adapter into a slot."""
        self._mix.place(slot, *staged)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._mix.clear(slot)

    def run(self, segments: Sequence[Segment]) -> Array:
        """Return the logits after the last token of each segment: (segments, vocabulary) fp32."""
        self.cores.use()
        return self._logits(segments)

    @abstractmethod
    def _logits(self, segments: Sequence[Segment]) -> Array: ...

    def _pass(self, segments: Sequence[Segment]) -> tuple[PackedPass, list[Span]]:
        """Return the layout of the segments' tokens, and a span of each segment."""
        parts = [PackedPart(segment.slot, segment.tokens, segment.start) for segment in segments]
        tokens = PackedPass(parts, self._mix, decodes=all(len(part.tokens) == 1 for part in parts))
        spans = [
            Span(self.cache[segment.row], first, end, segment.start)
            for segment, (first, end) in zip(segments, tokens.bounds, strict=True)
        ]
        return tokens, spans

    def _open_cache(
        self,
        make: Callable[[int], C],
        tokens: int,
        texts: Sequence[Sequence[int]],
        expected: Sequence[Array],
        sources: Sequence[Sequence[int]] = ((), ()),
    ) -> None:
        """Make the cache for so many tokens, after a check of the passes on a small one.

        Raise WrongPasses if a pass does not give the logits of transformers' own forward, `expected`.
        """
        self.cache = make(CHECK_ROOM)
        self.place(0, StagedTensors({}))
        check_passes(self._logits, self.cache, texts, expected, self.precision, sources)
        self.clear(0)
        self.cache = make(tokens)

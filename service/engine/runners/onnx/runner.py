"""Run batches on ONNX Runtime without importing torch: the trunk is one graph, and adapters are its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.spec import Adapter, Array
from rootstock.adapters.vocabulary.words import WordTable, within
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.linear_head import at_masks, linear_head, pool
from rootstock.service.engine.runners.onnx.sessions import OnnxTrunk, Sessions
from rootstock.service.engine.runners.onnx.stack import Stack
from rootstock.service.engine.runners.onnx.trunk_cache import TrunkCache, TrunkOutput
from rootstock.service.engine.runners.sharing import SharingPlan, share

# Gathering states before each layer costs time too. Below this share of saved work, rows do not share states.
_WORTH_SHARING = 0.1
# More tokens than any input has.
_ALL = 2**31


@dataclass(frozen=True)
class _StagedOnnx:
    """An adapter with its graphs open. `depth` is the number of layers that it leaves unchanged."""

    adapter: Adapter
    trunk: OnnxTrunk
    depth: int
    reads: frozenset[str]
    first_token: bool


@dataclass(frozen=True)
class _Work:
    """The states that the trunk computes: their inputs and slots, and the state of each row.

    `plan` shares the lower layers between them, if it is worth its cost.
    """

    inputs: Sequence[int]
    slots: Sequence[int | None]
    states: Sequence[int]
    plan: SharingPlan | None = None


class OnnxRunner:
    """A runner of an exported foundation (see export.export). A slot holds references to its adapter's arrays.

    At each site, a batch's updates are stacked with r the largest rank at that site in that batch. A batch
    therefore pays for its own ranks, not for other resident adapters. Rows of one input share the layers that
    their adapters leave unchanged. If every head of a batch reads only the first token, the last layer computes
    only it.
    """

    name = "onnx"

    def __init__(self, folder: Path, slots: int, threads: int, cache_bytes: int = 0) -> None:
        """Open an export. Keep at most `cache_bytes` of the bare trunk's outputs, for inputs that come again."""
        self._sessions = Sessions(folder, threads)
        self.spec = self._sessions.spec
        self.precision = self._sessions.precision
        self.slots = slots
        self._stack = Stack(self.spec)
        self._placed: dict[int, _StagedOnnx] = {}
        self._layer_of = {name: self.spec.layer_of(name) for name in [*self.spec.sites, *self.spec.norms]}
        self._cache = TrunkCache(cache_bytes) if cache_bytes else None

    def warm(self, adapter: Adapter) -> None:
        """Open the graphs that the adapter needs. Any thread may call it."""
        self.stage(adapter)

    def stage(self, adapter: Adapter) -> _StagedOnnx:
        """Return the adapter with its graphs open."""
        trunk = self._sessions.trunk_for(adapter.weights)
        self._sessions.trunk(trunk.name)
        head = adapter.head
        if head.class_name is not None:
            opened = self._sessions.head(head.class_name)
            reads = frozenset(opened.inputs) & {"hidden", "pooled"}
            first_token = opened.first_token
        else:
            reads = frozenset({"pooled" if head.pooling == "pooler" else "hidden"})
            first_token = self._sessions.sequence and head.pooling in ("cls", "pooler")
        return _StagedOnnx(adapter, trunk, self.spec.unchanged(adapter.weights), reads, first_token)

    def place(self, slot: int, staged: _StagedOnnx) -> None:
        """Put a staged adapter into a slot."""
        self._placed[slot] = staged

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._placed.pop(slot, None)

    def run(self, batch: Batch) -> list[Array]:
        """Return the raw head output of each row, in the shapes of batch.Encoder."""
        staged = {slot: self._placed[slot] for slot in batch.slots}
        if self._cache is not None:
            return self._run_cached(batch, staged, self._cache)
        work = self._work(batch, staged)
        return self._run_heads(batch, work, staged, self._run_trunk(batch, work, staged))

    def _run_cached(self, batch: Batch, staged: Mapping[int, _StagedOnnx], cache: TrunkCache) -> list[Array]:
        """Return what `run` does, but answer rows of adapters with only a head from the cache.

        Keep new outputs.
        """
        kept: dict[int, TrunkOutput] = {}
        for row, (slot, source) in enumerate(zip(batch.slots, batch.inputs, strict=True)):
            one = staged[slot]
            if one.depth > self.spec.layers:
                output = cache.find(self._key(batch, source), one.reads, one.first_token)
                if output is not None:
                    kept[row] = output
        results: dict[int, Array] = {}
        rest = [row for row in range(len(batch.slots)) if row not in kept]
        if rest:
            part = batch.only(rest)
            work = self._work(part, staged)
            own = {slot: staged[slot] for slot in part.slots}
            outputs = self._run_trunk(part, work, own)
            results |= zip(rest, self._run_heads(part, work, own, outputs), strict=True)
            self._keep(part, work, own, outputs, cache)
        for row, output in kept.items():
            alone = batch.only([row]).trimmed()
            arrays = {name: array[None] for name, array in output.arrays.items()}
            results[row] = self._run_head(staged[batch.slots[row]], arrays, alone, [0])[0]
        return [results[row] for row in range(len(batch.slots))]

    def _keep(
        self,
        batch: Batch,
        work: _Work,
        staged: Mapping[int, _StagedOnnx],
        outputs: Mapping[str, Array],
        cache: TrunkCache,
    ) -> None:
        first_token = all(one.first_token for one in staged.values())
        for state, (source, slot) in enumerate(zip(work.inputs, work.slots, strict=True)):
            if slot is None or staged[slot].depth > self.spec.layers:
                # Only texts are padded to a common length.
                tokens = batch.lengths[source] if batch.samples.ragged and not first_token else None
                arrays = {
                    n: (a[state, :tokens] if n == "hidden" else a[state]).copy() for n, a in outputs.items()
                }
                cache.put(self._key(batch, source), TrunkOutput(arrays, first_token))

    def _key(self, batch: Batch, source: int) -> tuple[str, bytes]:
        length = batch.lengths[source]
        ragged = batch.samples.ragged
        parts = (a[source, :length] if n in ragged else a[source] for n, a in batch.arrays.items())
        key = b"".join(part.tobytes() for part in parts)
        # An image is a thousand times as large as a text.
        return self.spec.fingerprint, key if self.spec.modality == "text" else blake2b(key).digest()

    def _work(self, batch: Batch, staged: Mapping[int, _StagedOnnx]) -> _Work:
        if len(batch.lengths) == len(batch.inputs):
            return _Work(batch.inputs, batch.slots, range(len(batch.inputs)))
        depths = {slot: one.depth for slot, one in staged.items()}
        plan = share(batch.inputs, batch.slots, depths, self.spec.layers)
        mapped = self._sessions.mapped(self._largest(staged.values()))
        worth = mapped is not None and plan.saving > _WORTH_SHARING
        return _Work(plan.inputs, plan.levels[-1].slots, plan.states, plan if worth else None)

    def _largest(self, staged: Iterable[_StagedOnnx]) -> OnnxTrunk:
        trunks = self._sessions.trunks
        return trunks[max(trunks.index(one.trunk) for one in staged)]

    def _run_trunk(self, batch: Batch, work: _Work, staged: Mapping[int, _StagedOnnx]) -> dict[str, Array]:
        trunk = self._largest(staged.values())
        first_states = work.inputs
        if work.plan is not None:
            trunk = self._sessions.mapped(trunk) or trunk
            first_states = work.plan.levels[0].parents
        feeds = self._own_inputs(batch, first_states)
        first_token = all(one.first_token for one in staged.values())
        # Only texts have a length in tokens.
        kept = 1 if first_token else batch.longest if batch.samples.ragged else _ALL
        feeds["kept"] = np.array([kept], np.int64)
        feeds |= self._updates(trunk, work, staged)
        if trunk.full and self.spec.words is not None:
            feeds |= self._words(feeds["input_ids"], work, staged, self.spec.words)
        if trunk.mapped:
            feeds |= self._maps(work)
        session = self._sessions.trunk(trunk.name)
        read = frozenset[str]().union(*(one.reads for one in staged.values()))
        names = [output.name for output in session.get_outputs() if output.name in read]
        inputs = self._sessions.inputs(trunk.name)
        feeds = {name: array for name, array in feeds.items() if name in inputs}
        return dict(zip(names, session.run(names, feeds), strict=True))

    def _own_inputs(self, batch: Batch, inputs: Sequence[int]) -> dict[str, Any]:
        arrays = batch.arrays
        chosen = None if list(inputs) == list(range(len(batch.lengths))) else list(inputs)
        return {name: arrays[name] if chosen is None else arrays[name][chosen] for name in self.spec.inputs}

    def _words(
        self, tokens: Any, work: _Work, staged: Mapping[int, _StagedOnnx], table: WordTable
    ) -> dict[str, Any]:
        """Return the word embedding's changes, and the tokens as the trunk's table has them."""
        slots = work.slots if work.plan is None else work.plan.levels[0].slots
        rows = [None if slot is None else staged[slot].adapter.weights.words for slot in slots]
        inside = {} if not any(rows) else {"input_ids": within(tokens, table)}
        return inside | self._stack.words(rows, tokens)

    def _updates(self, trunk: OnnxTrunk, work: _Work, staged: Mapping[int, _StagedOnnx]) -> dict[str, Array]:
        feeds: dict[str, Array] = {}
        for site in trunk.sites:
            updates = self._at(site, work, staged)
            feeds |= self._stack.low_rank(site, updates)
            if trunk.full:
                feeds |= self._stack.scales(site, updates)
        if trunk.full:
            for norm in self.spec.norms:
                feeds |= self._stack.norm(norm, self._at(norm, work, staged))
        return feeds

    def _at(self, name: str, work: _Work, staged: Mapping[int, _StagedOnnx]) -> list[Any]:
        """Return the update of each state at a module, or a single one if all states have the same slot."""
        slots = work.slots if work.plan is None else work.plan.levels[self._layer_of[name]].slots
        updates = {
            slot: None if slot is None else staged[slot].adapter.weights.sites.get(name)
            for slot in dict.fromkeys(slots)
        }
        return list(updates.values()) if len(updates) == 1 else [updates[slot] for slot in slots]

    def _maps(self, work: _Work) -> dict[str, Any]:
        layers = self.spec.layers
        feeds = {}
        for layer in range(1, layers + 1):
            if work.plan is None:
                parents = roots = np.arange(len(work.inputs))
            else:
                level = work.plan.levels[layer]
                parents, roots = np.array(level.parents), np.array(level.roots)
            feeds[f"parents.{layer}"] = parents
            if layer < layers:
                feeds[f"roots.{layer}"] = roots
        return feeds

    def _run_heads(
        self, batch: Batch, work: _Work, staged: Mapping[int, _StagedOnnx], outputs: Mapping[str, Array]
    ) -> list[Array]:
        """Return each row's raw output. Each adapter's head runs once, over its own states."""
        places: dict[int, dict[int, int]] = {slot: {} for slot in staged}
        rows = list(zip(batch.slots, work.states, strict=True))
        at = [places[slot].setdefault(state, len(places[slot])) for slot, state in rows]
        raw: dict[int, list[Array]] = {}
        for slot, states in places.items():
            chosen = list(states)
            whole = chosen == list(range(len(work.inputs)))
            own = outputs if whole else {name: value[chosen] for name, value in outputs.items()}
            sources = [work.inputs[state] for state in chosen]
            raw[slot] = self._run_head(staged[slot], own, batch, sources)
        results = []
        for row, slot in enumerate(batch.slots):
            value = raw[slot][at[row]]
            results.append(value[: batch.lengths[batch.inputs[row]]] if value.ndim > 1 else value)
        return results

    def _run_head(
        self, staged: _StagedOnnx, outputs: Mapping[str, Array], batch: Batch, sources: Sequence[int]
    ) -> list[Array]:
        """Return the raw output of each state in `outputs`. `sources` holds the input of each state."""
        adapter = staged.adapter
        mask = batch.arrays["attention_mask"][sources] if "attention_mask" in batch.arrays else None
        if adapter.head.class_name is None:
            vectors = pool(outputs.get("hidden"), outputs.get("pooled"), mask, adapter.head.pooling)
            return list(linear_head(vectors, adapter))
        head = self._sessions.head(adapter.head.class_name)
        if adapter.head.kind == "masked-lm" and self.spec.masked_lm is not None and mask is not None:
            # Select the masks before the head, because logits of every token would be (rows, tokens, vocabulary).
            masks = at_masks(batch.arrays["input_ids"][sources], mask, self.spec.masked_lm.mask_id)
            logits = head.session.run(None, {"hidden": outputs["hidden"][masks]})[0]
            return np.split(logits, masks.sum(axis=1).cumsum()[:-1])
        feeds = {**adapter.weights.head, **outputs, "attention_mask": mask}
        return list(head.session.run(None, {name: feeds[name] for name in head.inputs})[0])

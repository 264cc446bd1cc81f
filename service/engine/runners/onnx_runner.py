"""Batches on ONNX Runtime: one trunk graph, adapters as its inputs. Imports no torch."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort

from adapters.spec import Adapter, Array, FoundationSpec, SiteUpdate
from service.engine.batch import Batch
from service.engine.runners.heads import linear_head, pool

Key = TypeVar("Key", int, str)
# Numbers (1 MiB in fp32): enough for 32 rows of rank 16 at a site of width 512.
_MAX_BUFFER = 2**18


@dataclass(frozen=True)
class _Staged:
    """An adapter as this runner feeds it. `variant` is the smallest trunk graph that holds its sites."""

    adapter: Adapter
    variant: int
    head: str | None


class OnnxRunner:
    """Runs an exported foundation (see onnx_export). A slot holds references to its adapter's arrays.

    For each batch, the rows' updates at each site are stacked to (rows, r, …) with r the largest rank of that
    site in that batch: a batch pays for its own ranks, not for what else is resident. Where one adapter serves
    the whole batch its arrays are fed as they are, and broadcast.
    """

    name = "onnx"
    precision = "fp32"

    def __init__(self, folder: Path, slots: int, threads: int) -> None:
        content = json.loads((folder / "foundation.json").read_text(encoding="utf-8"))
        self.spec = FoundationSpec.from_json(content["spec"])
        self.slots = slots
        self._folder = folder
        self._threads = threads
        self._variants = [(name, frozenset(sites)) for name, sites in content["variants"].items()]
        self._trunks: dict[int, ort.InferenceSession] = {}
        self._heads: dict[str, ort.InferenceSession] = {}
        self._placed: dict[int, _Staged] = {}
        self._buffers: dict[str, Array] = {}
        self._opening = threading.Lock()
        self._nothing = {
            site: (np.zeros((1, 0, i), np.float32), np.zeros((1, 0, o), np.float32))
            for site, (i, o) in self.spec.sites.items()
        }

    def warm(self, adapter: Adapter) -> None:
        """Open the graphs that the adapter needs; safe in any thread."""
        self.stage(adapter)

    def stage(self, adapter: Adapter) -> _Staged:
        """The adapter with its graphs open."""
        sites = adapter.weights.sites.keys()
        variant = next(i for i, (_, held) in enumerate(self._variants) if sites <= held)
        self._trunk(variant)
        if adapter.head.kind == "hf" and adapter.head.class_name:
            self._head(adapter.head.class_name)
        return _Staged(adapter, variant, adapter.head.class_name)

    def place(self, slot: int, staged: _Staged) -> None:
        """Put a staged adapter into a slot."""
        self._placed[slot] = staged

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._placed.pop(slot, None)

    def run(self, batch: Batch) -> list[Array]:
        """The raw head output of each row; see batch.Runner."""
        rows = [self._placed[slot] for slot in batch.slots]
        groups: dict[int, list[int]] = {}
        for i, slot in enumerate(batch.slots):
            groups.setdefault(slot, []).append(i)
        variant = max(row.variant for row in rows)
        feeds: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        expanded = list(batch.inputs)
        feeds = {name: feeds[name][expanded] for name in self.spec.inputs}
        distinct = rows[:1] if len(groups) == 1 else rows
        for site in self._variants[variant][1]:
            feeds[f"{site}.A"], feeds[f"{site}.B"] = self._stack(site, distinct)
        trunk = self._trunk(variant)
        wanted = self._wanted([self._placed[slot] for slot in groups], trunk)
        outputs = dict(zip(wanted, trunk.run(wanted, feeds), strict=True))
        return self._run_heads(batch, groups, outputs)

    def _stack(self, site: str, rows: Sequence[_Staged]) -> tuple[Array, Array]:
        pairs = [row.adapter.weights.sites.get(site) for row in rows]
        ranks = [0 if pair is None else pair.rank for pair in pairs]
        rank = max(ranks)
        if rank == 0:
            return self._nothing[site]
        if len(pairs) == 1 and pairs[0] is not None:
            return pairs[0].a[None], pairs[0].b[None]
        width_in, width_out = self.spec.sites[site]
        a = self._buffer(f"{site}.A", len(rows), rank, width_in)
        b = self._buffer(f"{site}.B", len(rows), rank, width_out)
        if min(ranks) == rank:
            whole = [pair for pair in pairs if pair is not None]
            np.concatenate([pair.a for pair in whole], out=a.reshape(-1, width_in))
            np.concatenate([pair.b for pair in whole], out=b.reshape(-1, width_out))
        else:
            _pad_ranks(pairs, a, b)
        return a, b

    def _buffer(self, name: str, *shape: int) -> Array:
        """An array to fill for the next run, kept up to a size: fresh memory costs more than the copy."""
        size = math.prod(shape)
        if size > _MAX_BUFFER:
            return np.empty(shape, np.float32)
        kept = self._buffers.get(name)
        if kept is None or kept.size < size:
            kept = self._buffers[name] = np.empty(size, np.float32)
        return kept[:size].reshape(shape)

    def _wanted(self, staged: list[_Staged], trunk: ort.InferenceSession) -> list[str]:
        """The trunk's outputs that some head of the batch reads: what is not asked for is not copied out."""
        wanted = set()
        for one in staged:
            if one.head is None:
                wanted.add("pooled" if one.adapter.head.pooling == "pooler" else "hidden")
            else:
                wanted |= {i.name for i in self._head(one.head).get_inputs()} & {"hidden", "pooled"}
        return [o.name for o in trunk.get_outputs() if o.name in wanted]

    def _run_heads(self, batch: Batch, groups: dict[int, list[int]], outputs: dict[str, Array]) -> list[Array]:
        results: list[Array] = [np.empty(0, np.float32)] * len(batch.slots)
        for slot, rows in groups.items():
            staged = self._placed[slot]
            mine = outputs if len(groups) == 1 else {name: value[rows] for name, value in outputs.items()}
            if staged.head is None:
                mask = batch.attention_mask[[batch.inputs[r] for r in rows]]
                vectors = pool(mine.get("hidden"), mine.get("pooled"), mask, staged.adapter.head.pooling)
                raw = linear_head(vectors, staged.adapter)
            else:
                raw = self._run_head(staged, mine)
            per_token = staged.adapter.task == "token-classification"
            for row, value in zip(rows, raw, strict=True):
                results[row] = value[: batch.lengths[batch.inputs[row]]] if per_token else value
        return results

    def _run_head(self, staged: _Staged, outputs: dict[str, Array]) -> Array:
        session = self._head(staged.head or "")
        weights = staged.adapter.weights.head
        feeds = {i.name: outputs.get(i.name, weights.get(i.name)) for i in session.get_inputs()}
        logits: Array = session.run(None, feeds)[0]
        return logits

    def _trunk(self, variant: int) -> ort.InferenceSession:
        return self._session(self._trunks, variant, f"trunk-{self._variants[variant][0]}.onnx", self._threads)

    def _head(self, class_name: str) -> ort.InferenceSession:
        # One thread: a head is a small product, and a pool of its own would compete with the trunk's.
        return self._session(self._heads, class_name, f"head-{class_name}.onnx", 1)

    def _session(self, opened: dict[Key, ort.InferenceSession], key: Key, file: str, threads: int) -> Any:
        if key not in opened:
            with self._opening:
                if key not in opened:
                    path = str(self._folder / file)
                    opened[key] = ort.InferenceSession(
                        path, _options(threads), providers=["CPUExecutionProvider"]
                    )
        return opened[key]


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _pad_ranks(pairs: Sequence[SiteUpdate | None], a: Array, b: Array) -> None:
    """Stack updates of different ranks; the rows beyond an update's rank are zero and add nothing."""
    a.fill(0)
    b.fill(0)
    for i, pair in enumerate(pairs):
        if pair is not None:
            a[i, : pair.rank] = pair.a
            b[i, : pair.rank] = pair.b

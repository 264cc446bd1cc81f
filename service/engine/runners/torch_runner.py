"""Batches on torch: any foundation that transformers loads, on CUDA where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from adapters.spec import Adapter, Array, FoundationSpec
from service.engine.batch import Batch
from service.engine.runners.heads import linear_head, pool
from service.engine.runners.hf import graft_sites, head_model, load_trunk


@dataclass(frozen=True)
class _Staged:
    """An adapter on the device: a pair of tensors a site, and the head's tensors."""

    adapter: Adapter
    sites: dict[str, tuple[Tensor, Tensor]]
    head: dict[str, Tensor]


class TorchRunner:
    """Runs a foundation in torch, fp32, its sites grafted in place.

    For each batch, the rows' updates at each site are stacked to the largest rank of that site in that batch.
    """

    name = "torch"
    precision = "fp32"

    def __init__(
        self,
        folder: Path,
        spec: FoundationSpec,
        slots: int,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.spec = spec
        self.slots = slots
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        trunk = load_trunk(folder, "sdpa")
        self._sites = graft_sites(trunk, spec.sites)
        self._trunk = trunk.to(self.device)
        self._folder = folder
        self._heads: dict[str, nn.Module] = {}
        self._placed: dict[int, _Staged] = {}

    def warm(self, adapter: Adapter) -> None:
        """Nothing is opened: `stage` copies to the device, in the batcher's thread."""

    def stage(self, adapter: Adapter) -> _Staged:
        """Copy the adapter's arrays to the device."""
        sites = {name: (self._put(p.a), self._put(p.b)) for name, p in adapter.weights.sites.items()}
        if adapter.head.kind == "hf":
            self._head(adapter.head.class_name or "")
        return _Staged(adapter, sites, {name: self._put(t) for name, t in adapter.weights.head.items()})

    def place(self, slot: int, staged: _Staged) -> None:
        """Put a staged adapter into a slot."""
        self._placed[slot] = staged

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._placed.pop(slot, None)

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[Array]:
        """The raw head output of each row; see batch.Runner."""
        rows = [self._placed[slot] for slot in batch.slots]
        for name, site in self._sites.items():
            site.a, site.b = self._stack(name, rows)
        arrays = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        expanded = list(batch.inputs)
        output = self._trunk(
            **{n: torch.from_numpy(arrays[n][expanded]).to(self.device) for n in self.spec.inputs}
        )
        hidden, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
        results: list[Array] = [np.empty(0, np.float32)] * len(rows)
        groups: dict[int, list[int]] = {}
        for i, slot in enumerate(batch.slots):
            groups.setdefault(slot, []).append(i)
        for slot, members in groups.items():
            staged = self._placed[slot]
            mine = None if pooled is None else pooled[members]
            raw = self._run_head(
                staged, hidden[members], mine, batch.attention_mask[[batch.inputs[m] for m in members]]
            )
            per_token = staged.adapter.task == "token-classification"
            for row, value in zip(members, raw, strict=True):
                results[row] = value[: batch.lengths[batch.inputs[row]]] if per_token else value
        return results

    def _put(self, array: Array) -> Tensor:
        # A copy: an uploaded array may be read-only memory, which torch does not take.
        return torch.tensor(array, device=self.device)

    def _stack(self, site: str, rows: Sequence[_Staged]) -> tuple[Tensor | None, Tensor | None]:
        pairs = [row.sites.get(site) for row in rows]
        rank = max(0 if pair is None else pair[0].shape[0] for pair in pairs)
        if rank == 0:
            return None, None
        width_in, width_out = self.spec.sites[site]
        a = torch.zeros(len(rows), rank, width_in, device=self.device)
        b = torch.zeros(len(rows), rank, width_out, device=self.device)
        for i, pair in enumerate(pairs):
            if pair is not None:
                a[i, : pair[0].shape[0]] = pair[0]
                b[i, : pair[1].shape[0]] = pair[1]
        return a, b

    def _run_head(self, staged: _Staged, hidden: Tensor, pooled: Tensor | None, mask: Any) -> Array:
        if staged.adapter.head.kind == "linear":
            states = hidden.cpu().numpy()
            vectors = pool(
                states, None if pooled is None else pooled.cpu().numpy(), mask, staged.adapter.head.pooling
            )
            return linear_head(vectors, staged.adapter)
        head = self._head(staged.adapter.head.class_name or "")
        cast(Any, head).base_model.given = {"hidden": hidden, "pooled": pooled}
        ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=self.device)
        logits: Array = torch.func.functional_call(head, staged.head, (ids,)).logits.cpu().numpy()
        return logits

    def _head(self, class_name: str) -> nn.Module:
        if class_name not in self._heads:
            self._heads[class_name] = head_model(self._folder, class_name, labels=1)[0].to(self.device)
        return self._heads[class_name]

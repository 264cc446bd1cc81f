"""Run one-pass batches on a decoder's modules: the heads of adapters that classify, embed or rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.decoder.adapter_mix import AdapterMix
from rootstock.service.engine.runners.decoder.attention import Span
from rootstock.service.engine.runners.decoder.changes.token_rows import TokenRows, stage_rows
from rootstock.service.engine.runners.decoder.packed_pass import PackedPart, PackedPass
from rootstock.service.engine.runners.decoder.trunk import DecoderTrunk
from rootstock.service.engine.runners.decoder.updates import TensorUpdate, stage_updates
from rootstock.service.engine.runners.linear_head import linear_head, pool
from rootstock.service.engine.runners.torch_cores import TorchCores


class _StagedHead(NamedTuple):
    adapter: Adapter
    updates: Mapping[str, TensorUpdate]
    rows: TokenRows | None


class PackedEncoder:
    """A runner of batches (encode.batch.Encoder) on the modules of a decoder, beside the runner that generates.

    A pass holds the tokens of all inputs one after the other, without padding, and keeps no keys and values. Rows
    of one input whose adapters change nothing of the trunk share its states.
    """

    name = "torch"

    def __init__(self, trunk: DecoderTrunk, slots: int, cores: TorchCores) -> None:
        self._cores = cores
        self.slots = slots
        self.precision = trunk.precision
        self._trunk = trunk
        self._pad_id: int | None = trunk.config.get_text_config().pad_token_id
        self._mix = AdapterMix(trunk.norms)
        self._adapters: dict[int, Adapter] = {}

    def warm(self, adapter: Adapter) -> None:
        """Do nothing, because a head needs nothing beside its tensors."""

    def stage(self, adapter: Adapter) -> _StagedHead:
        """Return the adapter with its updates as tensors."""
        trunk = self._trunk
        updates = stage_updates(adapter.weights.sites, trunk.groups, trunk.dtype)
        return _StagedHead(adapter, updates, stage_rows(adapter.weights, trunk.dtype))

    def place(self, slot: int, staged: _StagedHead) -> None:
        """Put a staged adapter into a slot."""
        self._mix.place(slot, staged.updates, staged.rows)
        self._adapters[slot] = staged.adapter

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._mix.clear(slot)
        self._adapters.pop(slot, None)

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[Array]:
        """Return the raw head output of each row, in the shapes of batch.Encoder."""
        self._cores.use()
        unchanged = [slot for slot in batch.slots if not self._adapters[slot].weights.changes_trunk]
        # The slot whose updates each row needs: adapters that change nothing share one.
        slots = [unchanged[0] if slot in unchanged else slot for slot in batch.slots]
        sequences = list(zip(slots, batch.inputs, strict=True))
        parts = {one: PackedPart(one[0], self._tokens(batch, one[1])) for one in sequences}
        tokens = PackedPass(list(parts.values()), self._mix)
        spans = [Span(None, first, end, 0) for first, end in tokens.bounds]
        hidden = self._trunk.states(tokens, spans, self._mix).float().numpy()
        bounds = dict(zip(parts, tokens.bounds, strict=True))
        results = []
        for slot, sequence in zip(batch.slots, sequences, strict=True):
            own = slice(*bounds[sequence])
            output = self._head(self._adapters[slot], hidden[own], parts[sequence].tokens)
            results.append(output[: batch.lengths[sequence[1]]] if output.ndim > 1 else output)
        return results

    def _tokens(self, batch: Batch, source: int) -> list[int]:
        """Return the tokens of an input. An input without tokens is read as one token of padding."""
        tokens: list[int] = batch.arrays["input_ids"][source, : batch.lengths[source]].tolist()
        return tokens or [self._pad_id or 0]

    def _head(self, adapter: Adapter, states: Array, ids: Sequence[int]) -> Array:
        """Return the head's output for the states (tokens, width) of one row."""
        if adapter.head.kind == "linear":
            mask = np.ones((1, len(states)), np.int64)
            vectors = pool(states[None], None, mask, adapter.head.pooling)
            return np.asarray(linear_head(vectors, adapter)[0])
        tensors = {name.rpartition(".")[2]: tensor for name, tensor in adapter.weights.head.items()}
        if adapter.task != "token-classification":
            states = states[_last(np.asarray(ids), self._pad_id)]
        output = states @ tensors["weight"].T
        return np.asarray(output + tensors["bias"] if "bias" in tensors else output, np.float32)


def _last(ids: npt.NDArray[np.int64], pad_id: int | None) -> int:
    """Return the place of the last token that is not padding, as transformers' classes of decoders find it.

    A text can end with the padding token itself, where a model uses its end token for padding.
    """
    kept = np.flatnonzero(ids != pad_id) if pad_id is not None else np.arange(len(ids))
    return int(kept[-1]) if len(kept) else 0

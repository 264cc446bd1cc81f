"""Compute the attention of tokens that lie one after the other, each over the cache of its own sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rootstock.service.engine.runners.decoder.kv_rows import KvPlace, KvSlab

# The name under which transformers calls the attention. For a name without masks, it makes no mask either.
NAME = "rootstock_ragged"

# Maps distances (…,) of keys from queries, positive for keys after the query, to a bias of each head: (…, heads).
Bias = Callable[[Tensor], Tensor]


class Span(NamedTuple):
    """The tokens `first` to `end` (not included) of a pass, which stand at `start` and later in a sequence.

    `place` is None if nobody reads the sequence's keys and values later. Then the pass holds all its tokens.
    """

    place: KvPlace | None
    first: int
    end: int
    start: int


@dataclass(frozen=True, slots=True)
class SlabStep:
    """One token of each of several sequences in one slab.

    Sequence i has token `tokens[i]` of the pass, row `rows[i]` of the slab and the position `positions[i]`. The
    attention runs over the slab's rows `chosen`, or over all `taken` of them if that is None; `sources` names the
    token of each of these rows, and `kept` those of the rows that count.
    """

    slab: KvSlab
    tokens: Tensor
    rows: Tensor
    positions: Tensor
    longest: int
    taken: int
    chosen: Tensor | None
    sources: Tensor
    kept: Tensor | None
    visible: Tensor


class RaggedAttention:
    """The attention of one pass, over the spans that `take` was given."""

    def __init__(self, bias: Bias | None = None) -> None:
        """Take what the model adds to the scores by the distance of two tokens, if it does."""
        self._bias = bias
        self._steps: Sequence[SlabStep] = ()
        self._chunks: list[Span] = []
        # The masks of the steps, and the chunks with theirs, by window. Every layer with the window uses them.
        self._masks: dict[int | None, tuple[Sequence[Tensor], Sequence[tuple[Span, Tensor | None]]]] = {}

    def take(self, spans: Sequence[Span]) -> None:
        """Set the spans of the next pass, which cover its tokens in order."""
        singles = [(s.place, s) for s in spans if s.place is not None and s.end - s.first == 1]
        in_slab = Counter(id(place.slab) for place, _ in singles)
        # A token that is alone in its slab needs no mask as a chunk, and no copies of its rows.
        steps = [(place, span) for place, span in singles if in_slab[id(place.slab)] > 1]
        stepping = {span.first for _, span in steps}
        self._chunks = [span for span in spans if span.first not in stepping]
        self._steps = slab_steps(steps)
        self._masks.clear()

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        window: int | None,
        softcap: float | None = None,
    ) -> Tensor:
        """Return the attention's output (tokens, heads, width), and add keys and values to the cache.

        `query` is (heads, tokens, width); `key` and `value` may have fewer heads, each for a group of the
        query's. With `window`, a token sees itself and the `window` - 1 tokens before it. With `softcap`, scores
        stay between it and its negative (Gemma 2).
        """
        if window not in self._masks:
            steps = [step_mask(step, window, self._bias) for step in self._steps]
            self._masks[window] = steps, _masked_chunks(self._chunks, window, self._bias)
        step_masks, chunks = self._masks[window]
        outputs = query.new_empty((query.shape[1], query.shape[0], value.shape[-1]))
        for step, mask in zip(self._steps, step_masks, strict=True):
            _attend_step(step, layer, query, key, value, outputs, scale, mask, softcap)
        for chunk, chunk_mask in chunks:
            _attend_chunk(chunk, layer, query, key, value, outputs, scale, window, chunk_mask, softcap)
        return outputs


def attach(model: nn.Module, attention: object) -> None:
    """Make the attention layers of a model use an object that has the `attend` of RaggedAttention.

    The model must have the attention `NAME`.
    """
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            object.__setattr__(module, "ragged", attention)


def slab_steps(placed: Iterable[tuple[KvPlace, Span]]) -> list[SlabStep]:
    """Return spans of one token each with their places, grouped by slabs."""
    by_slab: dict[int, list[tuple[KvPlace, Span]]] = {}
    for place, span in placed:
        by_slab.setdefault(id(place.slab), []).append((place, span))
    return [_slab_step(group) for group in by_slab.values()]


def _slab_step(placed: Sequence[tuple[KvPlace, Span]]) -> SlabStep:
    slab = placed[0][0].slab
    spans = [span for _, span in placed]
    taken, longest = len(slab.owners), max(span.start for span in spans) + 1
    rows = [place.row for place, _ in placed]
    tokens = [span.first for span in spans]
    # Reading rows that take no part costs less than copying those that do, unless these are few.
    whole = 2 * len(spans) >= taken
    sources = [0] * taken if whole else tokens
    ends = [1] * taken if whole else [span.start + 1 for span in spans]
    if whole:
        for row, span in zip(rows, spans, strict=True):
            sources[row], ends[row] = span.first, span.start + 1
    return SlabStep(
        slab,
        torch.tensor(tokens),
        torch.tensor(rows),
        torch.tensor([span.start for span in spans]),
        longest,
        taken,
        None if whole else torch.tensor(rows),
        torch.tensor(sources),
        torch.tensor(rows) if whole else None,
        torch.tensor(ends),
    )


def _attend_step(
    step: SlabStep,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    outputs: Tensor,
    scale: float | None,
    mask: Tensor,
    softcap: float | None,
) -> None:
    keys, values = step.slab.keys[layer], step.slab.values[layer]
    keys[step.rows, :, step.positions] = key[:, step.tokens].transpose(0, 1)
    values[step.rows, :, step.positions] = value[:, step.tokens].transpose(0, 1)
    read_step(step, layer, query, key.shape[0], outputs, scale, mask, softcap)


def read_step(
    step: SlabStep,
    layer: int,
    query: Tensor,
    heads: int,
    outputs: Tensor,
    scale: float | None,
    mask: Tensor,
    softcap: float | None = None,
) -> None:
    """Put the attention of a step over the keys in its slab, which have so many heads, into `outputs`.

    `mask` is that of `step_mask`.
    """
    keys, values = step.slab.keys[layer], step.slab.values[layer]
    if step.chosen is None:
        keys, values = keys[: step.taken, :, : step.longest], values[: step.taken, :, : step.longest]
    else:
        keys, values = keys[step.chosen, :, : step.longest], values[step.chosen, :, : step.longest]
    # The query heads of one group read the same keys, as if they were several tokens at the same position.
    rows = query[:, step.sources].transpose(0, 1)
    grouped = rows.reshape(len(rows), heads, -1, rows.shape[-1])
    expanded = mask.expand(-1, -1, grouped.shape[2], -1)
    if softcap is None:
        result = scaled_dot_product_attention(grouped, keys, values, attn_mask=expanded, scale=scale)
    else:
        result = _softcapped(grouped, keys, values, expanded, scale, softcap)
    result = result.reshape(len(rows), -1, result.shape[-1])
    outputs[step.tokens] = result if step.kept is None else result[step.kept]


def _attend_chunk(
    span: Span,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    outputs: Tensor,
    scale: float | None,
    window: int | None,
    mask: Tensor | None,
    softcap: float | None,
) -> None:
    place, first, end, start = span
    stop = start + end - first
    if place is None:
        keys, values = key[:, first - start : end], value[:, first - start : end]
    else:
        keys, values = place.slab.keys[layer, place.row], place.slab.values[layer, place.row]
        keys[:, start:stop] = key[:, first:end]
        values[:, start:stop] = value[:, first:end]
    begin = _begin(start, window)
    ours, keys, values = query[None, :, first:end], keys[None, :, begin:stop], values[None, :, begin:stop]
    causal = mask is None and end - first > 1
    if softcap is None:
        result = scaled_dot_product_attention(
            ours,
            keys,
            values,
            attn_mask=mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=query.shape[0] != key.shape[0],
        )
    else:
        seen = torch.ones(end - first, stop - begin, dtype=torch.bool) if mask is None else mask
        seen = seen.tril() if causal else seen
        groups = query.shape[0] // key.shape[0]
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        result = _softcapped(ours, keys, values, seen, scale, softcap)
    outputs[first:end] = result[0].transpose(0, 1)


def _softcapped(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float | None, softcap: float
) -> Tensor:
    """Return the attention with each score s replaced by softcap·tanh(s / softcap), which torch's own lacks.

    Source: Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024, section 2.
    """
    scores = query @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = (scores / softcap).tanh() * softcap
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ values


def _begin(start: int, window: int | None) -> int:
    """Return the first position that a token at `start` sees."""
    return 0 if window is None else max(0, start - window + 1)


def step_mask(step: SlabStep, window: int | None = None, bias: Bias | None = None) -> Tensor:
    """Return which positions each row of a step sees: (rows, 1, 1, longest). With a bias, as `_with_bias`."""
    places, visible = torch.arange(step.longest), step.visible[:, None, None]
    mask = places < visible
    if window is not None:
        mask &= places >= visible - window
    return mask[:, None] if bias is None else _with_bias(mask, places - visible + 1, bias)


def _with_bias(mask: Tensor, distances: Tensor, bias: Bias) -> Tensor:
    """Return what a mask (…, queries, keys) and a bias add to the scores: (…, heads, queries, keys)."""
    return bias(distances).movedim(-1, -3).masked_fill(~mask.unsqueeze(-3), -torch.inf)


def _masked_chunks(
    chunks: Sequence[Span], window: int | None, bias: Bias | None
) -> list[tuple[Span, Tensor | None]]:
    """Return the chunks with their masks. Cut those that nobody reads later to the window.

    The mask of a whole sequence would grow with the square of its length. Cuts of one length share a mask.
    """
    masks: dict[tuple[int, int], Tensor | None] = {}
    masked = []
    for chunk in chunks:
        size = chunk.end - chunk.first
        step = size if window is None or chunk.place is not None else window
        for cut in range(0, size, step):
            first, end, start = chunk.first + cut, min(chunk.first + cut + step, chunk.end), chunk.start + cut
            span = Span(chunk.place, first, end, start)
            key = end - first, start - _begin(start, window)
            if key not in masks:
                masks[key] = _chunk_mask(span, window, bias)
            masked.append((span, masks[key]))
    return masked


def _chunk_mask(span: Span, window: int | None, bias: Bias | None) -> Tensor | None:
    """Return which tokens each token of a chunk sees, from the first that one sees: (tokens, tokens seen).

    Return None for a single token, which sees them all, and for a chunk at the beginning of its sequence, whose
    mask is causal. With a bias, as `_with_bias`.
    """
    size = span.end - span.first
    if bias is None and (size == 1 or (not span.start and window is None)):
        return None
    stop = span.start + size
    ours, others = torch.arange(span.start, stop)[:, None], torch.arange(_begin(span.start, window), stop)[None]
    mask = others <= ours
    if window is not None:
        mask &= others > ours - window
    return mask if bias is None else _with_bias(mask, others - ours, bias)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute as transformers' AttentionInterface asks for: in (1, heads, tokens, width), out tokens first."""
    output = module.ragged.attend(module.layer_idx, query[0], key[0], value[0], scaling, sliding_window, softcap)
    return output[None], None


AttentionInterface.register(NAME, _attend)

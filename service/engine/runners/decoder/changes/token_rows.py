"""Hold the rows of the word embedding and of the output layer that adapters change, and apply them in a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rootstock.adapters.spec import AdapterWeights
from rootstock.adapters.vocabulary.words import WordTable


@dataclass(frozen=True, slots=True)
class TokenRows:
    """An adapter's `WordRows` and `OutputRows` as tensors. Without rows of a layer, these are empty.

    `rows` (ids, width) and `biases` (ids,) are those of the output layer. `vocabulary` is the number of tokens
    that an answer is chosen from, and 0 if the adapter changes none of them.
    """

    word_ids: Tensor
    changes: Tensor
    output_ids: Tensor
    rows: Tensor
    biases: Tensor | None
    vocabulary: int


def stage_rows(weights: AdapterWeights, dtype: torch.dtype) -> TokenRows | None:
    """Return an adapter's rows as tensors of a dtype; None if it has none."""
    words, outputs = weights.words, weights.outputs
    if words is None and outputs is None:
        return None
    none, nothing = torch.empty(0, dtype=torch.int64), torch.empty((0, 0), dtype=dtype)
    return TokenRows(
        none if words is None else torch.from_numpy(words.ids),
        nothing if words is None else torch.from_numpy(words.changes).to(dtype),
        none if outputs is None else torch.from_numpy(outputs.ids),
        nothing if outputs is None else torch.from_numpy(outputs.rows).to(dtype),
        None if outputs is None or outputs.biases is None else torch.from_numpy(outputs.biases).to(dtype),
        0 if outputs is None else outputs.vocabulary,
    )


def embed(
    table: nn.Module,
    words: WordTable,
    ids: Tensor,
    parts: Sequence[tuple[int, int]],
    rows: Sequence[TokenRows | None],
) -> Tensor:
    """Return the embeddings of a pass's tokens (1, tokens), whose parts have these bounds and rows."""
    embedded: Tensor = table(torch.where(ids >= words.rows, words.stand_in, ids))
    for (first, end), own in zip(parts, rows, strict=True):
        if own is None or not len(own.word_ids):
            continue
        tokens = ids[0, first:end]
        at = torch.searchsorted(own.word_ids, tokens).clamp_(max=len(own.word_ids) - 1)
        changed = torch.nonzero(own.word_ids[at] == tokens).flatten()
        embedded[0, first + changed] += own.changes[at[changed]]
    return embedded


@contextmanager
def widened(output: nn.Module, rows: Sequence[TokenRows | None], vocabulary: int) -> Iterator[None]:
    """Let an output layer add these rows of each part, and give logits for the tokens that adapters add.

    A token that the adapter of a part does not have gets a logit of 0, which `masked` takes out.
    """
    by_rows = _parts(rows)
    widest = max([vocabulary, *(own.vocabulary for own, _ in by_rows.values())])

    def widen(_: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        if widest > vocabulary:
            logits = torch.cat([logits, logits.new_zeros((*logits.shape[:-1], widest - vocabulary))], dim=-1)
        for own, parts in by_rows.values():
            change = linear(given[0][0, parts].to(own.rows.dtype), own.rows, own.biases)
            logits[0, parts[:, None], own.output_ids] += change.to(logits.dtype)
        return logits

    hook = output.register_forward_hook(widen)
    try:
        yield
    finally:
        hook.remove()


def masked(logits: Tensor, rows: Sequence[TokenRows | None], vocabulary: int) -> Tensor:
    """Return logits (parts, tokens) that are minus infinity for the tokens that a part's adapter does not have.

    An architecture may cap logits after its output layer, so that they are masked last.
    """
    if logits.shape[1] == vocabulary:
        return logits
    beyond = logits[:, vocabulary:]
    kept = torch.full_like(beyond, -torch.inf)
    for own, parts in _parts(rows).values():
        added = own.output_ids[own.output_ids >= vocabulary] - vocabulary
        kept[parts[:, None], added] = beyond[parts[:, None], added]
    logits[:, vocabulary:] = kept
    return logits


def _parts(rows: Sequence[TokenRows | None]) -> Mapping[int, tuple[TokenRows, Tensor]]:
    """Return the parts of each adapter that changes rows of the output layer."""
    found: dict[int, tuple[TokenRows, list[int]]] = {}
    for i, own in enumerate(rows):
        if own is not None and len(own.output_ids):
            found.setdefault(id(own), (own, []))[1].append(i)
    return {key: (own, torch.tensor(parts)) for key, (own, parts) in found.items()}

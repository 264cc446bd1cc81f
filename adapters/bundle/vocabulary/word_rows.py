"""Reads the rows of the word embedding and of the output layer that an adapter changes or adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.kinds.lora import needed
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import check_finite, take
from rootstock.adapters.bundle.vocabulary.trained_tokens import trained_tokens
from rootstock.adapters.language_model import VocabularyLayer
from rootstock.adapters.spec import TEXT_GENERATION, Array, FoundationSpec, Rejected, TaskClass
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.words import MAX_WORD_ROWS, OutputRows, WordRows, WordTable

_DELTA = "trainable_tokens_delta"
# The places of a whole layer: saved whole or resized, and beside rows that were trained alone.
_WHOLE = ("", "token_adapter.base_layer.", "base_layer.")
_ALONE = (f"token_adapter.{_DELTA}", _DELTA)


class _Rows(NamedTuple):
    """Rows of a layer by their ids, and for a layer with biases those of the same ids."""

    rows: Mapping[int, Array]
    biases: Mapping[int, np.float32] | None = None


def holds_words(names: Iterable[str], task_class: TaskClass, foundation: FoundationSpec) -> bool:
    """Return whether an adapter's tensors, by the names of `short_names`, change what tokens mean.

    They do if they hold rows of the word embedding, or of the output layer with which the adapter answers.
    """
    if foundation.words is None:
        return False
    stems = [f"{task_class.prefix}{foundation.words.name}"]
    if (output := _output(task_class, foundation)) is not None:
        stems.append(output.name)
    ends = (*(f"{place}weight" for place in _WHOLE), *_ALONE)
    places = {f"{stem}.{end}" for stem in stems for end in ends}
    return any(name in places for name in names)


def take_vocabulary(
    left: dict[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    tokens: tuple[AddedToken, ...] | None,
    base: BaseWeights | None,
) -> tuple[WordRows | None, OutputRows | None]:
    """Take the tensors of both layers from `left`, and return the rows that they change; None for none.

    `tokens` are those that the adapter's tokenizer adds; None if no file says which. A row beyond the
    foundation's table is kept if one of them has its id. Raise Rejected (check "sites") for a tensor that is
    missing or misshapen, for a row that no token has and for a token that has no row.
    """
    output = _output(task_class, foundation)
    trained = trained_tokens(config, task_class, foundation, output)
    table = foundation.words
    if table is None or not (trained or holds_words(left, task_class, foundation)):
        if tokens:
            raise Rejected("sites", "added_tokens", "the adapter holds no embeddings of the tokens that it adds")
        return None, None
    base = needed(base, "trainable_token_indices" if trained else "modules_to_save")
    stem = f"{task_class.prefix}{table.name}"
    embedding = base.embedding(table.name)
    read = _take(left, stem, trained.get(stem), embedding)
    _check_named(read.rows, tokens, table.name, table.rows)
    kept = _kept(read.rows, tokens, table.rows, stem)
    words = _word_rows({number: read.rows[number] for number in kept}, table, embedding)
    if output is None:
        return words, None
    own = embedding if output.tied else base.embedding(output.name)
    # PEFT runs a copy of an embedding that is saved whole. In any other form a tied output layer has its rows.
    follows = output.tied and not config.is_saved_whole(stem)
    indices = trained.get(output.name)
    if follows and not any(f"{output.name}.{place}" in left for place in _ALONE):
        indices = None
    written = _take(left, output.name, indices, own, output.biased, base)
    changed = _Rows({**(read.rows if follows else {}), **written.rows}, written.biases)
    _check_produced(changed, tokens, output, len(own))
    return words, _output_rows(changed, _kept(changed.rows, tokens, len(own), output.name), own)


def _output(task_class: TaskClass, foundation: FoundationSpec) -> VocabularyLayer | None:
    """Return the output layer with which adapters of a class answer; None if they have a head."""
    if task_class.task != TEXT_GENERATION or foundation.causal_lm is None:
        return None
    return foundation.causal_lm.output


def _take(
    left: dict[str, Array],
    stem: str,
    indices: list[int] | None,
    own: Array,
    biased: bool = False,
    base: BaseWeights | None = None,
) -> _Rows:
    """Take a layer's tensors. Return the rows that differ from the foundation's, `own`, or lie beyond them."""
    rows: dict[int, Array] = {}
    biases: dict[int, np.float32] | None = None
    place = next((f"{stem}.{place}" for place in _WHOLE if f"{stem}.{place}weight" in left), None)
    if place is not None:
        weight = left.pop(f"{place}weight")
        if weight.ndim != 2 or weight.shape[1] != own.shape[1] or len(weight) < len(own):
            expected = f"[at least {len(own)}, {own.shape[1]}]"
            raise Rejected("sites", f"{place}weight", f"has shape {list(weight.shape)}; expected {expected}")
        differs = (weight[: len(own)] != own).any(axis=1)
        bias = take(left, f"{place}bias", (len(weight),)) if biased else None
        own_bias = None if base is None or bias is None else base.bias(stem)
        if bias is not None and own_bias is not None:
            check_finite({f"{place}bias": bias})
            differs |= bias[: len(own)] != own_bias
        numbers = [*np.flatnonzero(differs)[: MAX_WORD_ROWS + 1].tolist(), *range(len(own), len(weight))]
        rows = {number: weight[number] for number in numbers}
        if bias is not None and own_bias is not None:
            biases = {n: bias[n] - own_bias[n] if n < len(own) else bias[n] for n in numbers}
    if indices is not None:
        name = next((f"{stem}.{place}" for place in _ALONE if f"{stem}.{place}" in left), f"{stem}.{_ALONE[0]}")
        delta = take(left, name, (len(indices), own.shape[1]))
        rows |= dict(zip(indices, delta, strict=True))
    return _Rows(rows, biases)


def _kept(rows: Mapping[int, Array], tokens: tuple[AddedToken, ...] | None, known: int, stem: str) -> list[int]:
    """Return the ids of the rows to keep, ascending: of the foundation's `known` tokens, and of added ones."""
    named = {token.id for token in tokens or ()}
    kept = sorted(number for number in rows if number < known or number in named)
    if len(kept) > MAX_WORD_ROWS:
        message = (
            f"more than {MAX_WORD_ROWS} rows differ from the foundation's, and that is the limit; train fewer "
            "tokens, with trainable_token_indices"
        )
        raise Rejected("sites", stem, message)
    check_finite({f"{stem}: row {number}": rows[number] for number in kept})
    return kept


def _check_named(rows: Mapping[int, Array], tokens: tuple[AddedToken, ...] | None, name: str, known: int) -> None:
    beyond = [number for number in rows if number >= known]
    if beyond and tokens is None:
        raise Rejected(
            "sites",
            name,
            f"holds {len(beyond)} rows beyond the foundation's {known}, and nothing says which tokens they "
            "are of; save the tokenizer beside the adapter (tokenizer.json)",
        )
    for token in tokens or ():
        if token.id >= known and token.id not in rows:
            message = f"the added token {token.content!r} has the id {token.id}, and the adapter has no row of it"
            raise Rejected("sites", name, message)


def _check_produced(
    changed: _Rows, tokens: tuple[AddedToken, ...] | None, output: VocabularyLayer, known: int
) -> None:
    """Raise Rejected (check "sites") for an added token that no answer could hold."""
    for token in tokens or ():
        has_bias = not output.biased or (changed.biases is not None and token.id in changed.biases)
        if token.id >= known and not (token.id in changed.rows and has_bias):
            lacks = "row" if token.id not in changed.rows else "bias"
            raise Rejected(
                "sites",
                output.name,
                f"the output layer has no {lacks} of the added token {token.content!r}, so that no answer could "
                "hold it; save the adapter with save_embedding_layers=True, or train its tokens in "
                f"{output.name} too",
            )


def _word_rows(rows: Mapping[int, Array], table: WordTable, own: Array) -> WordRows | None:
    if not rows:
        return None
    ids = np.array(list(rows), np.int64)
    with np.errstate(all="ignore"):
        changes = np.stack(list(rows.values())) - own[np.where(ids < table.rows, ids, table.stand_in)]
        changes *= np.float32(table.scale)
    changed = (changes != 0).any(axis=1) | (ids >= table.rows)
    return WordRows(ids[changed], np.ascontiguousarray(changes[changed])) if changed.any() else None


def _output_rows(changed: _Rows, kept: list[int], own: Array) -> OutputRows | None:
    """Return the changes of the foundation's rows, and the whole rows of tokens beyond them."""
    known = len(own)
    ids = np.array(kept, np.int64)
    if not kept:
        return None
    rows = np.stack([changed.rows[number] for number in kept])
    inside = ids < known
    with np.errstate(all="ignore"):
        rows[inside] -= own[ids[inside]]
    biases = None
    if changed.biases is not None:
        biases = np.array([changed.biases.get(number, 0.0) for number in kept], np.float32)
    differs = (rows != 0).any(axis=1) | ~inside
    if biases is not None:
        differs |= biases != 0
    if not differs.any():
        return None
    return OutputRows(
        ids[differs],
        np.ascontiguousarray(rows[differs]),
        max(known, int(ids[-1]) + 1),
        None if biases is None else biases[differs],
    )

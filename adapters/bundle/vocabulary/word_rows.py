"""Reads the rows of the word embedding that an adapter changes or adds, from its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.kinds.lora import needed
from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.peft_config import PeftConfig, ends_in
from rootstock.adapters.bundle.tensors import check_finite, take
from rootstock.adapters.spec import Array, FoundationSpec, Rejected, TaskClass
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.words import MAX_WORD_ROWS, WordRows, WordTable

_DELTA = "trainable_tokens_delta"
# The places of the whole embedding: saved whole or resized, and beside rows that were trained alone.
_WHOLE = ("weight", "token_adapter.base_layer.weight", "base_layer.weight")
_ALONE = (f"token_adapter.{_DELTA}", _DELTA)


def holds_words(names: Iterable[str], task_class: TaskClass, foundation: FoundationSpec) -> bool:
    """Return whether an adapter's tensors, by the names of `short_names`, change the word embedding."""
    table = foundation.words
    if table is None:
        return False
    places = {f"{task_class.prefix}{table.name}.{place}" for place in (*_WHOLE, *_ALONE)}
    return any(name in places for name in names)


def take_words(
    left: dict[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    tokens: tuple[AddedToken, ...] | None,
    base: BaseWeights | None,
) -> WordRows | None:
    """Take the tensors of the word embedding from `left`, and return the rows that they change; None without.

    `tokens` are those that the adapter's tokenizer adds; None if no file says which. A row beyond the
    foundation's table is kept if one of them has its id. Raise Rejected (check "sites") for a tensor that is
    missing or misshapen, for a row that no token has and for a token that has no row.
    """
    indices = _indices(config, task_class, foundation)
    table = foundation.words
    if table is None or (indices is None and not holds_words(left, task_class, foundation)):
        if tokens:
            raise Rejected("sites", "added_tokens", "the adapter holds no embeddings of the tokens that it adds")
        return None
    stem = f"{task_class.prefix}{table.name}"
    base = needed(base, "modules_to_save" if indices is None else "trainable_token_indices")
    rows = _whole(left, stem, table, base)
    if indices is not None:
        name = next((f"{stem}.{place}" for place in _ALONE if f"{stem}.{place}" in left), f"{stem}.{_ALONE[0]}")
        delta = take(left, name, (len(indices), table.width))
        rows |= dict(zip(indices, delta, strict=True))
    _check_named(rows, tokens, table)
    named = {token.id for token in tokens or ()}
    kept = sorted(number for number in rows if number < table.rows or number in named)
    if len(kept) > MAX_WORD_ROWS:
        message = (
            f"more than {MAX_WORD_ROWS} rows of the word embedding differ from the foundation's, and that is the "
            "limit; train fewer tokens, with trainable_token_indices"
        )
        raise Rejected("sites", stem, message)
    return _changes({number: rows[number] for number in kept}, table, base)


def _indices(config: PeftConfig, task_class: TaskClass, foundation: FoundationSpec) -> list[int] | None:
    """Return the ids of the tokens that were trained alone, as the config states them; None without."""
    key = "token_indices" if config.peft_type == "TRAINABLE_TOKENS" else "trainable_token_indices"
    stated = config.values.get(key)
    if stated is None or stated in ([], {}):
        return None
    table = foundation.words
    if table is None:
        raise wrong_option(key, f"{foundation.name} has no word embedding whose rows an adapter can change")
    module = config.written(f"{task_class.prefix}{table.name}")
    if isinstance(stated, Mapping):
        for name in stated:
            if not ends_in(module, [name]):
                raise wrong_option(key, f"{name!r} is not the word embedding, {module}; train its tokens alone")
        stated = next(iter(stated.values()))
    elif config.peft_type == "TRAINABLE_TOKENS" and not config.targets_words(module):
        option = config.values.get("target_modules")
        raise wrong_option("target_modules", f"{option!r} is not the word embedding, {module}")
    if len(set(stated)) != len(stated):
        raise wrong_option(key, "a token is there twice")
    return list(stated)


def _whole(left: dict[str, Array], stem: str, table: WordTable, base: BaseWeights) -> dict[int, Array]:
    """Take the whole embedding, if it is there, and return the rows that differ from the foundation's."""
    place = next((f"{stem}.{place}" for place in _WHOLE if f"{stem}.{place}" in left), None)
    if place is None:
        return {}
    weight = left.pop(place)
    if weight.ndim != 2 or weight.shape[1] != table.width or len(weight) < table.rows:
        expected = f"[at least {table.rows}, {table.width}]"
        raise Rejected("sites", place, f"has shape {list(weight.shape)}; expected {expected}")
    differing = np.flatnonzero((weight[: table.rows] != base.embedding(table.name)).any(axis=1))
    numbers = [*differing[: MAX_WORD_ROWS + 1].tolist(), *range(table.rows, len(weight))]
    return {number: weight[number] for number in numbers}


def _check_named(rows: Mapping[int, Array], tokens: tuple[AddedToken, ...] | None, table: WordTable) -> None:
    beyond = [number for number in rows if number >= table.rows]
    if beyond and tokens is None:
        raise Rejected(
            "sites",
            table.name,
            f"holds {len(beyond)} rows beyond the foundation's {table.rows}, and nothing says which tokens they "
            "are of; save the tokenizer beside the adapter (tokenizer.json)",
        )
    for token in tokens or ():
        if token.id >= table.rows and token.id not in rows:
            message = f"the added token {token.content!r} has the id {token.id}, and the adapter has no row of it"
            raise Rejected("sites", table.name, message)


def _changes(rows: Mapping[int, Array], table: WordTable, base: BaseWeights) -> WordRows | None:
    if not rows:
        return None
    check_finite({f"{table.name}: row {number}": row for number, row in rows.items()})
    ids = np.array(list(rows), np.int64)
    own = base.embedding(table.name)[np.where(ids < table.rows, ids, table.stand_in)]
    with np.errstate(all="ignore"):
        changes = np.stack(list(rows.values())) - own
    changed = (changes != 0).any(axis=1) | (ids >= table.rows)
    return WordRows(ids[changed], np.ascontiguousarray(changes[changed])) if changed.any() else None

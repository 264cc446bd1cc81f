"""Encodes texts as token ids, with the class of each text or of each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tokenizers import Encoding, Tokenizer

from rootstock.adapters.foundation.location import FoundationFiles, read_json
from rootstock.training.data.example import Example

# torch's cross entropy leaves these positions out.
IGNORED = -100


class EncodedRow(Protocol):
    """An example as a model takes it, with the fields that figures need; those of a TokenRow explain them."""

    @property
    def targets(self) -> tuple[int, ...]: ...

    @property
    def cut(self) -> bool: ...

    @property
    def words(self) -> tuple[int, ...]: ...

    @property
    def first(self) -> tuple[int | None, ...]: ...

    @property
    def values(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class TokenRow:
    """An example as the model takes it.

    For a text, `targets` holds its class; or else `values` holds 0 or 1 for each label, or its number. For
    tokens, `targets` holds a class for each token, IGNORED at special tokens; `words` holds the class of each
    word, and `first` the position of its first token, None if the word was cut off. `types` tells the two texts
    of a pair apart. `cut` is True if the text was longer than the limit.
    """

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    types: tuple[int, ...] = ()
    cut: bool = False
    words: tuple[int, ...] = ()
    first: tuple[int | None, ...] = ()
    values: tuple[float, ...] = ()


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Return the foundation's tokenizer, without padding, cut at `max_length` instead of its file's limit."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def padding(files: FoundationFiles) -> int:
    """Return the token id to pad with: 0 if the foundation names none, since padding is masked."""
    return int(read_json(files.folder / "config.json").get("pad_token_id") or 0)


def encode(tokenizer: Tokenizer, examples: Sequence[Example], labels: Sequence[str]) -> list[TokenRow]:
    """Return a token row for each example. Class ids are positions in `labels`.

    A word's first token has the word's tag. Its later tokens continue the entity (`I-`), so that merged
    predictions of tokens give whole words.
    """
    ids = {label: i for i, label in enumerate(labels)}
    inputs = [e.text if e.pair is None else (e.text, e.pair) for e in examples]
    return [
        _tokens(encoding, example, ids) if example.words else _labelled(encoding, example, ids)
        for encoding, example in zip(tokenizer.encode_batch(inputs), examples, strict=True)
    ]


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenRow]:
    """Return a token row for each text without a label, with IGNORED as its target."""
    return [_text(encoding, IGNORED) for encoding in tokenizer.encode_batch(list(texts))]


def values_of(example: Example, labels: Sequence[str]) -> tuple[float, ...]:
    """Return an example's number, or 0 or 1 for each of several labels; nothing for an example of one class."""
    if example.value is not None:
        return (example.value,)
    return tuple(float(label in example.labels) for label in labels) if example.several else ()


def _labelled(encoding: Encoding, example: Example, ids: dict[str, int]) -> TokenRow:
    if values := values_of(example, list(ids)):
        return replace(_text(encoding, IGNORED), targets=(), values=values)
    return _text(encoding, ids[example.labels[0]])


def _text(encoding: Encoding, target: int) -> TokenRow:
    return TokenRow(tuple(encoding.ids), (target,), tuple(encoding.type_ids), bool(encoding.overflowing))


def _tokens(encoding: Encoding, example: Example, ids: dict[str, int]) -> TokenRow:
    targets: list[int] = []
    first: list[int | None] = [None] * len(example.words)
    for position, offsets in enumerate(encoding.offsets):
        word = None if encoding.special_tokens_mask[position] else example.word_of(*offsets)
        if word is None:
            targets.append(IGNORED)
            continue
        tag = example.labels[word]
        if first[word] is None:
            first[word] = position
        elif tag.startswith("B-"):
            tag = f"I-{tag[2:]}"
        targets.append(ids[tag])
    return TokenRow(
        tuple(encoding.ids),
        tuple(targets),
        tuple(encoding.type_ids),
        bool(encoding.overflowing),
        tuple(ids[tag] for tag in example.labels),
        tuple(first),
    )

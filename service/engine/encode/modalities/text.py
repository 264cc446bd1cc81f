"""Turn text into token ids, with an adapter's prefix and length limit, and truncate it only on request."""

from __future__ import annotations

import copy
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as HfTokenizer
from tokenizers.processors import TemplateProcessing

from rootstock.adapters.spec import Adapter, Preprocessing
from rootstock.adapters.tasks import Modality
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.extended_tokenizer import extended_tokenizer, memory_of_tokens
from rootstock.service.engine.core.admission import estimated_tokens
from rootstock.service.engine.core.errors import RunnerFault, TooLong
from rootstock.service.engine.encode.batch import Batch, assemble
from rootstock.service.engine.encode.modalities.text_input import Input as Input
from rootstock.service.engine.encode.modalities.text_input import Question as Question
from rootstock.service.engine.encode.modalities.text_input import check_texts
from rootstock.service.engine.encode.sample import SampleArrays

ReaderT = TypeVar("ReaderT")
# The characters that are read first for each token needed from a text.
_CHARACTERS = 8
# The tokens beside a cut that may be wrong: the 101st character can decide whether a word of 100 is one token.
_MARGIN = 128
# From this many characters on, other threads run while a text is tokenised. For a short text this would only cost
# time.
_LONG = 2**14
# The post-processing of a tokenizer that has none: no special tokens, and type id 1 for the second text.
_PAIR = TemplateProcessing(single="$A", pair="$A $B:1")


class Part(NamedTuple):
    """The tokens, without special ones, of a text (`whole`) or of a part of it from the character `begin` on."""

    encoding: Encoding
    begin: int
    whole: bool


@dataclass(frozen=True, slots=True)
class TextSample:
    """One tokenised row.

    The encoding's offsets count from the character `begin` of the text. Subtract `shift`, the length of the
    prefix, for offsets in the user's text. `masks` holds the positions of the mask tokens, if the task reads
    them. `key` is equal for equal inputs of the trunk. `outputs` is the number of raw outputs: one for each mask,
    or one. A request's limit on rows counts them.
    """

    ids: Sequence[int]
    type_ids: Sequence[int]
    encoding: Encoding
    text: str
    shift: int
    begin: int = 0
    masks: tuple[int, ...] = ()
    key: bytes = field(init=False, repr=False)
    outputs: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Computed once, because many adapters can share the row.
        key = array("q", self.ids).tobytes() + array("b", self.type_ids).tobytes()
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "outputs", max(1, len(self.masks)))

    @property
    def cost(self) -> int:
        """Return the number of tokens, special ones included."""
        return len(self.ids)

    @property
    def group(self) -> None:
        """Return None: texts of all lengths share a batch, because shorter ones are padded."""


class Tokenizer:
    """The foundation's tokenizer, without the truncation and padding that its file may set. Thread-safe.

    `mask_id` is the id of the mask token, where the foundation fills masks. `max_tokens` is the foundation's
    longest input. With `fill_id`, every text is filled up to that length with this token. `nbytes` is the memory
    that an adapter's tokens take, and 0 for the foundation's own tokenizer.
    """

    modality: Modality = "text"
    nbytes = 0

    def __init__(
        self, path: Path, mask_id: int | None = None, max_tokens: int = 512, fill_id: int | None = None
    ) -> None:
        # The tokenizers of adapters in memory, by their tokens.
        self._extended: WeakValueDictionary[tuple[AddedToken, ...], Tokenizer] = WeakValueDictionary()
        self.mask_id = mask_id
        self._fill_id = fill_id
        self._max_tokens = max_tokens
        content = json.loads(path.read_text(encoding="utf-8"))
        content["truncation"] = content["padding"] = None
        self._tokenizer = HfTokenizer.from_str(json.dumps(content))
        # Only `whole` runs it: it may trim offsets, and a second trim would cut off a letter for each space.
        self._post_processor = self._tokenizer.post_processor or _PAIR
        self._added = {pair: self._tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)}
        self._tokenizer.post_processor = None
        tokens: Mapping[str, int] = self._tokenizer.get_vocab()
        self.pad_id = next((tokens[t] for t in ("[PAD]", "<pad>", "<|endoftext|>") if t in tokens), 0)
        self.unk_id = next((tokens[t] for t in ("[UNK]", "<unk>") if t in tokens), None)
        self.has_subword_prefix = bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))
        self._check: Callable[[], None] = lambda: None

    def extended(self, tokens: tuple[AddedToken, ...]) -> Tokenizer:
        """Return this tokenizer with an adapter's tokens added: one for all adapters in memory with the same.

        Raise Rejected (check "schema") if a token gets another id than it states.
        """
        if (known := self._extended.get(tokens)) is not None:
            return known
        tokenizer = copy.copy(self)
        tokenizer._tokenizer = extended_tokenizer(self._tokenizer, tokens)
        tokenizer.nbytes = memory_of_tokens(self._tokenizer, tokens)
        self._extended[tokens] = tokenizer
        return tokenizer

    def check(self, inputs: Sequence[Any]) -> None:
        """Raise InvalidInput for an input that is no text, and TooLarge for one of too many characters."""
        check_texts(inputs)

    def tokens(self, inputs: Sequence[Any]) -> int:
        """Estimate the cost of texts in tokens, and of the time to read those that are too long."""
        return estimated_tokens(inputs, self._max_tokens)

    def collate(self, samples: Sequence[TextSample]) -> SampleArrays:
        """Return the trunk's inputs, padded on the right to the longest text."""
        return collate(samples, self.pad_id)

    def checked(self, check: Callable[[], None]) -> Tokenizer:
        """Return a copy that calls `check` before each long read. An error that `check` raises ends the work."""
        tokenizer = copy.copy(self)
        tokenizer._check = check
        return tokenizer

    def encode(
        self, value: Input, preprocessing: Preprocessing, truncate: bool, keep_second: bool = False
    ) -> TextSample:
        """Return the tokens of a text or a pair, with special ones. Raise TooLong unless they fit or `truncate`.

        The longer text of a pair is truncated first. With `keep_second`, only the first text is truncated. A text
        that is much too long is not read to its end. Of two such texts, the one with more characters counts as
        the longer.
        """
        text, pair = (value, None) if isinstance(value, str) else value
        text = preprocessing.prefix + text
        side, room = preprocessing.truncation_side, self.room(preprocessing.max_length, pair is not None)
        first, begin, whole = self.part(text, room, side)
        second = None
        if pair is not None:
            second, _, second_whole = self.part(pair, room, side)
            whole &= second_whole
        length = len(first) + (0 if second is None else len(second))
        if length > room:
            spare = room - (len(second) if keep_second and second is not None else 0)
            if not truncate or spare < 0:
                advice, setting = ("its second text", None) if truncate else ("it", "parameters.truncation")
                limit = preprocessing.max_length
                has = str(length + limit - room) if whole else f"more than {limit}"
                raise TooLong(
                    f"the input has {has} tokens and the limit is {limit}; shorten {advice}", "inputs", setting
                )
            longer = len(text) > len(pair or "") if not whole else len(first) > len(second or ())
            _truncate(first, None if keep_second else second, spare, side, longer)
        row = self.whole(first, second)
        if self._fill_id is not None:
            row.pad(self._max_tokens, pad_id=self._fill_id)
        return TextSample(row.ids, row.type_ids, row, text, len(preprocessing.prefix), begin)

    def part(self, text: str, most: int, side: str = "right") -> Part:
        """Return the tokens of a text.

        If it has many more than `most`, return only those near the end that is kept.

        These are still more than `most`. `side` is the side that truncation would cut. Time and memory grow with
        the tokens returned, not with the text.
        """
        size = _CHARACTERS * (most + _MARGIN)
        while size < len(text):
            begin = len(text) - size if side == "left" else 0
            encoding = self._bare(text[begin : begin + size])
            if len(encoding) > most + _MARGIN:
                return Part(encoding, begin, False)
            size *= 4
        return Part(self._bare(text), 0, True)

    def _bare(self, text: str) -> Encoding:
        if len(text) < _LONG:
            return self._tokenizer.encode(text, add_special_tokens=False)
        self._check()
        return self._tokenizer.encode_batch([text], add_special_tokens=False)[0]

    def whole(self, first: Encoding, second: Encoding | None) -> Encoding:
        """Return the tokens of one or two texts with the special tokens added."""
        return self._post_processor.process(first, second, add_special_tokens=True)

    def room(self, max_length: int, pair: bool) -> int:
        """Return the tokens of `max_length` that special tokens leave for a text or a pair; never below 0."""
        return max(0, max_length - self._added[pair])

    def token(self, token_id: int) -> str:
        """Return the vocabulary's entry for an id, or an empty string."""
        return self._tokenizer.id_to_token(token_id) or ""

    def token_id(self, text: str) -> int | None:
        """Return the id of a vocabulary entry, or of a text that is one token. Return None for any other text."""
        token_id: int | None = self._tokenizer.token_to_id(text)
        if token_id is None:
            ids = self.part(text, 1).encoding.ids
            token_id = ids[0] if len(ids) == 1 and ids[0] != self.unk_id else None
        return token_id

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Return the text that a run of tokens stands for."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def join(self, tokens: Sequence[str]) -> str:
        """Return the text that a run of vocabulary entries stands for."""
        decoder = self._tokenizer.decoder
        return decoder.decode(list(tokens)) if decoder is not None else " ".join(tokens)


def with_tokenizer(adapter: Adapter, reader: object) -> Adapter:
    """Return an adapter with its tokenizer, if it brings tokens. Raise Rejected as `Tokenizer.extended` does."""
    tokens = adapter.preprocessing.tokens
    if not tokens or not isinstance(reader, Tokenizer):
        return adapter
    return replace(adapter, tokenizer=reader.extended(tokens))


def reader_of(adapter: Adapter, own: ReaderT) -> ReaderT:
    """Return what reads an adapter's inputs: its tokenizer, or the foundation's reader `own`."""
    if adapter.tokenizer is not None:
        return cast(ReaderT, adapter.tokenizer)
    if adapter.preprocessing.tokens:
        raise RunnerFault("the adapter brings tokens, and its tokenizer was not made when it was loaded")
    return own


def _truncate(first: Encoding, second: Encoding | None, room: int, side: str, first_is_longer: bool) -> None:
    """Truncate the longer text first, as the `longest_first` strategy of tokenizers divides the room."""
    if second is None:
        cut(first, room, side)
        return
    short, long = sorted((len(first), len(second)))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    if first_is_longer:
        short, long = long, short
    cut(first, short, side)
    cut(second, long, side)


def cut(encoding: Encoding, size: int, side: str = "right") -> None:
    """Truncate an encoding to `size` tokens.

    The tokenizers library keeps the part that it cuts off, in pieces as long as the part that it leaves. It then
    makes a row of every piece of one text with every piece of the other. Cutting
    in three steps, to size + 2, size + 1 and size tokens, leaves few pieces.
    """
    for longer in (2, 1, 0):
        encoding.truncate(size + longer, direction=side)


def collate(samples: Sequence[TextSample], pad_id: int) -> SampleArrays:
    """Return the trunk's inputs, int64 arrays of shape (inputs, tokens), padded on the right to the longest."""
    lengths = tuple(len(sample.ids) for sample in samples)
    shape = (len(samples), max(lengths))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    types = np.zeros(shape, dtype=np.int64)
    for i, (sample, length) in enumerate(zip(samples, lengths, strict=True)):
        ids[i, :length] = sample.ids
        mask[i, :length] = 1
        types[i, :length] = sample.type_ids
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return SampleArrays(arrays, lengths, frozenset(arrays))


def pad(samples: Sequence[TextSample], slots: Sequence[int], pad_id: int) -> Batch:
    """Return a batch of these texts under these slots."""
    return assemble(samples, slots, lambda distinct: collate(distinct, pad_id))

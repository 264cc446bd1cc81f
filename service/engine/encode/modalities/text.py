"""Text to token ids: an adapter's prefix, then its own length limit; truncation only where it was asked for."""

from __future__ import annotations

import copy
import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as HfTokenizer
from tokenizers.processors import TemplateProcessing

from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.core.errors import TooLong
from rootstock.service.engine.encode.batch import Batch, assemble
from rootstock.service.engine.encode.sample import SampleArrays

# Characters that are read at first for each token that is wanted of a text.
_CHARACTERS = 8
# Tokens beside a cut that are not trusted: whether a word of 100 characters is one token depends on the 101st.
_MARGIN = 128
# From so many characters on, other threads go on while a text is tokenised; a short one it would only delay.
_LONG = 2**14
# A tokenizer without a post-processor gives this: no special tokens, and the second text has the second type.
_PAIR = TemplateProcessing(single="$A", pair="$A $B:1")


class Question(NamedTuple):
    """A question and the text that holds its answer."""

    question: str
    context: str


# A text, a pair of texts, or a question with its context (which is a pair to the trunk).
Input = str | tuple[str, str]


class Part(NamedTuple):
    """Tokens of a text, without special tokens: of the `whole` text, or of a part that begins at a character."""

    encoding: Encoding
    begin: int
    whole: bool


@dataclass(frozen=True, slots=True)
class TextSample:
    """One tokenised row. The encoding's offsets count from the character `begin` of the text; less `shift`, the
    prefix's length, they are the user's. `masks`: where its mask tokens are, if its task reads those. `key` is
    equal for equal inputs of the trunk."""

    ids: Sequence[int]
    type_ids: Sequence[int]
    encoding: Encoding
    text: str
    shift: int
    begin: int = 0
    masks: tuple[int, ...] = ()
    key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Once, for a row that many adapters share.
        key = array("q", self.ids).tobytes() + array("b", self.type_ids).tobytes()
        object.__setattr__(self, "key", key)

    @property
    def cost(self) -> int:
        """Return the number of tokens, special ones included."""
        return len(self.ids)

    @property
    def outputs(self) -> int:
        """Return how many raw outputs it has, one a mask, else one: what a request's limit on rows counts."""
        return max(1, len(self.masks))


class Tokenizer:
    """The foundation's tokenizer without the truncation and padding that its file may bake in. Thread-safe.

    `mask_id`: the token to be filled in, where the foundation fills masks.
    """

    def __init__(self, path: Path, mask_id: int | None = None) -> None:
        self.mask_id = mask_id
        content = json.loads(path.read_text(encoding="utf-8"))
        content["truncation"] = content["padding"] = None
        self._tokenizer = HfTokenizer.from_str(json.dumps(content))
        # `whole` alone runs it: it may trim offsets, and to trim them twice takes a letter for each space.
        self._post_processor = self._tokenizer.post_processor or _PAIR
        self._added = {pair: self._tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)}
        self._tokenizer.post_processor = None
        tokens: Mapping[str, int] = self._tokenizer.get_vocab()
        self.pad_id = next((tokens[t] for t in ("[PAD]", "<pad>", "<|endoftext|>") if t in tokens), 0)
        self.unk_id = next((tokens[t] for t in ("[UNK]", "<unk>") if t in tokens), None)
        self.has_subword_prefix = bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))
        self._check: Callable[[], None] = lambda: None

    def checked(self, check: Callable[[], None]) -> Tokenizer:
        """Return this tokenizer, which calls `check` before each long read; what it raises ends the work."""
        tokenizer = copy.copy(self)
        tokenizer._check = check
        return tokenizer

    def encode(
        self, value: Input, preprocessing: Preprocessing, truncate: bool, keep_second: bool = False
    ) -> TextSample:
        """Return the tokens of a text or a pair, with special ones. Raise TooLong unless they fit or `truncate`.

        Of a pair the longer text is truncated first; with `keep_second` the first text alone is. A text that is
        much too long is not read to its end: of two such texts the one of more characters counts as the longer.
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
        return TextSample(row.ids, row.type_ids, row, text, len(preprocessing.prefix), begin)

    def part(self, text: str, most: int, side: str = "right") -> Part:
        """Return the tokens of a text. Of one with many more than `most`, give more than that from the kept end.

        `side` is where truncation would cut. Takes time and memory for the tokens it gives, not for the text.
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
        """Return one or two texts' bare tokens with the special tokens around them."""
        return self._post_processor.process(first, second, add_special_tokens=True)

    def room(self, max_length: int, pair: bool) -> int:
        """Return how many of so many tokens are left to a text or a pair by the special ones; never below 0."""
        return max(0, max_length - self._added[pair])

    def token(self, token_id: int) -> str:
        """Return the vocabulary's entry for an id."""
        return self._tokenizer.id_to_token(token_id) or ""

    def token_id(self, text: str) -> int | None:
        """Return the id of a vocabulary's entry, or of a text that is one token; None for any other."""
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


def _truncate(first: Encoding, second: Encoding | None, room: int, side: str, first_is_longer: bool) -> None:
    """Truncate the longest first, as tokenizers' own `longest_first` strategy shares the room between the two."""
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
    """Leave so many tokens of an encoding.

    The tokenizers library keeps what it cuts off, in pieces as long as what it leaves, and makes a row of every
    piece of one text with every piece of another. Cut again, one token beyond at a time, there are few.
    """
    for longer in (2, 1, 0):
        encoding.truncate(size + longer, direction=side)


def collate(samples: Sequence[TextSample], pad_id: int) -> SampleArrays:
    """Return the trunk's inputs, each (inputs, tokens) int64, padded on the right to the longest."""
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
    """Return the batch of these texts under these slots."""
    return assemble(samples, slots, lambda distinct: collate(distinct, pad_id))

"""Token ids: the tokenizer file's own padding and cutting are off, and every word finds its tokens."""

from __future__ import annotations

from pathlib import Path

from rootstock.training.data.encoding import IGNORED, encode, load_tokenizer
from rootstock.training.data.example import Example

LABELS = ("O", "B-PER", "I-PER")
SENTENCE = Example(
    "Bos Ann it was good", ("B-PER", "I-PER", "O", "O", "O"), 1, ("Bos", "Ann", "it", "was", "good")
)


def test_a_text_is_neither_padded_nor_cut_at_what_the_file_bakes_in(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert, 32)
    short, long = encode(tokenizer, [Example("good", ("a",), 1), Example("good " * 20, ("a",), 2)], ["a", "b"])
    assert (len(short.ids), len(long.ids)) == (3, 22)
    assert short.targets == (0,)


def test_later_tokens_of_a_word_continue_its_entity_and_special_tokens_teach_nothing(tiny_bert: Path) -> None:
    (encoded,) = encode(load_tokenizer(tiny_bert, 32), [SENTENCE], LABELS)
    assert encoded.targets == (IGNORED, 1, 2, 2, 0, 0, 0, IGNORED)
    assert encoded.first == (1, 3, 4, 5, 6)
    assert encoded.words == (1, 2, 0, 0, 0)


def test_a_word_beyond_max_length_has_no_token(tiny_bert: Path) -> None:
    (encoded,) = encode(load_tokenizer(tiny_bert, 5), [SENTENCE], LABELS)
    assert len(encoded.ids) == 5
    assert encoded.first == (1, 3, None, None, None)

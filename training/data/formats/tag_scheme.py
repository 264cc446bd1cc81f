"""Converts tags of entities in IOB1, IOBES and BILOU to BIO (IOB2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rootstock.training.characters import quoted
from rootstock.training.data.example import OUTSIDE
from rootstock.training.errors import DataError

# BILOU calls the last word L and an entity of one word U, IOBES E and S.
_AS_IOBES = {"L": "E", "U": "S"}
BIO, IOB1, IOBES, BILOU = "BIO", "IOB1", "IOBES", "BILOU"
# Those that describe every sequence of their tags.
SCHEMES = (BIO, IOB1, IOBES, BILOU)
_TAG = re.compile(r"[BIESLU]-\S(.*\S)?")
_LAST, _SINGLE = "ES"


def is_tag(text: str) -> bool:
    """Tell whether a text is O, or a letter of a known scheme, a hyphen and a type without spaces at its ends."""
    return text == OUTSIDE or _TAG.fullmatch(text) is not None


def check_tag(where: str, tag: str) -> None:
    """Raise DataError, which begins with `where`, unless `tag` belongs to a known scheme."""
    if not is_tag(tag):
        raise DataError(
            f"{where}: {quoted(tag)} is not a BIO tag; use O, B-TYPE or I-TYPE (E-, S-, L- and U- of IOBES and "
            "BILOU are read too)"
        )


def as_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags of a sentence as BIO, with the entities that conlleval and seqeval find in them.

    An entity begins with B, S or U, after the end of another, and where the type changes. So IOB1 needs no other
    rule, and a sequence that no scheme allows has the entities that those programs count.
    Source: conlleval, the scorer of the shared task CoNLL-2000, `startOfChunk`.
    """
    converted, before, kind_before = [], OUTSIDE, ""
    for tag in tags:
        letter, kind = tag[0], tag[2:]
        letter = _AS_IOBES.get(letter, letter)
        begins = letter in ("B", _SINGLE) or before in (OUTSIDE, _LAST, _SINGLE) or kind != kind_before
        converted.append(OUTSIDE if letter == OUTSIDE else f"{'B' if begins else 'I'}-{kind}")
        before, kind_before = letter, kind
    return tuple(converted)


def scheme_of(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of the tags of a file: BIO, IOB1, IOBES or BILOU.

    BIO with an entity that begins with I is "IOB1" if no B begins an entity without need, else "BIO with faults".
    """
    letters: set[str] = set()
    lone, needless = False, False
    for tags in sentences:
        for before, tag in zip((OUTSIDE, *tags), tags, strict=False):
            letters.add(tag[0])
            same = before != OUTSIDE and before[2:] == tag[2:]
            lone |= tag[0] == "I" and not same
            needless |= tag[0] == "B" and not same
    if letters & {"U", "L"}:
        return BILOU if not letters & {"E", "S"} else "a mixture of IOBES and BILOU"
    if letters & {"E", "S"}:
        return IOBES
    if lone:
        return "BIO with faults" if needless else IOB1
    return BIO

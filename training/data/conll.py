"""Reads CoNLL files: a token, a tab and an IOB2 tag on each line, a blank line between sentences (CoNLL-2003)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rootstock.training.characters import quoted
from rootstock.training.data.example import OUTSIDE, Example
from rootstock.training.errors import DataError

# CoNLL-2003 begins each document with a line of this word.
_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path, text: str) -> Iterator[Example]:
    """Yield the sentences of a file's text.

    Raise DataError, with the line, if a line is not a token and a tag, or a tag does not follow IOB2.
    """
    words: list[str] = []
    tags: list[str] = []
    for line, content in enumerate([*text.split("\n"), ""], start=1):
        if content.strip() and content.split()[0] != _DOCUMENT:
            word, tag = _word(path, line, content.rstrip("\r"))
            check_tag(f"{path}, line {line}", tag, tags[-1] if tags else OUTSIDE)
            words.append(word)
            tags.append(tag)
        elif words:
            yield Example(" ".join(words), tuple(tags), line - len(words), tuple(words))
            words, tags = [], []


def check_tag(where: str, tag: str, before: str) -> None:
    """Raise DataError unless `tag` is O, B-TYPE, or I-TYPE after a tag of the same type (`before`)."""
    if tag != OUTSIDE and not (tag[:2] in ("B-", "I-") and tag[2:].strip() == tag[2:] != ""):
        raise DataError(f"{where}: {quoted(tag)} is not a BIO tag; use O, B-TYPE or I-TYPE")
    kind = tag[2:]
    if tag[0] == "I" and before not in (f"B-{kind}", tag):
        raise DataError(f"{where}: {quoted(tag)} does not follow {quoted('B-' + kind)}; begin an entity with B-")


def tags_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the tags in id order: O, then B- and I- of each entity type in alphabetical order."""
    types = sorted({kind for example in examples for kind in example.kinds})
    return (OUTSIDE, *(f"{bio}-{kind}" for kind in types for bio in "BI"))


def _word(path: Path, line: int, content: str) -> tuple[str, str]:
    cells = content.split("\t")
    if len(cells) != 2 or not cells[0].strip() or cells[0] != cells[0].strip():
        raise DataError(f"{path}, line {line}: {quoted(content)} is not a token, one tab and a tag")
    return cells[0], cells[1]

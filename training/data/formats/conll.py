"""Reads CoNLL files: on each line a token, perhaps other columns, and a tag; a blank line between sentences.

Source: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rootstock.training.characters import quoted
from rootstock.training.data.example import OUTSIDE, Example
from rootstock.training.data.formats.characters import check_nul, lines_of
from rootstock.training.data.formats.tag_scheme import as_bio, check_tag, is_tag
from rootstock.training.errors import DataError

# CoNLL-2003 begins each document with a line of this word.
_DOCUMENT = "-DOCSTART-"
# A comment begins so, and so does a line of the token # with a space behind it.
_COMMENT = "# "
# A space that does not break, and others of Unicode, are characters of a token.
_SPACES = re.compile("[ \t]+")


class TaggedSentence(NamedTuple):
    """The words of a sentence, its tags as the file has them, its first line, and its group, if it has one."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int
    group: str | None = None

    def as_example(self) -> Example:
        """Return the sentence with its tags as BIO."""
        return Example(" ".join(self.words), as_bio(self.tags), self.line, self.words, group=self.group)


def read_conll(path: Path, text: str) -> Iterator[TaggedSentence]:
    """Yield the sentences of a file's text.

    The token is the first column and the tag the last. Columns end at tabs or, on a line without one, at spaces.
    Lines of -DOCSTART-, and comments before a sentence, are no part of it. Raise DataError, with the line, for a
    line without a token and a tag, for one with other columns than the lines before, and for a tag of no scheme.
    """
    words: list[str] = []
    tags: list[str] = []
    lines = [*lines_of(text), ""]
    width = _width(lines)
    for line, content in enumerate(lines, start=1):
        cells = _cells(content)
        # A comment may end like a tag, and the token # has as many columns as any other.
        comment = content.startswith(_COMMENT) and not words
        comment = comment and (not is_tag(cells[-1]) or len(cells) != (width or len(cells)))
        if cells and cells[0] != _DOCUMENT and not comment:
            where = f"{path}, line {line}"
            width = width or len(cells)
            _check_cells(where, content, cells, width)
            words.append(cells[0])
            tags.append(cells[-1])
        elif words:
            yield TaggedSentence(tuple(words), tuple(tags), line - len(words))
            words, tags = [], []


def tags_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the tags in id order: O, then B- and I- of each entity type in alphabetical order."""
    types = sorted({kind for example in examples for kind in example.kinds})
    return (OUTSIDE, *(f"{bio}-{kind}" for kind in types for bio in "BI"))


def _width(lines: Sequence[str]) -> int:
    """Return the number of columns of the first line that is no comment; 0 without one."""
    rows = (_cells(line) for line in lines if not line.startswith(_COMMENT))
    return next((len(cells) for cells in rows if cells and cells[0] != _DOCUMENT), 0)


def _cells(content: str) -> list[str]:
    """Return the columns of a line without the spaces at their ends; none for a blank line."""
    if not (content := content.rstrip()):
        return []
    cells = content.split("\t") if "\t" in content else _SPACES.split(content)
    return [cell.strip(" ") for cell in cells]


def _check_cells(where: str, content: str, cells: Sequence[str], width: int) -> None:
    if len(cells) < 2 or not cells[0]:
        raise DataError(f"{where}: {quoted(content)} is not a token and a tag with a tab between them")
    check_tag(where, cells[-1])
    if len(cells) != width:
        raise DataError(
            f"{where}: {len(cells)} columns, and the lines before have {width}: {quoted(content)}; separate the "
            "columns by one tab each"
        )
    check_nul(cells[0], where)

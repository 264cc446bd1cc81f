"""A labelled input, and the examples of one file."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

OUTSIDE = "O"


@dataclass(frozen=True)
class Example:
    """One labelled input.

    For a text, `labels` holds its one label, or any number of them in order if `several` is true. If its answer
    is a number, that is `value`, and there are no labels. For tokens, `labels` holds a BIO tag for each of
    `words`, and `text` is the words joined by spaces. `line` is the example's first line in its file (its row, in
    a Parquet file). `pair` is the second text of a pair, `group` the example's group for fairness figures.

    For an image or a recording, `file` is its path and `text` that path as the data states it. `digest` covers
    its pixels or samples.
    """

    text: str
    labels: tuple[str, ...]
    line: int
    words: tuple[str, ...] = ()
    pair: str | None = None
    group: str | None = None
    file: Path | None = None
    digest: str = ""
    several: bool = False
    value: float | None = None

    @property
    def key(self) -> str:
        """The key under which equal inputs are found: texts without differences of case, spacing and form."""
        if self.file is not None:
            return self.digest
        return normalised(self.text) + ("" if self.pair is None else "\x1f" + normalised(self.pair))

    @property
    def stratum(self) -> str:
        """The stratum of a stratified split: the label, or the set of labels or entity types."""
        return "+".join(sorted(self.kinds))

    @property
    def kinds(self) -> set[str]:
        """The example's labels, or the entity types in its sentence."""
        return {tag[2:] for tag in self.labels if tag != OUTSIDE} if self.words else set(self.labels)

    @property
    def answer(self) -> str:
        """The example's answer in words: its labels or tags with spaces between them, or its number."""
        if self.value is not None:
            return f"{self.value:.12g}"
        return ("|" if self.several else " ").join(self.labels)

    @cached_property
    def starts(self) -> list[int]:
        """The position in `text` of the first character of each word."""
        starts = [0]
        for word in self.words[:-1]:
            starts.append(starts[-1] + len(word) + 1)
        return starts

    def word_of(self, begin: int, end: int) -> int | None:
        """Return the index in `words` of a token that spans these characters of `text`; None for an empty token.

        Many tokenizers count the space before a word as part of its first token.
        """
        return bisect_right(self.starts, begin + (self.text[begin] == " ")) - 1 if begin < end else None


def normalised(text: str) -> str:
    """Return the text without differences of case, spacing and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class Rows:
    """The examples of one file, in its order, and the file's hash.

    `tag_scheme` is the scheme of the file's tags, which the examples have as BIO; it is empty without tags.
    """

    path: Path
    sha256: str
    examples: tuple[Example, ...]
    tag_scheme: str = ""

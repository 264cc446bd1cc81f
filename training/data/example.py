"""A labelled input, and the examples of one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OUTSIDE = "O"


@dataclass(frozen=True)
class Example:
    """One labelled input.

    `labels` holds the one label of `text`; for tokens, one BIO tag for each of `words`, which joined by spaces
    are `text`. `line` is where it begins in its file (its row, in a Parquet file). `pair` is the second text of a
    pair, `group` what fairness figures tell apart.
    """

    text: str
    labels: tuple[str, ...]
    line: int
    words: tuple[str, ...] = ()
    pair: str | None = None
    group: str | None = None

    @property
    def stratum(self) -> str:
        """What a stratified split balances: the label, or the set of entity types in the sentence."""
        return "+".join(sorted(self.kinds)) if self.words else self.labels[0]

    @property
    def kinds(self) -> set[str]:
        """The labels, or the entity types, that this example is an example of."""
        return {tag[2:] for tag in self.labels if tag != OUTSIDE} if self.words else set(self.labels)


@dataclass(frozen=True)
class Rows:
    """The examples of one file, in its order, and the file's hash."""

    path: Path
    sha256: str
    examples: tuple[Example, ...]

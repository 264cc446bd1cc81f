"""The tokenizer of an adapter that brings tokens, as an engine holds it."""

from __future__ import annotations

from typing import Protocol


class AdapterTokenizer(Protocol):
    """A tokenizer with an adapter's tokens, which lives as long as the adapter is in memory.

    `nbytes` is the memory that it takes beside the foundation's tokenizer.
    """

    nbytes: int

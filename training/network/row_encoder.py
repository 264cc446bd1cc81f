"""Examples as token rows, and token rows as inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

from rootstock.adapters.bundle.golden import GoldenInput
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Preprocessing
from rootstock.training.data.encoding import TokenRow, encode, encode_texts, load_tokenizer, padding
from rootstock.training.data.example import Example
from rootstock.training.network.inputs import Inputs, TokenInputs
from rootstock.training.problems.problem import Problem

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


class InputEncoder(Protocol):
    """An encoder of examples as rows, and of rows as inputs, for a network on `device`."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def problem(self) -> Problem: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The preparation of texts that a bundle states; None for images and recordings."""

    def on(self, device: torch.device) -> Self:
        """Return the encoder for a network on another device."""

    def encode(self, examples: Sequence[Example]) -> list[Any]:
        """Return labelled examples as rows."""

    def inputs(self, rows: Sequence[Any]) -> Inputs:
        """Return rows ready to be batched."""

    def views(self, rows: Sequence[Any]) -> list[Any]:
        """Return the changed copies of rows to train on, all rows once for each view; none without any."""

    def golden_input(self, example: Example, row: Any) -> tuple[GoldenInput, Any]:
        """Return an example, whose row is `row`, as the input of a golden set, and the row of that input."""


@dataclass(frozen=True)
class RowEncoder:
    """An encoder of examples by the foundation's tokenizer, for a network on `device`.

    `problem` has the labels in id order, and `max_length` is the limit in tokens.
    """

    tokenizer: Tokenizer
    problem: Problem
    max_length: int
    pad_id: int
    device: torch.device

    @classmethod
    def of(cls, files: FoundationFiles, problem: Problem, max_length: int, device: torch.device) -> RowEncoder:
        """Return the encoder of a foundation's files."""
        return cls(load_tokenizer(files.folder, max_length), problem, max_length, padding(files), device)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in id order."""
        return self.problem.labels

    def on(self, device: torch.device) -> RowEncoder:
        """Return the encoder for a network on another device."""
        return replace(self, device=device)

    def encode(self, examples: Sequence[Example]) -> list[TokenRow]:
        """Return labelled examples as token rows."""
        return encode(self.tokenizer, examples, self.labels)

    def encode_texts(self, texts: Sequence[str]) -> list[TokenRow]:
        """Return texts without labels as token rows."""
        return encode_texts(self.tokenizer, texts)

    def inputs(self, rows: Sequence[TokenRow]) -> TokenInputs:
        """Return rows ready to be batched."""
        return TokenInputs(rows, self.pad_id, self.device)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preparation of texts that a bundle states."""
        return Preprocessing(self.max_length)

    def views(self, rows: Sequence[TokenRow]) -> list[TokenRow]:
        """Return no rows: words change with each epoch."""
        return []

    def golden_input(self, example: Example, row: TokenRow) -> tuple[GoldenInput, TokenRow]:
        """Return a text, or a pair of texts, and its row."""
        return example.text if example.pair is None else (example.text, example.pair), row

"""Examples as token rows, and token rows as inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.training.data.encoding import TokenRow, encode, encode_texts, load_tokenizer, padding
from rootstock.training.data.example import Example
from rootstock.training.network.inputs import Inputs

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class RowEncoder:
    """An encoder of examples by the foundation's tokenizer, for a network on `device`.

    `labels` are in id order, and `max_length` is the limit in tokens.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    max_length: int
    pad_id: int
    device: torch.device

    @classmethod
    def of(
        cls, files: FoundationFiles, labels: tuple[str, ...], max_length: int, device: torch.device
    ) -> RowEncoder:
        """Return the encoder of a foundation's files."""
        return cls(load_tokenizer(files.folder, max_length), labels, max_length, padding(files), device)

    def encode(self, examples: Sequence[Example]) -> list[TokenRow]:
        """Return labelled examples as token rows."""
        return encode(self.tokenizer, examples, self.labels)

    def encode_texts(self, texts: Sequence[str]) -> list[TokenRow]:
        """Return texts without labels as token rows."""
        return encode_texts(self.tokenizer, texts)

    def inputs(self, rows: Sequence[TokenRow]) -> Inputs:
        """Return rows ready to be batched."""
        return Inputs(rows, self.pad_id, self.device)

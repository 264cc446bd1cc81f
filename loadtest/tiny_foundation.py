"""A foundation that costs next to nothing to run: what is left of a request's cost is the server's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapters.foundation import locate

_WIDTH = 32


def make_tiny_foundation(folder: Path) -> None:
    """Save a random BERT of one layer, 32 wide, with the default foundation's tokenizer. Imports torch."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=_WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=2 * _WIDTH
    )
    BertModel(config).save_pretrained(folder)
    shutil.copy(locate("default").folder / "tokenizer.json", folder)

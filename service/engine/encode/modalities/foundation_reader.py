"""Choose what reads the inputs of a foundation, by its modality."""

from __future__ import annotations

from pathlib import Path

from rootstock.adapters.spec import FoundationSpec
from rootstock.service.engine.encode.modalities.reader import Reader


def open_reader(spec: FoundationSpec, folder: Path) -> Reader:
    """Return the reader of a foundation, from its files in `folder`: the tokenizer, or the processor of files."""
    from rootstock.service.engine.encode.modalities.text import Tokenizer

    mask_id = None if spec.masked_lm is None else spec.masked_lm.mask_id
    return Tokenizer(folder / "tokenizer.json", mask_id, spec.max_tokens)

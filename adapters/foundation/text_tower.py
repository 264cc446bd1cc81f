"""Reads the tower for texts of a foundation whose trunk is a tower for images: CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootstock.adapters.embedding_files import TOKENIZER
from rootstock.adapters.foundation.families import TEXT_TOWERS
from rootstock.adapters.foundation.files import FoundationError, read_json
from rootstock.adapters.foundation.tokenizer_files import token_ids
from rootstock.adapters.foundation.weights import FoundationWeights

# SigLIP was trained on texts of this many tokens, and reads the last of them. transformers' pipeline fills up
# every text to it.
SIGLIP_TOKENS = 64
_PREFIX = "text_model."
# The padding token of SigLIP's tokenizer unless its config names another.
_SIGLIP_PADDING = "</s>"


def text_tower_type(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return the architecture of a folder's tower for texts; None if it has no such tower, or no tokenizer.

    `config` is the content of config.json.
    """
    model_type = str(config.get("model_type"))
    if model_type not in TEXT_TOWERS or not (folder / "tokenizer.json").is_file():
        return None
    beside = FoundationWeights(folder, model_type).beside
    return TEXT_TOWERS[model_type] if any(name.startswith(_PREFIX) for name in beside) else None


def padding_id(folder: Path, text_type: str) -> int | None:
    """Return the token that fills up every text of a tower; None if texts are padded to the longest of a batch.

    Raise FoundationError if the tokenizer lacks the token.
    """
    if text_type != TEXT_TOWERS["siglip"]:
        return None
    settings = read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    token = settings.get("pad_token") or _SIGLIP_PADDING
    content = token.get("content") if isinstance(token, dict) else token
    ids = token_ids(read_json(folder / "tokenizer.json"))
    if content not in ids:
        raise FoundationError(
            f"{folder}: {TOKENIZER} names the padding token {content!r}, which tokenizer.json lacks; save the "
            "tokenizer again with transformers"
        )
    return ids[content]

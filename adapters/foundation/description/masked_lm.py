"""Finds the masked-language-model head that a checkpoint may have, with which the foundation fills masks."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

from rootstock.adapters.foundation.description.completeness import current
from rootstock.adapters.foundation.location import FoundationFiles, fingerprint, heads_digest, mask_token
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import MaskedLM
from rootstock.adapters.strict_json.canonical import canonical


def masked_lm(files: FoundationFiles, config: Any) -> MaskedLM | None:
    """Return the head; None unless the checkpoint holds all its tensors and the tokenizer has a mask token.

    A tensor that transformers ties to the trunk (the decoder) need not be in the files. Of tensors that are tied
    to each other, one is enough. This imports torch and transformers.
    """
    import torch
    from transformers import AutoModelForMaskedLM

    if type(config) not in AutoModelForMaskedLM._model_mapping:
        return None
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config)
    tied: dict[int, set[str]] = defaultdict(set)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied[id(parameter)].add(name)
    prefix = f"{model.base_model_prefix}."
    needed = [names for names in tied.values() if not any(name.startswith(prefix) for name in names)]
    present = set(map(current, FoundationWeights(files.folder, config.model_type).beside))
    heads, mask_id = heads_digest(files.folder), _mask_id(files)
    if heads is None or mask_id is None or not all(names & present for names in needed):
        return None
    digest = hashlib.sha256(canonical([fingerprint(files.folder), heads])).hexdigest()
    return MaskedLM(type(model).__name__, mask_id, f"sha256:{digest}")


def _mask_id(files: FoundationFiles) -> int | None:
    from tokenizers import Tokenizer

    token = mask_token(files.folder)
    tokenizer = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
    return None if token is None else tokenizer.token_to_id(token)

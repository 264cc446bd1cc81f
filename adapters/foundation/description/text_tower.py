"""Builds the spec of the tower for texts of a foundation whose trunk is a tower for images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rootstock.adapters.foundation.description.layers import convolutions, linears, norms
from rootstock.adapters.foundation.families import TEXT_TOWERS
from rootstock.adapters.foundation.location import FoundationFiles, lowercases_text, max_tokens
from rootstock.adapters.foundation.text_tower import SIGLIP_TOKENS, padding_id, text_tower_type
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import ZERO_SHOT_IMAGES, EmbeddingSpec, FoundationSpec, TaskClass, TextTower
from rootstock.adapters.trunk_class import new_trunk


def text_tower(files: FoundationFiles, config: Any, raw: Mapping[str, Any], fingerprint: str) -> TextTower | None:
    """Return the tower for texts of a foundation with this fingerprint; None if it has none.

    `config` is transformers' and `raw` the content of config.json.
    """
    import torch

    text_type = text_tower_type(files.folder, raw)
    if text_type is None:
        return None
    weights = FoundationWeights(files.folder, config.model_type)
    scale, bias = weights.number("logit_scale"), weights.number("logit_bias")
    with torch.device("meta"):
        trunk: Any = new_trunk(config, text_type)
    limit = max_tokens(files.folder, text_type, trunk.config.max_position_embeddings, None)
    fills = text_type == TEXT_TOWERS["siglip"]
    if fills:
        limit = min(limit, SIGLIP_TOKENS)
    name = type(trunk).__name__
    spec = FoundationSpec(
        fingerprint=fingerprint,
        name=files.name,
        revision=files.revision,
        model_type=text_type,
        hidden_size=trunk.config.hidden_size,
        layers=trunk.config.num_hidden_layers,
        max_tokens=limit,
        parameters=sum(p.numel() for p in trunk.parameters()),
        embedding=EmbeddingSpec("pooler", False, limit),
        # SigLIP was trained without a mask: it reads the padding too.
        inputs=("input_ids",) if fills else ("input_ids", "attention_mask"),
        sites=linears(trunk),
        classes={name: TaskClass(name, "feature-extraction", "", linears(trunk))},
        norms=norms(trunk),
        # CLIP's pooling reads the ids of the input, so that rows share all layers or none.
        layer_prefix="",
        pad_id=padding_id(files.folder, text_type),
        lowercases=lowercases_text(files.folder),
    )
    return TextTower(spec, math.exp(scale or 0.0), bias or 0.0, "sigmoid" if fills else "softmax")


def whole_class(config: Any) -> TaskClass:
    """Return the class of the whole model, which compares images with texts."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(config)
    inside = convolutions(model)
    return TaskClass(type(model).__name__, ZERO_SHOT_IMAGES, "", linears(model) | inside, {}, frozenset(inside))

"""Gives the tensors of a trunk the names that its modules have, whatever a file calls them.

transformers 5 renamed the modules of some architectures, and still writes the old names. Files of either kind
have the same fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rootstock.adapters.bundle.names.former_names import present_name

_Renaming = tuple[tuple[re.Pattern[str], str], ...]


def _renaming(*pairs: tuple[str, str]) -> _Renaming:
    return tuple((re.compile(old, re.ASCII), new) for old, new in pairs)


_TABLE = "relative_position_bias_table"
# torch has two forms of weight normalisation, which call its two tensors differently.
_WAVES = _renaming(
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
# The tensors that no adapter changes. Those of linear layers and convolutions are in `former_names`.
_RENAMED: Mapping[str, _Renaming] = {
    "beit": _renaming(
        (r"\battention\.attention\.relative_position_bias\.", "relative_position_bias."),
        (r"^encoder\.relative_position_bias\.", "shared_position_bias."),
    ),
    "swin": _renaming((rf"\battention\.self\.{_TABLE}$", f"attention.relative_position_bias.{_TABLE}")),
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm"), _WAVES),
    "nomic_bert": _renaming(
        (r"^encoder\.layers\.", "layers."),
        (r"^emb_ln\.", "embeddings.LayerNorm."),
        (r"\battn\.out_proj\.", "self_attn.o_proj."),
        (r"\bfc11\.", "up_proj."),
        (r"\bfc12\.", "gate_proj."),
        (r"\bfc2\.", "down_proj."),
        (r"\bnorm1\.", "post_attention_layernorm."),
        (r"\bnorm2\.", "post_mlp_layernorm."),
    ),
    "gte": _renaming(
        (r"^encoder\.layer\.", "layers."),
        (r"\battention\.o_proj\.", "self_attn.o_proj."),
        (r"\battn_ln\.", "post_attention_layernorm."),
        (r"\bmlp_ln\.", "post_mlp_layernorm."),
    ),
    "jina_embeddings_v3": _renaming(
        (r"^encoder\.layers\.", "layers."),
        (r"^emb_ln\.", "embeddings.LayerNorm."),
        (r"\bmixer\.out_proj\.", "self_attn.o_proj."),
        (r"\bnorm1\.", "post_attention_layernorm."),
        (r"\bnorm2\.", "post_mlp_layernorm."),
    ),
}


def current_name(model_type: str, name: str) -> str:
    """Return the name inside the trunk that transformers 5 gives a tensor, whose name in a file is `name`."""
    name = present_name(model_type, name)
    for old, new in _RENAMED.get(model_type, ()):
        name = old.sub(new, name)
    return name

"""Gives the tensors of a trunk the names that its modules have, whatever a file calls them.

transformers 5 renamed the modules of some architectures, and still writes the old names. Files of either kind
have the same fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_Renaming = tuple[tuple[re.Pattern[str], str], ...]


def _renaming(*pairs: tuple[str, str]) -> _Renaming:
    return tuple((re.compile(old, re.ASCII), new) for old, new in pairs)


_ATTENTION = (
    (r"\battention\.(attention|self)\.query\b", "attention.q_proj"),
    (r"\battention\.(attention|self)\.key\b", "attention.k_proj"),
    (r"\battention\.(attention|self)\.value\b", "attention.v_proj"),
    (r"\battention\.output\.dense\b", "attention.o_proj"),
)
_MLP = ((r"\bintermediate\.dense\b", "mlp.fc1"), (r"\boutput\.dense\b", "mlp.fc2"))
_VIT = (
    *_ATTENTION,
    *_MLP,
    (r"^encoder\.layer\.", "layers."),
    (r"\battention\.attention\.relative_position_bias\.", "relative_position_bias."),
    (r"^encoder\.relative_position_bias\.", "shared_position_bias."),
)
_BIAS_TABLE = r"\battention\.self\.relative_position_bias_table$"
_SWIN = (*_ATTENTION, *_MLP, (_BIAS_TABLE, "attention.relative_position_bias.relative_position_bias_table"))
# torch has two forms of weight normalisation, which call its two tensors differently.
_WAVES = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
_RENAMED: Mapping[str, _Renaming] = {
    **dict.fromkeys(("vit", "deit", "beit", "audio-spectrogram-transformer"), _renaming(*_VIT)),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), _renaming(*_ATTENTION)),
    "dinov3_vit": _renaming((r"^layer\.", "model.layer.")),
    "swin": _renaming(*_SWIN),
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm"), _renaming(*_WAVES)),
}


def current_name(model_type: str, name: str) -> str:
    """Return the name inside the trunk that transformers 5 gives a tensor, whose name in a file is `name`."""
    for old, new in _RENAMED.get(model_type, ()):
        name = old.sub(new, name)
    return name

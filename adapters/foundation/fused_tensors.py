"""Finds the tensors of single layers in tensors that hold several of them, one after the other.

The published checkpoints of some architectures hold the weights of query, key and value as one tensor.
transformers' modules are apart. Files of either kind have the same fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_ATTENTION = tuple(f"self_attn.{part}_proj" for part in "qkv")
# By architecture: the end of a module's name in a file, and the modules whose rows its tensors hold, in order.
_FUSED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "nomic_bert": {"attn.Wqkv": _ATTENTION},
    "jina_embeddings_v3": {"mixer.Wqkv": _ATTENTION},
    "gte": {"attention.qkv_proj": _ATTENTION, "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj")},
}
_KIND = re.compile(r"(.+)\.(weight|bias)", re.ASCII)


def parts_of(model_type: str, name: str) -> Sequence[str]:
    """Return the names of the tensors that a tensor holds, in the order of their rows; its own name for one."""
    match = _KIND.fullmatch(name)
    for end, modules in _FUSED.get(model_type, {}).items():
        if match is not None and match[1].endswith(f".{end}"):
            stem = match[1].removesuffix(end)
            return [f"{stem}{module}.{match[2]}" for module in modules]
    return [name]

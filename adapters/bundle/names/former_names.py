"""The names that transformers 4 gave modules, where transformers 5 has others: a table by model type.

An adapter that was saved under the former names is an adapter of the same modules. PEFT 0.21 does not load it on
these models, because it does not rename `target_modules`. Source: `transformers/conversion_mapping.py` (5.23).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Renaming = tuple[str, str]

_MLP = (("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"))
_DINO = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)
_VIT = (("encoder.layer", "layers"), *_DINO, *_MLP)
_SWIN = (
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    *_MLP,
)
# A vision tower alone. In a model of two towers, and formerly alone too, it is the part `vision_model`.
_TOWER_PARTS = ("embeddings", "pre_layrnorm", "encoder", "post_layernorm", "head")
_TOWER = tuple((f"vision_model.{part}", part) for part in _TOWER_PARTS)
# For each model type: the former part of a name and the present one. The order counts, because
# "attention.output.dense" ends in "output.dense".
_RENAMINGS: dict[str, Sequence[Renaming]] = {
    **dict.fromkeys(
        ("vit", "deit", "beit", "ijepa", "vit_mae", "vit_msn", "vivit", "audio-spectrogram-transformer"), _VIT
    ),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), _DINO),
    "swin": _SWIN,
    **dict.fromkeys(("clip", "clip_vision_model", "siglip", "siglip_vision_model"), _TOWER),
    "dinov3_vit": (("layer", "model.layer"),),
    "dinov3_convnext": (("stages", "model.stages"),),
}


def present_name(model_type: str, name: str) -> str:
    """Return the present name of a module or tensor with a former name."""
    return _renamed(name, _RENAMINGS.get(model_type, ()))


def former_name(model_type: str, name: str) -> str:
    """Return the former name of a module or tensor with a present name."""
    return _renamed(name, [(new, old) for old, new in _RENAMINGS.get(model_type, ())])


def has_former_names(model_type: str, modules: Iterable[str], known: Iterable[str]) -> bool:
    """Return whether one of the modules is unknown and has a known name at present."""
    known = frozenset(known)
    return any(name not in known and present_name(model_type, name) in known for name in modules)


def _renamed(name: str, renamings: Iterable[Renaming]) -> str:
    dotted = f".{name}."
    for before, after in renamings:
        # A new part may end in the former one. A name that has it already stays.
        if not (f".{before}." in f".{after}." and f".{after}." in dotted):
            dotted = dotted.replace(f".{before}.", f".{after}.")
    return dotted[1:-1]

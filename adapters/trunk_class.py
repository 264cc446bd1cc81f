"""Makes the trunk of a foundation, as the model of transformers that computes it.

For most architectures, the trunk is the model that AutoModel makes. For some it is one part of that model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# By architecture, the part of AutoModel's model that is the trunk. The last two are parts of the first two.
_PARTS = {
    "clip": "vision_model",
    "siglip": "vision_model",
    "whisper": "encoder",
    "clip_text_model": "text_model",
    "siglip_text_model": "text_model",
}


def new_trunk(config: Any, model_type: str | None = None) -> nn.Module:
    """Return a trunk with new weights for a config of transformers. This imports transformers.

    `model_type` is the architecture of the trunk, by default that of the config.
    """
    from transformers import AutoModel

    return _trunk(AutoModel.from_config(config), model_type or config.model_type)


def load_trunk(folder: Path, model_type: str | None = None, **options: Any) -> nn.Module:
    """Return the trunk in a foundation's folder, with the options of `from_pretrained`.

    `model_type` is the architecture of the trunk, by default that of the folder. This imports transformers.
    """
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, **options)
    return _trunk(model, model_type or model.config.model_type)


def _trunk(model: Any, model_type: str) -> nn.Module:
    part = _PARTS.get(model_type)
    trunk: nn.Module = model if part is None else getattr(model, part)
    return trunk

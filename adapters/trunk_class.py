"""Makes the trunk of a foundation, as the model of transformers that computes it.

For most architectures, the trunk is the model that AutoModel makes. For some it is one part of that model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# By architecture, the part of AutoModel's model that is the trunk. The other parts read text.
_PARTS = {"clip": "vision_model", "siglip": "vision_model", "whisper": "encoder"}


def new_trunk(config: Any) -> nn.Module:
    """Return a trunk with new weights for a config of transformers. This imports transformers."""
    from transformers import AutoModel

    return _trunk(AutoModel.from_config(config), config)


def load_trunk(folder: Path, **options: Any) -> nn.Module:
    """Return the trunk in a foundation's folder, with the options of `from_pretrained`.

    This imports transformers.
    """
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, **options)
    return _trunk(model, model.config)


def _trunk(model: Any, config: Any) -> nn.Module:
    part = _PARTS.get(config.model_type)
    trunk: nn.Module = model if part is None else getattr(model, part)
    return trunk

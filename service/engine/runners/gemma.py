"""Let a Gemma 3 in which every token sees the others take masks that the TorchScript exporter can trace.

transformers combines two masks of such a model by a function for each pair of tokens, which the exporter cannot
trace. The masks here are the same: all tokens, or those at a distance below the window.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask


def let_every_token_see(trunk: nn.Module) -> None:
    """Make the masks of a Gemma 3 trunk before its pass, in place. Leave any other trunk unchanged."""
    config: Any = trunk.config
    if config.model_type != "gemma3_text" or not config.use_bidirectional_attention:
        return
    config.use_cache = False
    trunk.register_forward_pre_hook(_make_masks, with_kwargs=True)


def _make_masks(trunk: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    # Gemma's window leaves out the tokens at its own distance, and the other function's holds them.
    config = copy.copy(trunk.config)
    config.sliding_window = trunk.config.sliding_window - 1
    given = {
        "config": config,
        "inputs_embeds": trunk.embed_tokens(kwargs["input_ids"]),
        "attention_mask": kwargs["attention_mask"],
    }
    masks = {
        "full_attention": create_bidirectional_mask(**given),
        "sliding_attention": create_bidirectional_sliding_window_mask(**given),
    }
    return args, {**kwargs, "attention_mask": masks}

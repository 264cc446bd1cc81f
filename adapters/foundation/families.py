"""Lists the architectures that are served, and the keys of config.json that identify a foundation of each.

An architecture is the `model_type` in config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The architectures that compute an input in one pass: the parity tests compare their answers with transformers'.
ARCHITECTURES = (
    "bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert",
    "gpt2",
)  # fmt: skip
# The architectures that continue a text.
DECODERS = (
    "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt_neox", "gpt2",
    "granite", "olmo2", "smollm3",
)  # fmt: skip
# The architectures that read a text with an encoder and write another one with a decoder.
ENCODER_DECODERS = ("t5", "mt5", "bart", "mbart", "pegasus", "marian")
# An architecture of both of the first lists continues a text if the config names this class.
_LANGUAGE_MODELS = {"gpt2": "GPT2LMHeadModel"}

# The keys that decide the architecture's arithmetic. The rest of config.json (dates, paths, dropout) does not.
_KEYS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "hidden_act", "hidden_activation", "activation", "vocab_size", "type_vocab_size",
    "max_position_embeddings", "position_embedding_type", "layer_norm_eps", "norm_eps", "pad_token_id",
    "embedding_size", "num_hidden_groups", "relative_attention", "max_relative_positions", "position_buckets",
    "pos_att_type", "share_att_key", "norm_rel_ebd", "rope_theta", "rope_parameters", "global_rope_theta",
    "local_rope_theta", "global_attn_every_n_layers", "local_attention", "dim", "n_layers", "n_heads",
    "hidden_dim",
)  # fmt: skip
# The further keys of architectures that continue a text. An encoder's fingerprint leaves them out, even if its
# config holds some of them.
_DECODER_KEYS = (
    "rms_norm_eps", "head_dim", "attention_bias", "mlp_bias", "sliding_window", "use_sliding_window",
    "max_window_layers", "layer_types", "rope_scaling", "partial_rotary_factor", "rotary_pct", "rotary_emb_base",
    "use_parallel_residual", "qk_layernorm", "n_head", "n_positions", "activation_function",
    "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "query_pre_attn_scalar",
    "attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention", "rope_local_base_freq",
    "sliding_window_pattern", "embedding_multiplier", "attention_multiplier", "residual_multiplier",
    "logits_scaling", "no_rope_layers", "no_rope_layer_interval", "original_max_position_embeddings",
)  # fmt: skip

# The same for encoder–decoder architectures.
_ENCODER_DECODER_KEYS = (
    "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "tie_word_embeddings",
    "scale_decoder_outputs",
    "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim",
    "decoder_ffn_dim", "activation_function", "scale_embedding", "share_encoder_decoder_embeddings",
    "decoder_vocab_size",
)  # fmt: skip


def continues_text(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a config.json continues a text.

    A GPT-2 does if the config names its language model as the class. Any other GPT-2 computes one pass for each
    input.
    """
    architecture = config.get("model_type")
    if architecture not in ARCHITECTURES:
        return architecture in DECODERS
    return _LANGUAGE_MODELS.get(str(architecture)) in (config.get("architectures") or ())


def rewrites_text(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a config.json has an encoder and a decoder."""
    return config.get("model_type") in ENCODER_DECODERS


def known() -> tuple[str, ...]:
    """Return every architecture that is served."""
    return tuple(dict.fromkeys(ARCHITECTURES + DECODERS + ENCODER_DECODERS))


def identifying_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a config.json that decide the arithmetic of its model."""
    if rewrites_text(config):
        return _KEYS + _ENCODER_DECODER_KEYS
    return _KEYS + (_DECODER_KEYS if continues_text(config) else ())

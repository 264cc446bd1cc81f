"""Lists the architectures that are served, and the keys of config.json that identify a foundation of each.

An architecture is the `model_type` in config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rootstock.adapters.tasks import Modality

# The architectures that compute an input in one pass: the parity tests compare their answers with transformers'.
ARCHITECTURES = (
    "bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert",
    "gpt2", "camembert", "nomic_bert", "eurobert", "gte", "jina_embeddings_v3",
)  # fmt: skip
# The architectures that continue a text.
DECODERS = (
    "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt_neox", "gpt2",
    "granite", "olmo2", "smollm3",
)  # fmt: skip
# The architectures that read a text with an encoder and write another one with a decoder.
ENCODER_DECODERS = ("t5", "mt5", "bart", "mbart", "pegasus", "marian")
# The architectures that read images. Of CLIP and SigLIP, the trunk is the tower for images.
IMAGE_ARCHITECTURES = (
    "vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "beit", "swin", "convnext", "convnextv2",
    "resnet", "efficientnet", "mobilenet_v2", "clip", "clip_vision_model", "siglip",
    "siglip_vision_model",
)  # fmt: skip
# The architectures that read recordings. Of Whisper, the foundation is the encoder.
AUDIO_ARCHITECTURES = ("wav2vec2", "hubert", "wavlm", "audio-spectrogram-transformer", "whisper")
# Architectures that are refused, each with its reason and the remedy.
REFUSED: Mapping[str, str] = {
    "new": "its checkpoints bring the code that computes them, which is never run; transformers computes these "
    "models as the architecture gte: give a folder whose model_type is gte",
    "embedding_gemma2": "it reads texts, images and recordings, and a foundation reads one of them",
    "gemma3": "it reads images beside texts; give the part for texts, whose model_type is gemma3_text",
}
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

# The further keys of encoders whose config is like a decoder's, and of their classifiers.
_GATED_ENCODERS = ("nomic_bert", "eurobert", "gte", "jina_embeddings_v3")
_GATED_ENCODER_KEYS = (
    "rms_norm_eps", "head_dim", "attention_bias", "mlp_bias", "classifier_pooling",
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

# The same for architectures that read images. Their fingerprints leave out the keys above.
_IMAGE_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "image_size", "patch_size", "num_channels", "qkv_bias", "mlp_ratio", "num_register_tokens",
    "use_swiglu_ffn", "pooler_output_size", "pooler_act",
    # DINOv3
    "query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias", "use_gated_mlp", "rope_theta",
    "rope_parameters",
    # BEiT
    "use_absolute_position_embeddings", "use_relative_position_bias", "use_shared_relative_position_bias",
    "layer_scale_init_value", "use_mean_pooling",
    # Swin, ConvNeXT and ResNet
    "embed_dim", "depths", "num_heads", "window_size", "use_absolute_embeddings", "num_stages", "hidden_sizes",
    "embedding_size", "layer_type", "downsample_in_first_stage", "downsample_in_bottleneck",
    # EfficientNet and MobileNetV2
    "width_coefficient", "depth_coefficient", "depth_divisor", "kernel_sizes", "in_channels", "out_channels",
    "depthwise_padding", "strides", "num_block_repeats", "expand_ratios", "squeeze_expansion_ratio", "hidden_dim",
    "pooling_type", "batch_norm_eps", "depth_multiplier", "depth_divisible_by", "min_depth", "expand_ratio",
    "output_stride", "first_layer_is_expansion", "finegrained_output", "tf_padding",
    # SigLIP
    "vision_use_head",
)  # fmt: skip
# The same for architectures that read recordings.
_AUDIO_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride", "conv_kernel",
    "conv_bias", "num_feat_extract_layers", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
    "do_stable_layer_norm", "adapter_attn_dim", "feat_proj_layer_norm", "conv_pos_batch_norm", "num_buckets",
    "max_bucket_distance",
    # the audio spectrogram transformer
    "patch_size", "qkv_bias", "frequency_stride", "time_stride", "max_length", "num_mel_bins",
    # Whisper
    "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "activation_function",
    "scale_embedding", "max_source_positions",
)  # fmt: skip
# Architectures whose config holds those of two towers, and the part for images.
_TOWERS = {"clip": "vision_config", "siglip": "vision_config"}
# The architecture of their tower for texts, its part of the config, and the keys that identify it.
TEXT_TOWERS = {"clip": "clip_text_model", "siglip": "siglip_text_model"}
_TEXT_PART = "text_config"
_TEXT_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "vocab_size",
    "max_position_embeddings", "layer_norm_eps", "eos_token_id", "projection_size",
)  # fmt: skip


def modality_of(config: Mapping[str, Any]) -> Modality:
    """Return what the model of a config.json reads."""
    if config.get("model_type") in IMAGE_ARCHITECTURES:
        return "image"
    return "audio" if config.get("model_type") in AUDIO_ARCHITECTURES else "text"


def continues_text(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a config.json continues a text.

    A decoder does not if each of its tokens sees all others, as in EmbeddingGemma. A GPT-2 does if the config
    names its language model as the class. Any other GPT-2 computes one pass for each input.
    """
    architecture = config.get("model_type")
    if architecture not in ARCHITECTURES:
        return architecture in DECODERS and not _sees_all(config)
    return _LANGUAGE_MODELS.get(str(architecture)) in (config.get("architectures") or ())


def _sees_all(config: Mapping[str, Any]) -> bool:
    """Return whether each token of a decoder's text sees all others. Such a model only embeds."""
    return bool(config.get("use_bidirectional_attention")) or config.get("is_causal") is False


def rewrites_text(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a config.json has an encoder and a decoder."""
    return config.get("model_type") in ENCODER_DECODERS


def known() -> tuple[str, ...]:
    """Return every architecture that is served."""
    texts = ARCHITECTURES + DECODERS + ENCODER_DECODERS
    return tuple(dict.fromkeys(texts + IMAGE_ARCHITECTURES + AUDIO_ARCHITECTURES))


def identifying_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config.json that decides the arithmetic of its model."""
    keys = _keys(config)
    identifying = {key: config[key] for key in keys if key in config}
    if tower := _TOWERS.get(str(config.get("model_type"))):
        nested = config.get(tower)
        stated = nested if isinstance(nested, dict) else {}
        identifying[tower] = {key: stated[key] for key in keys if key in stated}
    return identifying


def identifying_text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config.json that decides the arithmetic of the tower for texts."""
    nested = config.get(_TEXT_PART)
    stated = nested if isinstance(nested, dict) else {}
    return {key: stated[key] for key in _TEXT_KEYS if key in stated}


def _keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    modality = modality_of(config)
    if modality != "text":
        return ("model_type", *(_IMAGE_KEYS if modality == "image" else _AUDIO_KEYS))
    if rewrites_text(config):
        return _KEYS + _ENCODER_DECODER_KEYS
    if config.get("model_type") in _GATED_ENCODERS:
        return _KEYS + _GATED_ENCODER_KEYS
    decodes = continues_text(config) or config.get("model_type") not in ARCHITECTURES
    return _KEYS + (_DECODER_KEYS if decodes else ())

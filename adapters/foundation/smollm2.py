"""Converts SmolLM2's GGUF file to the files that transformers' `save_pretrained` writes.

transformers reads the weights, the vocabulary and the metadata. This module writes the JSON files itself, because
their content enters the fingerprint, and what transformers writes depends on its version.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.foundation.conversion import run_conversion

# The keys of config.json that are copied. A float becomes the shortest decimal number with the same value in
# fp32: the GGUF file holds 9.999999747378752e-06 for 1e-05.
_COPIED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "vocab_size", "rms_norm_eps", "tie_word_embeddings", "bos_token_id",
    "eos_token_id", "pad_token_id",
)  # fmt: skip
_FIXED = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "dtype": "float32",
    "hidden_act": "silu",
    "mlp_bias": False,
    "model_type": "llama",
}
_NAMED = ("bos", "eos", "pad")
# The GGUF file names it `smollm`, which transformers does not know: it would leave out the split at digits.
_PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def convert(source: Path, folder: Path) -> None:
    """Write the model in a GGUF file to a folder: weights in fp32, configs and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    config = _config(read.config)
    # `save_pretrained` refuses a model that was read from a quantised file, so a plain one gets its tensors.
    with torch.device("meta"):
        plain = LlamaForCausalLM(LlamaConfig(**config))
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    ids = {f"{name}_token_id": config[f"{name}_token_id"] for name in _NAMED}
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", ids)
    _write(folder / "tokenizer.json", _tokenizer(json.loads(tokenizer.backend_tokenizer.to_str())))
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, config))
    # safetensors makes a file that its owner alone can read.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def _config(config: Any) -> dict[str, Any]:
    """Return the content of config.json."""
    copied = {key: _short(getattr(config, key)) for key in _COPIED}
    return {**_FIXED, **copied, "rope_theta": _short(config.rope_parameters["rope_theta"])}


def _short(value: Any) -> Any:
    """Return a float as the shortest decimal number with the same value in fp32; any other value unchanged."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _tokenizer(read: dict[str, Any]) -> dict[str, Any]:
    """Return the content of tokenizer.json, with the vocabulary, merges and special tokens that were read."""
    vocabulary = read["model"]["vocab"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    # transformers 5.5 adds the tokens of its tokenizer class. The model has no embeddings for them.
    special = [
        {"id": vocabulary[token["content"]], "content": token["content"], **flags}
        for token in read["added_tokens"]
        if token["content"] in vocabulary
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        # A byte that the vocabulary lacks gives no token.
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": read["model"]["merges"],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZER,
        "post_processor": None,
        "decoder": _DECODER,
        "model": model,
    }


def _tokenizer_config(tokenizer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Return the content of tokenizer_config.json. Its class takes tokenizer.json as it is."""
    # The ids are those of the GGUF file. transformers 5.5 takes another end token, from its tokenizer class.
    named = {f"{name}_token": tokenizer.convert_ids_to_tokens(config[f"{name}_token_id"]) for name in _NAMED}
    return {
        **named,
        "unk_token": tokenizer.unk_token,
        "chat_template": tokenizer.chat_template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_conversion(convert))

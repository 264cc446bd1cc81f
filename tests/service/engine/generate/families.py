"""Tiny random foundations that generate, one for each family, and PEFT's adapters of all kinds on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, FoundationSpec
from tests.peft_adapters import PeftAdapter, peft_model, save_adapter
from tests.tokenizer_families import CORPUS

END = "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
_GROUPED = {"num_key_value_heads": 2}
# By model_type: the options in which a family differs from the others.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 12},
    "mistral": {**_GROUPED, "sliding_window": 8},
    "gemma": {**_GROUPED, "head_dim": 16},
    # Layers take turns between a window and the whole text; caps and scales change tokens of random models.
    "gemma2": {
        **_GROUPED, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {
        **_GROUPED, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 8,
        "final_logit_softcapping": 3.0,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "phi": {},
    "phi3": {**_GROUPED, "sliding_window": 8},
    "gpt_neox": {},
    "gpt2": {"n_inner": 48, "scale_attn_by_inverse_layer_idx": True},
    "granite": {
        **_GROUPED, "embedding_multiplier": 3.0, "attention_multiplier": 0.5, "residual_multiplier": 0.5,
        "logits_scaling": 4.0,
    },
    "olmo2": _GROUPED,
    "smollm3": {**_GROUPED, "no_rope_layers": [1, 0, 1]},
}  # fmt: skip
# The names of the linear layers of attention and of one layer that is not attention.
TARGETS = {
    "phi": (["q_proj", "v_proj"], "fc1"),
    "phi3": (["qkv_proj"], "gate_up_proj"),
    "gpt_neox": (["query_key_value"], "dense_h_to_4h"),
    "gpt2": (["c_attn"], "c_fc"),
}
# `make test` has one family of each form of attention and of positions; `make test-slow` has the others.
FAST = ("llama", "gemma2", "gpt2", "gpt_neox")
USUAL_TARGETS = (["q_proj", "v_proj"], "up_proj")


@dataclass(frozen=True)
class TinyDecoder:
    """A tiny foundation that generates, in a folder as transformers saves it."""

    folder: Path
    spec: FoundationSpec
    weights: FoundationWeights

    def opened(self, saved: PeftAdapter) -> Adapter:
        """Return the adapter in a folder that PEFT saved, as an upload opens it."""
        bundle = open_bundle(saved.zip(), Limits(), self.spec, base=self.weights)
        return bundle.adapter(self.spec, 64, self.weights)

    def greedy(self, saved: PeftAdapter | None, prompt: Sequence[int], count: int) -> list[int]:
        """Return the tokens that PEFT's `generate` gives, or transformers' without an adapter."""
        if saved is None:
            model = AutoModelForCausalLM.from_pretrained(self.folder).eval()
        else:
            model = peft_model(self.folder, saved)
        ids = torch.tensor([list(prompt)])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
        return list(map(int, out[0, len(prompt) :]))


def make_decoder(family: str, folder: Path, **options: Any) -> TinyDecoder:
    """Save a model of a family whose tensors are all random, with a byte-level tokenizer and a chat template.

    `options` are further keys of its config.
    """
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        bos_token_id=0,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=0,
        **{**_SIZES, **FAMILIES[family], **options},
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.3 * torch.randn_like(parameter)
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    model.save_pretrained(folder)
    spec = describe(locate(str(folder)))
    return TinyDecoder(folder, spec, FoundationWeights(folder, spec.model_type))


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Save a byte-level BPE tokenizer in a new folder, and return it."""
    folder.mkdir(parents=True)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<|endoftext|>", "<|im_start|>", END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, bos_token="<|im_start|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_adapters(tiny: TinyDecoder, root: Path) -> list[PeftAdapter]:
    """Save adapters of every kind and of several ranks."""
    attention, other = TARGETS.get(tiny.spec.model_type, USUAL_TARGETS)
    kinds: list[dict[str, Any]] = [
        {"r": 2, "target_modules": attention},
        {"r": 8, "target_modules": "all-linear"},
        {"r": 4, "target_modules": [*attention, other], "use_rslora": True, "lora_alpha": 16},
        {"r": 4, "target_modules": attention, "use_dora": True},
        {"kind": "IA3", "target_modules": [attention[-1], other], "feedforward_modules": [other]},
        {"r": 8, "target_modules": attention},
    ]
    return [save_adapter(tiny.folder, root / str(i), "CAUSAL_LM", i, **kind) for i, kind in enumerate(kinds)]

"""Tiny random encoder–decoder foundations, and PEFT's adapters of all kinds on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, FoundationSpec
from tests.peft_adapters import PeftAdapter, peft_model, save_adapter
from tests.service.engine.generate.families import END, save_tokenizer

_T5 = {
    "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "n_positions": 128, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
}  # fmt: skip
_BART = {
    "d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 128,
    "activation_function": "gelu", "scale_embedding": True,
}  # fmt: skip
# By name: the architecture, its options, and the settings of generation.
REWRITERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "t5": ("t5", {**_T5, "feed_forward_proj": "relu"}, {}),
    "t5-gated": ("t5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, {}),
    "mt5": ("mt5", _T5, {}),
    "bart": ("bart", _BART, {
        "decoder_start_token_id": 2, "forced_bos_token_id": 5, "forced_eos_token_id": 2, "num_beams": 4,
        "no_repeat_ngram_size": 2, "min_length": 7, "bad_words_ids": [[9]], "suppress_tokens": [11],
    }),
    "mbart": ("mbart", _BART, {"decoder_start_token_id": 2, "forced_bos_token_id": 7}),
    "pegasus": ("pegasus", _BART, {"decoder_start_token_id": 0}),
    "marian": ("marian", _BART, {"decoder_start_token_id": 0, "bad_words_ids": [[0]], "forced_eos_token_id": 2}),
}  # fmt: skip
# `make test` has a model of each kind of positions; `make test-slow` has the others.
FAST = ("t5", "bart", "marian")
# The names of the linear layers of attention and of one layer that is not attention.
TARGETS = {
    "t5": (["q", "v"], "wi"),
    "t5-gated": (["q", "v"], "wi_1"),
    "mt5": (["q", "v"], "wi_0"),
}
USUAL_TARGETS = (["q_proj", "v_proj"], "fc1")


@dataclass(frozen=True)
class TinyRewriter:
    """A tiny encoder–decoder foundation, in a folder as transformers saves it."""

    name: str
    folder: Path
    spec: FoundationSpec
    weights: FoundationWeights

    def opened(self, saved: PeftAdapter) -> Adapter:
        """Return the adapter in a folder that PEFT saved, as an upload opens it."""
        return open_bundle(saved.zip(), Limits(), self.spec).adapter(self.spec, 64, self.weights)

    def greedy(self, saved: PeftAdapter | None, source: Sequence[int], count: int) -> list[int]:
        """Return the tokens that PEFT's `generate` gives without beams, or transformers' without an adapter."""
        if saved is None:
            model = AutoModelForSeq2SeqLM.from_pretrained(self.folder).eval()
        else:
            model = peft_model(self.folder, saved)
        ids = torch.tensor([list(source)])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                num_beams=1,
                do_sample=False,
            )
        return list(map(int, out[0, 1:]))


def make_rewriter(name: str, folder: Path) -> TinyRewriter:
    """Save a model whose tensors are all random, with a byte-level tokenizer."""
    architecture, options, settings = REWRITERS[name]
    tokenizer = save_tokenizer(folder)
    end = tokenizer.convert_tokens_to_ids(END)
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "eos_token_id": end, "bos_token_id": 1, "decoder_start_token_id": 0}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **ids, **options)
    model = AutoModelForSeq2SeqLM.from_config(config)
    if not config.to_dict().get("scale_decoder_outputs", True):
        # As in T5 1.1, whose output layer is not tied to the embeddings.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = 0.3 * torch.randn_like(parameter)
                parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    generation = {"pad_token_id": 0, "eos_token_id": end, "decoder_start_token_id": 0, **settings}
    model.generation_config = GenerationConfig(**generation)
    model.save_pretrained(folder)
    spec = describe(locate(str(folder)))
    return TinyRewriter(name, folder, spec, FoundationWeights(folder, spec.model_type))


def make_adapters(tiny: TinyRewriter, root: Path) -> list[PeftAdapter]:
    """Save adapters of every kind and of several ranks."""
    attention, other = TARGETS.get(tiny.name, USUAL_TARGETS)
    kinds: list[dict[str, Any]] = [
        {"r": 2, "target_modules": attention},
        {"r": 8, "target_modules": "all-linear"},
        {"r": 4, "target_modules": [*attention, other], "use_rslora": True, "lora_alpha": 16},
        {"r": 4, "target_modules": "all-linear", "use_dora": True},
        {"kind": "IA3", "target_modules": [attention[-1], other], "feedforward_modules": [other]},
        {"r": 8, "target_modules": r".*decoder.*\.(v|v_proj)"},
        {"r": 4, "target_modules": attention, "bias": "all"},
        {"kind": "ADALORA", "target_modules": attention, "init_r": 4, "target_r": 2},
    ]
    return [save_adapter(tiny.folder, root / str(i), "SEQ_2_SEQ_LM", i, **kind) for i, kind in enumerate(kinds)]

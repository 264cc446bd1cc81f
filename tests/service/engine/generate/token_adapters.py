"""Saves adapters that bring tokens to a foundation that generates, and computes PEFT's answers for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.generate.prompt import PromptTokenizer
from tests.parity.oracle import move
from tests.peft_adapters import PeftAdapter, without_wrong_warnings
from tests.service.engine.generate.families import TARGETS, USUAL_TARGETS, TinyDecoder

ADDED = ("<acme>", "<zeta>")
# A token of the foundation that the adapters train too.
KNOWN = 45


@dataclass(frozen=True)
class BroughtTokens:
    """An adapter with added tokens: what PEFT saved, what an upload of it opens, and both of its tokenizers."""

    saved: PeftAdapter
    adapter: Adapter
    theirs: PreTrainedTokenizerFast
    ours: PromptTokenizer
    model: Any

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return PEFT's logits: (tokens, vocabulary with the added tokens)."""
        with torch.no_grad():
            logits: np.ndarray = self.model(input_ids=torch.tensor([list(ids)])).logits[0].numpy()
        return logits

    def greedy(self, ids: Sequence[int], count: int, *ends: int) -> list[int]:
        """Return the tokens of PEFT's `generate`, which also ends at `ends`."""
        given = torch.tensor([list(ids)])
        eos = self.model.generation_config.eos_token_id
        with torch.no_grad():
            out = self.model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=[eos, *ends],
            )
        return list(map(int, out[0, len(ids) :]))


def bring_tokens(
    tiny: TinyDecoder, folder: Path, seed: int, added: Sequence[str] = ADDED, saves: bool = True, **options: Any
) -> BroughtTokens:
    """Save an adapter of a resized model with its tokenizer, and open it. `options` are of its LoraConfig."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny.folder)
    tokenizer.add_tokens(list(added))

    def base() -> Any:
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_pretrained(tiny.folder, attn_implementation="eager")
        if added:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        return model.eval()

    attention = TARGETS.get(tiny.spec.model_type, USUAL_TARGETS)[0]
    with without_wrong_warnings():
        model = get_peft_model(
            base(), LoraConfig(task_type="CAUSAL_LM", r=4, **{"target_modules": attention, **options})
        )
    words = {
        n: p.detach().clone() for n, p in model.named_parameters() if p.dim() == 2 and "modules_to_save" in n
    }
    torch.manual_seed(seed)
    move(model, 0.1)
    first = len(tokenizer) - len(added)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                # Rows that make the tokens likely, so that greedy answers hold them.
                parameter.add_(1.5 * torch.randn_like(parameter))
            elif name in words:
                # Of the whole table, a training on few texts moves few rows.
                unmoved = [i for i in range(first) if i != KNOWN]
                parameter[unmoved] = words[name][unmoved]
                parameter[first:] += 1.5 * torch.randn_like(parameter[first:])
    model.create_or_update_model_card = lambda _: None
    model.save_pretrained(folder, save_embedding_layers="auto" if saves else False)
    tokenizer.save_pretrained(folder)
    saved = PeftAdapter(folder, "CAUSAL_LM", 0)
    adapter = tiny.opened(saved)
    tokens = adapter.preprocessing.tokens or ()
    ours = PromptTokenizer(tiny.folder)
    with without_wrong_warnings():
        reference = PeftModel.from_pretrained(base(), folder).get_base_model().eval()
    return BroughtTokens(saved, adapter, tokenizer, ours.extended(tokens), reference)

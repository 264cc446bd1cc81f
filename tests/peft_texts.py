"""The greedy tokens of PEFT's `generate` for prompts, and how clearly each one leads: an oracle of generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from tests.peft_adapters import CLASSES, PeftAdapter, peft_model, save_adapter

# If the second likeliest token is closer than this, the rounding of fp32 decides: another order of the same sums
# may choose it.
NEAR_TIE = 1e-3


@dataclass(frozen=True)
class PeftText:
    """PEFT's greedy answer: the text of each token and its log-probability before the rules of generation.

    The tokens end before the first near tie. `tied` tells whether there is one.
    """

    tokens: list[str]
    logprobs: list[float]
    tied: bool


def peft_texts(
    foundation: Path, saved: PeftAdapter | None, task_type: str, prompts: Sequence[Sequence[int]], count: int
) -> list[PeftText]:
    """Return PEFT's answers of at most `count` tokens, or transformers' own without an adapter."""
    plain = CLASSES[task_type]
    model = plain.from_pretrained(foundation).eval() if saved is None else peft_model(foundation, saved)
    tokenizer = AutoTokenizer.from_pretrained(foundation)
    return [_answer(model, tokenizer, prompt, count) for prompt in prompts]


def _answer(model: Any, tokenizer: Any, prompt: Sequence[int], count: int) -> PeftText:
    ids = torch.tensor([list(prompt)])
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            num_beams=1,
            output_scores=True,
            output_logits=True,
            return_dict_in_generate=True,
        )
    answer = PeftText([], [], False)
    for token, scores, logits in zip(out.sequences[0, -len(out.scores) :], out.scores, out.logits, strict=True):
        first, second = scores[0].topk(2).values
        if first - second < NEAR_TIE:
            return PeftText(answer.tokens, answer.logprobs, True)
        answer.tokens.append(tokenizer.decode([token], skip_special_tokens=False))
        answer.logprobs.append(float(logits[0].log_softmax(-1)[token]))
    return answer


def save_mixed(
    foundation: Path, root: Path, task_type: str, attention: Sequence[str], other: str, count: int = 16
) -> list[PeftAdapter]:
    """Save adapters of LoRA, LoRA of all linear layers, rsLoRA, DoRA and IA3 in turn, of ranks 1, 4 and 16."""
    adapters = []
    for i in range(count):
        rank = 4 ** (i % 3)
        kinds: list[dict[str, Any]] = [
            {"r": rank, "target_modules": list(attention)},
            {"r": rank, "target_modules": "all-linear"},
            {"r": rank, "target_modules": [*attention, other], "use_rslora": True, "lora_alpha": 16},
            {"r": rank, "target_modules": list(attention), "use_dora": True},
            {"kind": "IA3", "target_modules": [attention[-1], other], "feedforward_modules": [other]},
        ]
        adapters.append(save_adapter(foundation, root / str(i), task_type, i, **kinds[i % len(kinds)]))
    return adapters

"""The texts to expect from adapters that generate. PEFT's `generate` computes them beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rootstock.loadtest.judgement.oracle import ExpectedText

# Below this difference of the two largest logits, rounding may make another token the largest.
NEAR_TIE = 0.01


class PeftTextOracle:
    """A causal language model of transformers (sdpa, fp32) that answers chats, greedy, one at a time."""

    def __init__(self, foundation: Path, max_tokens: int) -> None:
        import torch
        import transformers

        # One sequence at a time gives a second thread little to do but wait.
        torch.set_num_threads(1)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._max_tokens = max_tokens
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(foundation)
        self._base = transformers.AutoModelForCausalLM.from_pretrained(
            foundation, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()

    def answers(self, adapter: Path, texts: Sequence[str]) -> list[ExpectedText]:
        """Return the answer of the adapter in a PEFT folder to each text, a chat of one message.

        An answer with a near tie is cut before it.
        """
        from peft import PeftModel

        model = PeftModel.from_pretrained(self._base, adapter).eval()
        try:
            return [self._answer(model, text) for text in texts]
        finally:
            model.unload()

    def _answer(self, model: Any, text: str) -> ExpectedText:
        import torch

        chat = [{"role": "user", "content": text}]
        prompt = self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            out = model.generate(
                **prompt,
                max_new_tokens=self._max_tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tokens = out.sequences[0, prompt["input_ids"].shape[1] :].tolist()
        best = torch.stack(out.logits)[:, 0].topk(2).values
        ties = (best[:, 0] - best[:, 1] < NEAR_TIE).nonzero()
        checked = int(ties[0]) if len(ties) else len(tokens)
        decoded: str = self._tokenizer.decode(
            tokens[:checked], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        # A stream keeps back the bytes of a character until it is complete.
        return ExpectedText(decoded.rstrip("\ufffd"), checked, checked == len(tokens))

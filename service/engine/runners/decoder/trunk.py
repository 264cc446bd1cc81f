"""Hold a decoder's modules, which every runner of the foundation shares, and run one pass at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.service.engine.runners.decoder.attention import NAME, RaggedAttention, Span, attach
from rootstock.service.engine.runners.decoder.int4 import quantise, replace_layers
from rootstock.service.engine.runners.decoder.packed_pass import PackedPass
from rootstock.service.engine.runners.decoder.self_check import samples
from rootstock.service.engine.runners.decoder.updates import AdapterMix, MixInUse, TokenNorm, TokenSite

# The dtype of activations. In int4, only the weights of linear layers are smaller.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int4": torch.float32}


class DecoderTrunk:
    """The modules of a foundation that transformers loads, on a CPU, with sites in place of its layers.

    The spans and the adapters of a pass are in the modules, so the passes of several runners, each with its own
    thread and adapters, wait for each other. `expected` are transformers' own logits for the two `texts`.
    """

    def __init__(self, folder: Path, spec: FoundationSpec, precision: str = "fp32") -> None:
        """Load the foundation from a folder. Raise ValueError for an unknown precision or an encoder."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; expected one of: {', '.join(PRECISIONS)}")
        if spec.causal_lm is None:
            raise ValueError(f"{spec.name} has no language-model head, so it cannot generate")
        self.precision = precision
        self.dtype = PRECISIONS[precision]
        model = load_model(transformers.AutoModelForCausalLM, folder, self.dtype)
        self.texts = samples(spec.causal_lm.vocabulary)
        small = quantise(model) if precision == "int4" else {}
        self.expected = [_own_logits(model, text) for text in self.texts]
        replace_layers(model, small)
        model.set_attn_implementation(NAME)
        self.config: Any = model.config
        self._model: Any = model
        self._trunk: Any = model.base_model
        self._attention = RaggedAttention()
        attach(model, self._attention)
        self._mix = MixInUse()
        for name in spec.sites:
            graft(self._trunk, name, TokenSite, self._mix)
        for name in spec.norms:
            graft(self._trunk, name, TokenNorm, self._mix)
        self._running = threading.Lock()

    def states(self, tokens: PackedPass, spans: Sequence[Span], mix: AdapterMix) -> Tensor:
        """Return the hidden states of a pass's tokens: (tokens, width). `mix` knows the pass's adapters."""
        with self._running:
            self._attention.take(spans)
            self._mix.mix = mix
            hidden: Tensor = self._trunk(
                input_ids=tokens.ids, position_ids=tokens.positions[None], use_cache=False
            ).last_hidden_state[0]
            return hidden

    def logits(self, tokens: PackedPass, spans: Sequence[Span], mix: AdapterMix) -> Tensor:
        """Return the logits after the last token of each part: (parts, vocabulary). `mix` is as for `states`.

        Some architectures scale or cap what their output layer gives, so the whole model computes them.
        """
        with self._running:
            self._attention.take(spans)
            self._mix.mix = mix
            logits: Tensor = self._model(
                input_ids=tokens.ids,
                position_ids=tokens.positions[None],
                use_cache=False,
                logits_to_keep=tokens.last,
            ).logits[0]
            return logits


@torch.inference_mode()
def _own_logits(model: Any, text: Sequence[int]) -> Array:
    """Return transformers' own logits for a text: (tokens, vocabulary) fp32."""
    logits: Array = model(input_ids=torch.tensor([text]), use_cache=False).logits[0].float().numpy()
    return logits


def load_model(auto: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Return the model of an auto class, frozen, in eval mode. Read only safetensors and run no remote code."""
    previous = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = auto.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation="eager"
        )
    finally:
        transformers.utils.logging.set_verbosity(previous)
    return model.eval().requires_grad_(False)


def graft(trunk: Any, name: str, kind: Any, mix: MixInUse) -> None:
    """Put a TokenSite or TokenNorm around a layer of the trunk, in its place."""
    parent, _, child = name.rpartition(".")
    setattr(trunk.get_submodule(parent), child, kind(trunk.get_submodule(name), name, mix))

"""Hold a decoder's modules, which every runner of the foundation shares, and run one pass at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.service.engine.runners.decoder.adapter_mix import AdapterMix
from rootstock.service.engine.runners.decoder.attention import NAME, RaggedAttention, Span, attach
from rootstock.service.engine.runners.decoder.changes.token_norms import TokenNorms, token_axes
from rootstock.service.engine.runners.decoder.changes.token_rows import TokenRows, embed, masked, widened
from rootstock.service.engine.runners.decoder.gated_layer import fuse_layers, is_gated
from rootstock.service.engine.runners.decoder.int4 import Bf16Linear, free_memory, quantise
from rootstock.service.engine.runners.decoder.packed_pass import PackedPass
from rootstock.service.engine.runners.decoder.self_check import samples
from rootstock.service.engine.runners.decoder.site_group import SiteGroup, alone, join_layers, together
from rootstock.service.engine.runners.decoder.token_site import MixInUse, TokenNorm, TokenSite

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
        self.config: Any = model.config
        self._model: Any = model
        self._trunk: Any = model.base_model
        gated = is_gated(self._trunk)
        widths = {name: features[1] for name, features in spec.sites.items()}
        sites = together(widths) if gated else alone(widths)
        small = quantise(self._trunk, sites) if precision == "int4" else {}
        self.expected = [_own_logits(model, text) for text in self.texts]
        self.norms = spec.norms
        axes = token_axes(model, self._trunk, spec.norms, self.texts)
        model.set_attn_implementation(NAME)
        self._mix = MixInUse()
        self.groups = [*graft(self._trunk, sites, {}, self._mix, small), *alone(spec.norms)]
        if gated:
            fuse_layers(self._trunk)
        self._token_norms = TokenNorms(self._trunk, axes)
        if precision == "int4":
            output = model.get_output_embeddings()
            model.set_output_embeddings(Bf16Linear(output.weight, output.bias))
        free_memory()
        self._words = spec.words
        self._vocabulary = spec.causal_lm.vocabulary
        self._table: nn.Module = model.get_input_embeddings()
        self._output: nn.Module = model.get_output_embeddings()
        self._attention = RaggedAttention()
        attach(model, self._attention)
        self._running = threading.Lock()

    def states(self, tokens: PackedPass, spans: Sequence[Span], mix: AdapterMix) -> Tensor:
        """Return the hidden states of a pass's tokens: (tokens, width). `mix` knows the pass's adapters."""
        with self._running, self._tuned(tokens, mix):
            self._attention.take(spans)
            self._mix.mix = mix
            hidden: Tensor = self._trunk(
                **self._inputs(tokens, mix.token_rows(tokens.slots)),
                position_ids=tokens.positions[None],
                use_cache=False,
            ).last_hidden_state[0]
            return hidden

    def logits(self, tokens: PackedPass, spans: Sequence[Span], mix: AdapterMix) -> Tensor:
        """Return the logits after the last token of each part: (parts, vocabulary). `mix` is as for `states`.

        They are wider if an adapter of the pass adds tokens, and minus infinity for those that a part does not
        have. Some architectures scale or cap what their output layer gives, so the whole model computes them.
        """
        rows = mix.token_rows(tokens.slots)
        wide = nullcontext() if rows is None else widened(self._output, rows, self._vocabulary)
        with self._running, wide, self._tuned(tokens, mix):
            self._attention.take(spans)
            self._mix.mix = mix
            logits: Tensor = self._model(
                **self._inputs(tokens, rows),
                position_ids=tokens.positions[None],
                use_cache=False,
                logits_to_keep=tokens.last,
            ).logits[0]
        return logits if rows is None else masked(logits, rows, self._vocabulary)

    def _tuned(self, tokens: PackedPass, mix: AdapterMix) -> AbstractContextManager[None]:
        """Return what tunes normalisations for a pass, as its adapters do."""
        names = mix.tuned_norms(tokens.slots)
        return self._token_norms.changed(names, mix) if names else nullcontext()

    def _inputs(self, tokens: PackedPass, rows: Sequence[TokenRows | None] | None) -> dict[str, Tensor]:
        """Return what the modules read: the tokens, or their embeddings if adapters change some of these."""
        if rows is None or self._words is None:
            return {"input_ids": tokens.ids}
        return {"inputs_embeds": embed(self._table, self._words, tokens.ids, tokens.bounds, rows)}


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


def graft(
    trunk: Any,
    sites: Sequence[SiteGroup],
    norms: Mapping[str, int],
    mix: MixInUse,
    small: Mapping[str, nn.Module] | None = None,
) -> list[SiteGroup]:
    """Put sites around layers of a trunk, and return the groups of all of them.

    The layers of a group become one, in the place of its first. `small` holds layers to use instead, by name.
    """
    small = small or {}
    grouped = {group.name for group in sites}
    for name in small.keys() - grouped:
        trunk.set_submodule(name, small[name])
    for group in sites:
        layer = small.get(group.name) or join_layers([trunk.get_submodule(name) for name in group.names])
        trunk.set_submodule(group.name, TokenSite(layer, group, mix))
    normed = alone(norms)
    for group in normed:
        trunk.set_submodule(group.name, TokenNorm(trunk.get_submodule(group.name), group, mix))
    return [*sites, *normed]

"""Tiny random foundations, one an architecture, described as a real one is.

Where transformers has a masked-language-model class of an architecture, the checkpoint brings its head, tied as
the class ties it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate, mask_token
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec
from tests.parity.matrix import LAYERS, Architecture
from tests.tokenizer_families import OF_ARCHITECTURE, save_tokenizer

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
# Their configs refuse the usual names, or have aliases under which a size would be given twice.
_OWN_SIZES = ("distilbert", "gpt2")


@dataclass(frozen=True)
class Tiny:
    """A tiny foundation: 3 layers, 32 wide, in a folder as transformers saves it, with its family's tokenizer.

    `mask`: the token to be filled in, and its id; the id is None where the tokenizer has none.
    """

    architecture: Architecture
    folder: Path
    spec: FoundationSpec
    weights: FoundationWeights
    pad_id: int
    mask: tuple[str, int | None]


def make_tiny(architecture: Architecture, folder: Path) -> Tiny:
    """Save a model whose tensors are all random: no bias is zero and no normalisation the identity."""
    folder.mkdir(parents=True)
    if architecture.name == "bert":
        shutil.copy(locate("default").folder / "tokenizer.json", folder)
    else:
        save_tokenizer(OF_ARCHITECTURE[architecture.name], folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own = {} if architecture.name == "gpt2" else {"max_position_embeddings": _SIZES["max_position_embeddings"]}
    sizes = own if architecture.name in _OWN_SIZES else _SIZES
    sizes = {"vocab_size": tokenizer.get_vocab_size(), **sizes}
    config = AutoConfig.for_model(architecture.type, **sizes, **architecture.config)
    torch.manual_seed(0)
    model = _randomised(AutoModel.from_config(config))
    model.save_pretrained(folder)
    if type(config) in AutoModelForMaskedLM._model_mapping:
        add_masked_lm(folder)
    spec = describe(locate(str(folder)))
    mask = mask_token(folder) or "[MASK]"
    return Tiny(
        architecture,
        folder,
        spec,
        FoundationWeights(folder, spec.model_type),
        config.pad_token_id or 0,
        (mask, tokenizer.token_to_id(mask)),
    )


def add_masked_lm(folder: Path, seed: int = 1) -> None:
    """Give the bare trunk in a folder a random masked-language-model head, as hub checkpoints hold the two."""
    trunk = AutoModel.from_pretrained(folder).state_dict()
    torch.manual_seed(seed)
    model = _randomised(AutoModelForMaskedLM.from_pretrained(folder))
    prefix = f"{model.base_model_prefix}."
    tied = model.all_tied_weights_keys
    heads = {n: t for n, t in model.state_dict().items() if not n.startswith(prefix) and n not in tied}
    tensors = {f"{prefix}{name}": tensor for name, tensor in trunk.items()} | heads
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _randomised(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.2 * torch.randn_like(parameter)
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    return model

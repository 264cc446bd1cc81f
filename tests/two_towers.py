"""Tiny random models of two towers, CLIP and SigLIP, with tokenizer and processor, and LoRAs of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from tests.media_foundations import MEDIA
from tests.peft_adapters import PeftAdapter

WORDS = [
    "this", "is", "a", "photo", "of", ".", ",", "red", "green", "blue", "car", "dog", "cat", "house", "tree",
    "small", "large", "very", "old", "new", "thing", "picture", "in", "the", "rain",
]  # fmt: skip
START, END, UNKNOWN = "<|startoftext|>", "</s>", "<unk>"
# At least as many as the ids that the exporter traces with.
_VOCABULARY = 110
# The longest texts. SigLIP's pipeline fills up every text to 64 tokens.
POSITIONS = {"clip": 24, "siglip": 64}
# The projections of CLIP, and the layer that SigLIP computes on the last token.
PROJECTED = {"clip": "visual_projection|text_projection", "siglip": r"text_model\.head"}


def make_two_towers(name: str, folder: Path, **changes: Any) -> Path:
    """Save a random CLIP or SigLIP, its tokenizer and its processor, with `changes` of its tower for texts."""
    save_tokenizer(name, folder)
    text = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "vocab_size": _VOCABULARY, "max_position_embeddings": POSITIONS[name], "projection_size": 16,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, **changes,
    }  # fmt: skip
    options = {"projection_dim": 12} if name == "clip" else {}
    vision = MEDIA[name].config["vision_config"]
    torch.manual_seed(3)
    model = AutoModel.from_config(AutoConfig.for_model(name, vision_config=vision, text_config=text, **options))
    with torch.no_grad():
        model.logit_scale.fill_(1.7)
        if name == "siglip":
            model.logit_bias.fill_(-0.6)
        for parameter in model.text_model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    getattr(transformers, MEDIA[name].processor)(**MEDIA[name].options).save_pretrained(folder)
    return folder


def save_tokenizer(name: str, folder: Path) -> None:
    """Save a tokenizer of WORDS. SigLIP's has no start token and no mask."""
    ids = {token: i for i, token in enumerate([START, END, UNKNOWN, *WORDS])}
    tokenizer = Tokenizer(WordLevel(ids, UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    ends = [(START, 0), (END, 1)] if name == "clip" else [(END, 1)]
    single = f"{START} $A {END}" if name == "clip" else f"$A {END}"
    tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=ends)
    names = ["input_ids", "attention_mask"] if name == "clip" else ["input_ids"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END, unk_token=UNKNOWN,
        model_input_names=names, model_max_length=POSITIONS[name],
    )  # fmt: skip
    fast.save_pretrained(folder)


def save_tower_adapter(foundation: Path, folder: Path, seed: int, config: PeftConfig) -> PeftAdapter:
    """Save an adapter of a model of two towers, as PEFT does, with trained tensors far from their start."""
    torch.manual_seed(seed)
    model = get_peft_model(AutoModel.from_pretrained(foundation), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return PeftAdapter(folder, "", 0)


def tower_configs(name: str) -> dict[str, PeftConfig]:
    """Return configs of adapters of either tower, of both, and of what projects their vectors."""
    projected = PROJECTED[name]
    return {
        "images": LoraConfig(r=1, target_modules=r"vision_model\.encoder\..*\.(q_proj|fc1)"),
        "texts": LoraConfig(r=3, target_modules=r"text_model\.encoder\..*\.(v_proj|fc2)"),
        "both": LoraConfig(r=2, target_modules=r".*encoder\..*\.(q_proj|v_proj|out_proj)"),
        "dora": LoraConfig(r=2, target_modules=rf".*(encoder\..*\.k_proj|{projected})", use_dora=True),
        "ia3": IA3Config(
            target_modules=rf".*(encoder\..*\.(k_proj|fc2)|{projected})",
            feedforward_modules=r".*(fc2|visual_projection|head)",
        ),
        "biases": LoraConfig(r=2, target_modules=r".*encoder\..*\.fc1", bias="lora_only"),
    }


def pipeline(foundation: Path, adapter: PeftAdapter | None = None) -> Any:
    """Return transformers' pipeline on a model of two towers, with an adapter merged into it."""
    model = AutoModel.from_pretrained(foundation).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter.folder).merge_and_unload().eval()
    return transformers.pipeline(
        "zero-shot-image-classification",
        model=model,
        tokenizer=PreTrainedTokenizerFast.from_pretrained(foundation),
        image_processor=transformers.AutoImageProcessor.from_pretrained(foundation),
        device="cpu",
    )


def pixels(data: bytes) -> Image.Image:
    """Return the image in a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def scores(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the score of each label of an answer."""
    return {one["label"]: one["score"] for one in found}

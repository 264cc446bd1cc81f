"""Tiny models of sentence-transformers, SetFit and transformers, trained from one tiny foundation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel

from tests.tokenizer_families import save_tokenizer, transformers_tokenizer

WIDTH = 32
LABELS = ["people", "parcel", "music"]
TEXTS = [
    "Ada Lovelace met Charles Babbage.",
    "Where did they meet? Who met Babbage?",
    "Babbage went to a party in London in June.",
    "Where is my parcel?",
    "The parcel was due on Monday.",
    "My parcel was in Paris, not in London!",
    "The new headphones sound dull.",
    "The left ear cup broke within a week.",
    "New headphones broke within a week of careful use.",
]
CLASSES = [0, 0, 0, 1, 1, 1, 2, 2, 2]


def save_foundation(folder: Path) -> Path:
    """Save a random BERT with a WordPiece tokenizer as a model of sentence-transformers: mean, normalised."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    family = "lower-casing WordPiece"
    config = BertConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, vocab_size=400,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    transformers_tokenizer(save_tokenizer(family, folder), names, 64).save_pretrained(folder)
    modules = [Transformer(str(folder)), Pooling(WIDTH, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def change(model: nn.Module, prefix: str, rank: int, size: float, seed: int = 1) -> None:
    """Change every linear layer of a trunk by a random product of this rank, and every bias a little."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.startswith(prefix) and "pooler" not in name:
                a = torch.randn((rank, module.in_features), generator=draw)
                b = torch.randn((module.out_features, rank), generator=draw)
                module.weight.add_(size * b @ a / rank**0.5)
                module.bias.add_(0.01 * torch.randn(module.bias.shape, generator=draw))


def save_tuned_classifier(
    base: Path,
    folder: Path,
    rank: int = 3,
    size: float = 0.02,
    embeddings: float = 0.0,
    task: Any = AutoModelForSequenceClassification,
    names: Sequence[str] = LABELS,
) -> Path:
    """Save a whole model as the Trainer does, with weights that differ from the base's by this rank.

    `embeddings` is the size of the change of the token embeddings, which a LoRA cannot hold. `task` is the auto
    class of the task, and `names` are the labels.
    """
    torch.manual_seed(2)
    model = task.from_pretrained(base, num_labels=len(names), id2label=dict(enumerate(names)))
    change(model, "bert.", rank, size)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("bert."):
                parameter.normal_(0, 1)
            elif name == "bert.pooler.dense.weight":
                parameter.add_(0.05 * torch.randn(WIDTH, WIDTH))
        words = model.bert.embeddings.word_embeddings.weight
        words.add_(embeddings * torch.randn(words.shape))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin", "trainer_state.json"):
        (folder / name).write_bytes(b"of the Trainer")
    return folder


def save_tuned_encoder(base: Path, folder: Path, rank: int = 3, size: float = 0.02) -> Path:
    """Save a whole model of sentence-transformers whose encoder differs from the base's by this rank."""
    encoder = folder.parent / "encoder"
    model = AutoModel.from_pretrained(base)
    change(model, "", rank, size)
    model.save_pretrained(encoder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (encoder / name).write_bytes((base / name).read_bytes())
    modules = [Transformer(str(encoder), max_seq_length=40), Pooling(WIDTH, "cls")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def save_setfit(body: Path, folder: Path, head: Any = None, labels: Sequence[str] | None = LABELS) -> Path:
    """Save a SetFit model, in the files that SetFit 1.2 writes: the body, its head as a pickle, and settings.

    The head is by default a logistic regression on the body's vectors of TEXTS.
    """
    model = SentenceTransformer(str(body), device="cpu")
    model.save(str(folder))
    head = head or LogisticRegression(C=30).fit(model.encode(TEXTS), CLASSES)
    joblib.dump(head, folder / "model_head.pkl")
    settings = {"labels": labels, "normalize_embeddings": False}
    (folder / "config_setfit.json").write_text(json.dumps(settings))
    return folder


def vectors(folder: Path, texts: Sequence[str] = TEXTS) -> np.ndarray:
    """Return the vectors that sentence-transformers computes."""
    return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(list(texts)))

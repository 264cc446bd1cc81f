"""A random tiny BERT folder and small labelled files, so that whole training runs take a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.media_recipes import images as images
from tests.training.media_recipes import recordings as recordings
from tests.training.media_recipes import tiny_dinov2 as tiny_dinov2
from tests.training.media_recipes import tiny_wav2vec2 as tiny_wav2vec2
from tests.training.media_recipes import write_media_recipe as write_media_recipe

_WORDS = [
    "good", "fine", "lovely", "bad", "awful", "broken", "it", "was", "the", "a",
    "Ann", "Bo", "Rome", "Oslo", "met", "in", "to", "went", "saw", "with",
]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foundation folder: BERT with two layers of width 32, its tokenizer.json padding and cutting at 8."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("foundation") / "tiny-bert"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(w.lower() for w in _WORDS), "##s", "##o", "r", "."]
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=8)
    tokenizer.enable_truncation(8)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=40, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def write_recipe(tmp_path: Path, tiny_bert: Path) -> Callable[..., Path]:
    """Writes a recipe on the tiny foundation; keyword arguments replace its keys, dicts one level deep."""

    def write(**changes: Any) -> Path:
        value: dict[str, Any] = {
            "task_type": "SEQ_CLS",
            "base_model": str(tiny_bert),
            "name": "tiny",
            "license": "cc-by-4.0",
            "description": "A test.",
            "data": {"path": "rows.csv", "splits": {"test_size": 0.25, "val_size": 0.25, "seed": 1}},
            "peft": {"method": "lora", "r": 4, "target_modules": ["query", "value"]},
            "training": {
                "num_train_epochs": 2,
                "per_device_train_batch_size": 8,
                "max_length": 32,
                "contrastive_epochs": 0,
            },
        }
        for key, change in changes.items():
            value[key] = {**value.get(key, {}), **change} if isinstance(change, dict) else change
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in value.items() if v is not None}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty rows of two labels, beside the recipe."""
    words = {"positive": ("good", "fine", "lovely"), "negative": ("bad", "awful", "broken")}
    lines = ["text,label"]
    for i in range(20):
        for label, kinds_of_word in words.items():
            text = ["it was", kinds_of_word[i % 3], *(_WORDS[(i * 7 + k) % 20] for k in range(2 + i % 4)), str(i)]
            lines.append(f"{' '.join(text)},{label}")
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """Thirty-two tagged sentences, beside the recipe."""
    blocks = []
    for i in range(32):
        person = [("Ann", "B-PER"), ("Bos", "I-PER")][: 1 + i % 2]
        place = [("Rome" if i % 3 else "Oslo", "B-LOC")]
        body = [
            *person,
            ("went" if i % 2 else "saw", "O"),
            ("it" if i % 5 else "the", "O"),
            *place,
            (str(i), "O"),
        ]
        blocks.append("\n".join(f"{word}\t{tag}" for word, tag in body))
    path = tmp_path / "sentences.conll"
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tokens_recipe(write_recipe: Callable[..., Path], sentences: Path) -> Path:
    """A recipe for the tagged sentences."""
    return write_recipe(task_type="TOKEN_CLS", data={"path": sentences.name})


@pytest.fixture(scope="session")
def peft_outputs() -> Callable[[Path, Path, str, int, Sequence[str]], list[Any]]:
    """PEFT's own raw logits for texts, one at a time, from an adapter's folder: knows nothing of ours."""

    def outputs(foundation: Path, folder: Path, task: str, labels: int, texts: Sequence[str]) -> list[Any]:
        import torch
        from peft import PeftModel
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

        of_texts = task == "text-classification"
        auto: Any = AutoModelForSequenceClassification if of_texts else AutoModelForTokenClassification
        model = PeftModel.from_pretrained(auto.from_pretrained(foundation, num_labels=labels), folder).eval()
        head = {n: t.float() for n, t in load_file(folder / "adapter_model.safetensors").items()}
        tokenizer = Tokenizer.from_file(str(foundation / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        raw = []
        with torch.no_grad():
            for text in texts:
                ids = torch.tensor([tokenizer.encode(text).ids])
                if "head.weight" in head:
                    mean = model.base_model.model.bert(ids).last_hidden_state[0].mean(0)
                    raw.append((head["head.weight"] @ (mean / mean.norm()) + head["head.bias"]).numpy())
                else:
                    raw.append(model(ids).logits[0].numpy())
        return raw

    return outputs

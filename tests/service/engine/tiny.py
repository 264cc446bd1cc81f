"""A tiny random BERT with a WordPiece vocabulary: transformers' pipelines, and the same adapter in our words."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as HfTokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    FillMaskPipeline,
    PreTrainedTokenizerFast,
    TextClassificationPipeline,
    TokenClassificationPipeline,
    ZeroShotClassificationPipeline,
)

from rootstock.adapters.spec import Adapter, AdapterWeights, HeadSpec, Preprocessing
from rootstock.service.engine.encode.modalities.text import Input, TextSample, Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.task import check_call
from tests.service.engine.question_pipeline import QuestionAnsweringPipeline

VOCAB = """[PAD] [UNK] [CLS] [SEP] [MASK] ada love ##lace ##s ##ing met charles bab ##bage in lon ##don paris cafe
naive un ##believ ##able new york ' s - , . ! ? ( ) the a of and was born 18 ##15 ##33 query : x ##x ##y e ##e
uncle istanbul ##ul ##a b ##b""".split()  # noqa: SIM905
WORDS = [
    "Ada", "Lovelace", "loves", "London", "in", "Babbage", "cafés", "naïve", "unbelievable", "New", "York's",
    "1815", "new-york", "☕", "zzz", "xxy", "(bbb)", "was", "born", "?", "café", "[UNK]", "istanbul,", "İstanbul",
    "a", "loveszzz", "the", "  ", "\t", "e\u0301ee", "漢字", "[SEP]", "X\u200bx",
]  # fmt: skip
TEXTS = [
    "Ada Lovelace met Charles Babbage in London, in 1833!",
    "unbelievable zzz loves New York's naïve cafés ☕ (xxy)",
    "",
    "a",
    "   Paris   ",
    "e\u0301ee İstanbul 漢字 loveszzz [SEP] xx",
]


@lru_cache
def tokenizer_json() -> str:
    vocab = {token: i for i, token in enumerate(VOCAB)}
    special = [
        {"id": i, "content": VOCAB[i], "special": True, "normalized": False}
        | dict.fromkeys(["single_word", "lstrip", "rstrip"], False)
        for i in range(5)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "vocab": vocab,
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
            },
        }
    )


@lru_cache
def theirs() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=HfTokenizer.from_str(tokenizer_json()),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@lru_cache
def our_tokenizer() -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(tokenizer_json(), encoding="utf-8")
        return Tokenizer(path, VOCAB.index("[MASK]"))


@dataclass(frozen=True)
class Oracle:
    """A pipeline with its model, and the same adapter in our words."""

    pipeline: Any
    model: Any
    adapter: Adapter

    def raw(self, encoded: TextSample) -> np.ndarray:
        """The model's own output for one row."""
        with torch.no_grad():
            ids, types = torch.tensor([list(encoded.ids)]), torch.tensor([list(encoded.type_ids)])
            out = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=types)
        spans = "start_logits" in out
        logits = torch.stack([out.start_logits, out.end_logits], -1) if spans else out.logits
        row = logits[0].numpy()
        return row[list(encoded.masks)] if encoded.masks else row

    def answer(self, value: Input, parameters: dict[str, Any], ours: Tokenizer) -> Any:
        task = TASKS[self.adapter.task]
        check_call(task, [value], parameters)
        rows = list(task.encode(value, self.adapter.preprocessing, parameters, ours, most=256))
        prediction = task.predict([self.raw(row) for row in rows], rows, self.adapter, parameters, ours)
        assert json.loads(json.dumps(prediction)) == prediction, "JSON-ready, without numpy's own types"
        return prediction


@lru_cache
def oracle(
    task: str, labels: tuple[str, ...], problem_type: str | None = None, prefix: str = "", seed: int = 0
) -> Oracle:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type=problem_type,
        initializer_range=0.7,
    )
    classes: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "text-classification": (BertForSequenceClassification, TextClassificationPipeline),
        "token-classification": (BertForTokenClassification, TokenClassificationPipeline),
        "question-answering": (BertForQuestionAnswering, QuestionAnsweringPipeline),
        "text-ranking": (BertForSequenceClassification, TextClassificationPipeline),
        "zero-shot-classification": (BertForSequenceClassification, ZeroShotClassificationPipeline),
        "fill-mask": (BertForMaskedLM, FillMaskPipeline),
    }
    build, pipeline = classes[task]
    model = build(config).eval()
    adapter = Adapter(
        digest="sha256:tiny",
        task=task,
        problem_type=problem_type,
        labels=labels,
        head=HeadSpec("hf", build.__name__),
        preprocessing=Preprocessing(128, prefix=prefix),
        weights=AdapterWeights({}, {}),
    )
    return Oracle(pipeline(model=model, tokenizer=theirs(), device="cpu"), model, adapter)


def same(actual: Any, wanted: Any) -> None:
    """Equal in everything; scores to 1e-6."""
    if isinstance(wanted, list):
        assert isinstance(actual, list)
        assert len(actual) == len(wanted), (actual, wanted)
        for a, w in zip(actual, wanted, strict=True):
            same(a, w)
        return
    assert list(actual) == list(wanted), "the same keys in the same order"
    for key, value in wanted.items():
        if key in ("score", "scores"):
            assert np.asarray(actual[key]) == pytest.approx(np.asarray(value, float), abs=1e-6, rel=1e-6)
        else:
            assert actual[key] == value, (key, actual, wanted)

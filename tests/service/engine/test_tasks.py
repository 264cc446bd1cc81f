"""Predictions are what transformers' own pipelines give, on a tiny random BERT and a WordPiece vocabulary."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    TextClassificationPipeline,
    TokenClassificationPipeline,
)

from adapters.spec import Adapter, AdapterWeights, HeadSpec, Preprocessing
from service.engine.errors import InvalidInput, InvalidParameter
from service.engine.tasks import TASKS
from service.engine.tasks.task import check_call
from service.engine.tokenizer import Encoded, Input, Tokenizer

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
NER = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "B-X-Y", "I-X-Y")


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
        return Tokenizer(path)


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return our_tokenizer()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small is slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Oracle:
    """A pipeline with its model, and the same adapter in our words."""

    pipeline: Any
    model: Any
    adapter: Adapter

    def raw(self, encoded: Encoded) -> np.ndarray:
        """The model's own logits for one input."""
        with torch.no_grad():
            ids, types = torch.tensor([list(encoded.ids)]), torch.tensor([list(encoded.type_ids)])
            logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=types).logits
        return logits[0].numpy()

    def answer(self, value: Input, parameters: dict[str, Any], ours: Tokenizer) -> Any:
        task = TASKS[self.adapter.task]
        check_call(task, [value], parameters)
        encoded = ours.encode(value, self.adapter.preprocessing, truncate=False)
        prediction = task.predict(self.raw(encoded), encoded, self.adapter, parameters, ours)
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
        if key == "score":
            assert actual[key] == pytest.approx(float(value), abs=1e-6, rel=1e-6)
        else:
            assert actual[key] == value, (key, actual, wanted)


# text-classification

PROBLEMS = [
    (None, 3),
    (None, 1),
    ("single_label_classification", 3),
    ("single_label_classification", 2),
    ("multi_label_classification", 4),
    ("multi_label_classification", 1),
    ("regression", 1),
    ("regression", 3),
]
PARAMETERS: list[dict[str, Any]] = [
    {},
    *[{"top_k": k} for k in (None, 1, 2, 99)],
    *[{"function_to_apply": f} for f in ("sigmoid", "softmax", "none")],
    *[{"function_to_apply": f, "top_k": k} for f in ("sigmoid", "softmax", "none") for k in (None, 2)],
]


@pytest.mark.parametrize(("problem_type", "labels"), PROBLEMS)
def test_texts_and_pairs_are_classified_as_the_pipeline_does(
    ours: Tokenizer, problem_type: str | None, labels: int
) -> None:
    model = oracle("text-classification", tuple(f"label {i}" for i in range(labels)), problem_type)
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    asked = [*TEXTS, *[{"text": a, "text_pair": b} for a, b in pairs]]
    for parameters in PARAMETERS:
        wanted = model.pipeline(asked, **parameters)
        actual = [model.answer(value, parameters, ours) for value in [*TEXTS, *pairs]]
        same(actual, wanted)


def test_the_default_function_may_be_named() -> None:
    model = oracle("text-classification", ("a", "b", "c"), "multi_label_classification")
    task, raw = TASKS["text-classification"], np.array([-100.0, 0.0, 100.0], np.float32)
    for parameters in ({"top_k": None}, {"top_k": None, "function_to_apply": None}):
        predicted = task.predict(raw, None, model.adapter, parameters, None)  # type: ignore[arg-type]
        same(
            predicted, [{"label": "c", "score": 1.0}, {"label": "b", "score": 0.5}, {"label": "a", "score": 0.0}]
        )


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_huge_logits_give_finite_scores(function: str) -> None:
    model = oracle("text-classification", ("a", "b", "c"))
    raw = np.array([-1e30, 1e30, 88.8], np.float32)
    parameters = {"top_k": None, "function_to_apply": function}
    predicted = TASKS["text-classification"].predict(raw, None, model.adapter, parameters, None)  # type: ignore[arg-type]
    assert predicted[0]["label"] == "b"
    assert all(np.isfinite(p["score"]) for p in predicted)


# token-classification

STRATEGIES = ["none", "simple", "first", "average", "max"]
IGNORED: list[dict[str, Any]] = [
    {},
    {"ignore_labels": []},
    {"ignore_labels": ["PER", "B-LOC"]},
    {"ignore_labels": ["O", "MISC"]},
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(4))
def test_tokens_and_spans_are_the_pipeline_s(ours: Tokenizer, strategy: str, seed: int) -> None:
    model = oracle("token-classification", NER, seed=seed)
    for value in TEXTS:
        for ignored in IGNORED:
            parameters = {"aggregation_strategy": strategy, **ignored}
            same(model.answer(value, parameters, ours), model.pipeline(value, **parameters))
    same(model.answer(TEXTS[0], {}, ours), model.pipeline(TEXTS[0]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    st.sampled_from(STRATEGIES),
    st.sampled_from(IGNORED),
    st.integers(0, 3),
)
def test_any_text_s_spans_are_the_pipeline_s(
    value: str, strategy: str, ignored: dict[str, Any], seed: int
) -> None:
    model = oracle("token-classification", NER, seed=seed)
    parameters = {"aggregation_strategy": strategy, **ignored}
    same(model.answer(value, parameters, our_tokenizer()), model.pipeline(value, **parameters))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join), st.integers(0, 3))
def test_offsets_are_the_user_s_own_where_a_prefix_was_put_before_the_text(value: str, seed: int) -> None:
    prefix = "query: the "
    model = oracle("token-classification", NER, prefix=prefix, seed=seed)
    everything = {"ignore_labels": []}
    wanted = [
        {**e, "start": e["start"] - len(prefix), "end": e["end"] - len(prefix)}
        for e in model.pipeline(prefix + value, **everything)
        if e["start"] >= len(prefix)
    ]
    same(model.answer(value, everything, our_tokenizer()), wanted)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_span_begins_in_the_prefix(ours: Tokenizer, strategy: str) -> None:
    for seed in range(4):
        model = oracle("token-classification", NER, prefix="ada l", seed=seed)
        spans = model.answer("ovelace in London", {"aggregation_strategy": strategy, "ignore_labels": []}, ours)
        assert spans[0]["start"] == 0
        assert spans[-1]["end"] == len("ovelace in London")


# feature-extraction


def test_a_vector_is_given_as_it_is(ours: Tokenizer) -> None:
    raw = np.array([0.1, -2.0], np.float32)
    vector = TASKS["feature-extraction"].predict(raw, None, None, {}, ours)  # type: ignore[arg-type]
    assert vector == raw.tolist()


# parameters

BAD = [
    ("text-classification", "top_k", 0),
    ("text-classification", "top_k", -1),
    ("text-classification", "top_k", True),
    ("text-classification", "top_k", 1.0),
    ("text-classification", "top_k", "1"),
    ("text-classification", "function_to_apply", "relu"),
    ("text-classification", "function_to_apply", 1),
    ("text-classification", "function_to_apply", ["softmax"]),
    ("text-classification", "aggregation_strategy", "simple"),
    ("text-classification", "ignore_labels", []),
    ("text-classification", "truncation", 1),
    ("text-classification", "truncation", "longest_first"),
    ("text-classification", "truncation", None),
    ("token-classification", "top_k", 1),
    ("token-classification", "function_to_apply", "none"),
    ("token-classification", "aggregation_strategy", "last"),
    ("token-classification", "aggregation_strategy", {}),
    ("token-classification", "ignore_labels", "O"),
    ("token-classification", "ignore_labels", ["O", 1]),
    ("token-classification", "ignore_labels", {"O": 1}),
    ("feature-extraction", "top_k", None),
    ("feature-extraction", "normalize", True),
    ("feature-extraction", "", True),
]


@pytest.mark.parametrize(("task", "name", "value"), BAD)
def test_a_parameter_that_the_task_does_not_take_is_refused_by_name(task: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as raised:
        check_call(TASKS[task], ["x"], {name: value})
    assert raised.value.param == f"parameters.{name}"
    assert name in str(raised.value)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_truncation_is_every_task_s_and_others_are_listed(task: str) -> None:
    for value in (True, False):
        check_call(TASKS[task], ["x"], {"truncation": value})
    with pytest.raises(InvalidParameter, match="truncation"):
        check_call(TASKS[task], ["x"], {"nonsense": 1})


@pytest.mark.parametrize("task", sorted(TASKS))
def test_pairs_are_refused_where_the_task_has_none(task: str) -> None:
    if TASKS[task].pairs:
        check_call(TASKS[task], ["x", ("x", "y")], {})
        return
    with pytest.raises(InvalidInput, match=r"inputs\[1\] is a pair") as raised:
        check_call(TASKS[task], ["x", ("x", "y")], {})
    assert raised.value.param == "inputs[1]"

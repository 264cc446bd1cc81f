"""Entities and answers by character: the engine's, and those of transformers' pipelines on PEFT's model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TokenClassificationPipeline

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.encode.modalities.text import Input, Question
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.token_classification import STRATEGIES
from tests.parity.bench import Bench
from tests.parity.matrix import Cell
from tests.service.engine.question_pipeline import QuestionAnsweringPipeline
from tests.tokenizer_families import transformers_tokenizer

TEXTS = (
    "Ada Lovelace went to London",
    "  New York's   cafés are naïve;\tİstanbul's are not. ",
    "Charles Babbage's parcel broke, zzz-xx, in [MASK] <mask> 漢字 at Dorset Street!",
)
QUESTIONS = (
    Question("Where did they meet?", "Ada Lovelace met Charles Babbage in London in June 1833, at a party."),
    Question("Who  was in Paris?", "  Nobody was:   the naïve left İstanbul's cafés, 漢字, for New York's. "),
)
# One window, and several.
WINDOWS: tuple[dict[str, Any], ...] = ({}, {"max_seq_len": 32, "doc_stride": 6}, {"align_to_words": False})


def answers(bench: Bench, task: str) -> Iterator[tuple[Any, Any]]:
    """What the engine answers of each input, and what the pipeline does."""
    cell = Cell(bench.tiny.architecture.name, "lora", task)
    adapter, model, theirs = _opened(bench, cell)
    if task == "token-classification":
        entities = TokenClassificationPipeline(model=model, tokenizer=theirs, device="cpu")
        for text in TEXTS:
            for strategy in STRATEGIES:
                parameters: dict[str, Any] = {"aggregation_strategy": strategy, "ignore_labels": []}
                yield _answer(bench, adapter, text, parameters), entities(text, **parameters)
        return
    spans = QuestionAnsweringPipeline(_Narrowed(model, bench.tiny.spec.inputs), theirs, "cpu")
    for question in QUESTIONS:
        for parameters in WINDOWS:
            parameters = {"top_k": 3, **parameters}
            yield _answer(bench, adapter, question, parameters), spans(*question, **parameters)


class _Narrowed:
    """A model that is given what it takes alone."""

    def __init__(self, model: Any, inputs: tuple[str, ...]) -> None:
        self._model = model
        self._inputs = inputs

    def to(self, _: str) -> _Narrowed:
        return self

    def __call__(self, **feeds: Any) -> Any:
        return self._model(**{name: value for name, value in feeds.items() if name in self._inputs})


def _opened(bench: Bench, cell: Cell) -> tuple[Adapter, Any, Any]:
    """An adapter as the engine has it, PEFT's model of it, and transformers' tokenizer."""
    spec, folder = bench.tiny.spec, bench.saved(cell).folder
    model, _ = bench.oracle.reloaded(cell, folder)
    path: Path = bench.tiny.folder / "tokenizer.json"
    return bench.served(cell).adapter, model, transformers_tokenizer(path, spec.inputs, spec.max_tokens)


def _answer(bench: Bench, adapter: Adapter, value: Input, parameters: dict[str, Any]) -> Any:
    """The engine's own: its rows, its runner, its post-processing."""
    task = TASKS[adapter.task]
    rows = task.encode(value, adapter.preprocessing, parameters, bench.tokenizer, most=256)
    raws = bench.outputs("onnx", [(adapter, row) for row in rows])
    return task.predict(raws, rows, adapter, parameters, bench.tokenizer)

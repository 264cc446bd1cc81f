"""What a server answers for tokens is measured word by word as in training, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rootstock.adapters.client.predictions import TaskResult
from rootstock.adapters.spec import Adapter, AdapterWeights, HeadSpec, Preprocessing
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.training.data.encoding import IGNORED, encode, load_tokenizer
from rootstock.training.data.example import Example
from rootstock.training.study.labelled_rows import RowColumns
from rootstock.training.study.server_scores import assess_on_server
from tests.tokenizer_families import FAMILIES, save_tokenizer

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
TEXT = "Ada/B-PER Lovelace/I-PER went/O to/O New/B-LOC York's/I-LOC naïve/O zzz漢字/B-LOC in/O İstanbul/B-LOC ./O"


class Server:
    """Answers as the engine does to an adapter that gives every token the tag that training wants of it."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._theirs = load_tokenizer(folder, 512)
        self._ours = Tokenizer(folder / "tokenizer.json")
        self._preprocessing = Preprocessing(512, prefix=prefix)
        head = HeadSpec("hf", "BertForTokenClassification")
        weights = AdapterWeights({}, {})
        self._adapter = Adapter("", "token-classification", None, LABELS, head, self._preprocessing, weights)

    def show(self, _: str) -> Any:
        return SimpleNamespace(task=self._adapter.task, description=None)

    def predict_many(
        self, _: str, inputs: list[str], result: type[TaskResult], **parameters: Any
    ) -> Iterator[TaskResult]:
        return (result.read(self._answer(text, parameters), "", 1) for text in inputs)

    def _answer(self, text: str, parameters: dict[str, Any]) -> Any:
        pairs = [pair.rsplit("/", 1) for pair in TEXT.split()]
        words, tags = zip(*pairs, strict=True)
        assert text == " ".join(words)
        (wanted,) = encode(self._theirs, [Example(text, tags, 1, words)], LABELS)
        row = self._ours.encode(text, self._preprocessing, truncate=False)
        # The prefix's tokens stand before those of the text; so does the first special token, if there is one.
        targets = list(wanted.targets)
        at = next(i for i, target in enumerate(targets) if target != IGNORED)
        targets[at:at] = [0] * (len(row.ids) - len(targets))
        raw = np.eye(len(LABELS), dtype=np.float32)[np.maximum(targets, 0)] * 9
        return TASKS[self._adapter.task].predict([raw], [row], self._adapter, parameters, self._ours)


@pytest.mark.parametrize("prefix", ["", "query: "])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_that_are_all_right_are_measured_as_all_right(family: str, prefix: str, tmp_path: Path) -> None:
    save_tokenizer(family, tmp_path)
    data = tmp_path / "rows.conll"
    data.write_text("".join(pair.replace("/", "\t") + "\n" for pair in TEXT.split()), encoding="utf-8")
    server: Any = Server(tmp_path, prefix)
    figures = assess_on_server(server, "entities", data, RowColumns("text", "label"))
    assert (figures["precision"], figures["recall"], figures["f1"]) == (1.0, 1.0, 1.0)
    assert sum(kind["support"] for kind in figures["entities"].values()) == 4

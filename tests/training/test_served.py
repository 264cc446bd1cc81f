"""What a server answers for tokens is measured word by word as in training, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from rootstock.adapters.client.predictions import TaskResult
from rootstock.adapters.spec import Adapter, AdapterWeights, HeadSpec, Preprocessing
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.training.data.encoding import IGNORED, encode, load_tokenizer
from rootstock.training.data.example import Example
from rootstock.training.errors import DataError, TrainingError
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


class TwoVersions:
    """Serves version 1, which gives a text any of `a` and `b`, and the live version 2, with `b` and `c`."""

    labels: ClassVar = {1: ["a", "b"], 2: ["b", "c"]}
    answering: int | None = None

    def describe(self, _: str, version: int) -> dict[str, Any]:
        description = {"problem_type": "multi_label_classification", "labels": self.labels[version]}
        return {"task": "text-classification", "description": description}

    def show(self, name: str) -> Any:
        return SimpleNamespace(**self.describe(name, 2))

    def resolve(self, reference: str) -> tuple[str, int]:
        name, _, version = reference.partition("@")
        return name, int(version)

    def predict_many(
        self, reference: str, inputs: list[str], result: type[TaskResult], **_: Any
    ) -> Iterator[TaskResult]:
        version = self.answering or int(reference.partition("@")[2] or 2)
        for text in inputs:
            raw = [{"label": label, "score": 0.9 if label in text else 0.1} for label in self.labels[version]]
            yield result.read(raw, "", version)


def test_the_labels_of_a_row_are_those_of_the_version_that_the_reference_means(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text,label\na,a\nb,b\na b,a|b\n", encoding="utf-8")
    client, columns = cast(Any, TwoVersions()), RowColumns("text", "label", "|")
    figures = assess_on_server(client, "kinds@1", data, columns)
    assert (figures["rows"], figures["micro_f1"], sorted(figures["labels"])) == (3, 1.0, ["a", "b"])
    with pytest.raises(DataError, match=r"rows.csv, line 2: 'a' is not a label of kinds$"):
        assess_on_server(client, "kinds", data, columns)
    client.answering = 2
    with pytest.raises(TrainingError, match=r"kinds@1: version 2 answers with other labels .* such as kinds@2"):
        assess_on_server(client, "kinds@1", data, columns)

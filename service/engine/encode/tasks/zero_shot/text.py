"""The task zero-shot-classification: an NLI adapter judges a hypothesis for each label of the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rootstock.adapters.spec import Adapter, Array, Preprocessing
from rootstock.service.engine.core.errors import InvalidInput
from rootstock.service.engine.encode.modalities.text import Input, TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.scores import softmax
from rootstock.service.engine.encode.tasks.task import check_bool, check_rows
from rootstock.service.engine.encode.tasks.text_task import TextTask
from rootstock.service.engine.encode.tasks.truncation import preprocessing_for, truncates
from rootstock.service.engine.encode.tasks.zero_shot.candidate_labels import (
    PARAMETERS,
    candidate_labels,
    check_candidates,
    hypotheses,
)

TEMPLATE = "This example is {}."


class ZeroShotClassification(TextTask):
    """The task that returns labels by score, best first, as transformers' ZeroShotClassificationPipeline does.

    `candidate_labels` is a list, or a string with commas; each label makes one row. `hypothesis_template` holds
    `{}` once. With `multi_label`, each label's score is entailment against contradiction. Otherwise the scores of
    all labels sum to 1. Entailment is the adapter's label that begins with "entail". Contradiction is its first
    label, or its last if the first is entailment. Truncation shortens the text, never the hypothesis.
    """

    name = "zero-shot-classification"
    own_parameters = PARAMETERS | {"multi_label"}
    # The pipeline tokenises its pairs in batches.
    keeps_empty_pair = True

    def readings(self, parameters: Mapping[str, Any]) -> int:
        """Return one row for each label."""
        return len(candidate_labels(parameters))

    def effort(self, value: Input, parameters: Mapping[str, Any]) -> int:
        """Return the number of characters of the text and of the longest hypothesis, or a few more."""
        template = len(parameters.get("hypothesis_template", TEMPLATE))
        return (
            super().effort(value, parameters) + template + max(map(len, candidate_labels(parameters)), default=0)
        )

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter unless there is at least one label and the template has one place for it."""
        super().check(parameters)
        check_bool(parameters, "multi_label")
        check_candidates(parameters, TEMPLATE)

    def check_input(self, value: Input, where: str) -> None:
        """Raise InvalidInput if the text is empty, as the pipeline does."""
        super().check_input(value, where)
        if not value:
            raise InvalidInput(f"{where} is empty; {self.name} needs a text", where)

    def encode(
        self,
        value: Input,
        preprocessing: Preprocessing,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
        most: int,
    ) -> list[TextSample] | Iterator[TextSample]:
        """Return one row for each label: the text with the label's hypothesis."""
        check_rows(len(candidate_labels(parameters)), most, "one for each label")
        preprocessing, truncate = preprocessing_for(preprocessing, parameters), truncates(parameters)
        pairs = ((str(value), hypothesis) for hypothesis in hypotheses(parameters, TEMPLATE))
        return (tokenizer.encode(pair, preprocessing, truncate, keep_second=True) for pair in pairs)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> dict[str, Any]:
        """Return the text, the labels and their scores."""
        labels, logits = candidate_labels(parameters), np.stack(raws)
        entailment = next(i for i, label in enumerate(adapter.labels) if label.lower().startswith("entail"))
        if parameters.get("multi_label", False) or len(labels) == 1:
            contradiction = -1 if entailment == 0 else 0
            scores = softmax(logits[:, [contradiction, entailment]])[:, 1]
        else:
            scores = softmax(logits[:, entailment])
        order = scores.argsort()[::-1]
        return {
            "sequence": rows[0].text[rows[0].shift :],
            "labels": [labels[i] for i in order],
            "scores": scores[order].tolist(),
        }

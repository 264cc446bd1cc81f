"""The task zero-shot-classification: an NLI adapter judges a hypothesis for each label of the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

import numpy as np

from rootstock.adapters.spec import Adapter, Array, Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter
from rootstock.service.engine.encode.modalities.text import Input, TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.scores import softmax
from rootstock.service.engine.encode.tasks.task import check_bool, check_rows
from rootstock.service.engine.encode.tasks.text_task import TextTask
from rootstock.service.engine.encode.tasks.truncation import preprocessing_for, truncates

TEMPLATE = "This example is {}."
# The most characters of the template, and of a label: each row reads the hypothesis that they make.
MAX_HYPOTHESIS = 2**10


class ZeroShotClassification(TextTask):
    """The task that returns labels by score, best first, as transformers' ZeroShotClassificationPipeline does.

    `candidate_labels` is a list, or a string with commas; each label makes one row. `hypothesis_template` holds
    `{}` once. With `multi_label`, each label's score is entailment against contradiction. Otherwise the scores of
    all labels sum to 1. Entailment is the adapter's label that begins with "entail". Contradiction is its first
    label, or its last if the first is entailment. Truncation shortens the text, never the hypothesis.
    """

    name = "zero-shot-classification"
    own_parameters = frozenset({"candidate_labels", "hypothesis_template", "multi_label"})
    # The pipeline tokenises its pairs in batches.
    keeps_empty_pair = True

    def readings(self, parameters: Mapping[str, Any]) -> int:
        """Return one row for each label."""
        return len(_labels(parameters))

    def effort(self, value: Input, parameters: Mapping[str, Any]) -> int:
        """Return the number of characters of the text and of the longest hypothesis, or a few more."""
        template = len(parameters.get("hypothesis_template", TEMPLATE))
        return super().effort(value, parameters) + template + max(map(len, _labels(parameters)), default=0)

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter unless there is at least one label and the template has one place for it."""
        super().check(parameters)
        check_bool(parameters, "multi_label")
        if not _labels(parameters):
            raise InvalidParameter(
                f"candidate_labels is {parameters.get('candidate_labels')!r}; expected at least one label: a "
                "list of strings, or one string with commas between them",
                "parameters.candidate_labels",
            )
        for name, length in (
            ("candidate_labels", max(map(len, _labels(parameters)))),
            ("hypothesis_template", len(str(parameters.get("hypothesis_template", TEMPLATE)))),
        ):
            if length > MAX_HYPOTHESIS:
                subject = "a candidate label" if name == "candidate_labels" else name
                raise InvalidParameter(
                    f"{subject} has {length} characters and the limit is {MAX_HYPOTHESIS}; shorten it",
                    f"parameters.{name}",
                )
        _split(parameters)

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
        labels, (before, after) = _labels(parameters), _split(parameters)
        check_rows(len(labels), most, "one for each label")
        preprocessing, truncate = preprocessing_for(preprocessing, parameters), truncates(parameters)
        pairs = ((str(value), before + label + after) for label in labels)
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
        labels, logits = _labels(parameters), np.stack(raws)
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


def _labels(parameters: Mapping[str, Any]) -> list[str]:
    """Return the candidate labels, or an empty list if they do not have the right form."""
    labels = parameters.get("candidate_labels")
    if isinstance(labels, str):
        return [label.strip() for label in labels.split(",") if label.strip()]
    return labels if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else []


def _split(parameters: Mapping[str, Any]) -> tuple[str, str]:
    """Return the parts of the template before and after its label.

    `str.format` would be unsafe: a request's template could reach into objects, or ask for a padding of any
    width.
    """
    template = parameters.get("hypothesis_template", TEMPLATE)
    try:
        parts = list(Formatter().parse(template))
        fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
        if fields != [("", "", None)]:
            raise ValueError("it does not contain {} exactly once")
    except (TypeError, ValueError) as error:
        raise InvalidParameter(
            f"hypothesis_template is {template!r}: {error}; expected a string such as {TEMPLATE!r}",
            "parameters.hypothesis_template",
        ) from None
    at = next(i for i, part in enumerate(parts) if part[1] is not None)
    literals = [literal for literal, *_ in parts]
    return "".join(literals[: at + 1]), "".join(literals[at + 1 :])

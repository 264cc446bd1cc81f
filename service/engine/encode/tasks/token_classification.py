"""The task token-classification: labels for tokens, or for the spans they form, with character offsets.

The strategies follow transformers' TokenClassificationPipeline (transformers 5.23), which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.scores import softmax
from rootstock.service.engine.encode.tasks.task import ANSWER_ITEM_BYTES, check_one_of
from rootstock.service.engine.encode.tasks.text_task import TextTask

STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class _Token:
    index: int
    word: str
    scores: Array
    start: int
    end: int
    is_subword: bool


@dataclass(frozen=True)
class _TokenLabel:
    label: str
    score: float
    word: str
    start: int
    end: int
    index: int | None = None


class TokenClassification(TextTask):
    """The task that returns the entities of a text.

    `aggregation_strategy` decides their unit. With "none" it is each token; with "simple", a run of tokens with
    one label. With "first", "average" and "max", each word gets one label, and the unit is a run of words.
    `ignore_labels` lists the labels to leave out, by default ["O"].
    """

    name = "token-classification"
    own_parameters = frozenset({"aggregation_strategy", "ignore_labels"})

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for an unknown strategy, or unless `ignore_labels` is a list of strings."""
        super().check(parameters)
        check_one_of(parameters, "aggregation_strategy", STRATEGIES)
        ignored = parameters.get("ignore_labels")
        if ignored is None:
            return
        if not isinstance(ignored, list) or not all(isinstance(v, str) for v in ignored):
            raise InvalidParameter(
                f"ignore_labels is {ignored!r}; expected a list of strings", "parameters.ignore_labels"
            )

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate one item for each token, the most there can be."""
        return ANSWER_ITEM_BYTES * tokens

    def numbers(self, adapter: Adapter, tokens: int) -> int:
        """Return one number for each label of each token."""
        return tokens * len(adapter.labels)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> list[dict[str, Any]]:
        """Return the entities in the order of the text."""
        strategy = parameters.get("aggregation_strategy") or "none"
        ignored = parameters.get("ignore_labels")
        ignored = frozenset(["O"] if ignored is None else ignored)
        tokens = list(_tokens(softmax(raws[0]), rows[0], tokenizer))
        if strategy in ("none", "simple"):
            labelled = [_label_token(t, adapter) for t in tokens]
        else:
            labelled = [_label_word(w, strategy, adapter, tokenizer) for w in _words(tokens)]
        if strategy == "none":
            return [
                {
                    "entity": e.label,
                    "score": e.score,
                    "index": e.index,
                    "word": e.word,
                    "start": e.start,
                    "end": e.end,
                }
                for e in labelled
                if e.label not in ignored
            ]
        groups = (_merge(group, tokenizer) for group in _runs(labelled))
        return [g for g in groups if g["entity_group"] not in ignored]


def _tokens(scores: Array, encoded: TextSample, tokenizer: Tokenizer) -> Iterable[_Token]:
    encoding = encoded.encoding
    places = zip(encoding.special_tokens_mask, encoding.offsets, encoding.ids, strict=True)
    for index, (special, offsets, token_id) in enumerate(places):
        start, end = (offset + encoded.begin for offset in offsets)
        if special or (encoded.shift and end <= encoded.shift):
            continue
        word, text = tokenizer.token(token_id), encoded.text[start:end]
        if token_id == tokenizer.unk_id:
            word, subword = text, False
        elif tokenizer.has_subword_prefix:
            subword = len(word) != len(text)
        else:
            subword = start > 0 and " " not in encoded.text[start - 1 : start + 1]
        first = max(start - encoded.shift, 0)
        yield _Token(index, word, scores[index], first, end - encoded.shift, subword)


def _label_token(token: _Token, adapter: Adapter) -> _TokenLabel:
    best = int(token.scores.argmax())
    label, score = adapter.labels[best], float(token.scores[best])
    return _TokenLabel(label, score, token.word, token.start, token.end, token.index)


def _words(tokens: list[_Token]) -> list[list[_Token]]:
    words: list[list[_Token]] = []
    for token in tokens:
        if words and token.is_subword:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _label_word(word: list[_Token], strategy: str, adapter: Adapter, tokenizer: Tokenizer) -> _TokenLabel:
    if strategy == "first":
        scores = word[0].scores
    elif strategy == "max":
        scores = max(word, key=lambda t: float(t.scores.max())).scores
    else:
        scores = np.mean(np.stack([t.scores for t in word]), axis=0)
    best = int(scores.argmax())
    text = tokenizer.join([t.word for t in word])
    return _TokenLabel(adapter.labels[best], float(scores[best]), text, word[0].start, word[-1].end)


def _runs(labelled: list[_TokenLabel]) -> list[list[_TokenLabel]]:
    """Group neighbours of one entity type. A label with the prefix B- starts a new run."""
    runs: list[list[_TokenLabel]] = []
    for item in labelled:
        begins, kind = _tag(item.label)
        if runs and not begins and kind == _tag(runs[-1][-1].label)[1]:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _tag(label: str) -> tuple[bool, str]:
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label


def _merge(run: list[_TokenLabel], tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "entity_group": run[0].label.split("-", 1)[-1],
        "score": float(np.mean([item.score for item in run])),
        "word": tokenizer.join([item.word for item in run]),
        "start": run[0].start,
        "end": run[-1].end,
    }

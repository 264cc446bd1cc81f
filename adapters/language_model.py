"""Describe the language-model head of a foundation that generates text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LanguageModel:
    """The language-model head of a foundation: its Hugging Face class and vocabulary.

    `stop_ids` are the tokens that end an answer. `digest` covers the fingerprint and the head, because the
    fingerprint covers only the trunk.
    """

    class_name: str
    vocabulary: int
    stop_ids: tuple[int, ...]
    digest: str


@dataclass(frozen=True)
class VocabularyLayer:
    """The output layer of a decoder, by its name in the Hugging Face class.

    `tied` tells whether its weight is the word embedding, and `biased` whether it has a bias.
    """

    name: str
    tied: bool
    biased: bool


@dataclass(frozen=True)
class CausalLM(LanguageModel):
    """The head of a decoder, which continues a text."""

    output: VocabularyLayer | None = None


@dataclass(frozen=True)
class AnswerRules:
    """The rules of a checkpoint for the tokens of an answer, as `generate` of transformers applies them.

    `first` begins every answer. `last` ends an answer that reaches its limit of tokens. The `suppressed` ids are
    never chosen. No run of `no_repeat_ngram` tokens occurs twice in an answer. An answer does not end before
    the decoder has `least` tokens, the start token included. None and 0 set no rule.
    """

    first: int | None = None
    last: int | None = None
    suppressed: tuple[int, ...] = ()
    no_repeat_ngram: int = 0
    least: int = 0


@dataclass(frozen=True)
class Seq2SeqLM(LanguageModel):
    """The head of an encoder–decoder model. Its decoder begins every answer after the token `start_id`."""

    start_id: int
    rules: AnswerRules = AnswerRules()


def causal_lm_of(value: Mapping[str, Any] | None) -> CausalLM | None:
    """Return the head in the JSON form of a CausalLM."""
    if value is None:
        return None
    output = value.get("output")
    own = {"stop_ids": tuple(value["stop_ids"]), "output": None if output is None else VocabularyLayer(**output)}
    return CausalLM(**{**value, **own})


def seq2seq_lm_of(value: Mapping[str, Any] | None) -> Seq2SeqLM | None:
    """Return the head in the JSON form of a Seq2SeqLM."""
    if value is None:
        return None
    rules = AnswerRules(**{**value["rules"], "suppressed": tuple(value["rules"]["suppressed"])})
    return Seq2SeqLM(**{**value, "stop_ids": tuple(value["stop_ids"]), "rules": rules})

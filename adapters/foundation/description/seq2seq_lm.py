"""Finds the head of an encoder–decoder checkpoint, and its rules for the tokens of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootstock.adapters.foundation.description.causal_lm import language_digest, stop_ids
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, read_json
from rootstock.adapters.language_model import AnswerRules, Seq2SeqLM

# transformers reads the settings from the first of these files that is there, and from no other.
_SETTINGS = ("generation_config.json", "config.json")
# Settings that change the tokens of a greedy answer and that no rule stands for, with the values that do nothing.
_NOT_FOLLOWED: Mapping[str, Any] = {
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "begin_suppress_tokens": None,
    "guidance_scale": 1.0,
}


def seq2seq_lm(files: FoundationFiles, class_name: str, config: Any, trunk: str) -> Seq2SeqLM:
    """Return the head of an encoder–decoder checkpoint, whose trunk has the fingerprint `trunk`.

    Raise FoundationError if no token begins or ends an answer, or for a setting that changes greedy answers and
    is not followed.
    """
    path = next(files.folder / name for name in _SETTINGS if (files.folder / name).is_file())
    settings = {key: value for key, value in read_json(path).items() if value is not None}
    vocabulary = int(config.vocab_size)
    for key, neutral in _NOT_FOLLOWED.items():
        if settings.get(key, neutral) not in (neutral, None):
            raise FoundationError(
                f"{path}: {key} is {settings[key]!r}, which this server does not follow, so its answers would be "
                "other than transformers'; remove the setting"
            )
    start = settings.get("decoder_start_token_id", settings.get("bos_token_id"))
    if start is None:
        raise FoundationError(f"{path} names no token that begins an answer; add decoder_start_token_id")
    return Seq2SeqLM(
        class_name,
        vocabulary,
        stop_ids(files, vocabulary),
        language_digest(files, trunk),
        _token(path, "decoder_start_token_id", start, vocabulary),
        _rules(path, settings, vocabulary),
    )


def _rules(path: Path, settings: Mapping[str, Any], vocabulary: int) -> AnswerRules:
    first, last = (
        None if (token := settings.get(key)) is None else _token(path, key, token, vocabulary)
        for key in ("forced_bos_token_id", "forced_eos_token_id")
    )
    suppressed = [
        _token(path, "suppress_tokens", token, vocabulary) for token in settings.get("suppress_tokens", ())
    ]
    for words in settings.get("bad_words_ids", ()):
        if not isinstance(words, list) or len(words) != 1:
            raise FoundationError(
                f"{path}: bad_words_ids holds {words!r}; the server follows only single tokens; leave out "
                "the others"
            )
        suppressed.append(_token(path, "bad_words_ids", words[0], vocabulary))
    ends = settings.get("eos_token_id")
    # transformers leaves out an end among the bad words.
    suppressed = [token for token in suppressed if token not in (ends if isinstance(ends, list) else [ends])]
    size, least = (_count(path, key, settings.get(key, 0)) for key in ("no_repeat_ngram_size", "min_length"))
    return AnswerRules(first, last, tuple(sorted(set(suppressed))), size, least)


def _token(path: Path, key: str, value: Any, vocabulary: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocabulary:
        raise FoundationError(
            f"{path}: {key} is {value!r}; expected an id of the vocabulary, from 0 to {vocabulary - 1}; "
            "correct it"
        )
    return value


def _count(path: Path, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FoundationError(f"{path}: {key} is {value!r}; expected a whole number, 0 to switch it off")
    return value

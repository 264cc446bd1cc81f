"""The task question-answering: the span of a context that answers a question.

It reads long contexts in overlapping windows. It follows the QuestionAnsweringPipeline of transformers 4, which
transformers 5 no longer has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Adapter, Array, Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, TooLarge
from rootstock.service.engine.encode.modalities.text import Input, Question, TextSample, Tokenizer, cut
from rootstock.service.engine.encode.tasks.scores import softmax
from rootstock.service.engine.encode.tasks.task import check_bool, check_count, check_rows
from rootstock.service.engine.encode.tasks.text_task import TextTask

Flags = npt.NDArray[np.bool_]
MAX_TOP_K = 100
# The most characters of one input's answers, and of the spans that they are chosen from. Tokens alone do not
# limit them, because a token can have any length.
MAX_ANSWER_CHARACTERS = 2**18
_MAX_SPAN_CHARACTERS = 2**24
_WINDOW, _STRIDE, _QUESTION, _ANSWER = 384, 128, 64, 15


class QuestionAnswering(TextTask):
    """The task that returns the best answers, with their score and their characters in the context.

    Defaults are in parentheses. A window has `max_seq_len` tokens (384, at most the adapter's limit).
    Neighbouring windows share `doc_stride` tokens (128, at most half a window). The first `max_question_len`
    tokens (64) of the question count. Answers have at most `max_answer_len` tokens (15). With `align_to_words`
    (true), they begin and end where words do. `handle_impossible_answer` (false) allows the empty answer. `top_k`
    (1) is the number of answers, at most `MAX_TOP_K`. One answer is an object, several are a list. Contexts are
    split, never truncated.
    """

    name = "question-answering"
    takes = (Question,)
    counts = ("top_k", "doc_stride", "max_seq_len", "max_question_len", "max_answer_len")
    flags = ("handle_impossible_answer", "align_to_words")
    own_parameters = frozenset({*counts, *flags})

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter unless the counts are whole numbers and the flags true or false."""
        super().check(parameters)
        for name in self.counts:
            check_count(parameters, name, 0 if name == "doc_stride" else 1)
        for name in self.flags:
            check_bool(parameters, name)
        if "truncate_prompt_tokens" in parameters:
            raise InvalidParameter(
                f"{self.name} splits a long context into windows and never truncates it; set max_seq_len instead "
                "of truncate_prompt_tokens",
                "parameters.truncate_prompt_tokens",
            )
        if (parameters.get("top_k") or 1) > MAX_TOP_K:
            message = f"top_k is {parameters['top_k']}; expected at most {MAX_TOP_K}"
            raise InvalidParameter(message, "parameters.top_k")

    def check_input(self, value: Input, where: str) -> None:
        """Raise InvalidInput if the question or the context is empty."""
        super().check_input(value, where)
        for key, text in zip(Question._fields, value, strict=True):
            if not text:
                raise InvalidInput(f"{where}.{key} is empty; {self.name} needs both texts", f"{where}.{key}")

    def encode(
        self,
        value: Input,
        preprocessing: Preprocessing,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
        most: int,
    ) -> list[TextSample]:
        """Return one row for each window of the context."""
        limit = preprocessing.max_length
        size = parameters.get("max_seq_len") or min(limit, _WINDOW)
        if size > limit:
            message = f"max_seq_len is {size} and the adapter's limit is {limit} tokens; lower it"
            raise InvalidParameter(message, "parameters.max_seq_len")
        question_size = min(size, parameters.get("max_question_len") or _QUESTION)
        question = tokenizer.part(preprocessing.prefix + value[0], question_size).encoding
        cut(question, question_size)
        room = tokenizer.room(size, pair=True) - len(question)
        # Read at least as many tokens as all windows together can hold.
        context, _, whole = tokenizer.part(value[1], most * size)
        if len(context) > room:
            shared = _shared(parameters.get("doc_stride"), size, room)
            part = "" if whole else ", of which only a part was read"
            rows = 1 + -(-(len(context) - room) // (room - shared))
            check_rows(rows, most, f"one for each window of the context{part}")
            context.truncate(room, stride=shared)
        wholes = (tokenizer.whole(question, window) for window in (context, *context.overflowing))
        return [TextSample(whole.ids, whole.type_ids, whole, value[1], 0) for whole in wholes]

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> Any:
        """Return the best answers.

        As in the pipeline, answers of one text become one, and their scores add up.
        """
        top_k = parameters.get("top_k") or 1
        aligned = parameters.get("align_to_words", True)
        # Take more candidates than answers, because spans within the same words become one answer.
        candidates = 2 * top_k + 10 if aligned else top_k
        longest = parameters.get("max_answer_len") or _ANSWER
        answers: dict[str, dict[str, Any]] = {}
        empty, length = 1.0, 0
        for raw, row in zip(raws, rows, strict=True):
            context = np.array([part == 1 for part in row.encoding.sequence_ids])
            begins, ends = _probabilities(raw, row, context)
            empty = min(empty, float(begins[0] * ends[0]))
            for first, last in _spans(begins, ends, context, longest, candidates):
                start, end = _characters(row, first, last, aligned)
                length += end - start
                _check_length(length, _MAX_SPAN_CHARACTERS)
                text = row.text[start:end]
                answer = answers.setdefault(
                    text.lower(), {"score": 0.0, "start": start, "end": end, "answer": text}
                )
                answer["score"] += float(begins[first] * ends[last])
        candidates = list(answers.values())
        if parameters.get("handle_impossible_answer", False):
            candidates.append({"score": empty, "start": 0, "end": 0, "answer": ""})
        best = sorted(candidates, key=lambda answer: -answer["score"])[:top_k]
        _check_length(sum(len(answer["answer"]) for answer in best), MAX_ANSWER_CHARACTERS)
        return best[0] if len(best) == 1 else best


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise TooLarge(
            f"an input's possible answers have more than {most} characters, the limit; lower "
            "parameters.top_k or parameters.max_answer_len",
            "inputs",
        )


def _shared(doc_stride: int | None, size: int, room: int) -> int:
    """Return how many tokens a window repeats of the one before: fewer than `room`, so that some are new."""
    shared = min(size // 2, _STRIDE) if doc_stride is None else doc_stride
    if doc_stride is None and shared >= room:
        shared = room // 2
    if shared >= room:
        raise InvalidParameter(
            f"the question leaves {max(room, 0)} of {size} tokens for a window of the context and doc_stride is "
            f"{shared}, which is not less; shorten the question, lower doc_stride or raise max_seq_len",
            "parameters.doc_stride",
        )
    return shared


def _probabilities(raw: Array, row: TextSample, context: Flags) -> tuple[Array, Array]:
    """Return the probabilities that an answer begins and ends at each token. The first token means no answer."""
    possible = context.copy()
    possible[0] = row.encoding.special_tokens_mask[0] or not context.any()
    begins, ends = softmax(np.where(possible, raw.T, -np.inf))
    return begins, ends


def _spans(begins: Array, ends: Array, context: Flags, longest: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last token of the likeliest spans in the context, each of at most `longest` tokens."""
    longest = min(longest, len(context))
    places = np.flatnonzero(np.tril(np.triu(np.outer(context, context)), longest - 1))
    scores = np.outer(begins, ends).ravel()[places]
    if len(places) > most:
        kept = np.argpartition(-scores, most)[:most]
        places, scores = places[kept], scores[kept]
    for place in places[np.argsort(-scores, kind="stable")].tolist():
        yield divmod(place, len(context))


def _characters(row: TextSample, first: int, last: int, aligned: bool) -> tuple[int, int]:
    encoding = row.encoding
    words = [encoding.token_to_word(token) for token in (first, last)] if aligned else []
    word_spans = [encoding.word_to_chars(word, sequence_index=1) for word in words if word is not None]
    spans = [span for span in word_spans if span is not None]
    if len(spans) == 2:
        return spans[0][0], spans[1][1]
    # Some tokenizers do not split text into words.
    return encoding.offsets[first][0], encoding.offsets[last][1]

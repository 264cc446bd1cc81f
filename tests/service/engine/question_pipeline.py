"""transformers' QuestionAnsweringPipeline, which transformers 5 dropped, put together from what 5.23 still has.

Windows are its tokenizer's own overflow, spans its own `select_starts_ends` (kept for documents). The rest is as
in transformers 4.57: the number of candidates, their characters, answers of one text added up, the empty answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast
from transformers.pipelines.document_question_answering import select_starts_ends


class QuestionAnsweringPipeline:
    """Spans of probability 0, which 4.57 lists where there are fewer others, are left out."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerFast, device: str) -> None:
        self.model = model.to(device)
        self.tokenizer = tokenizer

    def __call__(
        self,
        question: str,
        context: str,
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        max_question_len: int = 64,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> Any:
        size = max_seq_len or min(self.tokenizer.model_max_length, 384)
        stride = min(size // 2, 128) if doc_stride is None else doc_stride
        windows = self.tokenizer(
            self._shortened(question, max_question_len),
            context,
            truncation="only_second",
            max_length=size,
            stride=stride,
            return_overflowing_tokens=True,
        )
        answers: list[dict[str, Any]] = []
        least = 1000000.0
        for i, encoding in enumerate(windows.encodings):
            mask = np.array([[part != 1 for part in windows.sequence_ids(i)]], dtype=int)
            mask[0, np.array(encoding.ids) == self.tokenizer.cls_token_id] = 0
            ids, types = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
            with torch.no_grad():
                out = self.model(input_ids=ids, token_type_ids=types)
            wanted = top_k * 2 + 10 if align_to_words else top_k
            starts, ends, scores, least = select_starts_ends(
                out.start_logits.numpy(),
                out.end_logits.numpy(),
                mask,
                np.ones_like(mask),
                least,
                wanted,
                handle_impossible_answer,
                max_answer_len,
            )
            for start, end, score in zip(starts.tolist(), ends.tolist(), scores.tolist(), strict=True):
                if score > 0:
                    self._add(answers, score, context, *self._characters(encoding, start, end, align_to_words))
        if handle_impossible_answer:
            answers.append({"score": least, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]
        return answers[0] if len(answers) == 1 else answers

    def _shortened(self, question: str, most: int) -> str:
        offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        return question[: offsets[:most][-1][1]] if len(offsets) > most else question

    def _characters(self, encoding: Any, start: int, end: int, align: bool) -> tuple[int, int]:
        if align:
            try:
                words = encoding.token_to_word(start), encoding.token_to_word(end)
                first, last = (encoding.word_to_chars(word, sequence_index=1) for word in words)
                return first[0], last[1]
            except Exception:
                pass
        return encoding.offsets[start][0], encoding.offsets[end][1]

    def _add(self, answers: list[dict[str, Any]], score: float, context: str, start: int, end: int) -> None:
        text = context[start:end]
        for answer in answers:
            if answer["answer"].lower() == text.lower():
                answer["score"] += score
                return
        answers.append({"score": score, "start": start, "end": end, "answer": text})

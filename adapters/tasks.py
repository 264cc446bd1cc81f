"""The table of tasks: the modality, the kinds of head and PEFT's name of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Modality = Literal["text", "image", "audio"]
# `linear` is one layer on a pooled vector, `hf` the head of the Hugging Face class for the task. The other kinds
# belong to the foundation, and an adapter holds no tensors of them: `causal-lm` and `seq2seq-lm` are its
# language-model head, `towers` are the projections of its tower for images and its tower for texts.
HeadKind = Literal["linear", "hf", "causal-lm", "seq2seq-lm", "towers"]


@dataclass(frozen=True)
class TaskSpec:
    """One task, named as on the Hugging Face hub.

    `heads` are the kinds of head that a bundle may hold for the task; Rootstock trains the first of them. A task
    without heads belongs to the foundation alone. `peft_type` is the `task_type` in a PEFT adapter's config.
    """

    name: str
    modality: Modality
    heads: tuple[HeadKind, ...]
    peft_type: str | None


TASKS = (
    TaskSpec("text-classification", "text", ("linear", "hf"), "SEQ_CLS"),
    TaskSpec("token-classification", "text", ("hf",), "TOKEN_CLS"),
    TaskSpec("feature-extraction", "text", ("linear",), "FEATURE_EXTRACTION"),
    TaskSpec("question-answering", "text", ("hf",), "QUESTION_ANS"),
    TaskSpec("text-ranking", "text", ("linear", "hf"), "SEQ_CLS"),
    TaskSpec("zero-shot-classification", "text", ("linear", "hf"), "SEQ_CLS"),
    TaskSpec("fill-mask", "text", (), None),
    TaskSpec("image-classification", "image", ("linear", "hf"), None),
    TaskSpec("image-feature-extraction", "image", ("linear",), None),
    TaskSpec("zero-shot-image-classification", "image", ("towers",), None),
    TaskSpec("audio-classification", "audio", ("linear", "hf"), None),
    TaskSpec("audio-feature-extraction", "audio", ("linear",), None),
    TaskSpec("text-generation", "text", ("causal-lm",), "CAUSAL_LM"),
    TaskSpec("text2text-generation", "text", ("seq2seq-lm",), "SEQ_2_SEQ_LM"),
)
# If several tasks share a PEFT type, the type means the first of them.
TASK_OF_TYPE = {task.peft_type: task.name for task in reversed(TASKS) if task.peft_type is not None}


def task_named(name: str) -> TaskSpec:
    """Return the task with this name; raise KeyError if the table has none."""
    return _BY_NAME[name]


_BY_NAME = {task.name: task for task in TASKS}

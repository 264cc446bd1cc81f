"""The results of inference: a class for each task, made from the server's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, overload

from rootstock.adapters.client.errors import Refused, Unreadable, stated_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

R = TypeVar("R", bound="TaskResult")


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The result for one input. `digest` is that of the adapter, or foundation, that computed it.

    `raw` is the server's JSON, which has the form of transformers' pipeline. A result of a task that this client
    does not know has no other fields.
    """

    task: ClassVar[str] = ""

    digest: str
    version: int | None
    raw: Any = field(repr=False)

    @classmethod
    def read(cls, raw: Any, digest: str, version: int | None) -> Self:
        """Return the result in the JSON for one input. Raise KeyError, TypeError or ValueError for another."""
        return cls(**cls._fields(raw), digest=digest, version=version, raw=raw)

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class ClassificationResult(TaskResult):
    """A text's best label and its score. `scores` holds every label that `top_k` asked for, best first."""

    task = "text-classification"

    label: str
    score: float
    scores: Mapping[str, float]

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        scores = {str(one["label"]): float(one["score"]) for one in (raw if isinstance(raw, list) else [raw])}
        label = next(iter(scores))
        return {"label": label, "score": scores[label], "scores": scores}


@dataclass(frozen=True, kw_only=True)
class ImageClassificationResult(ClassificationResult):
    """An image's best label and its score. `scores` holds five labels, or as many as `top_k` asked for."""

    task = "image-classification"


@dataclass(frozen=True, kw_only=True)
class ZeroShotImageResult(ClassificationResult):
    """An image's best candidate label and its score. `scores` holds all candidate labels, best first."""

    task = "zero-shot-image-classification"


@dataclass(frozen=True, kw_only=True)
class AudioClassificationResult(ClassificationResult):
    """A recording's best label and its score. `scores` holds all labels, or as many as `top_k` asked for."""

    task = "audio-classification"


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A span of a text, with the offsets of its characters: `text[start:end]`.

    `word` is the span as the tokenizer spells it.
    """

    label: str
    score: float
    start: int
    end: int
    word: str


@dataclass(frozen=True, kw_only=True)
class EntitiesResult(TaskResult, Sequence[Entity]):
    """The entities of a text in their order, as a sequence."""

    task = "token-classification"

    entities: tuple[Entity, ...]

    @overload
    def __getitem__(self, index: int) -> Entity: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Entity]: ...

    def __getitem__(self, index: int | slice) -> Entity | Sequence[Entity]:
        return self.entities[index]

    def __len__(self) -> int:
        return len(self.entities)

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        entities = (
            Entity(
                label=one["entity_group"] if "entity_group" in one else one["entity"],
                score=one["score"],
                start=one["start"],
                end=one["end"],
                word=one["word"],
            )
            for one in raw
        )
        return {"entities": tuple(entities)}


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingResult(TaskResult):
    """A text's pooled vector, fp32, of shape (hidden size,); numpy takes the result itself as that array."""

    task = "feature-extraction"

    vector: NDArray[np.float32]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        return np.array(self.vector, dtype=dtype, copy=copy)

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        import numpy as np

        return {"vector": np.array(raw, dtype=np.float32)}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageEmbeddingResult(EmbeddingResult):
    """An image's pooled vector, fp32, of shape (hidden size,)."""

    task = "image-feature-extraction"


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioEmbeddingResult(EmbeddingResult):
    """A recording's pooled vector, fp32, of shape (hidden size,)."""

    task = "audio-feature-extraction"


@dataclass(frozen=True, kw_only=True)
class ExtractedSpan:
    """A candidate for an answer: `context[start:end]`."""

    answer: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class AnswerResult(TaskResult):
    """The best answer in a context, `context[start:end]`. `others` are the next ones, up to `top_k` in all.

    A context without any token has no answer: the text is empty and the score 0.
    """

    task = "question-answering"

    answer: str
    score: float
    start: int
    end: int
    others: tuple[ExtractedSpan, ...]

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        found = [
            {"answer": one["answer"], "score": one["score"], "start": one["start"], "end": one["end"]}
            for one in (raw if isinstance(raw, list) else [raw])
        ] or [{"answer": "", "score": 0.0, "start": 0, "end": 0}]
        return {**found[0], "others": tuple(ExtractedSpan(**one) for one in found[1:])}


@dataclass(frozen=True, kw_only=True)
class RelevanceResult(TaskResult):
    """The score of a pair of texts."""

    task = "text-ranking"

    score: float

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        return {"score": raw["score"]}


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult(TaskResult):
    """A text's candidate labels with their scores, best first; `label` and `score` are the best ones."""

    task = "zero-shot-classification"

    label: str
    score: float
    scores: Mapping[str, float]

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        scores = dict(zip(raw["labels"], raw["scores"], strict=True))
        label = next(iter(scores))
        return {"label": label, "score": scores[label], "scores": scores}


@dataclass(frozen=True, kw_only=True)
class MaskToken:
    """A token for a mask, and the text with it in the mask's place."""

    token: int
    token_str: str
    score: float
    sequence: str


@dataclass(frozen=True, kw_only=True)
class FillMaskResult(TaskResult):
    """The tokens for each mask of a text, best first."""

    task = "fill-mask"

    masks: tuple[tuple[MaskToken, ...], ...]

    @classmethod
    def _fields(cls, raw: Any) -> dict[str, Any]:
        masks = raw if isinstance(raw[0], list) else [raw]
        return {"masks": tuple(tuple(MaskToken(**token) for token in mask) for mask in masks)}


RESULTS: Mapping[str, type[TaskResult]] = {
    kind.task: kind
    for kind in (
        ClassificationResult,
        EntitiesResult,
        EmbeddingResult,
        AnswerResult,
        RelevanceResult,
        ZeroShotResult,
        FillMaskResult,
        ImageClassificationResult,
        ImageEmbeddingResult,
        ZeroShotImageResult,
        AudioClassificationResult,
        AudioEmbeddingResult,
    )
}


def read_results(document: Mapping[str, Any], expected: type[R] | None, count: int) -> list[Any]:
    """Return the results in an answer of /v1/predict, of the class `expected`, or else of the answer's task.

    Raise Unreadable if the answer has another form, or not a prediction for each of `count` inputs.
    """
    try:
        kind = expected or RESULTS.get(document["task"], TaskResult)
        digest, version = str(document["digest"]), document["version"]
        results = [kind.read(raw, digest, version) for raw in document["predictions"]]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, StopIteration) as error:
        raise Unreadable(f"the answer is no result of a task that this client knows ({error!r})") from error
    if len(results) != count:
        raise Unreadable(f"the answer has {len(results)} predictions for {count} inputs")
    return results


def read_outcomes(document: Mapping[str, Any], models: Sequence[str], count: int) -> list[list[Any] | Refused]:
    """Return the results of each model of an answer for several models, or the error of the model."""
    results = document.get("results")
    if not isinstance(results, list):
        raise Unreadable("the answer has no `results` of several models")
    if len(results) != len(models):
        raise Unreadable(f"the answer has the results of {len(results)} models, not of {len(models)}")
    return [stated_error(one, 200) or read_results(one, None, count) for one in results]

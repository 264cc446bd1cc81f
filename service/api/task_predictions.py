"""The answer of POST /v1/predict, and the form that its predictions have for each task."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from rootstock.service.api.composed_fields import AnsweredParts


class Usage(BaseModel):
    """The number of tokens that were computed, special tokens included."""

    prompt_tokens: int


class Timings(BaseModel):
    """The times of an answer's steps, in milliseconds.

    `load_ms`: from arrival until the adapter was in host memory. `tokenize_ms`: tokenising. `queue_ms`: waiting
    for the tokeniser and for the first batch. `inference_ms`: from the first batch to the last output.
    `total_ms`: from arrival to answer.
    """

    load_ms: float
    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float


class Prediction(BaseModel):
    """The answer of one reference; `predictions[i]` has the form of transformers' pipeline for input i."""

    model: str
    version: int | None
    digest: str
    adapters: AnsweredParts = None
    task: str
    predictions: list[Any]
    usage: Usage
    timings: Timings


class LabelScore(BaseModel):
    """A label and its score."""

    label: str
    score: float


class PredictedEntity(BaseModel):
    """A part of a text with a label. `start` and `end` count characters of the text.

    A group of tokens has `entity_group`. A single token (`aggregation_strategy` none) has `entity` and `index`.
    """

    entity_group: str | None = None
    entity: str | None = None
    index: int | None = None
    score: float
    word: str
    start: int
    end: int


class AnswerSpan(BaseModel):
    """An answer in a context: its score, its text, and where it is. `start` and `end` count characters."""

    score: float
    start: int
    end: int
    answer: str


class RankScore(BaseModel):
    """The score of a pair of texts."""

    score: float


class ZeroShotScores(BaseModel):
    """The candidate labels of a text with their scores, best first."""

    sequence: str
    labels: list[str]
    scores: list[float]


class FilledMask(BaseModel):
    """A token for a mask: its score, its id, its text, and the whole text with it."""

    score: float
    token: int
    token_str: str
    sequence: str


class TextClassificationPrediction(Prediction):
    """The best label of each text; with `top_k` a list of labels, best first."""

    task: Literal["text-classification"]
    predictions: list[LabelScore | list[LabelScore]]


class TokenClassificationPrediction(Prediction):
    """The entities of each text."""

    task: Literal["token-classification"]
    predictions: list[list[PredictedEntity]]


class FeatureExtractionPrediction(Prediction):
    """The pooled vector of each text."""

    task: Literal["feature-extraction"]
    predictions: list[list[float]]


class QuestionAnsweringPrediction(Prediction):
    """The answer to each question; with `top_k` above 1 a list of answers, best first."""

    task: Literal["question-answering"]
    predictions: list[AnswerSpan | list[AnswerSpan]]


class TextRankingPrediction(Prediction):
    """The score of each pair of texts."""

    task: Literal["text-ranking"]
    predictions: list[RankScore]


class ZeroShotClassificationPrediction(Prediction):
    """The scores of the candidate labels for each text."""

    task: Literal["zero-shot-classification"]
    predictions: list[ZeroShotScores]


class FillMaskPrediction(Prediction):
    """The best tokens for the mask of each text; for several masks a list for each."""

    task: Literal["fill-mask"]
    predictions: list[list[FilledMask] | list[list[FilledMask]]]


class ImageClassificationPrediction(Prediction):
    """The labels of each image, best first: the first five, or as many as `top_k`."""

    task: Literal["image-classification"]
    predictions: list[list[LabelScore]]


class ImageFeatureExtractionPrediction(Prediction):
    """The pooled vector of each image."""

    task: Literal["image-feature-extraction"]
    predictions: list[list[float]]


class ZeroShotImageClassificationPrediction(Prediction):
    """The candidate labels of each image with their scores, best first."""

    task: Literal["zero-shot-image-classification"]
    predictions: list[list[LabelScore]]


class AudioClassificationPrediction(Prediction):
    """The labels of each recording, best first: all of them, or as many as `top_k`."""

    task: Literal["audio-classification"]
    predictions: list[list[LabelScore]]


class AudioFeatureExtractionPrediction(Prediction):
    """The pooled vector of each recording."""

    task: Literal["audio-feature-extraction"]
    predictions: list[list[float]]


# An answer by its task. Only the OpenAPI document needs these classes: the engine's values go out unchecked.
TaskPrediction = Annotated[
    TextClassificationPrediction
    | TokenClassificationPrediction
    | FeatureExtractionPrediction
    | QuestionAnsweringPrediction
    | TextRankingPrediction
    | ZeroShotClassificationPrediction
    | FillMaskPrediction
    | ImageClassificationPrediction
    | ImageFeatureExtractionPrediction
    | ZeroShotImageClassificationPrediction
    | AudioClassificationPrediction
    | AudioFeatureExtractionPrediction,
    Field(discriminator="task"),
]

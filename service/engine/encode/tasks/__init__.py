"""Handle the inputs and outputs of each task: one module for each, with the name of Hugging Face's pipeline."""

from __future__ import annotations

from typing import Any

from rootstock.service.engine.encode.tasks.feature_extraction import FeatureExtraction
from rootstock.service.engine.encode.tasks.fill_mask import FillMask
from rootstock.service.engine.encode.tasks.media_classification import AudioClassification, ImageClassification
from rootstock.service.engine.encode.tasks.media_feature_extraction import (
    AudioFeatureExtraction,
    ImageFeatureExtraction,
)
from rootstock.service.engine.encode.tasks.question_answering import QuestionAnswering
from rootstock.service.engine.encode.tasks.task import Task
from rootstock.service.engine.encode.tasks.text_classification import TextClassification
from rootstock.service.engine.encode.tasks.text_ranking import TextRanking
from rootstock.service.engine.encode.tasks.token_classification import TokenClassification
from rootstock.service.engine.encode.tasks.zero_shot.image import ZeroShotImageClassification
from rootstock.service.engine.encode.tasks.zero_shot.text import ZeroShotClassification

TASKS: dict[str, Task[Any]] = {
    task.name: task
    for task in (
        TextClassification(),
        TokenClassification(),
        FeatureExtraction(),
        QuestionAnswering(),
        TextRanking(),
        ZeroShotClassification(),
        FillMask(),
        ImageClassification(),
        ImageFeatureExtraction(),
        ZeroShotImageClassification(),
        AudioClassification(),
        AudioFeatureExtraction(),
    )
}

"""What each task takes and gives: one module a task, named as Hugging Face's pipelines are."""

from __future__ import annotations

from service.engine.tasks.feature_extraction import FeatureExtraction
from service.engine.tasks.fill_mask import FillMask
from service.engine.tasks.question_answering import QuestionAnswering
from service.engine.tasks.task import Task
from service.engine.tasks.text_classification import TextClassification
from service.engine.tasks.text_ranking import TextRanking
from service.engine.tasks.token_classification import TokenClassification
from service.engine.tasks.zero_shot_classification import ZeroShotClassification

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        TextClassification(),
        TokenClassification(),
        FeatureExtraction(),
        QuestionAnswering(),
        TextRanking(),
        ZeroShotClassification(),
        FillMask(),
    )
}

"""How a recipe does on average over folds, each predicted by a training that did not see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rootstock.training.data.split import folds
from rootstock.training.fit.candidate import HEAD_ONLY, TrainingRows
from rootstock.training.fit.descent import Report, deterministic, silent
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import compare, out_of_fold
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.metrics.intervals import spread
from rootstock.training.recipe.recipe_file import RecipeFile


@dataclass(frozen=True)
class FoldScores:
    """Each method's scores by fold."""

    folds: int
    scores: dict[str, list[float]]
    paired: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The scores with mean and standard deviation."""
        found = {name: {"scores": scores, **spread(scores).to_json()} for name, scores in self.scores.items()}
        return {"folds": self.folds, "methods": found, "paired": self.paired}


def cross_validate(source: RecipeFile, count: int, report: Report = silent) -> FoldScores:
    """The recipe's method and the head alone over `count` stratified folds of the rows to train and choose by.

    The score is macro-F1, for tokens that of whole entities. The test rows stay unread. `paired` compares the two
    over all rows.
    """
    job = prepare(source)
    examples = [*job.parts.train, *job.parts.validation]
    rows = [*job.rows["train"], *job.rows["validation"]]
    asked = source.recipe.peft.method
    other = "lora" if asked == "auto" else asked
    training = TrainingRows(job, examples, rows, (), source.recipe.seeds[0], report, whole=len(job.rows["train"]))
    scores: dict[str, list[float]] = {}
    found = {}
    with deterministic(training.seed):
        for method in dict.fromkeys((HEAD_ONLY, other)):
            found[method] = out_of_fold(method, replace(training, stage=method), count)
            scores[method] = [
                macro_f1([found[method][i] for i in taken], [rows[i] for i in taken], job.labels)
                for _, taken in folds(examples, source.recipe.data.splits.seed, count)
            ]
    paired = compare(found[HEAD_ONLY], found[other], rows, job).to_json() if other != HEAD_ONLY else None
    return FoldScores(count, scores, paired)

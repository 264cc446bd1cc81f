"""The score of a recipe's method over folds, each predicted by a training that did not see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rootstock.training.fit.candidate import HEAD_ONLY
from rootstock.training.fit.descent import Report, deterministic, silent
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import out_of_fold
from rootstock.training.metrics.intervals import spread
from rootstock.training.recipe.recipe_file import RecipeFile


@dataclass(frozen=True)
class FoldScores:
    """The scores of each method by fold, and a paired test of the two methods."""

    folds: int
    scores: dict[str, list[float]]
    paired: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return the scores with mean and standard deviation."""
        methods = {name: {"scores": scores, **spread(scores).to_json()} for name, scores in self.scores.items()}
        return {"folds": self.folds, "methods": methods, "paired": self.paired}


def cross_validate(source: RecipeFile, count: int, report: Report = silent) -> FoldScores:
    """Score the recipe's method and the head alone over `count` stratified folds.

    The folds are of the rows to train and choose by; the test rows stay unread. The score is macro-F1, for tokens
    F1 of whole entities, for several labels micro-F1, for numbers R².
    """
    job = prepare(source)
    rows, plan, problem = job.joined_rows, job.plan(report), job.encoder.problem
    other = plan.network.peft.trained_method
    scores: dict[str, list[float]] = {}
    outputs = {}
    with deterministic(plan.seed):
        for method in dict.fromkeys((HEAD_ONLY, other)):
            raw = out_of_fold(method, rows, replace(plan, stage=method), count)
            scores[method] = [
                problem.score([raw[i] for i in fold], [rows.train[i] for i in fold])
                for _, fold in rows.folds(count)
            ]
            outputs[method] = raw
    if other == HEAD_ONLY:
        return FoldScores(count, scores, None)
    paired = problem.compare(outputs[HEAD_ONLY], outputs[other], rows.train)
    return FoldScores(count, scores, paired.to_json())

"""Chooses between the recipe's method and the head alone, on rows that neither was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.split import FOLDS
from rootstock.training.errors import BelowBaseline
from rootstock.training.fit.candidate import HEAD_ONLY, Candidate, train_candidate
from rootstock.training.fit.descent import silent
from rootstock.training.fit.fold_progress import FoldProgress
from rootstock.training.fit.plan import TrainingPlan, TrainingRows
from rootstock.training.metrics.counts import entity_counts, f1
from rootstock.training.metrics.evaluation import macro_f1, word_tags
from rootstock.training.metrics.paired_test import Comparison, mcnemar, paired_bootstrap
from rootstock.training.network.row_encoder import InputEncoder
from rootstock.training.network.strength import STRENGTHS
from rootstock.training.network.trunk import head_layers


@dataclass(frozen=True)
class MethodScore:
    """A method's raw outputs for rows that its training did not see, and their score.

    `paired` compares the outputs with those of the head alone. `strength` is the share of the trained change that
    gave them.
    """

    method: str
    held_out: list[Array]
    score: float
    paired: Comparison | None = None
    candidate: Candidate | None = None
    strength: float = 1.0

    @property
    def title(self) -> str:
        """The method's name, with the share of its change that is kept if that is below 1."""
        return self.method if self.strength == 1 else f"{self.method} at {self.strength:g} of its change"


@dataclass(frozen=True)
class Choice:
    """The chosen method, the reason, and the scores of all methods on `rows`.

    The first score is that of the head alone, unless the head cannot be fitted alone.
    """

    chosen: MethodScore
    reason: str
    scores: tuple[MethodScore, ...]
    rows: Sequence[EncodedRow]

    def to_json(self) -> dict[str, Any]:
        """Return the choice as metrics.json states it."""
        return {
            "chosen": self.chosen.method,
            "reason": self.reason,
            "candidates": [
                {
                    "method": one.method,
                    "validation": round(one.score, 4),
                    **({} if one.method == HEAD_ONLY else {"strength": one.strength}),
                    **({} if one.paired is None else {"against": HEAD_ONLY, **one.paired.to_json()}),
                }
                for one in self.scores
            ],
        }


def choose(rows: TrainingRows, plan: TrainingPlan, alpha: float, force: bool = False) -> Choice:
    """Judge the recipe's method against the head alone, and choose one.

    `auto` chooses LoRA if it scores higher and the p-value of a paired test is below `alpha`. Raise
    BelowBaseline if a named method scores below the head alone, unless `force` is set.
    """
    peft, task_class = plan.network.peft, plan.network.task_class
    scores: list[MethodScore] = []
    if plan.network.linear_head or len(head_layers(task_class)) == 1 or peft.method == HEAD_ONLY:
        scores.append(judge(HEAD_ONLY, rows, plan, None))
    if peft.method != HEAD_ONLY:
        scores.append(judge(peft.trained_method, rows, plan, scores[0] if scores else None))
    if scores[-1].paired is None and peft.method != HEAD_ONLY:
        reason = f"the head of {task_class.name} cannot be fitted alone, so there is no baseline"
        return Choice(scores[-1], reason, tuple(scores), rows.scoring_rows)
    chosen, reason = _better(peft.method, scores, alpha, force)
    return Choice(chosen, reason, tuple(scores), rows.scoring_rows)


def _better(method: str, scores: Sequence[MethodScore], alpha: float, force: bool) -> tuple[MethodScore, str]:
    alone, other = scores[0], scores[-1]
    if method == HEAD_ONLY:
        return alone, "the recipe asks for the head alone"
    paired = other.paired
    if paired is None:
        raise ValueError(f"{other.method} was not compared")
    figures = f"{other.score:.4f} against {alone.score:.4f} on rows not trained on"
    test = f"{paired.test}, p {paired.p_value:.3g}"
    if method == "auto":
        if other.score > alone.score and paired.p_value < alpha:
            return other, f"{other.title} is better than the head alone: {figures} ({test})"
        return alone, f"{other.title} is not shown to be better than the head alone: {figures} ({test})"
    if other.score < alone.score and not force:
        raise BelowBaseline(
            f"{other.method} scores below the head alone: {figures} ({test}); set peft.method: auto to keep the "
            "better one, or use --force to keep this one"
        )
    return other, f"the recipe asks for {other.method}: {figures} ({test})"


def judge(method: str, rows: TrainingRows, plan: TrainingPlan, alone: MethodScore | None) -> MethodScore:
    """Score a method on the validation rows or, without any, by cross-validation over the training rows.

    With `choose_strength` the method is scored at several strengths, and the best score counts; on a tie, that of
    the greatest strength. The best of several scores is slightly optimistic.
    """
    candidate: Candidate | None = None
    strengths = STRENGTHS if method == "lora" and plan.network.peft.choose_strength else (1.0,)
    if rows.validation:
        candidate = train_candidate(method, rows, replace(plan, stage=method))
        held_out = _at_strengths(candidate, plan.encoder, rows.validation, strengths)
    else:
        held_out = _out_of_fold(method, rows, plan, strengths)
    labels, scoring_rows = plan.encoder.labels, rows.scoring_rows
    scores = {strength: macro_f1(outputs, scoring_rows, labels) for strength, outputs in held_out.items()}
    best = max(strengths, key=lambda strength: (scores[strength], strength))
    if candidate is not None and candidate.line is not None:
        candidate.line.move(best)
    paired = None if alone is None else compare(alone.held_out, held_out[best], scoring_rows, labels)
    return MethodScore(method, held_out[best], scores[best], paired, candidate, best)


def _at_strengths(
    candidate: Candidate, encoder: InputEncoder, rows: Sequence[EncodedRow], strengths: Sequence[float]
) -> dict[float, list[Array]]:
    """Return the raw output for each row at each strength, and leave the candidate at the last."""
    by_strength = {}
    for strength in strengths:
        if candidate.line is not None:
            candidate.line.move(strength)
        by_strength[strength] = candidate.predict(encoder.inputs(rows))
    return by_strength


def out_of_fold(method: str, rows: TrainingRows, plan: TrainingPlan, count: int = FOLDS) -> list[Array]:
    """Return the raw output for each training row, from a candidate trained without the row's fold."""
    return _out_of_fold(method, rows, plan, (1.0,), count)[1.0]


def _out_of_fold(
    method: str, rows: TrainingRows, plan: TrainingPlan, strengths: Sequence[float], count: int = FOLDS
) -> dict[float, list[Array]]:
    by_strength: dict[float, dict[int, Array]] = {strength: {} for strength in strengths}
    progress = FoldProgress(plan.report, count)
    for number, (part, fold) in enumerate(rows.folds(count)):
        in_fold = replace(plan, stage=f"{method}-fold{number + 1}", report=progress.of(number), preparing=silent)
        candidate = train_candidate(method, part, in_fold)
        held_out = [rows.train[i] for i in fold]
        for strength, outputs in _at_strengths(candidate, plan.encoder, held_out, strengths).items():
            by_strength[strength] |= dict(zip(fold, outputs, strict=True))
    return {strength: [by_row[i] for i in range(len(rows.train))] for strength, by_row in by_strength.items()}


def compare(
    before: Sequence[Array], after: Sequence[Array], rows: Sequence[EncodedRow], labels: Sequence[str]
) -> Comparison:
    """Test by pairs whether `after` is better than `before` on the same rows.

    Texts are compared by McNemar's test on right answers, tokens by a bootstrap of entity F1 over sentences.
    """
    if rows[0].words:
        counts = [entity_counts(*word_tags(outputs, rows, labels)) for outputs in (before, after)]
        return paired_bootstrap(counts[0], counts[1], f1)
    truth = np.array([row.targets[0] for row in rows])
    right = [np.array([row.argmax() for row in outputs]) == truth for outputs in (before, after)]
    return mcnemar(right[0], right[1])


def final(choice: Choice, rows: TrainingRows, plan: TrainingPlan) -> Candidate:
    """Return a candidate of the chosen method, trained on all training rows."""
    if choice.chosen.candidate is not None:
        return choice.chosen.candidate
    return train_as(choice.chosen, rows, replace(plan, stage=choice.chosen.method))


def train_as(score: MethodScore, rows: TrainingRows, plan: TrainingPlan) -> Candidate:
    """Return a candidate of the score's method, trained on `rows`, at the score's strength."""
    candidate = train_candidate(score.method, rows, plan)
    if candidate.line is not None:
        candidate.line.move(score.strength)
    return candidate

"""Which way of making the adapter is kept, judged on rows not trained on, against the head alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import TokenRow
from rootstock.training.data.split import folds
from rootstock.training.errors import BelowBaseline
from rootstock.training.fit.candidate import HEAD_ONLY, Candidate, TrainingRows, train_candidate
from rootstock.training.fit.job import Job
from rootstock.training.metrics.counts import entity_counts, f1
from rootstock.training.metrics.evaluation import macro_f1, word_tags
from rootstock.training.metrics.paired_test import Comparison, mcnemar, paired_bootstrap
from rootstock.training.network.strength import STRENGTHS
from rootstock.training.network.trunk import head_layers


@dataclass(frozen=True)
class MethodScore:
    """A method's raw outputs for rows that its training did not see, their score, and how it compares with the
    head alone (None for the head alone itself). `strength` is how much of the trained change gave them."""

    method: str
    held_out: list[Array]
    score: float
    paired: Comparison | None = None
    candidate: Candidate | None = None
    strength: float = 1.0

    @property
    def title(self) -> str:
        """The method, and how much of its change, where that is not all."""
        return self.method if self.strength == 1 else f"{self.method} at {self.strength:g} of its change"


@dataclass(frozen=True)
class Choice:
    """The method that is kept and why, with all that were judged; `rows` are the ones they were judged by.

    The first judged is the head alone, but where the head cannot be fitted alone.
    """

    chosen: MethodScore
    reason: str
    judged: tuple[MethodScore, ...]
    rows: Sequence[TokenRow]

    def to_json(self) -> dict[str, Any]:
        """The choice as metrics.json states it."""
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
                for one in self.judged
            ],
        }


def choose(training: TrainingRows, force: bool = False) -> Choice:
    """Judge the recipe's method against the head alone, and keep one.

    `auto` keeps LoRA where it scores higher and a paired test leaves less than `evaluation.alpha` to chance.
    A named method that scores below the head alone raises BelowBaseline, but with `force`.
    """
    recipe = training.job.source.recipe
    asked = recipe.peft.method
    rows = training.validation or training.train
    judged: list[MethodScore] = []
    if recipe.task_type == "SEQ_CLS" or len(head_layers(training.job.task_class)) == 1 or asked == HEAD_ONLY:
        judged.append(judge(HEAD_ONLY, training, None))
    if asked != HEAD_ONLY:
        judged.append(judge("lora" if asked == "auto" else asked, training, judged[0] if judged else None))
    if judged[-1].paired is None and asked != HEAD_ONLY:
        reason = f"the head of {training.job.task_class.name} cannot be fitted alone, so there is no baseline"
        return Choice(judged[-1], reason, tuple(judged), rows)
    chosen, reason = _kept(asked, judged, recipe.evaluation.alpha, force)
    return Choice(chosen, reason, tuple(judged), rows)


def _kept(asked: str, judged: Sequence[MethodScore], alpha: float, force: bool) -> tuple[MethodScore, str]:
    alone, other = judged[0], judged[-1]
    if asked == HEAD_ONLY:
        return alone, "the recipe asks for the head alone"
    paired = other.paired
    if paired is None:
        raise ValueError(f"{other.method} was not compared")
    figures = f"{other.score:.4f} against {alone.score:.4f} on rows not trained on"
    test = f"{paired.test}, p {paired.p_value:.3g}"
    if asked == "auto":
        if other.score > alone.score and paired.p_value < alpha:
            return other, f"{other.title} is better than the head alone: {figures} ({test})"
        return alone, f"{other.title} is not shown to be better than the head alone: {figures} ({test})"
    if other.score < alone.score and not force:
        raise BelowBaseline(
            f"{other.method} scores below the head alone: {figures} ({test}); set peft.method: auto, which keeps "
            "the better one, or publish it all the same with --force"
        )
    return other, f"the recipe asks for {other.method}: {figures} ({test})"


def judge(method: str, training: TrainingRows, alone: MethodScore | None) -> MethodScore:
    """A method on the validation rows, or without any by cross-validation over the training rows.

    With `choose_strength` it is judged at the strength of the best score, the greatest among equals: the best of
    several, its score is a little too good.
    """
    candidate: Candidate | None = None
    chosen = method == "lora" and training.job.source.recipe.peft.choose_strength
    strengths = STRENGTHS if chosen else (1.0,)
    if training.validation:
        candidate = train_candidate(method, replace(training, stage=method))
        held_out = _predicted(candidate, training.job, training.validation, strengths)
    else:
        held_out = _out_of_fold(method, training, strengths)
    rows = training.validation or training.train
    scores = {strength: macro_f1(found, rows, training.job.labels) for strength, found in held_out.items()}
    best = max(strengths, key=lambda strength: (scores[strength], strength))
    if candidate is not None and candidate.line is not None:
        candidate.line.move(best)
    paired = None if alone is None else compare(alone.held_out, held_out[best], rows, training.job)
    return MethodScore(method, held_out[best], scores[best], paired, candidate, best)


def _predicted(
    candidate: Candidate, job: Job, rows: Sequence[TokenRow], strengths: Sequence[float]
) -> dict[float, list[Array]]:
    """The raw output for each row at each strength; the candidate is left at the last."""
    found = {}
    for strength in strengths:
        if candidate.line is not None:
            candidate.line.move(strength)
        found[strength] = candidate.predict(job, rows)
    return found


def out_of_fold(method: str, training: TrainingRows, count: int | None = None) -> list[Array]:
    """The raw output for each training row, from a training without it and the others of its fold."""
    return _out_of_fold(method, training, (1.0,), count)[1.0]


def _out_of_fold(
    method: str, training: TrainingRows, strengths: Sequence[float], count: int | None = None
) -> dict[float, list[Array]]:
    found: dict[float, dict[int, Array]] = {strength: {} for strength in strengths}
    seed = training.job.source.recipe.data.splits.seed
    dealt = folds(training.examples, seed, count) if count else folds(training.examples, seed)
    for number, (kept, taken) in enumerate(dealt):
        part = replace(
            training,
            examples=[training.examples[i] for i in kept],
            train=[training.train[i] for i in kept],
            validation=(),
            whole=training.whole or len(training.train),
            stage=f"{method}-fold{number + 1}",
        )
        candidate = train_candidate(method, part)
        rows = [training.train[i] for i in taken]
        for strength, outputs in _predicted(candidate, training.job, rows, strengths).items():
            found[strength] |= dict(zip(taken, outputs, strict=True))
    return {strength: [rows[i] for i in range(len(training.train))] for strength, rows in found.items()}


def compare(before: Sequence[Array], after: Sequence[Array], rows: Sequence[TokenRow], job: Job) -> Comparison:
    """The paired test of two methods' outputs for the same rows: is `after` better?"""
    return compare_outputs(before, after, rows, job.labels)


def compare_outputs(
    before: Sequence[Array], after: Sequence[Array], rows: Sequence[TokenRow], labels: Sequence[str]
) -> Comparison:
    """McNemar's test of which rows are right; for tokens a bootstrap of the entities' F1 over sentences."""
    if rows[0].words:
        counts = [entity_counts(*word_tags(outputs, rows, labels)) for outputs in (before, after)]
        return paired_bootstrap(counts[0], counts[1], f1)
    truth = np.array([row.targets[0] for row in rows])
    right = [np.array([row.argmax() for row in outputs]) == truth for outputs in (before, after)]
    return mcnemar(right[0], right[1])


def final(choice: Choice, training: TrainingRows) -> Candidate:
    """The kept method trained on every row to train on."""
    if choice.chosen.candidate is not None:
        return choice.chosen.candidate
    return train_as(choice.chosen, replace(training, stage=choice.chosen.method))


def train_as(judged: MethodScore, training: TrainingRows) -> Candidate:
    """Train by a judged method, and keep as much of the change as it was judged with."""
    candidate = train_candidate(judged.method, training)
    if candidate.line is not None:
        candidate.line.move(judged.strength)
    return candidate

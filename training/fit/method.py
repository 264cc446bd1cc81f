"""Chooses between the recipe's method and the head alone, on rows that neither was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.split import FOLDS
from rootstock.training.errors import BelowBaseline
from rootstock.training.fit.candidate import HEAD_ONLY, Candidate, train_candidate
from rootstock.training.fit.descent import silent
from rootstock.training.fit.fold_progress import FoldProgress
from rootstock.training.fit.plan import TrainingPlan, TrainingRows
from rootstock.training.metrics.expected_gain import ExpectedGain, ObservedGain, best_gain, expected_gains
from rootstock.training.metrics.gain_priors import GAIN_PRIORS
from rootstock.training.metrics.paired_test import Comparison
from rootstock.training.network.row_encoder import RowEncoder
from rootstock.training.network.strength import STRENGTHS
from rootstock.training.network.trunk import head_layers

# A method is hopeless if at every strength its chance of a gain is below this after some of the folds. It is
# certain if the chance of a loss is below the other after at least half of them.
_HOPELESS, _CERTAIN = 0.05, 0.02


@dataclass(frozen=True)
class MethodScore:
    """A method's raw outputs for rows that its training did not see, and their score.

    `paired` compares the outputs with those of the head alone. `strength` is the share of the trained change that
    gave them, and `gain` is the gain to expect from it. `observed` are the gains at all strengths, from which
    `gain` comes. `rows` are those that the outputs are for. `folds` is the number of folds after which the
    decision was clear, and no others were trained.
    """

    method: str
    held_out: list[Array]
    score: float
    paired: Comparison | None = None
    candidate: Candidate | None = None
    strength: float = 1.0
    gain: ExpectedGain | None = None
    observed: ObservedGain | None = None
    folds: int | None = None
    rows: Sequence[EncodedRow] = ()

    @property
    def title(self) -> str:
        """The method's name, with the share of its change that is kept if that is below 1."""
        return self.method if self.strength == 1 else f"{self.method} at {self.strength:g} of its change"


@dataclass(frozen=True)
class Choice:
    """The chosen method, the reason, and the scores of all methods; `rows` are those that judged the chosen one.

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
                    **({} if one.gain is None else {"expected_gain": one.gain.to_json()}),
                    **({} if one.folds is None else {"folds": one.folds}),
                }
                for one in self.scores
            ],
        }


def choose(rows: TrainingRows, plan: TrainingPlan, alpha: float, force: bool = False) -> Choice:
    """Judge the recipe's method against the head alone, and choose one.

    `auto` chooses LoRA if it shows a gain and the chance of a loss is below half of `alpha`. Raise BelowBaseline
    if a named method shows a loss or the gain to expect from it is below 0, unless `force` is set.
    """
    peft, task_class = plan.network.peft, plan.network.task_class
    scores: list[MethodScore] = []
    if plan.network.linear_head or len(head_layers(task_class)) == 1 or peft.method == HEAD_ONLY:
        scores.append(judge(HEAD_ONLY, rows, plan, None))
    if peft.method != HEAD_ONLY:
        certain = None if force else min(_CERTAIN, alpha / 2)
        scores.append(judge(peft.trained_method, rows, plan, scores[0] if scores else None, certain))
    if scores[-1].paired is None and peft.method != HEAD_ONLY:
        reason = f"the head of {task_class.name} cannot be fitted alone, so there is no baseline"
        return Choice(scores[-1], reason, tuple(scores), scores[-1].rows)
    chosen, reason = _better(peft.method, scores, alpha, force)
    return Choice(chosen, reason, tuple(scores), chosen.rows)


def _better(method: str, scores: Sequence[MethodScore], alpha: float, force: bool) -> tuple[MethodScore, str]:
    alone, other = scores[0], scores[-1]
    if method == HEAD_ONLY:
        return alone, "the recipe asks for the head alone"
    gain = other.gain
    if gain is None:
        raise ValueError(f"{other.method} was not compared")
    if method == "auto":
        if gain.worth_it(alpha):
            return other, f"{other.title} is better than the head alone: {gain}"
        early = "" if other.folds is None else f", so the run left it after fold {other.folds} of {FOLDS}"
        return alone, f"{other.title} is not shown to be better than the head alone: {gain}{early}"
    if (gain.mean < 0 or gain.observed < 0) and not force:
        raise BelowBaseline(
            f"{other.title} is expected to be worse than the head alone: {gain}; set peft.method: auto to keep "
            "the better one, or use --force to keep this one"
        )
    return other, f"the recipe asks for {other.method}: {gain}"


def judge(
    method: str, rows: TrainingRows, plan: TrainingPlan, alone: MethodScore | None, certain: float | None = None
) -> MethodScore:
    """Score a method on the validation rows or, without any, by cross-validation over the training rows.

    With `choose_strength` the method is judged at several strengths. The highest gain to expect counts; on a
    tie, that of the greatest strength. `certain` ends the cross-validation after a fold that shows the method
    hopeless, or after half of them if the chance of a loss is below it.
    """
    candidate: Candidate | None = None
    strengths = STRENGTHS if method == "lora" and plan.network.peft.choose_strength else (1.0,)
    judged, folds, problem = rows.scoring_rows, None, plan.encoder.problem
    prior = GAIN_PRIORS[kind_of_gain(rows, plan)]
    before = None if alone is None else alone.held_out
    if rows.validation:
        candidate = train_candidate(method, rows, replace(plan, stage=method))
        held_out = _at_strengths(candidate, plan, rows.validation, strengths)
    else:
        by_fold = _FoldOutputs(rows, strengths)
        for number in _folds(method, rows, plan, by_fold):
            if certain is None or before is None or number == FOLDS:
                continue
            observed = problem.observe(by_fold.of(before), list(by_fold.outputs.values()), by_fold.rows)
            gains = expected_gains(prior, observed, strengths)
            clear = number >= FOLDS // 2 and best_gain(gains).chance_of_loss < certain
            if clear or all(1 - gain.chance_of_loss < _HOPELESS for gain in gains):
                judged, before, folds = by_fold.rows, by_fold.of(before), number
                break
        held_out = by_fold.outputs
    best, gain, paired = strengths[-1], None, None
    shown: ObservedGain | None = None
    if before is not None:
        shown = problem.observe(before, list(held_out.values()), judged)
        gain = best_gain(expected_gains(prior, shown, strengths))
        best = gain.strength
        paired = problem.compare(before, held_out[best], judged)
    if candidate is not None and candidate.line is not None:
        candidate.line.move(best)
    score = problem.score(held_out[best], judged)
    return MethodScore(method, held_out[best], score, paired, candidate, best, gain, shown, folds, judged)


def kind_of_gain(rows: TrainingRows, plan: TrainingPlan) -> str:
    """Return the key of GAIN_PRIORS for a run's rows and its way of training."""
    media = not isinstance(plan.encoder, RowEncoder)
    return plan.encoder.problem.gain_kind(rows.train, plan.by_contrast(rows), media)


def _at_strengths(
    candidate: Candidate, plan: TrainingPlan, rows: Sequence[EncodedRow], strengths: Sequence[float]
) -> dict[float, list[Array]]:
    """Return the raw output for each row at each strength, and leave the candidate at the last."""
    by_strength = {}
    inputs = plan.encoder.inputs(rows)
    candidate.keep_states(inputs, plan.known)
    for strength in strengths:
        if candidate.line is not None:
            candidate.line.move(strength)
        by_strength[strength] = candidate.predict(inputs)
    return by_strength


def out_of_fold(method: str, rows: TrainingRows, plan: TrainingPlan, count: int = FOLDS) -> list[Array]:
    """Return the raw output for each training row, from a candidate trained without the row's fold."""
    by_fold = _FoldOutputs(rows, (1.0,))
    for _ in _folds(method, rows, plan, by_fold, count):
        pass
    return by_fold.outputs[1.0]


@dataclass
class _FoldOutputs:
    """The raw outputs for the rows of the folds that are done, by strength."""

    training: TrainingRows
    strengths: Sequence[float]
    by_row: dict[int, dict[float, Array]] = field(default_factory=dict)

    def add(self, fold: Sequence[int], outputs: Mapping[float, Sequence[Array]]) -> None:
        """Add the outputs for the rows at the positions of a fold."""
        for place, i in enumerate(fold):
            self.by_row[i] = {strength: rows[place] for strength, rows in outputs.items()}

    @property
    def rows(self) -> list[EncodedRow]:
        """The rows of the folds that are done, in order."""
        return self.of(self.training.train)

    @property
    def outputs(self) -> dict[float, list[Array]]:
        """Their outputs by strength."""
        return {strength: [self.by_row[i][strength] for i in sorted(self.by_row)] for strength in self.strengths}

    def of(self, values: Sequence[Any]) -> list[Any]:
        """Return those of one value a row that belong to the rows of the folds that are done."""
        return [values[i] for i in sorted(self.by_row)]


def _folds(
    method: str, rows: TrainingRows, plan: TrainingPlan, by_fold: _FoldOutputs, count: int = FOLDS
) -> Iterator[int]:
    """Train without each fold in turn, add the outputs for its rows, and yield its number, from 1."""
    progress = FoldProgress(plan.report, count)
    for number, (part, fold) in enumerate(rows.folds(count)):
        in_fold = replace(plan, stage=f"{method}-fold{number + 1}", report=progress.of(number), preparing=silent)
        candidate = train_candidate(method, part, in_fold)
        held_out = [rows.train[i] for i in fold]
        by_fold.add(fold, _at_strengths(candidate, plan, held_out, by_fold.strengths))
        yield number + 1


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

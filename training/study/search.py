"""A search for better values of a recipe's keys, judged on the rows that a run chooses by, never on test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rootstock.training.data.dataset import require_classifier
from rootstock.training.errors import Diverged, RecipeError, extra
from rootstock.training.fit.candidate import train_candidate
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import out_of_fold
from rootstock.training.recipe.recipe import Range
from rootstock.training.recipe.recipe_file import RecipeFile, changed


@dataclass(frozen=True)
class SearchTrial:
    """The values of a trial and their score on validation; None where training diverged."""

    number: int
    values: dict[str, Any]
    score: float | None


@dataclass(frozen=True)
class Search:
    """All trials, and the recipe with the best one's values."""

    trials: tuple[SearchTrial, ...]
    best: SearchTrial
    source: RecipeFile


def sweep(source: RecipeFile, observe: Callable[[SearchTrial, int], None]) -> Search:
    """Try `hpo.trials` settings of `hpo.space` (Optuna's TPE), and report each to `observe`.

    The method is the recipe's, LoRA for `auto`. Raise RecipeError for an empty space or an unknown key in it.
    """
    with extra("sweeps"):
        import optuna
    require_classifier(source)
    settings = source.recipe.hpo
    if not settings.space:
        raise RecipeError(f"{source.path}: hpo.space: empty; add keys to search, such as training.learning_rate")
    for key, values in settings.space.items():
        changed(source, {key: values.choices[0] if values.choices else values.low})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.seed))
    trials: list[SearchTrial] = []
    for number in range(settings.trials):
        trial = study.ask()
        setting = {key: _suggest(trial, key, values) for key, values in settings.space.items()}
        score = _score(changed(source, setting))
        study.tell(trial, score, optuna.trial.TrialState.FAIL if score is None else None)
        trials.append(SearchTrial(number + 1, setting, score))
        observe(trials[-1], settings.trials)
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        raise Diverged(f"all {len(trials)} trials diverged; narrow hpo.space, learning rates first")
    best = max(scored, key=lambda trial: -math.inf if trial.score is None else trial.score)
    return Search(tuple(trials), best, changed(source, best.values))


def _suggest(trial: Any, key: str, values: Range) -> Any:
    if values.choices is not None:
        return trial.suggest_categorical(key, values.choices)
    low, high = values.low or 0.0, values.high or 0.0
    if low.is_integer() and high.is_integer() and not values.log:
        return trial.suggest_int(key, int(low), int(high))
    return trial.suggest_float(key, low, high, log=values.log)


def _score(source: RecipeFile) -> float | None:
    """Return the score of a recipe's method on validation, or over folds without it; None where it diverges."""
    job = prepare(source)
    rows, plan = job.training_rows, job.plan()
    method = plan.network.peft.trained_method
    try:
        with deterministic(plan.seed):
            if rows.validation:
                outputs = train_candidate(method, rows, plan).predict(plan.encoder.inputs(rows.validation))
            else:
                outputs = out_of_fold(method, rows, plan)
    except Diverged:
        return None
    return job.encoder.problem.score(outputs, rows.scoring_rows)

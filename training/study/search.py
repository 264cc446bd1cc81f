"""A search for better values of a recipe's keys, judged where a run's choices are judged: never on test rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rootstock.training.errors import Diverged, RecipeError, extra
from rootstock.training.fit.candidate import TrainingRows, train_candidate
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import out_of_fold
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.recipe.recipe import Range
from rootstock.training.recipe.recipe_file import RecipeFile, changed


@dataclass(frozen=True)
class SearchTrial:
    """Values that were tried and the score on validation they gave; None where training did not end in one."""

    number: int
    values: dict[str, Any]
    score: float | None


@dataclass(frozen=True)
class Search:
    """All trials, and the recipe with the best one's values."""

    trials: tuple[SearchTrial, ...]
    best: SearchTrial
    source: RecipeFile


def sweep(source: RecipeFile, told: Callable[[SearchTrial, int], None]) -> Search:
    """Try `hpo.trials` settings of `hpo.space` (Optuna's TPE); `told` hears of each.

    The method is the recipe's, LoRA for `auto`. RecipeError where the space is empty or names what is no key.
    """
    with extra("sweeps"):
        import optuna
    settings = source.recipe.hpo
    if not settings.space:
        raise RecipeError(f"{source.path}: hpo.space: empty; name keys to search, such as training.learning_rate")
    for key, searched in settings.space.items():
        changed(source, {key: searched.choices[0] if searched.choices else searched.low})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.seed))
    trials: list[SearchTrial] = []
    for number in range(settings.trials):
        asked = study.ask()
        values = {key: _suggest(asked, key, found) for key, found in settings.space.items()}
        score = _score(changed(source, values))
        study.tell(asked, score, optuna.trial.TrialState.FAIL if score is None else None)
        trials.append(SearchTrial(number + 1, values, score))
        told(trials[-1], settings.trials)
    done = [trial for trial in trials if trial.score is not None]
    if not done:
        raise Diverged(f"none of {len(trials)} trials ended in a score; narrow hpo.space")
    best = max(done, key=lambda trial: trial.score or 0.0)
    return Search(tuple(trials), best, changed(source, best.values))


def _suggest(asked: Any, key: str, values: Range) -> Any:
    if values.choices is not None:
        return asked.suggest_categorical(key, values.choices)
    low, high = values.low or 0.0, values.high or 0.0
    if low.is_integer() and high.is_integer() and not values.log:
        return asked.suggest_int(key, int(low), int(high))
    return asked.suggest_float(key, low, high, log=values.log)


def _score(source: RecipeFile) -> float | None:
    job = prepare(source)
    asked = source.recipe.peft.method
    method = "lora" if asked == "auto" else asked
    rows = job.rows["validation"] or job.rows["train"]
    training = TrainingRows(
        job, job.parts.train, job.rows["train"], job.rows["validation"], source.recipe.seeds[0]
    )
    try:
        with deterministic(training.seed):
            if job.rows["validation"]:
                found = train_candidate(method, training).predict(job, rows)
            else:
                found = out_of_fold(method, training)
    except Diverged:
        return None
    return macro_f1(found, rows, job.labels)

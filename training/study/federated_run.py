"""Federated training, from a recipe to a bundle."""

from __future__ import annotations

from pathlib import Path

from rootstock.training.data.dataset import require_classes
from rootstock.training.errors import RecipeError
from rootstock.training.fit.candidate import HEAD_ONLY
from rootstock.training.fit.descent import Report, deterministic, silent
from rootstock.training.fit.method import Choice, MethodScore, judge
from rootstock.training.recipe.recipe_file import RecipeFile
from rootstock.training.results import RunResult
from rootstock.training.run import begin, finish
from rootstock.training.study.federation import Round, federate


def run_federated(
    source: RecipeFile,
    clients: int,
    rounds: int,
    skew: float | None,
    output_dir: Path | None = None,
    report: Report = silent,
) -> tuple[RunResult, list[Round]]:
    """Train by simulated clients and pack the adapter; its baseline is the head alone, trained on all rows.

    Raise RecipeError for a recipe that leaves no validation rows to judge rounds by.
    """
    require_classes(source)
    opened = begin(source, output_dir, report, f"federated {clients} {rounds} {skew}")
    rows, plan = opened.job.training_rows, opened.plan
    validation, problem = rows.validation, plan.encoder.problem
    if not validation:
        raise RecipeError(
            f"{source.path}: data.splits: rounds are judged by validation rows; leave k_shot and choose_by out"
        )
    with deterministic(plan.seed):
        candidate, history = federate(rows, plan, clients, rounds, skew)
        alone = judge(HEAD_ONLY, rows, plan, None)
        held_out = candidate.predict(plan.encoder.inputs(validation))
        paired = problem.compare(alone.held_out, held_out, validation)
        score = problem.score(held_out, validation)
        average = MethodScore("lora", held_out, score, paired, candidate)
        reason = (
            f"{clients} clients trained in {rounds} rounds: {score:.4f} against the head alone, {alone.score:.4f}"
        )
        choice = Choice(average, reason, (alone, average), validation)
        return finish(opened, choice, [candidate]), history

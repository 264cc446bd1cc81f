"""Federated training, from a recipe to a bundle."""

from __future__ import annotations

from pathlib import Path

from rootstock.training.errors import RecipeError
from rootstock.training.fit.candidate import HEAD_ONLY
from rootstock.training.fit.descent import Report, deterministic, silent
from rootstock.training.fit.method import Choice, MethodScore, compare, judge
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.recipe.recipe_file import RecipeFile
from rootstock.training.run import RunResult, begin, finish
from rootstock.training.study.federation import Round, federate


def run_federated(
    source: RecipeFile,
    clients: int,
    rounds: int,
    skew: float | None,
    output_dir: Path | None = None,
    report: Report = silent,
) -> tuple[RunResult, list[Round]]:
    """Train by simulated clients and pack the adapter; the head alone, trained on all rows, is its baseline.

    RecipeError where the recipe leaves no validation rows to judge rounds by.
    """
    running = begin(source, output_dir, report, f"federated {clients} {rounds} {skew}")
    training = running.training
    if not training.validation:
        raise RecipeError(
            f"{source.path}: data.splits: rounds are judged by validation rows; leave k_shot and choose_by out"
        )
    with deterministic(training.seed):
        candidate, told = federate(training, clients, rounds, skew)
        alone = judge(HEAD_ONLY, training, None)
        held_out = candidate.predict(training.job, training.validation)
        paired = compare(alone.held_out, held_out, training.validation, training.job)
        score = macro_f1(held_out, training.validation, training.job.labels)
        mine = MethodScore("lora", held_out, score, paired, candidate)
        reason = (
            f"{clients} clients trained in {rounds} rounds: {score:.4f} against the head alone, {alone.score:.4f}"
        )
        choice = Choice(mine, reason, (alone, mine), training.validation)
        return finish(running, choice, [candidate]), told

"""One training run, from a recipe to a bundle with the evidence beside it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle import Bundle
from rootstock.adapters.bundle.archive import CARD, GOLDEN
from rootstock.training.export import golden, make_bundle
from rootstock.training.fit.candidate import Candidate, TrainingRows
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.descent import Report, deterministic, silent
from rootstock.training.fit.job import Job, prepare
from rootstock.training.fit.method import Choice, choose, final, train_as
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.network.files import load, save
from rootstock.training.network.network import outputs
from rootstock.training.provenance import provenance
from rootstock.training.recipe.extras import require
from rootstock.training.recipe.recipe_file import RecipeFile
from rootstock.training.report.card import render
from rootstock.training.results import Results, write_results
from rootstock.training.run_metrics import RunMetrics, gather
from rootstock.training.tracking import Log, track


@dataclass(frozen=True)
class RunResult:
    """A finished run: the bundle's digest, its figures, and where the files are."""

    digest: str
    metrics: dict[str, Any]
    results: Results


@dataclass(frozen=True)
class Running:
    """A run that has begun: what trains, where its results go, and what is told of it."""

    training: TrainingRows
    results: Results
    log: Log
    began: float

    @property
    def checkpoints(self) -> Checkpoints:
        """Where the run stands."""
        return self.training.checkpoints or Checkpoints(None, "")


def run(
    source: RecipeFile, output_dir: Path | None = None, report: Report = silent, force: bool = False
) -> RunResult:
    """Train, evaluate and pack the adapter of a recipe; what lies in the output folder is replaced at the end.

    A run that was killed goes on where its last epoch ended. Raises TrainingError, FoundationError or Rejected.
    The same recipe, data, machine and number of threads give the same digest, resumed or not.
    """
    running = begin(source, output_dir, report, f"force={force}")
    with deterministic(running.training.seed):
        choice = choose(running.training, force)
        candidates = _by_seed(choice, running.training)
        return finish(running, choice, candidates)


def begin(source: RecipeFile, output_dir: Path | None, report: Report, variant: str) -> Running:
    """Settle everything before training; `variant` tells runs of one recipe apart that train in other ways."""
    began = time.monotonic()
    require(source.recipe)
    job = prepare(source)
    results = Results(output_dir or source.output_dir, source.recipe.name)
    log = Log()
    key = f"{source.sha256} {sorted(job.dataset.hashes.items())} {variant}"
    training = TrainingRows(
        job,
        job.parts.train,
        job.rows["train"],
        job.rows["validation"],
        source.recipe.seeds[0],
        log.watched(report),
        Checkpoints(results.resume, key),
    )
    return Running(training, results, log, began)


def finish(running: Running, choice: Choice, candidates: Sequence[Candidate]) -> RunResult:
    """Gather the evidence, pack the bundle, and put everything into the output folder."""
    training, results = running.training, running.results
    source = training.job.source
    made_from = provenance(source, training.job.dataset, training.job.parts)
    evidence = gather(training, choice, candidates)
    bundle, metrics = _pack(training.job, choice, evidence, made_from)
    metrics["cost"] = evidence.cost(time.monotonic() - running.began)
    running.log.add("finished", digest=bundle.digest, method=metrics["method"])
    write_results(results, bundle, metrics, source.to_yaml(), running.log.to_text())
    running.checkpoints.clear()
    track(source.recipe, metrics, results)
    return RunResult(bundle.digest, metrics, results)


def _by_seed(choice: Choice, training: TrainingRows) -> list[Candidate]:
    """The kept method under each seed of the recipe, the best on validation first."""
    first = final(choice, training)
    others: list[Candidate] = []
    for seed in training.job.source.recipe.seeds[1:]:
        again = replace(training, seed=seed, stage=f"{choice.chosen.method}-seed{seed}")
        others.append(train_as(choice.chosen, again))
    if not training.validation:
        return [first, *others]

    def score(candidate: Candidate) -> float:
        rows = candidate.predict(training.job, training.validation)
        return macro_f1(rows, training.validation, training.job.labels)

    return sorted([first, *others], key=score, reverse=True)


def _pack(
    job: Job, choice: Choice, evidence: RunMetrics, made_from: dict[str, Any]
) -> tuple[Bundle, dict[str, Any]]:
    recipe = job.source.recipe
    with tempfile.TemporaryDirectory(prefix="rootstock-train-") as scratch:
        files = save(evidence.candidate.network, recipe, Path(scratch), job.files)
        reloaded = load(Path(scratch), recipe, len(job.labels), job.files, job.spec)
    held_out: Sequence[Any] = outputs(reloaded, _on_cpu(job))
    metrics = evidence.metrics(held_out)
    figures = metrics["test"]
    card = render(recipe, job, choice, metrics)
    members = {
        **files,
        GOLDEN: golden(reloaded, job.parts.test, job.rows["test"], job).to_bytes(),
        CARD: card.encode(),
    }
    bundle = make_bundle(job, members, evidence.for_bundle(figures), made_from)
    head = {"name": recipe.name, "digest": bundle.digest, "task": job.task, "method": choice.chosen.method}
    return bundle, {**head, **metrics, "provenance": made_from}


def _on_cpu(job: Job) -> Any:
    import torch

    from rootstock.training.network.inputs import Inputs

    return Inputs(job.rows["test"], job.pad_id, torch.device("cpu"))

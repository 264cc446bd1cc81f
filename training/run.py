"""One training run, from a recipe to a bundle with a report beside it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.adapters.bundle import Bundle
from rootstock.adapters.bundle.archive import CARD, GOLDEN
from rootstock.training.cost import RunClock
from rootstock.training.data_doubts import JudgedRows, data_doubts
from rootstock.training.export import golden, make_bundle
from rootstock.training.fit.candidate import Candidate
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.descent import Report, deterministic, silent
from rootstock.training.fit.job import Job, prepare
from rootstock.training.fit.method import Choice, choose, final, train_as
from rootstock.training.fit.plan import TrainingPlan, TrainingRows
from rootstock.training.network.files import load, save
from rootstock.training.network.media.media_encoder import MediaEncoder
from rootstock.training.network.network import Network, outputs
from rootstock.training.provenance import provenance
from rootstock.training.recipe.extras import require
from rootstock.training.recipe.recipe import Recipe
from rootstock.training.recipe.recipe_file import RecipeFile
from rootstock.training.report.card import render
from rootstock.training.results import Results, RunResult, write_results
from rootstock.training.run_metrics import EvaluationSet, RunMetrics, learning_curve, train_baselines
from rootstock.training.tracking import Log, track


@dataclass(frozen=True)
class OpenRun:
    """A run between its start and its end: the unpacked recipe, the plan of its trainings, and its log."""

    source: RecipeFile
    job: Job
    plan: TrainingPlan
    results: Results
    log: Log
    checkpoints: Checkpoints
    clock: RunClock


def run(
    source: RecipeFile, output_dir: Path | None = None, report: Report = silent, force: bool = False
) -> RunResult:
    """Train, evaluate and pack the adapter of a recipe, and replace the output folder's results at the end.

    A killed run resumes after its last finished epoch. The same recipe, data, machine and number of threads give
    the same digest, resumed or not. Raise TrainingError, FoundationError or Rejected if a run fails.
    """
    if source.recipe.generates:
        from rootstock.training.generation_run import run_generation

        return run_generation(source, output_dir, report, force)
    opened = begin(source, output_dir, report, f"force={force}")
    rows, plan, alpha = opened.job.training_rows, opened.plan, source.recipe.evaluation.alpha
    with deterministic(plan.seed):
        choice = choose(rows, plan, alpha, force)
        candidates = _by_seed(choice, rows, plan, opened.job.seeds)
        return finish(opened, choice, candidates)


def begin(source: RecipeFile, output_dir: Path | None, report: Report, variant: str) -> OpenRun:
    """Open a run. `variant` tells apart the checkpoints of runs that train one recipe in different ways."""
    start = time.monotonic()
    require(source.recipe)
    job = prepare(source)
    results = Results(output_dir or source.output_dir, source.recipe.name)
    log = Log()
    key = f"{source.sha256} {sorted(job.dataset.hashes.items())} {variant}"
    checkpoints, clock = Checkpoints(results.resume, key), RunClock(results.resume, key, start)
    plan = job.plan(clock.keeping(log.recording(report)), checkpoints, report)
    return OpenRun(source, job, plan, results, log, checkpoints, clock)


def finish(opened: OpenRun, choice: Choice, candidates: Sequence[Candidate]) -> RunResult:
    """Measure the candidates, pack the bundle, and write everything into the output folder."""
    job, recipe, results = opened.job, opened.source.recipe, opened.results
    rows = {**job.parts.sizes, "duplicates": job.parts.duplicates}
    origin = provenance(opened.source.sha256, job.dataset.hashes, rows, job.split_seed, job.seeds)
    run_metrics = _measured(job, opened.plan, recipe, choice, candidates)
    packed = _pack(job, recipe, run_metrics, origin)
    bundle, metrics = packed.bundle, packed.metrics
    metrics["cost"] = {**opened.clock.to_json(), **run_metrics.cost()}
    opened.log.add("finished", digest=bundle.digest, method=metrics["method"])
    if change := recipe.augmentation.image or recipe.augmentation.audio:
        metrics["augmentation"] = change.model_dump()
    yaml, log = opened.source.to_yaml(), opened.log.to_text()
    write_results(results, bundle, metrics, yaml, log, _pictures(job, packed.network, metrics))
    opened.checkpoints.clear()
    track(recipe, metrics, results)
    return RunResult(bundle.digest, metrics, results)


def _by_seed(choice: Choice, rows: TrainingRows, plan: TrainingPlan, seeds: Sequence[int]) -> list[Candidate]:
    """Return the chosen method trained under each seed, the best on validation first."""
    first = final(choice, rows, plan)
    others: list[Candidate] = []
    for seed in seeds[1:]:
        again = replace(plan, seed=seed, stage=f"{choice.chosen.method}-seed{seed}")
        others.append(train_as(choice.chosen, rows, again))
    if not rows.validation:
        return [first, *others]
    validation = plan.encoder.inputs(rows.validation)

    def score(candidate: Candidate) -> float:
        return plan.encoder.problem.score(candidate.predict(validation), rows.validation)

    return sorted([first, *others], key=score, reverse=True)


def _measured(
    job: Job, plan: TrainingPlan, recipe: Recipe, choice: Choice, candidates: Sequence[Candidate]
) -> RunMetrics:
    rows, test = job.training_rows, EvaluationSet(job.parts.test, job.rows["test"])
    return RunMetrics(
        choice,
        candidates,
        job.encoder,
        test,
        rows.validation,
        train_baselines(rows, plan, test.rows, choice, recipe.evaluation.from_scratch),
        learning_curve(rows, plan, test.rows, choice, recipe.evaluation.learning_curve),
        job.out_of_scope,
        recipe.data.group_column,
    )


class _Packed(NamedTuple):
    """A bundle, the network of its files, and the metrics of the run."""

    bundle: Bundle
    network: Network
    metrics: dict[str, Any]


def _pictures(job: Job, network: Network, metrics: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the pictures of the report on images or recordings."""
    import torch

    encoder = job.encoder.on(torch.device("cpu"))
    if not isinstance(encoder, MediaEncoder):
        return {}
    from rootstock.training.media_sheets import media_sheets

    return media_sheets(encoder, network, job.rows["train"], job.parts.test, metrics["mistakes"])


def _pack(job: Job, recipe: Recipe, run_metrics: RunMetrics, origin: dict[str, Any]) -> _Packed:
    import torch

    # Servers and peers load the files on a CPU, and so do the outputs that go into the golden set.
    encoder = job.encoder.on(torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="rootstock-train-") as folder:
        files = save(run_metrics.candidate.network, job.network, Path(folder))
        reloaded = load(Path(folder), job.network)
    held_out = outputs(reloaded, encoder.inputs(job.rows["test"]))
    choice = run_metrics.choice
    first = choice.scores[0]
    doubts = data_doubts(
        [*job.parts.train, *job.parts.validation],
        JudgedRows(job.parts.validation or job.parts.train, first.rows, first.held_out),
        JudgedRows(job.parts.test, job.rows["test"], held_out),
        encoder.problem,
    )
    metrics = {"rows": job.parts.sizes, **run_metrics.metrics(held_out), "doubts": doubts}
    members = {
        **files,
        GOLDEN: golden(reloaded, job.parts.test, job.rows["test"], encoder).to_bytes(),
        CARD: render(recipe, job.network, choice, metrics).encode(),
    }
    bundle = make_bundle(
        job.network,
        encoder,
        recipe.license,
        members,
        run_metrics.for_bundle(metrics["test"]),
        origin,
        metrics.get("calibration", {}).get("temperature"),
    )
    head = {
        "name": recipe.name, "digest": bundle.digest, "task": job.network.task.name,
        "method": choice.chosen.method,
    }  # fmt: skip
    return _Packed(bundle, reloaded, {**head, **metrics, "provenance": origin})

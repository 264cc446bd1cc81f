"""One training run of an adapter that generates text, from a recipe to a bundle with a report beside it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle import Bundle
from rootstock.adapters.bundle.archive import CARD, GOLDEN
from rootstock.training.cost import RunClock
from rootstock.training.export import spread
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.completions import train_completions
from rootstock.training.fit.descent import Fit, Report, deterministic, silent
from rootstock.training.fit.generation_job import GenerationJob, prepare_generation
from rootstock.training.fit.text_judge import (
    PROMPTED,
    JudgedTexts,
    PromptComparison,
    TextJudge,
    check_gain,
    compare_with_prompt,
)
from rootstock.training.network.construction import new_network
from rootstock.training.network.files import load, save
from rootstock.training.network.network import Network
from rootstock.training.provenance import provenance
from rootstock.training.recipe.extras import require
from rootstock.training.recipe.recipe_file import RecipeFile
from rootstock.training.report.generation_card import render_generation
from rootstock.training.results import Results, RunResult, write_results
from rootstock.training.text_export import make_text_bundle, text_golden
from rootstock.training.tracking import Log, track

_SAMPLES = 8


@dataclass(frozen=True)
class JudgedParts:
    """The answers of the adapter and of the prompted foundation for one part, and their comparison."""

    adapter: JudgedTexts
    prompted: JudgedTexts
    compared: PromptComparison


def run_generation(
    source: RecipeFile, output_dir: Path | None = None, report: Report = silent, force: bool = False
) -> RunResult:
    """Train, judge and pack the adapter of a recipe, and replace the output folder's results at the end.

    A killed run resumes after its last finished epoch. The same recipe, data, machine and number of threads give
    the same digest, resumed or not. Raise BelowBaseline for an adapter that is no better than the prompted
    foundation, unless `force` is set, and TrainingError, FoundationError or Rejected if the run fails.
    """
    start, recipe = time.monotonic(), source.recipe
    require(recipe)
    job = prepare_generation(source)
    results, log = Results(output_dir or source.output_dir, recipe.name), Log()
    key = f"{source.sha256} {sorted(job.data.hashes.items())}"
    checkpoints, clock = Checkpoints(results.resume, key), RunClock(results.resume, key, start)
    report = clock.keeping(log.recording(report))
    with deterministic(recipe.training.seed), tempfile.TemporaryDirectory(prefix="rootstock-train-") as folder:
        fit, cost, network = _trained(job, source, report, checkpoints)
        files = save(network, job.network, Path(folder))
        # Servers and peers load the files, and so do the figures.
        reloaded = load(Path(folder), job.network)
        reloaded.model.to(job.device)
        judged, reason = _judged(job, source, reloaded, report, force)
        metrics = _metrics(job, source, fit, judged, reason)
        reloaded.model.to("cpu")
        bundle, metrics = _pack(job, source, reloaded, files, metrics)
    metrics["cost"] = {**clock.to_json(), **cost}
    log.add("finished", digest=bundle.digest, method=metrics["method"])
    write_results(results, bundle, metrics, source.to_yaml(), log.to_text())
    checkpoints.clear()
    track(recipe, metrics, results)
    return RunResult(bundle.digest, metrics, results)


def _trained(
    job: GenerationJob, source: RecipeFile, report: Report, checkpoints: Checkpoints
) -> tuple[Fit, dict[str, Any], Network]:
    """Return the fit, what it cost, and the trained network."""
    recipe = source.recipe
    method, seed = recipe.peft.trained_method, recipe.training.seed
    rates: list[float] = []

    def timed(done: int, total: int, note: str, *rate: float) -> None:
        rates.extend(rate)
        report(done, total, note, *rate)

    network = new_network(job.network, method, seed, job.device)
    validation = job.judged["validation"].rows
    fit = train_completions(network, job.train, validation, recipe.training, seed, method, timed, checkpoints)
    cost = {
        "training_seconds": round(fit.seconds, 1),
        "tokens_per_second": round(rates[-1], 1) if rates else None,
        "trainable_parameters": sum(p.numel() for p in network.parameters().values()),
        "device": job.device.type,
    }
    return fit, cost, network


def _judged(
    job: GenerationJob, source: RecipeFile, network: Network, report: Report, force: bool
) -> tuple[dict[str, JudgedParts], str]:
    """Return the judged parts, and the reason to keep the adapter. The decision comes before the test rows."""
    recipe = source.recipe
    training, generation = recipe.training, recipe.generation
    judge = TextJudge(job.encoder, generation, training.tokens_per_batch, training.bf16, report)
    parts, reason = {}, ""
    for name in ("validation", "test"):
        adapter = judge.judge(network, job.judged[name], f"{name}: ")
        prompted = judge.judge(network, job.prompted[name], f"{name}: ", foundation=True)
        compared = compare_with_prompt(adapter, prompted, generation.metric)
        if name == "validation":
            reason = check_gain(compared, generation.shots, recipe.evaluation.alpha, force)
        parts[name] = JudgedParts(adapter, prompted, compared)
    return parts, reason


def _metrics(
    job: GenerationJob, source: RecipeFile, fit: Fit, judged: dict[str, JudgedParts], reason: str
) -> dict[str, Any]:
    """Return metrics.json without the digest, the cost and the provenance."""
    validation, test, recipe = judged["validation"], judged["test"], source.recipe
    return {
        "rows": job.parts.sizes,
        "too_long": job.too_long,
        "labels": [],
        "shots": recipe.generation.shots,
        "test": {
            "split": "test",
            "adapter": test.adapter.figures,
            "baselines": {PROMPTED: test.prompted.figures},
            "intervals": test.adapter.intervals,
            "comparison": {PROMPTED: test.compared.to_json()},
        },
        "validation": {
            "adapter": validation.adapter.figures,
            "baselines": {PROMPTED: validation.prompted.figures},
            "comparison": {PROMPTED: validation.compared.to_json()},
        },
        "choice": {"chosen": recipe.peft.trained_method, "reason": reason, "metric": validation.compared.metric},
        "epochs": [
            {
                "number": e.number,
                "loss": e.loss,
                "validation_loss": e.validation_loss,
                "validation_perplexity": 1 / e.validation if e.validation else None,
            }
            for e in fit.epochs
        ],
        "samples": _samples(job, test),
    }


def _samples(job: GenerationJob, test: JudgedParts) -> list[dict[str, Any]]:
    """Return prompts spread evenly over the test rows, with their references and both answers."""
    groups = job.judged["test"].groups
    return [
        {
            "prompt": groups[i].messages[-1]["content"] if groups[i].messages else "",
            "references": list(groups[i].references),
            "adapter": test.adapter.answers[i],
            PROMPTED: test.prompted.answers[i],
        }
        for i in spread(range(len(groups)), _SAMPLES)
    ]


def _pack(
    job: GenerationJob, source: RecipeFile, reloaded: Network, files: dict[str, bytes], metrics: dict[str, Any]
) -> tuple[Bundle, dict[str, Any]]:
    recipe = source.recipe
    rows = {**job.parts.sizes, "duplicates": job.parts.duplicates, "too_long": job.too_long}
    seeds = recipe.data.splits.seed, [recipe.training.seed]
    origin = provenance(source.sha256, job.data.hashes, rows, *seeds)
    texts = [job.encoder.text(group.messages, "test") for group in job.judged["test"].groups]
    members = {
        **files,
        GOLDEN: text_golden(reloaded, job.encoder, texts).to_bytes(),
        CARD: render_generation(recipe, job.network, metrics).encode(),
    }
    evaluation = {key: metrics["test"][key] for key in ("split", "adapter", "baselines", "intervals")}
    prompting = recipe.prompts.prompting
    bundle = make_text_bundle(job.network, prompting, recipe.license, members, evaluation, origin)
    head = {
        "name": recipe.name, "digest": bundle.digest, "task": job.network.task.name,
        "method": recipe.peft.trained_method,
    }  # fmt: skip
    return bundle, {**head, **metrics, "provenance": origin}

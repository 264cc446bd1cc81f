"""One training run, from a recipe to a bundle."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.bundle.archive import CARD, GOLDEN
from adapters.foundation import FoundationFiles, locate
from adapters.spec import FoundationSpec
from training.card import render
from training.data import Dataset, read_dataset
from training.encoding import Encoded, encode, load_tokenizer
from training.export import Written, golden, make_bundle, publish, save
from training.provenance import provenance
from training.recipe import RecipeFile
from training.split import Split, split
from training.train import Fit, Report


@dataclass(frozen=True)
class Outcome:
    """A finished run: the bundle's digest, its figures, and where the files are."""

    digest: str
    metrics: dict[str, Any]
    written: Written


@dataclass(frozen=True)
class _Job:
    """What is settled before anything is trained."""

    source: RecipeFile
    dataset: Dataset
    parts: Split
    files: FoundationFiles
    spec: FoundationSpec
    task: str
    encoded: dict[str, list[Encoded]]


def run(source: RecipeFile, output_dir: Path | None = None, report: Report = lambda *_: None) -> Outcome:
    """Train, evaluate and pack the adapter of a recipe; the output folder is touched only when all went well.

    Raises TrainingError, FoundationError or Rejected. The same recipe, data, machine and number of threads give
    the same digest.
    """
    job = _prepare(source)
    with tempfile.TemporaryDirectory(prefix="rootstock-train-") as scratch:
        adapter, done = _train(job, Path(scratch), report)
        return _pack(job, Path(scratch), adapter, done, output_dir or source.output_dir)


def _prepare(source: RecipeFile) -> _Job:
    from training.model import TASKS, foundation_spec, target_modules

    dataset = read_dataset(source)
    parts = split(dataset, source.recipe.data.splits)
    files = locate(source.recipe.base_model)
    spec = foundation_spec(source, files)
    task = TASKS[source.recipe.task_type]
    target_modules(source, spec.class_for(task))
    tokenizer = load_tokenizer(files.folder, source.recipe.training.max_length)
    encoded = {
        name: encode(tokenizer, getattr(parts, name), dataset.labels) for name in ("train", "validation", "test")
    }
    return _Job(source, dataset, parts, files, spec, task, encoded)


def _train(job: _Job, folder: Path, report: Report) -> tuple[dict[str, bytes], Fit]:
    """PEFT's files of the trained adapter, which lie in `folder` too, and how the training went."""
    import torch

    from training.model import base_model, with_lora
    from training.train import deterministic, fit

    recipe, labels = job.source.recipe, job.dataset.labels
    task_class = job.spec.class_for(job.task)
    with deterministic(recipe.training.seed):
        base = base_model(job.files, recipe.task_type, len(labels))
        model = with_lora(base, job.source, task_class).to("cuda" if torch.cuda.is_available() else "cpu")
        done = fit(model, job.encoded["train"], job.encoded["validation"], labels, recipe.training, report)
    return save(model.to("cpu"), folder, job.files, task_class), done


def _pack(job: _Job, folder: Path, adapter: dict[str, bytes], done: Fit, output_dir: Path) -> Outcome:
    from training.batch import outputs
    from training.evaluate import evaluate
    from training.model import load_adapter

    recipe, labels = job.source.recipe, job.dataset.labels
    test = job.encoded["test"]
    reloaded = load_adapter(job.files, recipe.task_type, len(labels), folder)
    figures = {
        "split": "test",
        "adapter": evaluate(outputs(reloaded, test, batch_size=64), test, labels),
        "baselines": _baselines(job),
    }
    card = render(recipe, job.files, job.task, labels, job.parts, figures)
    files = {**adapter, GOLDEN: golden(reloaded, job.parts.test, test).to_bytes(), CARD: card.encode()}
    made = provenance(job.source, job.dataset, job.parts)
    bundle = make_bundle(job.source, job.spec, labels, job.task, files, figures, made)
    metrics = {
        "name": recipe.name,
        "digest": bundle.digest,
        "task": job.task,
        "test": figures,
        "validation_f1": done.best.validation_f1,
        "best_epoch": done.best.number,
        "epochs": [vars(epoch) for epoch in done.epochs],
        "rows": job.parts.sizes,
    }
    return Outcome(bundle.digest, metrics, publish(bundle, metrics, recipe.name, output_dir))


def _baselines(job: _Job) -> dict[str, Any]:
    from training.baseline import linear_head, majority
    from training.model import frozen_trunk

    train, validation, test = (job.encoded[name] for name in ("train", "validation", "test"))
    labels = job.dataset.labels
    return {
        "majority": majority(train, test, labels),
        "linear_head": linear_head(frozen_trunk(job.files), train, validation, test, labels),
    }

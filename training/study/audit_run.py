"""The audit of a recipe's data: the findings of training/data/audit.py in its rows."""

from __future__ import annotations

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.audit import AuditRow, Finding, audit
from rootstock.training.data.dataset import read_dataset
from rootstock.training.fit.candidate import HEAD_ONLY
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import out_of_fold
from rootstock.training.fit.plan import TrainingRows
from rootstock.training.metrics.calibration import softmax
from rootstock.training.network.construction import new_network
from rootstock.training.network.network import outputs
from rootstock.training.recipe.recipe_file import RecipeFile, changed


def audit_recipe(source: RecipeFile, noise: bool) -> list[Finding]:
    """Return every finding in the rows of a recipe's files, before duplicates are left out.

    `noise`, unless labels belong to words, also doubts labels that a cross-validated head contradicts. It finds
    near duplicates by the foundation's embeddings.
    """
    dataset = read_dataset(source)
    files = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    parts = {name: rows for name, rows in files.items() if rows is not None}
    rows = [
        AuditRow(
            " ".join(filter(None, (example.text, example.pair))),
            " ".join(example.labels),
            str(example.file or part.path),
            0 if example.file else example.line,
            name,
            example.digest,
        )
        for name, part in parts.items()
        for example in part.examples
    ]
    if not noise or dataset.tokens:
        return audit(rows)
    lenient = changed(source, {"data.conflicts": "first", "data.splits.dedupe_across_splits": False})
    job = prepare(lenient)
    examples = [example for part in parts.values() for example in part.examples]
    encoded = job.encoder.encode(examples)
    plan = job.plan()
    with deterministic(plan.seed):
        network = new_network(plan.network, None, plan.seed, job.encoder.device)
        embeddings: Array = np.stack(outputs(network, job.encoder.inputs(encoded), "embed"))
        training_rows = TrainingRows(examples, encoded, split_seed=job.split_seed)
        probabilities = softmax(np.stack(out_of_fold(HEAD_ONLY, training_rows, plan)))
    limit = job.encoder.preprocessing
    return audit(
        rows,
        embeddings=embeddings,
        probabilities=probabilities,
        labels=job.labels,
        lengths=None if limit is None else [len(row.ids) + row.cut for row in encoded],
        max_length=None if limit is None else limit.max_length,
    )

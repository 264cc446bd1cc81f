"""The audit of a recipe's data: what training/data/audit.py finds in its rows."""

from __future__ import annotations

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.audit import AuditRow, Finding, audit
from rootstock.training.data.dataset import read_dataset
from rootstock.training.data.encoding import encode
from rootstock.training.fit.candidate import HEAD_ONLY, TrainingRows, new_network
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import out_of_fold
from rootstock.training.metrics.calibration import softmax
from rootstock.training.network.network import outputs
from rootstock.training.recipe.recipe_file import RecipeFile, changed


def audit_recipe(source: RecipeFile, noise: bool) -> list[Finding]:
    """Every finding in the rows of a recipe's files, as they are before duplicates are left out.

    `noise`: also doubt labels that a cross-validated head alone contradicts, and find near duplicates by the
    foundation's embeddings; for texts alone.
    """
    dataset = read_dataset(source)
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    rows = [
        AuditRow(
            " ".join(filter(None, (example.text, example.pair))),
            " ".join(example.labels),
            str(found.path),
            example.line,
            part,
        )
        for part, found in parts.items()
        if found is not None
        for example in found.examples
    ]
    if not noise or dataset.tokens:
        return audit(rows)
    lenient = changed(source, {"data.conflicts": "first", "data.splits.dedupe_across_splits": False})
    job = prepare(lenient)
    examples = [e for found in parts.values() if found is not None for e in found.examples]
    encoded = encode(job.tokenizer, examples, job.labels)
    with deterministic(source.recipe.seeds[0]):
        network = new_network(job, None, source.recipe.seeds[0])
        embeddings: Array = np.stack(outputs(network, job.inputs(encoded), "embed"))
        training = TrainingRows(job, examples, encoded, (), source.recipe.seeds[0])
        probabilities = softmax(np.stack(out_of_fold(HEAD_ONLY, training)))
    lengths = [len(row.ids) + row.cut for row in encoded]
    return audit(
        rows,
        embeddings=embeddings,
        probabilities=probabilities,
        labels=job.labels,
        lengths=lengths,
        max_length=source.recipe.training.max_length,
    )

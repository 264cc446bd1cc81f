"""The audit of a recipe's data: the findings of training/data/audit.py in its rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.audit import AuditRow, Finding, audit
from rootstock.training.data.dataset import read_dataset
from rootstock.training.data.example import Example, Rows
from rootstock.training.data.formats.tag_scheme import BIO, SCHEMES
from rootstock.training.data.label_noise import Probabilities, of_words
from rootstock.training.fit.candidate import HEAD_ONLY
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import out_of_fold
from rootstock.training.fit.plan import TrainingRows
from rootstock.training.metrics.calibration import softmax
from rootstock.training.network.construction import new_network
from rootstock.training.network.network import outputs
from rootstock.training.problems.problem import DoubtfulAnswer, ValueProblem
from rootstock.training.recipe.recipe_file import RecipeFile, changed


def audit_recipe(source: RecipeFile, noise: bool) -> list[Finding]:
    """Return every finding in the rows of a recipe's files, before duplicates are left out.

    `noise` also doubts labels, and tags of words, that a cross-validated head contradicts. Of whole texts it also
    finds near duplicates by the foundation's embeddings.
    """
    dataset = read_dataset(source)
    files = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    parts = {name: rows for name, rows in files.items() if rows is not None}
    rows = [_audited(example, part, name) for name, part in parts.items() for example in part.examples]
    notes = [finding for part in parts.values() for finding in _scheme(part)]
    if not noise:
        return [*audit(rows), *notes]
    lenient = changed(source, {"data.conflicts": "first", "data.splits.dedupe_across_splits": False})
    job = prepare(lenient)
    examples = [example for part in parts.values() for example in part.examples]
    encoded = job.encoder.encode(examples)
    plan = job.plan()
    with deterministic(plan.seed):
        embeddings: Array | None = None
        if not dataset.tokens:
            network = new_network(plan.network, None, plan.seed, job.encoder.device)
            embeddings = np.stack(outputs(network, job.encoder.inputs(encoded), "embed"))
        training_rows = TrainingRows(examples, encoded, split_seed=job.split_seed)
        raw = out_of_fold(HEAD_ONLY, training_rows, plan)
    problem = job.encoder.problem
    probabilities: list[Probabilities] | None = None
    if isinstance(problem, ValueProblem):
        notes += [_doubtful(rows[one.row], one) for one in problem.doubts(raw, encoded)]
    else:
        probabilities = [softmax(output) for output in raw]
    if dataset.tokens and probabilities is not None:
        probabilities = [of_words(one, row) for one, row in zip(probabilities, encoded, strict=True)]
    limit = job.encoder.preprocessing
    findings = audit(
        rows,
        embeddings=embeddings,
        probabilities=probabilities,
        labels=job.labels,
        lengths=None if limit is None else [len(row.ids) + row.cut for row in encoded],
        max_length=None if limit is None else limit.max_length,
    )
    return [*findings, *notes]


def _audited(example: Example, part: Rows, name: str) -> AuditRow:
    return AuditRow(
        " ".join(filter(None, (example.text, example.pair))),
        example.answer,
        str(example.file or part.path),
        0 if example.file else example.line,
        name,
        example.digest,
        example.words,
        example.labels if example.words else (),
        example.labels if example.several or example.value is not None else None,
    )


def _doubtful(row: AuditRow, doubt: DoubtfulAnswer) -> Finding:
    message = f"{doubt.given!r} is probably wrong: {doubt.likely!r} is likelier ({doubt.score:.0%})"
    return Finding("label_noise", "note", row.file, row.line, message)


def _scheme(part: Rows) -> Iterator[Finding]:
    """Yield a finding if a file's tags are not BIO: a warning if no scheme allows them, else a note."""
    if part.tag_scheme in ("", BIO):
        return
    if part.tag_scheme in SCHEMES:
        message = f"the tags are {part.tag_scheme}; they are read as BIO with the same entities"
        yield Finding("tag_scheme", "note", str(part.path), 0, message)
        return
    message = f"the tags are {part.tag_scheme}; they are read with the entities that conlleval finds: check some"
    yield Finding("tag_scheme", "warning", str(part.path), 0, message)

"""What shows that an adapter is worth publishing: figures on held-out rows beside baselines."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.dataset import read_texts
from rootstock.training.data.encoding import TokenRow
from rootstock.training.fit.candidate import HEAD_ONLY, Candidate, TrainingRows, from_scratch, train_candidate
from rootstock.training.fit.job import Job
from rootstock.training.fit.method import Choice, compare, train_as
from rootstock.training.metrics.calibration import calibrate, flatten
from rootstock.training.metrics.confusion import confusion
from rootstock.training.metrics.evaluation import evaluate, macro_f1, word_tags
from rootstock.training.metrics.fairness import fairness
from rootstock.training.metrics.intervals import entity_intervals, label_intervals, spread
from rootstock.training.metrics.out_of_scope import choose_threshold, confidences, out_of_scope_figures
from rootstock.training.network.network import outputs

# What the card and the bundle hold of the figures.
_BUNDLED = ("split", "adapter", "baselines", "intervals")


@dataclass(frozen=True)
class RunMetrics:
    """What was gathered before the adapter is saved; `candidates` are its trainings by seed, the kept first."""

    training: TrainingRows
    choice: Choice
    candidates: Sequence[Candidate]
    baselines: Mapping[str, list[Array]]
    learning_curve: Sequence[dict[str, Any]]

    @property
    def candidate(self) -> Candidate:
        """The kept training."""
        return self.candidates[0]

    def metrics(self, held_out: Sequence[Array]) -> dict[str, Any]:
        """metrics.json, from the raw outputs that the reloaded adapter gave for the test rows."""
        job, labels = self.training.job, self.training.job.labels
        rows = job.rows["test"]
        recipe = job.source.recipe
        figures: dict[str, Any] = {
            "split": "test",
            "adapter": evaluate(held_out, rows, labels),
            "baselines": {name: evaluate(found, rows, labels) for name, found in self.baselines.items()},
            "intervals": _intervals(held_out, rows, labels),
        }
        if HEAD_ONLY in self.baselines and self.choice.chosen.method != HEAD_ONLY:
            paired = compare(self.baselines[HEAD_ONLY], held_out, rows, job)
            figures["comparison"] = {HEAD_ONLY: paired.to_json()}
        found: dict[str, Any] = {
            "labels": list(labels),
            "rows": job.parts.sizes,
            "test": figures,
            "choice": self.choice.to_json(),
            "calibration": self._calibration(held_out),
            "epochs": [
                {"number": e.number, "loss": e.loss, "validation_f1": e.validation} for e in self.candidate.epochs
            ],
        }
        if not rows[0].words:
            truth, predicted = [row.targets[0] for row in rows], [int(row.argmax()) for row in held_out]
            figures["confusion"] = confusion(truth, predicted, len(labels))
        if len(self.candidates) > 1:
            found["seeds"] = self._seeds()
        if self.learning_curve:
            found["learning_curve"] = list(self.learning_curve)
        if recipe.evaluation.out_of_scope is not None:
            found["out_of_scope"] = self._out_of_scope(held_out, found["calibration"]["temperature"])
        if recipe.data.group_column is not None:
            found["fairness"] = self._fairness(held_out, recipe.data.group_column)
        return found

    def for_bundle(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """What of the test figures goes into bundle.json."""
        return {key: figures[key] for key in _BUNDLED if key in figures}

    def cost(self, seconds: float) -> dict[str, Any]:
        """What the run took."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if self.choice.chosen.method == HEAD_ONLY:
            trainable = self._head_parameters()
        else:
            trainable = sum(p.numel() for p in self.candidate.network.parameters().values())
        return {
            "seconds": round(seconds, 1),
            # Linux counts it in KiB, macOS in bytes.
            "peak_memory_mb": round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6),
            "trainable_parameters": trainable,
            "device": self.training.job.device.type,
        }

    def _head_parameters(self) -> int:
        job = self.training.job
        return len(job.labels) * (job.spec.hidden_size + 1)

    def _calibration(self, held_out: Sequence[Array]) -> dict[str, Any]:
        """A temperature for the kept method's outputs, fitted where it was judged, tried on test."""
        chosen = self.choice.chosen.held_out
        parts = ((chosen, self.choice.rows), (held_out, self.training.job.rows["test"]))
        flat = [flatten(found, [row.targets for row in rows]) for found, rows in parts]
        return calibrate(*flat[0], *flat[1])

    def _seeds(self) -> dict[str, Any]:
        job, labels = self.training.job, self.training.job.labels
        test = [macro_f1(c.predict(job, job.rows["test"]), job.rows["test"], labels) for c in self.candidates]
        validation = [
            macro_f1(c.predict(job, self.training.validation), self.training.validation, labels)
            for c in self.candidates
            if self.training.validation
        ]
        return {"validation": validation, "test": test, **spread(test).to_json()}

    def _out_of_scope(self, held_out: Sequence[Array], temperature: float) -> dict[str, Any]:
        job = self.training.job
        settings = job.source.recipe.evaluation.out_of_scope
        if settings is None:
            raise ValueError("the recipe names no out-of-scope texts")
        paths = {"val_path": settings.val_path, "test_path": settings.test_path}
        outside = {
            key: self._predicted(read_texts(job.source, path, f"evaluation.out_of_scope.{key}"))
            for key, path in paths.items()
            if path is not None
        }

        def sure(found: Sequence[Array]) -> Any:
            return confidences(np.stack(found), temperature)

        others = outside.get("val_path")
        threshold = choose_threshold(sure(self.choice.chosen.held_out), None if others is None else sure(others))
        right = [int(row.argmax()) == r.targets[0] for row, r in zip(held_out, job.rows["test"], strict=True)]
        return out_of_scope_figures(threshold, sure(held_out), right, sure(outside["test_path"]))

    def _fairness(self, held_out: Sequence[Array], column: str) -> dict[str, Any]:
        """Figures by group of the test rows, for tokens of their words."""
        job = self.training.job
        rows = job.rows["test"]
        truth = [c for row in rows for c in (row.words or row.targets)]
        given = [_classes(found, rows) for found in (held_out, self.baselines.get(HEAD_ONLY, held_out))]
        sizes = [len(row.words) or 1 for row in rows]
        groups = [e.group or "" for e, size in zip(job.parts.test, sizes, strict=True) for _ in range(size)]
        return fairness(truth, given[0], given[1], groups, column)

    def _predicted(self, texts: Sequence[str]) -> list[Array]:
        job = self.training.job
        return outputs(self.candidate.network, job.inputs(job.encoded(texts)))


def _intervals(found: Sequence[Array], rows: Sequence[TokenRow], labels: Sequence[str]) -> dict[str, Any]:
    if rows[0].words:
        return entity_intervals(*word_tags(found, rows, labels))
    return label_intervals([r.targets[0] for r in rows], [int(r.argmax()) for r in found], len(labels))


def _classes(found: Sequence[Array], rows: Sequence[TokenRow]) -> list[int]:
    """The class of each text; for tokens of each word, by its first token, 0 (O) where it was cut off."""
    if not rows[0].words:
        return [int(row.argmax()) for row in found]
    return [
        0 if at is None else int(row[at].argmax()) for row, r in zip(found, rows, strict=True) for at in r.first
    ]


def gather(training: TrainingRows, choice: Choice, candidates: Sequence[Candidate]) -> RunMetrics:
    """Train what the adapter is compared with."""
    job, evaluation = training.job, training.job.source.recipe.evaluation
    baselines = {"majority": majority(job)}
    alone = next((j for j in choice.judged if j.method == HEAD_ONLY), None)
    if alone is not None:
        found = alone.candidate or train_candidate(HEAD_ONLY, replace(training, stage=HEAD_ONLY))
        baselines[HEAD_ONLY] = found.predict(job, job.rows["test"])
    if evaluation.from_scratch:
        scratch = from_scratch(replace(training, stage="from_scratch"))
        baselines["from_scratch"] = scratch.predict(job, job.rows["test"])
    curve = [_point(training, choice, share) for share in sorted(evaluation.learning_curve)]
    return RunMetrics(training, choice, candidates, baselines, curve)


def majority(job: Job) -> list[Array]:
    """The commonest class of the training rows (for tokens: of their words) for every test row."""
    classes = [c for row in job.rows["train"] for c in (row.words or row.targets)]
    answer = Counter(classes).most_common(1)[0][0]
    row = np.eye(len(job.labels), dtype=np.float32)[answer]
    return [np.tile(row, (len(r.ids), 1)) if r.words else row for r in job.rows["test"]]


def _point(training: TrainingRows, choice: Choice, share: float) -> dict[str, Any]:
    """The kept method trained on a share of the training rows, each label's share of a shuffle.

    A share that leaves a label few rows is learned by contrast, as so few rows alone would be.
    """
    kept = first_share(training, share)
    part = replace(
        training,
        examples=[training.examples[i] for i in kept],
        train=[training.train[i] for i in kept],
        stage=f"curve-{share:g}",
    )
    job = training.job
    held_out = train_as(choice.chosen, part).predict(job, job.rows["test"])
    return {"rows": len(kept), "score": macro_f1(held_out, job.rows["test"], job.labels)}


def first_share(training: TrainingRows, share: float) -> list[int]:
    """Positions of a share of the training rows, of each label or mixture of entity types at least one."""
    import random

    by_stratum: dict[str, list[int]] = {}
    order = list(range(len(training.examples)))
    random.Random(training.job.source.recipe.data.splits.seed).shuffle(order)  # noqa: S311 - can be repeated
    for i in order:
        by_stratum.setdefault(training.examples[i].stratum, []).append(i)
    return sorted(i for found in by_stratum.values() for i in found[: max(1, round(share * len(found)))])

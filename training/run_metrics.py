"""The metrics of a run: figures on held-out rows beside baselines, and the trainings that they need."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.answers.strata import dealt
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.example import Example
from rootstock.training.fit.candidate import HEAD_ONLY, Candidate, from_scratch, train_candidate
from rootstock.training.fit.method import Choice, train_as
from rootstock.training.fit.plan import TrainingPlan, TrainingRows
from rootstock.training.metrics.fairness import fairness
from rootstock.training.metrics.intervals import spread
from rootstock.training.metrics.out_of_scope import choose_threshold, confidences, out_of_scope_figures
from rootstock.training.network.row_encoder import InputEncoder
from rootstock.training.problems.problem import ValueProblem

# The test figures that the card and the bundle have.
_BUNDLED = ("split", "adapter", "baselines", "intervals")


class EvaluationSet(NamedTuple):
    """Held-out examples, and their token rows."""

    examples: Sequence[Example]
    rows: Sequence[EncodedRow]


@dataclass(frozen=True)
class RunMetrics:
    """The outputs that metrics come from; `candidates` are the trainings by seed, the chosen one first.

    `baselines` are raw outputs for the test rows. `out_of_scope` are rows that no label fits.
    """

    choice: Choice
    candidates: Sequence[Candidate]
    encoder: InputEncoder
    test: EvaluationSet
    validation: Sequence[EncodedRow]
    baselines: Mapping[str, Sequence[Array]]
    learning_curve: Sequence[dict[str, Any]]
    out_of_scope: Mapping[str, Sequence[EncodedRow]]
    group_column: str | None

    @property
    def candidate(self) -> Candidate:
        """The chosen training."""
        return self.candidates[0]

    def metrics(self, held_out: Sequence[Array]) -> dict[str, Any]:
        """Return metrics.json, from the raw outputs of the reloaded adapter for the test rows."""
        metrics: dict[str, Any] = {
            "labels": list(self.encoder.labels),
            "test": self._test_figures(held_out),
            "choice": self.choice.to_json(),
            **self.encoder.problem.details(held_out, *self.test),
            **self._calibration(held_out),
            **self._epochs(),
        }
        if isinstance(self.encoder.problem, ValueProblem):
            metrics["problem_type"] = self.encoder.problem.problem_type
        if len(self.candidates) > 1:
            metrics["seeds"] = self._seeds()
        if self.learning_curve:
            metrics["learning_curve"] = list(self.learning_curve)
        if self.out_of_scope:
            metrics["out_of_scope"] = self._out_of_scope(held_out, metrics["calibration"]["temperature"])
        metrics |= self.encoder.problem.comparisons({"adapter": held_out, **self.baselines}, self.test.rows)
        if self.group_column is not None:
            metrics["fairness"] = self._fairness(held_out, self.group_column)
        return metrics

    def _test_figures(self, held_out: Sequence[Array]) -> dict[str, Any]:
        rows, problem = self.test.rows, self.encoder.problem
        figures: dict[str, Any] = {
            "split": "test",
            "adapter": problem.figures(held_out, rows),
            "baselines": {name: problem.figures(outputs, rows) for name, outputs in self.baselines.items()},
            "intervals": problem.intervals(held_out, rows),
        }
        if HEAD_ONLY in self.baselines and self.choice.chosen.method != HEAD_ONLY:
            paired = problem.compare(self.baselines[HEAD_ONLY], held_out, rows)
            figures["comparison"] = {HEAD_ONLY: paired.to_json()}
        return {**figures, **problem.test_details(held_out, rows)}

    def for_bundle(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Return the test figures that go into bundle.json."""
        return {key: figures[key] for key in _BUNDLED if key in figures}

    def cost(self) -> dict[str, Any]:
        """Return the number of parameters that trained, and the device."""
        if self.choice.chosen.method == HEAD_ONLY:
            trainable = len(self.encoder.labels) * (self.candidate.network.spec.hidden_size + 1)
        else:
            trainable = sum(p.numel() for p in self.candidate.network.parameters().values())
        return {
            "trainable_parameters": trainable,
            "device": self.encoder.device.type,
        }

    def _calibration(self, held_out: Sequence[Array]) -> dict[str, Any]:
        """Return the chosen method's temperature, fitted on the rows that judged it, and its effect on test.

        Answers without probabilities, such as numbers, have none.
        """
        judged = (self.choice.chosen.held_out, self.choice.rows)
        calibration = self.encoder.problem.calibration(*judged, held_out, self.test.rows)
        return {} if calibration is None else {"calibration": calibration}

    def _epochs(self) -> dict[str, Any]:
        """Return the epochs of the training, or else of the last one that was judged and not kept."""
        trained = next(
            (one for one in (self.candidate, self.choice.scores[-1].candidate) if one and one.epochs), None
        )
        if trained is None:
            return {"epochs": []}
        epochs = [
            {
                "number": e.number,
                "loss": e.loss,
                "validation_loss": e.validation_loss,
                f"validation_{self.encoder.problem.unit}": e.validation,
            }
            for e in trained.epochs
        ]
        return {"epochs": epochs, "epochs_of": trained.method}

    def _seeds(self) -> dict[str, Any]:
        test = [self._score(candidate, self.test.rows) for candidate in self.candidates]
        validation = [self._score(candidate, self.validation) for candidate in self.candidates if self.validation]
        return {"validation": validation, "test": test, **spread(test).to_json()}

    def _score(self, candidate: Candidate, rows: Sequence[EncodedRow]) -> float:
        return self.encoder.problem.score(candidate.predict(self.encoder.inputs(rows)), rows)

    def _out_of_scope(self, held_out: Sequence[Array], temperature: float) -> dict[str, Any]:
        def confidence(outputs: Sequence[Array]) -> Any:
            return confidences(np.stack(outputs), temperature)

        outside = {
            key: confidence(self.candidate.predict(self.encoder.inputs(rows)))
            for key, rows in self.out_of_scope.items()
        }
        threshold = choose_threshold(confidence(self.choice.chosen.held_out), outside.get("val_path"))
        right = [int(row.argmax()) == r.targets[0] for row, r in zip(held_out, self.test.rows, strict=True)]
        return out_of_scope_figures(threshold, confidence(held_out), right, outside["test_path"])

    def _fairness(self, held_out: Sequence[Array], column: str) -> dict[str, Any]:
        """Return figures by group of the test rows, for tokens of their words."""
        examples, rows = self.test
        truth = [c for row in rows for c in (row.words or row.targets)]
        adapter, head = (
            _classes(outputs, rows) for outputs in (held_out, self.baselines.get(HEAD_ONLY, held_out))
        )
        sizes = [len(row.words) or 1 for row in rows]
        groups = [e.group or "" for e, size in zip(examples, sizes, strict=True) for _ in range(size)]
        return fairness(truth, adapter, head, groups, column, independent=not rows[0].words)


def _classes(outputs: Sequence[Array], rows: Sequence[EncodedRow]) -> list[int]:
    """Return the class of each text; for tokens that of each word, by its first token, 0 (O) without one."""
    if not rows[0].words:
        return [int(row.argmax()) for row in outputs]
    return [
        0 if at is None else int(row[at].argmax()) for row, r in zip(outputs, rows, strict=True) for at in r.first
    ]


def train_baselines(
    rows: TrainingRows, plan: TrainingPlan, test: Sequence[EncodedRow], choice: Choice, scratch: bool
) -> dict[str, list[Array]]:
    """Return the raw outputs of the baselines for the test rows; `scratch` adds a network from random weights."""
    inputs = plan.encoder.inputs(test)
    baselines = dict(plan.encoder.problem.baseline(rows.train, test))
    alone = next((score for score in choice.scores if score.method == HEAD_ONLY), None)
    if alone is not None:
        head = alone.candidate or train_candidate(HEAD_ONLY, rows, replace(plan, stage=HEAD_ONLY))
        baselines[HEAD_ONLY] = head.predict(inputs)
    if scratch:
        network = from_scratch(rows, replace(plan, stage="from_scratch"))
        baselines["from_scratch"] = network.predict(inputs)
    return baselines


def learning_curve(
    rows: TrainingRows, plan: TrainingPlan, test: Sequence[EncodedRow], choice: Choice, shares: Sequence[float]
) -> list[dict[str, Any]]:
    """Return the score of the chosen method on shares of the training rows, the smallest first.

    A share that leaves few rows a label is trained by contrast. It changes the layers that the whole set changes.
    """
    points = []
    for share in sorted(shares):
        part = rows.part(first_share(rows, share))
        candidate = train_as(choice.chosen, part, replace(plan, stage=f"curve-{share:g}"))
        score = plan.encoder.problem.score(candidate.predict(plan.encoder.inputs(test)), test)
        points.append({"rows": len(part.train), "score": score})
    return points


def first_share(rows: TrainingRows, share: float) -> list[int]:
    """Return the positions of a share of the training rows, at least one of each stratum but of numbers."""
    examples = rows.examples
    if examples[0].several:
        size = max(1, round(share * len(examples)))
        return dealt(examples, (size, len(examples) - size), rows.split_seed)[0]
    by_stratum: dict[str, list[int]] = {}
    order = list(range(len(examples)))
    random.Random(rows.split_seed).shuffle(order)  # noqa: S311 - can be repeated
    for i in order:
        by_stratum.setdefault(examples[i].stratum, []).append(i)
    return sorted(i for group in by_stratum.values() for i in group[: max(1, round(share * len(group)))])

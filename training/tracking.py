"""The record of a run: lines of JSON beside its results, and an MLflow store where the recipe names one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rootstock.training.errors import TrainingError, extra
from rootstock.training.fit.descent import Report
from rootstock.training.recipe.recipe import Recipe
from rootstock.training.results import Results


class Log:
    """The events of a run, one JSON object a line, without times: the same run gives the same lines."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._last = ""

    def add(self, event: str, **values: Any) -> None:
        """Add a line."""
        self._lines.append(json.dumps({"what": event, **values}, ensure_ascii=False))

    def recording(self, report: Report) -> Report:
        """Return the report, with each new note (the epoch of a stage) logged beside the steps done."""

        def record(done: int, total: int, note: str, *rate: float) -> None:
            if note != self._last:
                self._last = note
                self.add("epoch", stage=note, step=done, steps=total)
            report(done, total, note, *rate)

        return record

    def to_text(self) -> str:
        """Return the lines."""
        return "".join(f"{line}\n" for line in self._lines)


def track(recipe: Recipe, metrics: Mapping[str, Any], results: Results) -> None:
    """Record a finished run in the MLflow store that the recipe names: parameters, figures, and the results.

    Raise TrainingError if the store cannot be reached. The results are already on disk.
    """
    uri = recipe.tracking.mlflow_tracking_uri
    if uri is None:
        return
    with extra("MLflow stores"):
        import mlflow
        from mlflow.exceptions import MlflowException
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(recipe.tracking.experiment)
        with mlflow.start_run(run_name=recipe.name):
            mlflow.log_params(dict(_flat(recipe.model_dump(mode="json", exclude={"output_dir", "tracking"}))))
            mlflow.log_metrics({k: v for k, v in _flat(metrics["test"]) if isinstance(v, int | float)})
            for epoch in metrics.get("epochs", ()):
                figures = {k: v for k, v in epoch.items() if k != "number" and v is not None}
                mlflow.log_metrics(figures, step=epoch["number"])
            mlflow.set_tag("digest", metrics["digest"])
            mlflow.log_artifacts(str(results.bundle), "bundle")
            mlflow.log_artifact(str(results.metrics))
    except (MlflowException, OSError) as error:
        raise TrainingError(
            f"tracking.mlflow_tracking_uri: {uri!r} refused the results: {error}; they are in {results.folder}"
        ) from None


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        elif not isinstance(inner, list):
            yield f"{prefix}{key}", inner

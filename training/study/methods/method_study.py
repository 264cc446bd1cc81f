"""Measures head alone, adapter, `auto` and SetFit on draws of few rows: the figures behind the gate's priors."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.training.data.dataset import require_texts
from rootstock.training.fit.candidate import HEAD_ONLY, Candidate, train_candidate
from rootstock.training.fit.descent import Report, deterministic, silent
from rootstock.training.fit.job import Job, prepare
from rootstock.training.fit.method import choose, final, kind_of_gain, train_as
from rootstock.training.metrics.evaluation import evaluate
from rootstock.training.network.strength import STRENGTHS
from rootstock.training.recipe.recipe import Evaluation
from rootstock.training.recipe.recipe_file import RecipeFile, changed
from rootstock.training.study.methods.left_out import LeftOutDecision, left_out
from rootstock.training.study.methods.setfit_peer import check_setfit, run_setfit

Record = dict[str, Any]


@dataclass(frozen=True)
class StudyCase:
    """A recipe on one draw of rows; `rows` None stands for all of its rows."""

    source: RecipeFile
    rows: int | None
    draw: int

    @property
    def recipe(self) -> RecipeFile:
        """The recipe with the draw."""
        few = {} if self.rows is None else {"data.splits.k_shot": self.rows, "data.splits.seed": self.draw}
        return changed(self.source, {**few, "peft.method": "auto"})


def cases(sources: Sequence[RecipeFile], rows: Sequence[int | None], draws: int) -> Iterator[StudyCase]:
    """Yield each recipe with each number of rows, by draw; all rows are one draw."""
    for source in sources:
        for count in rows:
            for draw in range(1 if count is None else draws):
                yield StudyCase(source, count, draw)


def measure(case: StudyCase, setfit: Path | None = None, report: Report = silent) -> Record:
    """Return the test scores and seconds of the methods on one draw, and the gain that the gate expected.

    The score is accuracy, for tokens the F1 of whole entities. `adapter` is the one that the gate judged, also if
    `auto` keeps the head. `auto` counts the seconds of the whole choice, with the folds, and `head_only` those of
    one fit.
    """
    require_texts(case.source)
    if setfit is not None:
        check_setfit(setfit, case.source)
    job = prepare(case.recipe)
    rows, plan = job.training_rows, job.plan(report)
    with deterministic(plan.seed):
        clock = _Clock()
        head = train_candidate(HEAD_ONLY, rows, plan)
        head_time, clock = clock.to_json(), _Clock()
        choice = choose(rows, plan, case.source.recipe.evaluation.alpha)
        kept = final(choice, rows, plan)
        auto_time = clock.to_json()
        head_score, judged = _score(head, job), choice.scores[-1]
        if choice.chosen.method == HEAD_ONLY:
            trained = judged.candidate or train_as(judged, rows, replace(plan, stage="adapter"))
        else:
            trained = kept
        by_strength = _by_strength(trained, judged.strength, job)
        adapter = by_strength[judged.strength]
        score = head_score if choice.chosen.method == HEAD_ONLY else adapter
    record: Record = {
        "set": case.source.recipe.name,
        "rows": case.rows,
        "draw": case.draw,
        "train": len(rows.train),
        "test": len(job.rows["test"]),
        "head_only": {"score": head_score, **head_time},
        "adapter": {"score": adapter, "strength": judged.strength},
        "auto": {
            "score": score,
            **auto_time,
            "kept": choice.chosen.title,
            "expected": None if judged.gain is None else judged.gain.to_json(),
            "folds": judged.folds,
        },
        "kind": kind_of_gain(rows, plan),
        "observed": None if judged.observed is None else judged.observed.to_json(),
        "by_strength": by_strength,
    }
    if setfit is not None and not rows.train[0].words:
        record["setfit"] = _peer(job, setfit)
    return record


class _Clock:
    """Counts the seconds since its start, and those that the processors worked for this process."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def to_json(self) -> Record:
        """Return both figures; other programs on the machine lengthen the first alone."""
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        return {"seconds": round(wall, 1), "processor_seconds": round(processor, 1)}


def _score(candidate: Candidate, job: Job) -> float:
    rows = job.rows["test"]
    figures = evaluate(candidate.predict(job.encoder.inputs(rows)), rows, job.labels)
    return float(figures["f1" if rows[0].words else "accuracy"])


def _by_strength(candidate: Candidate, strength: float, job: Job) -> dict[float, float]:
    """Return the test score at each strength; a method without any has that of its one."""
    if candidate.line is None:
        return {strength: _score(candidate, job)}
    scores = {}
    for each in STRENGTHS:
        candidate.line.move(each)
        scores[each] = _score(candidate, job)
    return scores


def _peer(job: Job, python: Path) -> Record:
    with tempfile.TemporaryDirectory(prefix="rootstock-setfit-") as folder:
        done = run_setfit(
            python, job.network.files.folder, job.parts.train, job.parts.test, job.labels, Path(folder)
        )
    times = {"seconds": round(done.seconds, 1), "processor_seconds": round(done.processor_seconds, 1)}
    return {"score": round(done.accuracy, 4), **times}


METHODS = ("head_only", "adapter", "auto", "setfit")


def table(records: Sequence[Record]) -> list[Record]:
    """Return a row for each set and number of rows: mean and deviation of each method over draws, and wins.

    The score of `auto` on a draw is that of the gate with a prior of the other sets, if any are of its kind.
    `left out` is the number of these draws, and `kept` that of those on which `auto` keeps the adapter.
    """
    records = list(map(_judged_again, records, left_out(records, Evaluation().alpha)))
    groups: dict[tuple[str, int | None], list[Record]] = {}
    for record in records:
        groups.setdefault((record["set"], record["rows"]), []).append(record)
    lines = []
    for (name, count), group in groups.items():
        line: Record = {"set": name, "rows": "all" if count is None else count, "draws": len(group)}
        for method in METHODS:
            scores = [100 * record[method]["score"] for record in group if method in record]
            if not scores:
                continue
            spread = f" ± {np.std(scores, ddof=1):.1f}" if len(scores) > 1 else ""
            line[method] = f"{np.mean(scores):.1f}{spread}"
            timed = [record[method] for record in group if "processor_seconds" in record.get(method, {})]
            if timed:
                minutes = np.mean([side["processor_seconds"] for side in timed]) / 60
                line[f"{method} processor minutes"] = f"{minutes:.1f}"
        line["wins"] = _wins(group)
        line["kept"] = sum(record["auto"]["kept"] != HEAD_ONLY for record in group)
        line["left out"] = sum(record.get("left_out", False) for record in group)
        lines.append(line)
    return lines


def _judged_again(record: Record, decision: LeftOutDecision | None) -> Record:
    if decision is None:
        return record
    score = record["head_only"]["score"] + decision.gain
    kept = HEAD_ONLY if decision.strength is None else f"strength {decision.strength:g}"
    return {**record, "left_out": True, "auto": {**record["auto"], "score": score, "kept": kept}}


def _wins(group: Sequence[Record]) -> str:
    """Return how often `auto` is better than, equal to and worse than the head alone."""
    signs = [np.sign(round(r["auto"]["score"] - r["head_only"]["score"], 6)) for r in group]
    return " ".join(str(sum(s == sign for s in signs)) for sign in (1, 0, -1))


def markdown(records: Sequence[Record]) -> str:
    """Return the table as Markdown."""
    lines = table(records)
    columns = list(dict.fromkeys(key for line in lines for key in line))
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(
        [*head, *("| " + " | ".join(str(line.get(c, "")) for c in columns) + " |" for line in lines)]
    )

"""Rows 6 and 7: many tasks on one text in one call, against a call each and a batch that shares nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.loadtest.fixtures.local_engine import SLOTS, LocalEngine, catalog_of, local_engine
from rootstock.loadtest.fixtures.runner_bench import Say, open_bench
from rootstock.loadtest.fixtures.workload import HEAD_ONLY, RANK, Kind, make_workload, top_third
from rootstock.loadtest.measure.agreement import require_distinct, require_equal
from rootstock.loadtest.measure.pairs import interleaved
from rootstock.loadtest.measure.row import BenchmarkRow
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

TASKS = 20
_HEADS_TARGET = 12.0
_TOP_TARGET = 4.0
_UNSHARED_TARGET = 2.2


@dataclass(frozen=True)
class _Tasks:
    """An engine with adapters, all in slots, and a text for them."""

    engine: LocalEngine
    names: Sequence[str]
    text: str
    worst: float


def heads_row(export: Path, tokens: int, pairs: int, threads: int, say: Say) -> BenchmarkRow:
    """Row 6: seconds of a call for each of 20 head-only tasks ÷ seconds of one call for all, on one text."""
    say(f"row 6: {TASKS} heads on one text of {tokens} tokens")
    with _tasks(export, tokens, threads, HEAD_ONLY) as tasks:
        return _fan_out_row("6", f"{TASKS} head-only tasks", _HEADS_TARGET, tasks, tokens, pairs)


def top_row(export: Path, tokens: int, pairs: int, threads: int, say: Say) -> BenchmarkRow:
    """Row 7: as row 6, with adapters that change the query and value of the top third of the layers."""
    say(f"row 7: {TASKS} adapters of the top third on one text of {tokens} tokens, through the engine")
    kind = top_third(OnnxRunner(export, 3, threads).spec)
    with _tasks(export, tokens, threads, kind) as tasks:
        return _fan_out_row("7", f"{TASKS} adapters on layers {_shown(kind)}", _TOP_TARGET, tasks, tokens, pairs)


def unshared_row(export: Path, tokens: int, pairs: int, threads: int, say: Say) -> BenchmarkRow:
    """Row 7: seconds of the runner on 20 rows of one text held 20 times ÷ seconds on the same rows, held once."""
    say(f"row 7: {TASKS} adapters of the top third on one text of {tokens} tokens, shared against unshared")
    kind = top_third(OnnxRunner(export, 3, threads).spec)
    bench = open_bench(export, tokens, threads, TASKS, kind)
    shared = bench.of_one_text()
    apart, run = shared.apart(), bench.runner.run
    answers = run(shared)
    worst = require_equal(answers, run(apart), "shared against unshared")
    require_distinct(answers, [*answers[1:], answers[0]], "an adapter against its neighbour")
    return BenchmarkRow(
        label="7",
        title=f"{TASKS} adapters on layers {_shown(kind)}, one text of {tokens} tokens ÷ unshared (speed)",
        top=f"OnnxRunner.run, {TASKS} rows whose text the batch holds {TASKS} times: nothing is shared",
        bottom="OnnxRunner.run, the same rows, the text held once: the layers below are computed once",
        unit="seconds a batch",
        pairs=interleaved(lambda: run(apart), lambda: run(shared), pairs),
        target=_UNSHARED_TARGET,
        notes=[f"both give the same logits (largest difference {worst:.1e})", f"rank {RANK}, query and value"],
    )


@contextmanager
def _tasks(export: Path, tokens: int, threads: int, kind: Kind) -> Iterator[_Tasks]:
    tokenizer = Tokenizer(export / "tokenizer.json")
    runner = OnnxRunner(export, SLOTS, threads)
    workload = make_workload(runner.spec, tokenizer, TASKS, tokens, kind)
    names, text = workload.names, workload.sentences[0]
    with local_engine(runner, tokenizer, catalog_of(workload, workload.adapters(runner.spec))) as engine:
        together = _scores(engine.fan_out(names, text, top_k=None))
        alone = _scores(engine.in_turn(names, text, top_k=None))
        worst = require_equal(together, alone, "one call against a call each")
        yield _Tasks(engine, names, text, worst)


def _fan_out_row(label: str, what: str, target: float, tasks: _Tasks, tokens: int, pairs: int) -> BenchmarkRow:
    engine, names, text = tasks.engine, tasks.names, tasks.text
    return BenchmarkRow(
        label=label,
        title=f"{what}, one text of {tokens} tokens: one call ÷ {TASKS} calls (speed)",
        top=f"{TASKS} calls of Engine.predict in the same process, the next when the last is answered",
        bottom=f"one call of Engine.predict_many of the same {TASKS} references",
        unit=f"seconds for {TASKS}",
        pairs=interleaved(lambda: engine.in_turn(names, text), lambda: engine.fan_out(names, text), pairs),
        target=target,
        notes=[
            f"both give the same scores (largest difference {tasks.worst:.1e})",
            "no output of the trunk is kept between calls",
        ],
    )


def _scores(answers: Sequence[Answer]) -> list[Array]:
    """Each answer's scores in order of label."""
    return [
        np.array(
            [one["score"] for one in sorted(answer.predictions[0], key=lambda one: one["label"])], np.float32
        )
        for answer in answers
    ]


def _shown(kind: Kind) -> str:
    """The layers of a kind, counted from 1."""
    return " and ".join(str(layer + 1) for layer in kind.layers or ())

"""Many tasks on one input in one call, against one call for each task and against a batch that shares nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.local_engine import SLOTS, LocalEngine, catalog_of, local_engine
from rootstock.loadtest.fixtures.runner_bench import open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import HEAD_ONLY, RANK, Kind, Workload, make_workload, top_third
from rootstock.loadtest.measure.agreement import require_distinct, require_equal
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import BenchmarkRow
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.encode.modalities.reader import Reader
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

TASKS = 20
_TOKENS = (16, 32)


@dataclass(frozen=True)
class FanOutTasks:
    """An engine whose adapters are all in slots, and an input for them."""

    engine: LocalEngine
    names: Sequence[str]
    value: Any
    worst: float


def fan_out(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure 20 calls' seconds ÷ those of one call for the same 20 heads, on one text."""
    return [heads_row(setup, tokens) for tokens in _TOKENS]


def shared_layers(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure the same for adapters of the top third of the layers, and their batch unshared ÷ shared."""
    return [row(setup, tokens) for row in (top_row, unshared_row) for tokens in _TOKENS]


def heads_row(setup: BenchmarkSetup, tokens: int) -> BenchmarkRow:
    """Measure one call for 20 head-only tasks against one call for each."""
    setup.say(f"fan-out: {TASKS} heads on one text of {tokens} tokens")
    with _tasks(setup, tokens, HEAD_ONLY) as tasks:
        text = f"one text of {tokens} tokens"
        return fan_out_row("fan-out", f"{TASKS} head-only tasks, {text}", targets.FAN_OUT, tasks, setup.pairs)


def top_row(setup: BenchmarkSetup, tokens: int) -> BenchmarkRow:
    """Measure one call for 20 adapters of the top third of the layers against one call for each."""
    setup.say(f"shared-layers: {TASKS} adapters of the top third on one text of {tokens} tokens, by calls")
    kind = top_third(OnnxRunner(setup.export, 3, setup.threads).spec)
    adapters = f"{TASKS} adapters on layers {_layers(kind)}"
    with _tasks(setup, tokens, kind) as tasks:
        target = targets.TOP_LAYERS_FAN_OUT
        title = f"{adapters}, one text of {tokens} tokens"
        return fan_out_row("shared-layers", title, target, tasks, setup.pairs)


def unshared_row(setup: BenchmarkSetup, tokens: int) -> BenchmarkRow:
    """Measure the runner's seconds on a text that the batch holds 20 times ÷ those on the text held once."""
    setup.say(f"shared-layers: {TASKS} adapters of the top third on one text of {tokens} tokens, by batches")
    kind = top_third(OnnxRunner(setup.export, 3, setup.threads).spec)
    bench = open_bench(setup.export, tokens, setup.threads, TASKS, kind)
    shared = bench.of_one_input()
    apart, run = shared.apart(), bench.runner.run
    answers = run(shared)
    worst = require_equal(answers, run(apart), "shared against unshared")
    require_distinct(answers, [*answers[1:], answers[0]], "an adapter against its neighbour")
    return BenchmarkRow(
        benchmark="shared-layers",
        title=f"{TASKS} adapters on layers {_layers(kind)}, one text of {tokens} tokens ÷ unshared (speed)",
        top=f"OnnxRunner.run, {TASKS} rows whose text the batch holds {TASKS} times: nothing is shared",
        bottom="OnnxRunner.run, the same rows, the text held once: the layers below are computed once",
        unit="seconds a batch",
        pairs=interleave(lambda: run(apart), lambda: run(shared), setup.pairs),
        target=targets.TOP_LAYERS_SHARED,
        notes=[f"both give the same logits (largest difference {worst:.1e})", f"rank {RANK}, query and value"],
    )


@contextmanager
def _tasks(setup: BenchmarkSetup, tokens: int, kind: Kind) -> Iterator[FanOutTasks]:
    tokenizer = Tokenizer(setup.export / "tokenizer.json")
    runner = OnnxRunner(setup.export, SLOTS, setup.threads)
    workload = make_workload(runner.spec, tokenizer, TASKS, tokens, kind)
    with tasks_in_engine(runner, tokenizer, workload, workload.sentences[0]) as tasks:
        yield tasks


@contextmanager
def tasks_in_engine(runner: OnnxRunner, reader: Reader, workload: Workload, value: Any) -> Iterator[FanOutTasks]:
    """Start an engine with a workload's adapters. Check that one call answers an input as separate calls do."""
    names = workload.names
    with local_engine(runner, reader, catalog_of(workload, workload.adapters(runner.spec))) as engine:
        together = _scores(engine.fan_out(names, value, top_k=None))
        alone = _scores(engine.in_turn(names, value, top_k=None))
        worst = require_equal(together, alone, "one call against a call each")
        yield FanOutTasks(engine, names, value, worst)


def fan_out_row(benchmark: str, title: str, target: float, tasks: FanOutTasks, pairs: int) -> BenchmarkRow:
    """Measure the seconds of a call for each task ÷ those of one call for all, on one input."""
    engine, names, value = tasks.engine, tasks.names, tasks.value
    return BenchmarkRow(
        benchmark=benchmark,
        title=f"{title}: one call ÷ {TASKS} calls (speed)",
        top=f"{TASKS} calls of Engine.predict in the same process, the next when the last is answered",
        bottom=f"one call of Engine.predict_many of the same {TASKS} references",
        unit=f"seconds for {TASKS}",
        pairs=interleave(lambda: engine.in_turn(names, value), lambda: engine.fan_out(names, value), pairs),
        target=target,
        notes=[
            f"both give the same scores (largest difference {tasks.worst:.1e})",
            "no output of the trunk is kept between calls",
        ],
    )


def _scores(answers: Sequence[Answer]) -> list[Array]:
    """Return each answer's scores in the order of their labels."""
    return [
        np.array(
            [one["score"] for one in sorted(answer.predictions[0], key=lambda one: one["label"])], np.float32
        )
        for answer in answers
    ]


def _layers(kind: Kind) -> str:
    """Return the layers of a kind in words, counted from 1."""
    return " and ".join(str(layer + 1) for layer in kind.layers or ())

"""The engine in a process of its own, without HTTP: asyncio clients call `Engine.predict`.

`python -m loadtest.inprocess` reads one JSON command a line on stdin and answers each with one line on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from loadtest.local_engine import SLOTS, catalog_of
from loadtest.machine import ROOT
from loadtest.workload import Workload, make_workload
from service.engine.engine import Engine
from service.engine.observer import Observer
from service.engine.runners.onnx_runner import OnnxRunner
from service.engine.tokenizer import Tokenizer


class EngineEnded(Exception):
    """The engine's process is gone; what it said is on stderr."""


class InProcess:
    """The parent's end of the engine's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def load(self, clients: int, seconds: float) -> float:
        """Predictions a second that so many clients get, each sending one at a time for this long."""
        done = self._ask({"do": "load", "clients": clients, "seconds": seconds})
        return float(done["requests"]) / float(done["seconds"])

    def answers(self) -> list[dict[str, Any]]:
        """For each adapter of the workload its digest and, best first, all scores of its sentence."""
        answers: list[dict[str, Any]] = self._ask({"do": "answers"})["answers"]
        return answers

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        line = ""
        if stdin is not None and stdout is not None:
            with suppress(BrokenPipeError):
                stdin.write(json.dumps(command) + "\n")
                stdin.flush()
                line = stdout.readline()
        if not line:
            raise EngineEnded(f"the engine's process ended with exit code {self._process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def in_process(export: Path, threads: int, adapters: int, tokens: int) -> Iterator[InProcess]:
    """The engine's process on an export, with the workload of so many adapters and tokens."""
    arguments = {"--threads": threads, "--adapters": adapters, "--tokens": tokens}
    flags = [str(part) for pair in arguments.items() for part in pair]
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "loadtest.inprocess", str(export.absolute()), *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield InProcess(process)
    finally:
        process.communicate()


async def _load(engine: Engine, workload: Workload, clients: int, seconds: float) -> dict[str, Any]:
    """Closed loop: each client sends the next request of the cycle as soon as it has its answer."""
    requests = cycle(zip(workload.names, workload.sentences, strict=True))
    counted = 0
    start = time.perf_counter()
    end = start + seconds

    async def client() -> None:
        nonlocal counted
        while time.perf_counter() < end:
            name, text = next(requests)
            await engine.predict(name, [text], {})
            counted += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    # Up to the last answer: they come a batch at a time, and cutting one off makes the engine look slower.
    return {"requests": counted, "seconds": time.perf_counter() - start}


async def _answers(engine: Engine, workload: Workload) -> dict[str, Any]:
    calls = [
        engine.predict(name, [text], {"top_k": None})
        for name, text in zip(workload.names, workload.sentences, strict=True)
    ]
    answers = await asyncio.gather(*calls)
    return {"answers": [{"digest": a.resolved.digest, "scores": a.predictions[0]} for a in answers]}


def _serve(engine: Engine, workload: Workload) -> None:
    # The loop that the server runs on, so that the two differ by HTTP alone.
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "load":
                answer = loop.run(_load(engine, workload, command["clients"], command["seconds"]))
            else:
                answer = loop.run(_answers(engine, workload))
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def main() -> None:
    """Open the engine, serve commands until stdin ends, stop it."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.inprocess", description=__doc__)
    parser.add_argument("export", type=Path)
    for name in ("--threads", "--adapters", "--tokens"):
        parser.add_argument(name, type=int, required=True)
    given = parser.parse_args()
    tokenizer = Tokenizer(given.export / "tokenizer.json")
    runner = OnnxRunner(given.export, SLOTS, given.threads)
    workload = make_workload(runner.spec, tokenizer, given.adapters, given.tokens)
    catalog = catalog_of(workload, workload.adapters(runner.spec))
    engine = Engine(runner.spec, runner, tokenizer, catalog, Observer())
    engine.start()
    try:
        _serve(engine, workload)
    finally:
        engine.stop()


if __name__ == "__main__":
    main()

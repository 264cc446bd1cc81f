"""One server for texts and images: each kind of client beside the other, against the same clients alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rootstock.adapters.bundle import Limits
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import ClientError
from rootstock.adapters.foundation.location import FoundationError, locate
from rootstock.adapters.home.bulk_import import SkippedBundle, import_bundles
from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.images import images, vision_setup
from rootstock.loadtest.fixtures.registration import ImportFailed, bundle_of
from rootstock.loadtest.fixtures.server import rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import WHOLE, folder_of, sentences
from rootstock.loadtest.measure.agreement import TOLERANCE
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.exports.cache import path_of

_NAME = "modalities"
_TITLE = "texts beside images ÷ texts alone (throughput)"
_SERVER = "uvicorn"
_TOKENS = 32
_ADAPTERS = 4
_INPUTS = 16
# Clients of each kind: each sends one input at a time, and the next after its answer.
_TEXT_CLIENTS, _IMAGE_CLIENTS = 8, 4
# The mixed windows of a full run take a minute together.
_WINDOWS, _WINDOW_S = 6, 10.0


@dataclass
class ClientGroup:
    """The clients of one modality: their adapters, inputs and expected answers, and what they have seen.

    `latencies` are the seconds of the answers of the present window, `wrong` what was not as it is alone.
    """

    what: str
    names: Sequence[str]
    inputs: Sequence[Any]
    clients: int
    expected: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    answers: int = 0

    def learn(self, url: str) -> None:
        """Ask for each input under each adapter alone, while nothing else runs."""
        with Client(url) as client:
            for i, name in enumerate(self.names):
                for j, value in enumerate(self.inputs):
                    self.expected[i, j] = _scores(client.predict(name, value, top_k=None))

    def ask(self, url: str, first: int, ends: float) -> None:
        """Send one input after the other until the window ends, and compare every answer."""
        with Client(url, retries=0) as client:
            for n in count(first):
                if time.monotonic() >= ends:
                    return
                i, j = n % len(self.names), n // len(self.names) % len(self.inputs)
                began = time.monotonic()
                try:
                    scores = _scores(client.predict(self.names[i], self.inputs[j], top_k=None))
                except ClientError as error:
                    self.wrong.append(f"{self.names[i]}: {error}")
                    continue
                self.latencies.append(time.monotonic() - began)
                self.answers += 1
                wanted = self.expected[i, j]
                if scores.keys() != wanted.keys() or any(
                    abs(score - wanted[label]) > TOLERANCE for label, score in scores.items()
                ):
                    self.wrong.append(f"{self.names[i]}, input {j}: {scores} instead of {wanted}")


@dataclass(frozen=True)
class GroupWindow:
    """The answers a second of one group in a window, and the 99th percentile of their seconds."""

    rate: float
    p99: float


def modalities(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure texts and images beside each other on one server ÷ each of them alone, and count wrong answers."""
    try:
        vision = vision_setup(setup)
    except FoundationError as error:
        return [NotRun(_NAME, _TITLE, str(error))]
    with _server(setup, vision) as (url, groups):
        for group in groups:
            setup.say(f"{_NAME}: each of the {group.what} alone")
            group.learn(url)
        return [*_measured(setup, url, groups)]


def _measured(setup: BenchmarkSetup, url: str, groups: Sequence[ClientGroup]) -> list[BenchmarkRow]:
    seconds = setup.seconds or (2.0 if setup.quick else _WINDOW_S)
    alone: list[list[GroupWindow]] = [[] for _ in groups]
    beside: list[list[GroupWindow]] = [[] for _ in groups]
    for i in range(setup.count(_WINDOWS, 1)):
        setup.say(f"{_NAME}: window {i + 1}")
        for windows, group in zip(alone, groups, strict=True):
            windows += _window(url, [group], seconds)
        for windows, seen in zip(beside, _window(url, groups, seconds), strict=True):
            windows.append(seen)
    rows = [_row(*one, seconds) for one in zip(groups, alone, beside, strict=True)]
    return [*(row for pair in rows for row in pair), _faults(groups)]


def _window(url: str, groups: Sequence[ClientGroup], seconds: float) -> list[GroupWindow]:
    began = time.monotonic()
    threads = []
    for group in groups:
        group.latencies = []
        threads += [
            threading.Thread(target=group.ask, args=(url, 7 * i, began + seconds)) for i in range(group.clients)
        ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    return [
        GroupWindow(len(group.latencies) / took, float(np.percentile(group.latencies or [took], 99)))
        for group in groups
    ]


def _row(
    group: ClientGroup, alone: Sequence[GroupWindow], beside: Sequence[GroupWindow], seconds: float
) -> list[BenchmarkRow]:
    rate = BenchmarkRow(
        benchmark=_NAME,
        title=f"{group.what} beside the other modality ÷ alone (throughput)",
        top=f"{group.clients} clients that send one of {_INPUTS} {group.what} at a time under {_ADAPTERS} "
        "adapters, while the other clients send theirs",
        bottom=f"the same, and no other clients, in windows of {seconds:g} s in turn",
        unit="answers/s",
        pairs=[Pair(b.rate, a.rate) for a, b in zip(alone, beside, strict=True)],
        target=targets.MODALITY_SHARE,
    )
    latency = replace(
        rate,
        title=f"{group.what} beside the other modality ÷ alone (p99)",
        unit="ms",
        pairs=[Pair(1e3 * b.p99, 1e3 * a.p99) for a, b in zip(alone, beside, strict=True)],
        target=None,
        at_most=True,
        notes=["not judged: with half of the time of the cores, clients in a closed loop wait twice as long"],
    )
    return [rate, latency]


def _faults(groups: Sequence[ClientGroup]) -> BenchmarkRow:
    wrong = [line for group in groups for line in group.wrong]
    return BenchmarkRow(
        benchmark=_NAME, title="answers that failed or differ from those of the input alone",
        top="every answer compared, score by score", bottom="", unit="answers", pairs=[Pair(float(len(wrong)))],
        target=targets.FAULTS, measure=Measure.TOP, at_most=True, exact=True,
        notes=[f"{sum(group.answers for group in groups)} answers", *wrong[:3]],
    )  # fmt: skip


def _scores(prediction: Any) -> dict[str, float]:
    return dict(prediction.scores)


@contextmanager
def _server(setup: BenchmarkSetup, vision: BenchmarkSetup) -> Iterator[tuple[str, list[ClientGroup]]]:
    """Start a server with both foundations and some adapters of each."""
    texts, pictures = (OnnxRunner(one.export, 3, 1).spec for one in (setup, vision))
    with TemporaryDirectory(prefix="rootstock-bench-") as folder:
        home = Path(folder)
        groups = [
            ClientGroup(
                "texts",
                _register(home, texts, "text"),
                sentences(Tokenizer(setup.export / "tokenizer.json"), texts, _INPUTS, _TOKENS),
                _TEXT_CLIENTS,
            ),
            ClientGroup(
                "images",
                _register(home, pictures, "image"),
                [one.data for one in images(_INPUTS)],
                _IMAGE_CLIENTS,
            ),
        ]
        link = path_of(locate("vision"), home)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(vision.export.absolute())
        settings = {"FOUNDATIONS": "default,vision", "SLOTS": "16"}
        with rootstock_server(_SERVER, setup.export, setup.threads, home=home, settings=settings) as process:
            yield process.url, groups


def _register(home: Path, spec: FoundationSpec, prefix: str) -> list[str]:
    names = [f"{prefix}-{i}" for i in range(_ADAPTERS)]
    with TemporaryDirectory(dir=home) as folder:
        paths = [Path(folder) / f"{name}.zip" for name in names]
        for i, path in enumerate(paths):
            path.write_bytes(bundle_of(folder_of(spec, replace(WHOLE, labels=3 + i), i), spec))
        for result in import_bundles(paths, home, spec, Limits()):
            if isinstance(result, SkippedBundle):
                raise ImportFailed(f"{result.file} was not imported: {result.reason}")
    return names

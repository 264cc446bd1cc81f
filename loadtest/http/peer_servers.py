"""Rows 3 and 5: our server under BentoML against another program's, both behind HTTP, loaded by wrk in turn."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np

from rootstock.adapters.bundle import Limits, unpack
from rootstock.adapters.client.client import Client
from rootstock.adapters.spec import Array
from rootstock.loadtest.fixtures.runner_bench import ROWS, Say
from rootstock.loadtest.fixtures.server import RunningServer, serving, serving_bento
from rootstock.loadtest.fixtures.windows import Side, Windows, alternate, medians, rates, spread
from rootstock.loadtest.fixtures.workload import LABELS, RANK, Workload, make_workload
from rootstock.loadtest.http.throughput import difference
from rootstock.loadtest.measure.agreement import require_equal
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
from rootstock.loadtest.measure.wrk import find_wrk
from rootstock.loadtest.peers import infinity, set_adapter_service
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

SERVER = "bentoml"
SET_ADAPTER = "set_adapter"
_TOKENS = 16
_PREDICT = "/v1/predict"
_SET_ADAPTER_TARGET = 6.0
_INFINITY_RATE, _INFINITY_P50 = 2.5, 0.4


@dataclass(frozen=True)
class Ours:
    """Our server with a workload published: each adapter is sent its own text, in turn."""

    served: RunningServer
    workload: Workload

    @property
    def side(self) -> Side:
        """The windows' side: single inputs, the best label of each."""
        return Side("ours", self.served, _PREDICT, _bodies(self.workload))

    @property
    def told(self) -> str:
        """What it computes, for a row."""
        return (
            f"rootstock serve --server {SERVER}: single inputs of {_TOKENS} tokens under {ROWS} rank-{RANK} "
            "query/value classifiers in turn; wrk on the same cores"
        )


@contextmanager
def ours(export: Path, threads: int) -> Iterator[Ours]:
    """Our server, ready, with 32 adapters published over HTTP."""
    spec = OnnxRunner(export, 3, 1).spec
    workload = make_workload(spec, Tokenizer(export / "tokenizer.json"), ROWS, _TOKENS)
    with serving(SERVER, export, threads) as served:
        with Client(served.url) as client:
            for name, bundle in zip(workload.names, workload.bundles, strict=True):
                client.publish(bundle, name)
        yield Ours(served, workload)


def set_adapter_row(foundation: Path, export: Path, windows: Windows, threads: int, say: Say) -> BenchmarkRow:
    """Row 3: requests a second of ours ÷ those of one `set_adapter` a request behind BentoML."""
    find_wrk()
    with ExitStack() as stack:
        say("row 3: starting both servers, 32 adapters in each")
        mine = stack.enter_context(ours(export, threads))
        peer = stack.enter_context(_serving_set_adapter(foundation, mine.workload, threads))
        worst = _same_scores(mine, peer)
        side = mine.side
        theirs = Side("set_adapter", peer, _PREDICT, _bodies(mine.workload))
        measured = alternate(side, theirs, windows, say)
        worst = max(worst, _same_scores(mine, peer))
    return BenchmarkRow(
        label="3",
        title=f"against one set_adapter a request behind BentoML, {windows.connections} clients (requests/s)",
        top=mine.told,
        bottom=f"the same requests to transformers and PEFT behind BentoML with FastAPI mounted: {ROWS} adapters "
        f"loaded, set_adapter and a forward pass of one text a request, {threads} torch threads",
        unit="requests/s",
        pairs=rates(measured),
        target=_SET_ADAPTER_TARGET,
        notes=[
            f"both give the same scores before and after (largest difference {worst:.1e})",
            spread(measured, ("ours", "set_adapter")),
        ],
    )


def infinity_rows(
    foundation: Path, export: Path, windows: Windows, threads: int, say: Say
) -> list[BenchmarkRow | NotRun]:
    """Row 5: ours on 32 adapters against Infinity's bare foundation; printed, against our own bare one."""
    find_wrk()
    title = "ours on 32 adapters against Infinity 0.0.78 on the bare foundation"
    try:
        program = infinity.ensure_infinity(say)
    except infinity.PeerMissing as error:
        return [NotRun("5", title, str(error))]
    with ExitStack() as stack:
        say("row 5: starting both servers")
        mine = stack.enter_context(ours(export, threads))
        peer = stack.enter_context(infinity.serving_infinity(program, foundation, threads))
        texts = mine.workload.sentences
        worst = require_equal(
            _embeddings(mine.served.url + "/v1/embeddings", texts),
            _embeddings(peer.url + infinity.PATH, texts),
            "the foundation's embeddings, ours against Infinity's",
        )
        bodies = [json.dumps({"model": infinity.MODEL, "input": text}).encode() for text in texts]
        side, theirs = mine.side, Side("Infinity", peer, infinity.PATH, bodies)
        many = alternate(side, theirs, windows, say)
        one = alternate(side, theirs, replace(windows, connections=1), say)
        bare = Side("our bare foundation", mine.served, "/v1/embeddings", _base64(texts))
        alone = alternate(side, bare, windows, say)
    same = f"both give the same embeddings of the bare foundation (largest difference {worst:.1e})"
    bottom = (
        "Infinity 0.0.78, engine torch on the CPU, fp32, no BetterTransformer (slower with), the same texts, "
        "embeddings of the bare foundation"
    )
    return [
        BenchmarkRow(
            label="5",
            title=f"{title}, {windows.connections} clients (requests/s)",
            top=mine.told,
            bottom=bottom,
            unit="requests/s",
            pairs=rates(many),
            target=_INFINITY_RATE,
            notes=[same, spread(many, ("ours", "Infinity"))],
        ),
        BenchmarkRow(
            label="5",
            title=f"{title}, 1 client (p50)",
            top=mine.told,
            bottom=bottom,
            unit="ms",
            pairs=medians(one),
            target=_INFINITY_P50,
            at_most=True,
            notes=[same, spread(one, ("ours", "Infinity"))],
        ),
        BenchmarkRow(
            label="5",
            title=f"32 adapters ÷ the foundation alone, same server, {windows.connections} clients (requests/s)",
            top=mine.told,
            bottom="/v1/embeddings of the foundation for the same texts, base64",
            unit="requests/s",
            pairs=rates(alone),
            notes=["not judged: row 1 compares the two in the runner", spread(alone, ("adapters", "foundation"))],
        ),
    ]


@contextmanager
def _serving_set_adapter(foundation: Path, workload: Workload, threads: int) -> Iterator[RunningServer]:
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as root:
        for name, data in zip(workload.names, workload.bundles, strict=True):
            folder = Path(root) / name
            folder.mkdir()
            for member, content in unpack(data, Limits()).items():
                (folder / member).write_bytes(content)
        environment = {
            set_adapter_service.FOUNDATION: str(foundation),
            set_adapter_service.ADAPTERS: root,
            set_adapter_service.LABELS: str(LABELS),
            set_adapter_service.THREADS: str(threads),
        }
        with serving_bento(
            SET_ADAPTER, "rootstock.loadtest.peers.set_adapter_service:SetAdapter", environment
        ) as served:
            yield served


def _same_scores(mine: Ours, peer: RunningServer) -> float:
    """The largest difference of the scores; Disagreement where it is too large."""
    worst = 0.0
    with Client(mine.served.url) as client, httpx.Client(base_url=peer.url, trust_env=False, timeout=60) as other:
        for name, text in zip(mine.workload.names, mine.workload.sentences, strict=True):
            ours_ = client.predict(name, text, {"top_k": None})["predictions"][0]
            theirs = other.post(_PREDICT, json={"model": name, "inputs": text}).raise_for_status().json()
            worst = max(worst, difference(ours_, theirs["predictions"][0], f"{name}, ours against PEFT's"))
    return worst


def _embeddings(url: str, texts: Sequence[str]) -> list[Array]:
    found: list[Array] = []
    with httpx.Client(trust_env=False, timeout=60) as client:
        for text in texts:
            response = client.post(url, json={"model": infinity.MODEL, "input": text}).raise_for_status()
            found.append(np.array(response.json()["data"][0]["embedding"], np.float32))
    return found


def _bodies(workload: Workload) -> list[bytes]:
    return [
        json.dumps({"model": name, "inputs": text}).encode()
        for name, text in zip(workload.names, workload.sentences, strict=True)
    ]


def _base64(texts: Sequence[str]) -> list[bytes]:
    body = {"model": infinity.MODEL, "encoding_format": "base64"}
    return [json.dumps({**body, "input": text}).encode() for text in texts]

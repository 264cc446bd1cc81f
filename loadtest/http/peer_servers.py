"""Our server under BentoML against another program's, both behind HTTP, loaded by wrk in turn."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np

from rootstock.adapters.client.client import Client
from rootstock.adapters.spec import Array
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.runner_bench import ROWS
from rootstock.loadtest.fixtures.server import ServerProcess, rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.windows import Side, Windows, alternate, p50s, rates, spread, windows_of
from rootstock.loadtest.fixtures.workload import RANK, Workload, make_workload
from rootstock.loadtest.http.requests import PREDICT, predict_bodies
from rootstock.loadtest.http.throughput import difference
from rootstock.loadtest.measure.agreement import require_equal, require_similar
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
from rootstock.loadtest.measure.wrk import Load, find_wrk
from rootstock.loadtest.peers import infinity
from rootstock.loadtest.peers.peer_environment import PeerMissing
from rootstock.loadtest.peers.set_adapter import set_adapter_server
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.exports.cache import int8_candidate

SERVER = "bentoml"
_TOKENS = 16
_EMBEDDINGS = "/v1/embeddings"
_INFINITY_TITLE = "ours on 32 adapters against Infinity 0.0.78 on the bare foundation"
_INFINITY_SIDE = (
    "Infinity 0.0.78, engine torch on the CPU, fp32, no BetterTransformer (slower with), the same texts, "
    "embeddings of the bare foundation"
)
_OUR_SIDE = (
    f"rootstock serve --server {SERVER}: single inputs of {_TOKENS} tokens under {ROWS} rank-{RANK} "
    "query/value classifiers in turn; wrk on the same cores"
)


@dataclass(frozen=True)
class OurServer:
    """Our server with a workload published. Each adapter gets its sentence, in turn."""

    process: ServerProcess
    workload: Workload

    def side(self, name: str = "ours") -> Side:
        """Return the windows' side: single inputs, the best label of each."""
        return Side(name, self.process, PREDICT, predict_bodies(self.workload))


@contextmanager
def our_server(setup: BenchmarkSetup, int8: Path | None = None) -> Iterator[OurServer]:
    """Start our server and publish 32 adapters over HTTP; with an int8 export it serves in int8."""
    spec = OnnxRunner(setup.export, 3, 1).spec
    workload = make_workload(spec, Tokenizer(setup.export / "tokenizer.json"), ROWS, _TOKENS)
    with rootstock_server(SERVER, setup.export, setup.threads, int8=int8) as process:
        with Client(process.url) as client:
            for name, bundle in zip(workload.names, workload.bundles, strict=True):
                client.push(bundle, name)
        yield OurServer(process, workload)


def vs_set_adapter(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure our requests a second ÷ those of one `set_adapter` a request behind BentoML."""
    find_wrk()
    windows = windows_of(setup)
    with ExitStack() as stack:
        setup.say("vs-set-adapter: starting both servers, 32 adapters in each")
        ours = stack.enter_context(our_server(setup))
        peer = stack.enter_context(set_adapter_server(setup.foundation, ours.workload, setup.threads))
        worst = _same_scores(ours, peer)
        theirs = Side("set_adapter", peer, PREDICT, predict_bodies(ours.workload))
        loads = alternate(ours.side(), theirs, windows, setup.say)
        worst = max(worst, _same_scores(ours, peer))
    row = BenchmarkRow(
        benchmark="vs-set-adapter",
        title=f"against one set_adapter a request behind BentoML, {windows.connections} clients (requests/s)",
        top=_OUR_SIDE,
        bottom=f"the same requests to transformers and PEFT behind BentoML with FastAPI mounted: {ROWS} adapters "
        f"loaded, set_adapter and a forward pass of one text a request, {setup.threads} torch threads",
        unit="requests/s",
        pairs=rates(loads),
        target=targets.VS_SET_ADAPTER,
        notes=[
            f"both give the same scores before and after (largest difference {worst:.1e})",
            spread(loads, ("ours", "set_adapter")),
        ],
    )
    return [row]


def vs_infinity(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure 32 adapters on our server against Infinity's bare foundation, and against our bare one."""
    find_wrk()
    windows = windows_of(setup)
    try:
        program = infinity.INFINITY.program(infinity.PROGRAM, setup.say)
    except PeerMissing as error:
        return [NotRun("vs-infinity", _INFINITY_TITLE, str(error))]
    with ExitStack() as stack:
        setup.say("vs-infinity: starting both servers")
        ours = stack.enter_context(our_server(setup))
        peer = stack.enter_context(infinity.infinity_server(program, setup.foundation, setup.threads))
        texts = ours.workload.sentences
        worst = require_equal(
            _embeddings(ours.process.url + _EMBEDDINGS, texts),
            _embeddings(peer.url + infinity.PATH, texts),
            "the foundation's embeddings, ours against Infinity's",
        )
        bodies = [json.dumps({"model": infinity.MODEL, "input": text}).encode() for text in texts]
        theirs = Side("Infinity", peer, infinity.PATH, bodies)
        bare = Side("our bare foundation", ours.process, _EMBEDDINGS, _base64_bodies(texts))
        many = alternate(ours.side(), theirs, windows, setup.say)
        one = alternate(ours.side(), theirs, replace(windows, connections=1), setup.say)
        alone = alternate(ours.side(), bare, windows, setup.say)
        coarse = stack.enter_context(_int8_server(setup))
        least = require_similar(
            _embeddings(coarse.process.url + _EMBEDDINGS, texts),
            _embeddings(peer.url + infinity.PATH, texts),
            "the foundation's embeddings, ours in int8 against Infinity's",
        )
        in_int8 = alternate(coarse.side("ours in int8"), theirs, windows, setup.say)
    same = f"both give the same embeddings of the bare foundation (largest difference {worst:.1e})"
    int8_row = _int8_row(in_int8, windows, least)
    return [*_infinity_rows(many, one, windows, same), int8_row, _bare_row(alone, windows)]


def _infinity_rows(
    many: list[tuple[Load, Load]], one: list[tuple[Load, Load]], windows: Windows, same: str
) -> list[BenchmarkRow]:
    return [
        BenchmarkRow(
            benchmark="vs-infinity",
            title=f"{_INFINITY_TITLE}, {windows.connections} clients (requests/s)",
            top=_OUR_SIDE,
            bottom=_INFINITY_SIDE,
            unit="requests/s",
            pairs=rates(many),
            target=targets.VS_INFINITY,
            notes=[same, spread(many, ("ours", "Infinity"))],
        ),
        BenchmarkRow(
            benchmark="vs-infinity",
            title=f"{_INFINITY_TITLE}, 1 client (p50)",
            top=_OUR_SIDE,
            bottom=_INFINITY_SIDE,
            unit="ms",
            pairs=p50s(one),
            target=targets.VS_INFINITY_P50,
            at_most=True,
            notes=[same, spread(one, ("ours", "Infinity"))],
        ),
    ]


def _int8_row(loads: list[tuple[Load, Load]], windows: Windows, least: float) -> BenchmarkRow:
    return BenchmarkRow(
        benchmark="vs-infinity",
        title=f"{_INFINITY_TITLE}, our trunk in int8, {windows.connections} clients (requests/s)",
        top=f"{_OUR_SIDE}; ROOTSTOCK_PRECISION=int8",
        bottom=_INFINITY_SIDE,
        unit="requests/s",
        pairs=rates(loads),
        target=targets.VS_INFINITY_INT8,
        notes=[
            f"embeddings of the bare foundation, ours in int8 against Infinity's: least cosine {least:.4f}",
            spread(loads, ("ours in int8", "Infinity")),
        ],
    )


def _bare_row(loads: list[tuple[Load, Load]], windows: Windows) -> BenchmarkRow:
    return BenchmarkRow(
        benchmark="vs-infinity",
        title=f"32 adapters ÷ the foundation alone, same server, {windows.connections} clients (requests/s)",
        top=_OUR_SIDE,
        bottom="/v1/embeddings of the foundation for the same texts, base64",
        unit="requests/s",
        pairs=rates(loads),
        notes=[
            "not judged: adapters-vs-bare compares the two in the runner",
            spread(loads, ("adapters", "foundation")),
        ],
    )


@contextmanager
def _int8_server(setup: BenchmarkSetup) -> Iterator[OurServer]:
    """Make an int8 export in a temporary folder, and start our server on it."""
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        setup.say("vs-infinity: making the int8 export")
        with int8_candidate(setup.export, Path(folder) / "int8") as export, our_server(setup, export) as ours:
            yield ours


def _same_scores(ours: OurServer, peer: ServerProcess) -> float:
    """Return the largest difference of the scores. Raise Disagreement if it is too large."""
    worst = 0.0
    url, workload = ours.process.url, ours.workload
    with Client(url) as client, httpx.Client(base_url=peer.url, trust_env=False, timeout=60) as other:
        for name, text in zip(workload.names, workload.sentences, strict=True):
            answer = client.predict(name, text, top_k=None).raw
            theirs = other.post(PREDICT, json={"model": name, "inputs": text}).raise_for_status().json()
            worst = max(worst, difference(answer, theirs["predictions"][0], f"{name}, ours against PEFT's"))
    return worst


def _embeddings(url: str, texts: Sequence[str]) -> list[Array]:
    vectors: list[Array] = []
    with httpx.Client(trust_env=False, timeout=60) as client:
        for text in texts:
            response = client.post(url, json={"model": infinity.MODEL, "input": text}).raise_for_status()
            vectors.append(np.array(response.json()["data"][0]["embedding"], np.float32))
    return vectors


def _base64_bodies(texts: Sequence[str]) -> list[bytes]:
    body = {"model": infinity.MODEL, "encoding_format": "base64"}
    return [json.dumps({**body, "input": text}).encode() for text in texts]

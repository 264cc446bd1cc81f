"""The generator against a server that lies in turn: each lie is caught, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rootstock.loadtest.judgement.oracle import Oracle, OracleVersion
from rootstock.loadtest.load.plan import LoadPlan, Phase
from rootstock.loadtest.load.record import RECORDS, read_records
from rootstock.loadtest.load.traffic import PREDICT
from tests.loopback_server import run_loopback

ROOT = Path(__file__).parents[3]
ORACLE = Oracle(
    texts=["hello"],
    versions={
        "a1": OracleVersion("a", 1, {0: [0.7, 0.3]}),
        "a2": OracleVersion("a", 2, {0: [0.4, 0.6]}),
        "b1": OracleVersion("b", 1, {0: [0.9, 0.1]}),
    },
    embeddings=[[1.0]],
)
# Verdict → what the server sends: status, headers, digest, version, scores.
LIES: tuple[tuple[str, int, dict[str, str], str, int, list[float]], ...] = (
    ("ok", 200, {}, "a1", 1, [0.7, 0.3]),
    ("stale", 200, {}, "a2", 2, [0.4, 0.6]),
    ("mixed", 200, {}, "b1", 1, [0.9, 0.1]),
    ("mixed", 200, {}, "a1", 1, [0.9, 0.1]),
    ("wrong", 200, {}, "a1", 1, [0.6, 0.4]),
    ("failed", 500, {}, "a1", 1, [0.7, 0.3]),
    ("failed", 429, {}, "a1", 1, [0.7, 0.3]),
    ("refused", 429, {"Retry-After": "2"}, "a1", 1, [0.7, 0.3]),
)


class Liar(BaseHTTPRequestHandler):
    """Tells the next of LIES, whatever it is asked."""

    protocol_version = "HTTP/1.1"
    turn = count()
    sent: Counter[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        verdict, status, headers, digest, version, scores = LIES[next(self.turn) % len(LIES)]
        self.sent[verdict] += 1
        labelled = sorted(
            ({"label": f"LABEL_{i}", "score": s} for i, s in enumerate(scores)),
            key=lambda one: -float(one["score"]),
        )
        self._answer(
            status,
            headers,
            {"model": body["model"], "digest": digest, "version": version, "predictions": [labelled]},
        )

    def _answer(self, status: int, headers: dict[str, str], value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Liar.sent = Counter()
    with run_loopback(Liar) as url:
        yield url


def test_every_lie_is_caught_in_closed_and_open_loops(url: str, tmp_path: Path) -> None:
    phases = [Phase("closed", 0.5, users=2, calibrates=True), Phase("open", 0.5, rate=100)]
    LoadPlan(url, ["a"], phases, {PREDICT: 1}).write(tmp_path / "plan.json")
    ORACLE.write(tmp_path / "oracle.json")
    files = [str(tmp_path / "plan.json"), str(tmp_path / "oracle.json"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "rootstock.loadtest.load.generator", *files],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path / RECORDS)
    assert Counter(record.verdict for record in records) == Liar.sent
    assert set(Liar.sent) == {lie[0] for lie in LIES}
    assert sum(record.phase == 1 for record in records) == 50

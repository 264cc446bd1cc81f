"""Streamed chats under Locust: a real server's right answers pass, and each fault is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.judgement import text_oracle
from rootstock.loadtest.judgement.oracle import ExpectedText, Oracle, OracleVersion
from rootstock.loadtest.load.chat_preparation import ChatNeeds, chat_fixture
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import LoadPlan, Phase
from rootstock.loadtest.load.preparation import ScenarioFixture
from rootstock.loadtest.load.record import CALLER, MOVER, PHASES, RECORDS, Record, read_records
from rootstock.loadtest.load.traffic import CHAT
from rootstock.loadtest.load.trial import Trial
from rootstock.loadtest.measure.machine import describe_machine
from rootstock.loadtest.measure.outcome import BenchmarkRun, Outcome
from rootstock.loadtest.report.render import render
from rootstock.loadtest.scenarios.chat import token_rows
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.loopback_server import run_loopback
from tests.service.engine.generate.families import make_decoder

ROOT = Path(__file__).parents[3]
NEEDS = ChatNeeds(adapters=2, moves=2, texts=["Where is my parcel?", "hello", "ok"], texts_each=2, max_tokens=6)
ONE_CALLER = [Phase("only", 0.5, users=1)]


@pytest.fixture(scope="module")
def foundation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat").folder


@pytest.fixture
def fixture(setup: BenchmarkSetup, foundation_folder: Path) -> Iterator[ScenarioFixture]:
    """Two adapters of a tiny foundation, a further version of each, and PEFT's answers."""
    with chat_fixture(setup, NEEDS, str(foundation_folder)) as fixture:
        yield fixture


@pytest.fixture
def server(fixture: ScenarioFixture) -> Iterator[RunningServer]:
    settings = Settings(
        home=fixture.home, foundation=fixture.foundation, demo=False, log_level="error", threads=1
    )
    with run_server(settings) as running:
        yield running


def load(folder: Path, plan: LoadPlan, oracle: Oracle) -> Trial:
    """Run a plan with the load generator in its process."""
    plan.write(folder / "plan.json")
    oracle.write(folder / "oracle.json")
    files = [str(folder / "plan.json"), str(folder / "oracle.json"), str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "rootstock.loadtest.load.generator", *files],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Trial(read_records(folder / RECORDS), json.loads((folder / PHASES).read_text()), [])


def verdicts(trial: Trial) -> set[str]:
    return {record.verdict for record in trial.records}


def test_right_answers_pass_while_versions_are_published_and_activated(
    fixture: ScenarioFixture, server: RunningServer, tmp_path: Path
) -> None:
    phases = [
        Phase("closed", 2.0, users=4, calibrates=True, moves_s=1.0),
        Phase("open", 2.0, of_capacity=0.5, moves_s=1.0),
    ]
    plan = LoadPlan(server.url, fixture.names, phases, {CHAT: 1}, "uniform", moves=fixture.moves)
    trial = load(tmp_path, plan, fixture.oracle)
    assert verdicts(trial) == {"ok"}, trial.details
    assert faults_row("chat", [trial]).met
    answers = [record for record in trial.records if record.who == CALLER]
    assert {record.phase for record in answers} == {0, 1}
    assert [record.kind for record in trial.records if record.who == MOVER] == ["publish", "activate"] * 2
    assert all(0 < record.first <= record.latency for record in answers)
    assert all(0 < record.tokens <= NEEDS.max_tokens for record in answers)
    assert any(record.scored for record in answers)


def test_an_answer_of_another_version_than_the_live_one_is_stale(
    fixture: ScenarioFixture, server: RunningServer, tmp_path: Path
) -> None:
    move = fixture.moves[0]
    with server.client() as client:
        assert upload(client, move.name, Path(move.bundle).read_bytes()).json()["digest"] == move.digest
    # The plan does not hold this move.
    trial = load(tmp_path, LoadPlan(server.url, [move.name], ONE_CALLER, {CHAT: 1}), fixture.oracle)
    assert verdicts(trial) == {"stale"}


def test_an_answer_that_the_oracle_does_not_give_is_wrong(
    fixture: ScenarioFixture, server: RunningServer, tmp_path: Path
) -> None:
    other = {
        digest: replace(version, answers=dict.fromkeys(version.answers, ExpectedText("no", 2)))
        for digest, version in fixture.oracle.versions.items()
    }
    plan = LoadPlan(server.url, fixture.names, ONE_CALLER, {CHAT: 1})
    trial = load(tmp_path, plan, replace(fixture.oracle, versions=other))
    assert verdicts(trial) == {"wrong"}
    assert "expected ExpectedText(text='no'" in trial.details[0]


@pytest.mark.parametrize("near", [0.0, float("inf")])
def test_an_expected_answer_ends_before_its_first_near_tie(
    near: float, setup: BenchmarkSetup, foundation_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_oracle, "NEAR_TIE", near)
    needs = replace(NEEDS, adapters=1, moves=0)
    with chat_fixture(setup, needs, str(foundation_folder)) as fixture:
        (version,) = fixture.oracle.versions.values()
    for answer in version.answers.values():
        assert answer.whole == (near == 0)
        assert (answer.tokens > 0) == (near == 0)


def test_the_rows_the_stages_and_the_page_hold_the_figures_of_streams(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    phases = [
        {"name": name, "start": i, "end": i + 1, "seconds": 1.0, "users": 1, "rate": i}
        for i, name in enumerate(("warm", "1 client", "constant rate"))
    ]
    records = [Record(i, CALLER, CHAT, float(i), 0.5, 0.5, 1, "ok", first=0.1, tokens=5) for i in range(3)]
    trial = Trial(records, phases, [])
    rows = token_rows(trial, NEEDS)
    assert [row.title for row in rows] == ["tokens a second, 1 client", "tokens a second, constant rate"]
    assert [row.pairs[0].top for row in rows] == [5, 5]
    assert rows[0].extra["first_p99_ms"] == pytest.approx(100)
    assert rows[0].extra["token_p50_ms"] == pytest.approx(100)
    assert "time to the first token p50 100 ms" in rows[0].notes[0]
    assert trial.stages()[1]["tokens_s"] == 5
    run = BenchmarkRun(describe_machine(), {"scenario": "chat"}, Outcome(rows, trial.stages(), trial.timeline()))
    run.write(tmp_path / "chat.json")
    files = {file.suffix: file for file in render(tmp_path / "chat.json", tmp_path)}
    page = files[".html"].read_text()
    assert "<th>first_p99_ms</th><th>token_p50_ms</th>" in page
    assert "tokens_s" in files[".csv"].read_text().splitlines()[0].split(",")
    for title in ("Time to the first token, ms", "Time per further token, ms", "Tokens a second"):
        assert f"<figcaption>{title}</figcaption>" in page


def event(text: str, finish: str | None = None, digest: str = "a1", tokens: int = 2) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk: dict[str, Any] = {"model": "a", "digest": digest, "version": 1, "choices": [choice]}
    if finish is not None:
        chunk["usage"] = {"completion_tokens": tokens}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "the runner failed"}}\n\n'
# Name → the body, whether the connection ends before the body's end, and the verdict.
STREAMS: dict[str, tuple[bytes, bool, str]] = {
    "whole": (event("good ") + event("day", "stop") + DONE, False, "ok"),
    "cut": (event("good "), True, "failed"),
    "cut at its end": (event("good ") + event("day", "stop"), True, "failed"),
    "not done": (event("good ") + event("day", "stop"), False, "failed"),
    "an error": (event("good ") + ERROR + DONE, False, "failed"),
    "no end": (event("good ") + event("day") + DONE, False, "failed"),
    "no JSON": (event("good ") + b"data: day\n\n" + DONE, False, "failed"),
    "a missing piece": (event("good ") + event("", "stop") + DONE, False, "wrong"),
    "a missing token": (event("good ") + event("day", "stop", tokens=1) + DONE, False, "wrong"),
    "two adapters": (event("good ") + event("day", "stop", digest="b1") + DONE, False, "mixed"),
}
ORACLE = Oracle(
    ["hello"],
    {
        "a1": OracleVersion("a", 1, answers={0: ExpectedText("good day", 2)}),
        "b1": OracleVersion("b", 1, answers={0: ExpectedText("bye", 1)}),
    },
    max_tokens=2,
)


class Streamer(BaseHTTPRequestHandler):
    """Sends the next of STREAMS, whatever it is asked."""

    protocol_version = "HTTP/1.1"
    turn = count()
    sent: Counter[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body, cut, verdict = list(STREAMS.values())[next(self.turn) % len(STREAMS)]
        self.sent[verdict] += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def streamer() -> Iterator[str]:
    Streamer.sent = Counter()
    with run_loopback(Streamer) as url:
        yield url


def test_every_broken_stream_is_found(tmp_path: Path) -> None:
    with streamer() as url:
        phase = Phase("open", 0.5, rate=4 * len(STREAMS))
        trial = load(tmp_path, LoadPlan(url, ["a"], [phase], {CHAT: 1}), ORACLE)
    assert Counter(record.verdict for record in trial.records) == Streamer.sent
    assert set(Streamer.sent) == {"ok", "failed", "wrong", "mixed"}
    assert len(trial.records) == 2 * len(STREAMS)
    right = [record for record in trial.records if record.verdict == "ok"]
    assert all(record.tokens == 2 and record.scored for record in right)

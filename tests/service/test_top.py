"""`rootstock top` shows what a real server does, from its own /metrics and list."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from rich.console import Console

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import Unreadable
from rootstock.service.telemetry.snapshot import MetricsSnapshot, SnapshotDifference
from rootstock.service.telemetry.top import Frame, frame
from rootstock.service.telemetry.top_screen import shown
from tests.bounds import HANG
from tests.live_server import OWNER, READER, RunningServer, upload
from tests.peft_adapters import PeftAdapter

ROOTSTOCK = str(Path(sys.executable).parent / "rootstock")


def top(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [ROOTSTOCK, "top", "--url", url, "--interval", "0.05", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=HANG, check=False
    )


@pytest.fixture
def running(serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]) -> RunningServer:
    running = serve(slots=4, admin_key=OWNER, api_key=READER)
    with running.client(OWNER) as client:
        for name in ("quiet", "busy", "mood"):
            assert upload(client, name, peft_saved["first"].zip()).status_code == 201
    return running


@pytest.fixture
def client(running: RunningServer) -> Iterator[httpx.Client]:
    with running.client(OWNER) as client:
        yield client


def look(client: httpx.Client, at: float) -> MetricsSnapshot:
    return MetricsSnapshot(client.get("/metrics").text, at)


def seen(running: RunningServer, client: httpx.Client, *models: str) -> Frame:
    """The frame of two seconds in which each of these was asked once."""
    before = look(client, 100.0)
    for model in models:
        answer = client.post("/v1/predict", json={"model": model, "inputs": ["one", "two words"]})
        assert answer.status_code == 200
    with Client(running.url, READER) as lister:
        return frame(SnapshotDifference(before, look(client, 102.0)), lister)


def test_a_view_shows_what_happened_between_two_looks_and_nothing_from_before(
    running: RunningServer, client: httpx.Client
) -> None:
    client.post("/v1/predict", json={"model": "quiet", "inputs": "From before."})
    view = seen(running, client, "mood", "busy", "busy", "foundation")
    assert (view.seconds, view.ready, view.answers_per_s) == (2, True, 2)
    assert view.p50_ms is not None
    assert view.p99_ms is not None
    assert 0 < view.p50_ms <= view.p99_ms
    assert view.batches_per_s * (view.batch_rows or 0) == pytest.approx(4)
    assert (view.batch_adapters, view.slots_used, view.slots_limit) == (1, 1, 2)
    assert view.tokens_per_s > 0
    assert (view.failed_per_s, view.refused_per_s, view.queue_items) == (0, 0, 0)
    rows = {adapter.name: adapter for adapter in view.adapters}
    assert list(rows) == ["busy", "foundation", "mood", "quiet"]
    assert [row.answers_per_s for row in rows.values()] == [1, 0.5, 0.5, 0]
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    assert (rows["busy"].live, rows["busy"].residency) == (1, "slot")
    assert (rows["quiet"].p99_ms, rows["foundation"].live) == (None, None)


def test_a_server_that_does_nothing_is_shown_as_such(running: RunningServer, client: httpx.Client) -> None:
    view = seen(running, client)
    assert (view.answers_per_s, view.p99_ms, view.batch_rows, view.padding) == (0, None, None, None)
    assert [adapter.name for adapter in view.adapters] == ["busy", "mood", "quiet"]


def test_a_server_that_does_nothing_shows_what_it_did_since_its_start(
    running: RunningServer, client: httpx.Client
) -> None:
    refused = client.post("/v1/predict", json={"model": "busy", "inputs": ["text"] * 1000})
    assert refused.status_code == 413
    seen(running, client, "mood", "busy", "busy", "foundation")
    view = seen(running, client)
    totals = view.totals
    assert (totals.answers, totals.refused, totals.failed, totals.texts) == (4, 1, 0, 0)
    assert totals.tokens == look(client, 0).sum("batch_tokens_sum") > 0
    assert 0 < totals.seconds < 3600
    assert {row.name: row.answers for row in view.adapters} == {"busy": 2, "mood": 1, "quiet": 0}
    (foundation,) = view.foundations
    assert (foundation.name, foundation.model) == (
        "foundation",
        running.app.state.server.foundations.first.spec.name,
    )
    assert (foundation.runner, foundation.precision, foundation.slots_used) == ("onnx", "fp32", 1)


def test_a_view_names_its_numbers_for_people(running: RunningServer, client: httpx.Client) -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(shown(seen(running, client, "busy"), running.url))
    console.file.close()
    text = console.export_text()
    for part in (running.url, "ready", "answers  0.5/s", "p99 ", "slots    1/2", "evictions 0.0/s", "busy"):
        assert part in text
    assert "in all   answers 1" in text
    assert "all-MiniLM-L6-v2   onnx fp32" in text


def test_the_key_q_ends_it_and_leaves_the_terminal_as_it_was(running: RunningServer) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [ROOTSTOCK, "top", "--url", running.url, "--key", OWNER, "--interval", "0.05"]
    # Only a session's own terminal knows which process is in its foreground.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs, text=True
    )
    shown = b""
    while b"in all" not in shown:
        shown += os.read(ours, 4096)
    assert b"q ends it" in shown
    os.write(ours, b"xq")
    assert process.wait(HANG) == 0
    assert termios.tcgetattr(theirs) == before
    for end in (ours, theirs):
        os.close(end)


@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, None])
def test_into_a_pipe_each_view_is_text_as_it_comes_until_the_reader_goes(
    running: RunningServer, stdin: int | None
) -> None:
    command = [ROOTSTOCK, "top", "--url", running.url, "--key", OWNER, "--interval", "0.05"]
    if stdin is None:
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    views = 0
    while views < 2:
        views += process.stdout.readline().startswith(running.url)
    process.stdout.close()
    assert process.wait(HANG) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_restart_between_two_looks_counts_from_nothing() -> None:
    def page(started: float, observed: int) -> str:
        registry = CollectorRegistry()
        Gauge("rootstock_ready", "", registry=registry)
        Gauge("rootstock_process_start_time_seconds", "", registry=registry).set(started)
        sizes = Histogram("rootstock_batch_rows", "", registry=registry)
        for _ in range(observed):
            sizes.observe(1)
        return generate_latest(registry).decode()

    assert (
        SnapshotDifference(MetricsSnapshot(page(1, 100), 0), MetricsSnapshot(page(1, 130), 1)).count(
            "batch_rows_count"
        )
        == 30
    )
    assert (
        SnapshotDifference(MetricsSnapshot(page(1, 100), 0), MetricsSnapshot(page(2, 130), 1)).count(
            "batch_rows_count"
        )
        == 130
    )
    assert (
        SnapshotDifference(MetricsSnapshot(page(1, 100), 0), MetricsSnapshot(page(2, 7), 1)).count(
            "batch_rows_count"
        )
        == 7
    )


def test_of_several_processes_those_that_stayed_count_from_the_look_before_and_a_new_one_from_nothing() -> None:
    def page(*processes: tuple[int, int, int]) -> MetricsSnapshot:
        lines = ["rootstock_ready 1"]
        for number, started, answers in processes:
            of = f'process="{number}"'
            lines.append(f"rootstock_process_start_time_seconds{{{of}}} {started}")
            lines.append(f'rootstock_failures_total{{code="x",{of}}} {answers}')
        return MetricsSnapshot("\n".join(lines) + "\n", 0.0)

    before = page((0, 100, 1000), (1, 100, 2000))
    for after, grown in (
        (page((0, 100, 1003), (1, 100, 2004)), 7),
        (page((0, 100, 1003), (1, 250, 5)), 8),
        (page((0, 100, 1003)), 3),
        (page((0, 250, 1), (1, 250, 2)), 3),
    ):
        assert SnapshotDifference(before, after).count("failures_total") == grown
        assert SnapshotDifference(before, after).count("failures_total", code="x") == grown


def test_a_quantile_lies_in_the_bucket_of_the_true_one() -> None:
    values = np.random.default_rng(0).lognormal(-3, 1, 2000)
    bounds = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    registry = CollectorRegistry()
    Gauge("rootstock_ready", "", registry=registry)
    seconds = Histogram("rootstock_x", "", ["adapter"], buckets=bounds, registry=registry)
    for i, value in enumerate(values):
        seconds.labels(f"a{i % 3}").observe(value)
    empty = CollectorRegistry()
    Gauge("rootstock_ready", "", registry=empty)
    over = SnapshotDifference(
        MetricsSnapshot(generate_latest(empty).decode(), 0),
        MetricsSnapshot(generate_latest(registry).decode(), 1),
    )
    for share in (0.1, 0.5, 0.9, 0.99):
        estimate, true = over.quantile(share, "x"), float(np.quantile(values, share))
        assert estimate is not None
        assert np.searchsorted(bounds, estimate) == np.searchsorted(bounds, true)
        assert estimate == pytest.approx(true, rel=0.25)
    assert over.quantile(1, "x", adapter="nobody") is None


def test_the_command_prints_one_json_document_a_view(running: RunningServer) -> None:
    done = top(running.url, "--once", "--json", ROOTSTOCK_ADMIN_KEY=OWNER)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    view = json.loads(line)
    assert set(view) == set(Frame.__dataclass_fields__)
    assert [adapter["name"] for adapter in view["adapters"]] == ["busy", "mood", "quiet"]


def test_the_address_may_come_from_a_variable(running: RunningServer) -> None:
    command = [ROOTSTOCK, "top", "--interval", "0.05", "--once"]
    environment = {**os.environ, "ROOTSTOCK_URL": running.url, "ROOTSTOCK_ADMIN_KEY": OWNER}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{running.url}  ready" in done.stdout


@pytest.mark.parametrize("key", ["", READER])
def test_without_the_admin_key_the_command_says_that_it_needs_it(running: RunningServer, key: str) -> None:
    done = top(running.url, "--once", *(["--key", key] if key else []))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "admin key" in line


@pytest.mark.parametrize("arguments", [["--once"], ["--json"], []])
def test_where_no_server_answers_the_command_says_so_in_one_line(arguments: list[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = top(url, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"rootstock: cannot reach {url}")
    assert "rootstock serve" in line


def test_wrong_usage_is_exit_code_2() -> None:
    done = top("ftp://somewhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("page", ["<html>", "# nothing\n", "other_metric 1\n", "rootstock_ready{ 1\n"])
def test_a_page_that_is_no_rootstock_server_s_is_refused(page: str) -> None:
    with pytest.raises(Unreadable):
        MetricsSnapshot(page, 0)

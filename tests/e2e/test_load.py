"""Under load: shared batches, and new versions published while requests flow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.telemetry.snapshot import MetricsSnapshot
from tests.bounds import HANG
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter, peft_outputs, save_adapter

TEXTS = [
    "Where is my parcel?",
    "It broke within a week, and nobody answers.",
    "ok",
    "Thank you for the quick help!",
]
RAW = {"function_to_apply": "none", "top_k": None}
VERSIONS = 4
CLIENTS = 16


def logits_of(answer: dict[str, Any]) -> list[np.ndarray]:
    """Raw outputs in label order, from predictions that are sorted by score."""
    return [
        np.array([score for _, score in sorted((int(p["label"].split("_")[1]), p["score"]) for p in prediction)])
        for prediction in answer["predictions"]
    ]


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return bool((np.abs(ours - theirs) <= 1e-4 + 1e-4 * np.abs(theirs)).all())


@pytest.fixture(scope="module")
def saved(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    root = tmp_path_factory.mktemp("load")
    return [save_adapter(foundation.folder, root / str(i), "SEQ_CLS", i, r=4) for i in range(VERSIONS)]


@pytest.fixture(scope="module")
def right(saved: list[PeftAdapter], foundation: FoundationFiles) -> list[list[np.ndarray]]:
    return [peft_outputs(foundation.folder, adapter, TEXTS) for adapter in saved]


async def post(client: httpx.AsyncClient, model: str, text: str) -> httpx.Response:
    return await client.post("/v1/predict", json={"model": model, "inputs": [text], "parameters": RAW})


@pytest.mark.slow
def test_32_clients_on_32_adapters_are_answered_from_shared_batches(
    serve: Callable[..., RunningServer],
    saved: list[PeftAdapter],
    right: list[list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve()
    with running.client() as client:
        for i in range(32):
            # Four sets of weights, 32 contents: the length limit makes each a bundle of its own.
            limit = str(512 - i)
            assert upload(client, f"a{i}", saved[i % VERSIONS].zip(), max_length=limit).status_code == 201

    arrived, run = threading.Event(), OnnxRunner.run
    in_first_batch: list[int] = []

    def held(runner: OnnxRunner, batch: Batch) -> Any:
        in_first_batch.append(len(batch.slots))
        assert arrived.wait(HANG)
        return run(runner, batch)

    async def release(client: httpx.AsyncClient) -> None:
        """Let the first batch run once the other clients wait, so that they share the next batches."""
        waiting = 0.0
        while not in_first_batch or waiting + in_first_batch[0] < 32:
            page = await client.get("/metrics")
            waiting = MetricsSnapshot(page.text, 0).sum("queue_items")
        arrived.set()

    async def one_client(client: httpx.AsyncClient, i: int) -> None:
        for t, text in enumerate(TEXTS * 3):
            answer = await post(client, f"a{i}", text)
            assert answer.status_code == 200
            assert close(logits_of(answer.json())[0], right[i % VERSIONS][t % len(TEXTS)])

    async def all_clients() -> None:
        async with httpx.AsyncClient(base_url=running.url, timeout=HANG) as client:
            await asyncio.gather(*(one_client(client, i) for i in range(32)), release(client))

    monkeypatch.setattr(OnnxRunner, "run", held)
    asyncio.run(all_clients())
    with running.client() as client:
        metrics = MetricsSnapshot(client.get("/metrics").text, 0)
    # A batch holds 32 rows; the requests that waited for the first one fill one or two.
    assert metrics.sum("batch_adapters_count") > metrics.sum("batch_adapters_bucket", le="8.0") > 0


def test_versions_published_under_load_never_give_a_wrong_stale_or_failed_answer(
    serve: Callable[..., RunningServer], saved: list[PeftAdapter], right: list[list[np.ndarray]], tmp_path: Path
) -> None:
    running = serve()
    digests: dict[str, int] = {}
    live_since: list[int] = []
    with running.client() as client:
        first = upload(client, "mood", saved[0].zip()).json()
        digests[first["digest"]] = 0
    stop, answered = threading.Event(), threading.Condition()
    seen: list[tuple[int, str, int, np.ndarray]] = []
    failures: list[str] = []

    async def one_client(client: httpx.AsyncClient) -> None:
        turn = 0
        while not stop.is_set():
            text, turn = turn % len(TEXTS), turn + 1
            published = len(live_since)
            answer = await post(client, "mood", TEXTS[text])
            if answer.status_code != 200:
                with answered:
                    failures.append(answer.text)
                    answered.notify_all()
                return
            body = answer.json()
            with answered:
                seen.append((published, body["digest"], text, logits_of(body)[0]))
                answered.notify_all()

    async def all_clients() -> None:
        async with httpx.AsyncClient(base_url=running.url, timeout=HANG) as client:
            await asyncio.gather(*(one_client(client) for _ in range(CLIENTS)))

    load = threading.Thread(target=lambda: asyncio.run(all_clients()))
    load.start()
    with running.client() as client:
        for round_ in range(3 * VERSIONS):
            version = (round_ + 1) % VERSIONS
            published = upload(client, "mood", saved[version].zip())
            assert published.status_code in (200, 201), published.text
            digests[published.json()["digest"]] = version
            live_since.append(version)
            # Each version is live until every client has asked again.
            wanted = len(seen) + 2 * CLIENTS
            with answered:
                assert answered.wait_for(lambda wanted=wanted: len(seen) >= wanted or failures, HANG)
    stop.set()
    load.join(HANG)
    assert failures == []
    history = [0, *live_since]
    for published_before, digest, text, logits in seen:
        version = digests[digest]
        assert close(logits, right[version][text]), "an answer that is not its digest's"
        assert version in history[published_before:], "an answer older than what was live at its admission"
    assert len({digest for _, digest, _, _ in seen}) > 1

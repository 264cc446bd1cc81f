"""PEFT's own folders, uploaded with curl, answer as PEFT does: alone, and many at a time."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rootstock.adapters.foundation.location import FoundationFiles
from tests.bounds import HANG
from tests.live_server import RunningServer
from tests.peft_adapters import TEXTS, PeftAdapter, close, mixed_adapters, peft_outputs

RAW = {"function_to_apply": "none", "top_k": None}
TOKENS = {"ignore_labels": []}


def upload_with_curl(url: str, name: str, bundle: Path) -> dict[str, Any]:
    command = ["curl", "-sS", "-F", f"bundle=@{bundle}", "-F", f"name={name}", f"{url}/v1/adapters"]
    answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return answer


def is_peft_s(adapter: PeftAdapter, prediction: Any, raw: np.ndarray) -> bool:
    """Raw logits in label order; for tokens, the best label's softmax score of each but the special ones."""
    if adapter.task_type == "SEQ_CLS":
        by_label = sorted((int(p["label"].removeprefix("LABEL_")), p["score"]) for p in prediction)
        return close(np.array([score for _, score in by_label]), raw)
    scores = np.exp(raw - raw.max(axis=1, keepdims=True))
    best = (scores / scores.sum(axis=1, keepdims=True)).max(axis=1)[1:-1]
    return close(np.array([p["score"] for p in prediction]), best)


@pytest.mark.parametrize("count", [8, pytest.param(32, marks=pytest.mark.slow)])
def test_adapters_uploaded_with_curl_answer_as_peft_does_alone_and_all_at_a_time(
    count: int, serve: Callable[..., RunningServer], foundation: FoundationFiles, tmp_path: Path
) -> None:
    mixed_saved = mixed_adapters(foundation.folder, tmp_path, count)
    mixed_expected = [peft_outputs(foundation.folder, adapter, TEXTS) for adapter in mixed_saved]
    running = serve()
    for i, adapter in enumerate(mixed_saved):
        bundle = tmp_path / f"{i}.zip"
        bundle.write_bytes(adapter.zip())
        published = upload_with_curl(running.url, f"a{i}", bundle)
        assert published.get("status") == "ready", published

    def body(i: int, text: int) -> dict[str, Any]:
        parameters = RAW if mixed_saved[i].task_type == "SEQ_CLS" else TOKENS
        return {"model": f"a{i}", "inputs": TEXTS[text], "parameters": parameters}

    with running.client() as client:
        for i, adapter in enumerate(mixed_saved):
            alone = client.post("/v1/predict", json=body(i, i % len(TEXTS))).json()
            assert is_peft_s(adapter, alone["predictions"][0], mixed_expected[i][i % len(TEXTS)])

    async def all_at_once(text: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=running.url, timeout=HANG) as client:
            calls = (client.post("/v1/predict", json=body(i, text)) for i in range(len(mixed_saved)))
            return list(await asyncio.gather(*calls))

    for text in range(len(TEXTS)):
        for i, answer in enumerate(asyncio.run(all_at_once(text))):
            assert is_peft_s(mixed_saved[i], answer.json()["predictions"][0], mixed_expected[i][text])

"""A server of the default foundation and three adapters: a classifier, a ranker and an embedder."""

from __future__ import annotations

import httpx
import pytest

from tests.live_server import upload
from tests.peft_adapters import PeftAdapter

LIMIT = 32


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    for name, saved, fields in (
        ("mood", "first", {}),
        ("ranking", "scalar", {"task": "text-ranking"}),
        ("embedder", "embedder", {}),
    ):
        answer = upload(client, name, peft_saved[saved].zip(), max_length=str(LIMIT), **fields)
        assert answer.status_code == 201, answer.text

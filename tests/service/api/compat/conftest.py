"""Adapters of every task on one server, published for the tests of a module."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from rootstock.adapters.foundation.location import FoundationFiles
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter, save_adapter

LIMIT = 32
LABELS = '["slow", "fine", "lost"]'


@pytest.fixture(scope="session")
def reader_saved(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    folder: Path = tmp_path_factory.mktemp("reader")
    return save_adapter(foundation.folder, folder, "QUESTION_ANS", 7, labels=2, r=4)


@pytest.fixture(scope="module")
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter], reader_saved: PeftAdapter) -> None:
    """Publish `mood` in two versions, `ranking`, `embedder`, `tagger` and `reader`, most for 64 tokens."""
    data = {name: saved.zip() for name, saved in peft_saved.items()}
    sent = [
        upload(client, "mood", data["second"], labels=LABELS, max_length="64"),
        upload(client, "mood", data["first"], labels=LABELS, max_length="64"),
        upload(client, "ranking", data["scalar"], task="text-ranking", max_length="64"),
        upload(client, "embedder", data["embedder"], max_length="64"),
        upload(client, "tagger", data["tokens"], max_length="64"),
        upload(client, "reader", reader_saved.zip(), task="question-answering"),
    ]
    assert {answer.status_code for answer in sent} == {201}, [answer.text for answer in sent]


@pytest.fixture(scope="module")
def three_published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    """Publish a classifier, a ranker and an embedder, for `LIMIT` tokens."""
    for name, saved, fields in (
        ("mood", "first", {}),
        ("ranking", "scalar", {"task": "text-ranking"}),
        ("embedder", "embedder", {}),
    ):
        answer = upload(client, name, peft_saved[saved].zip(), max_length=str(LIMIT), **fields)
        assert answer.status_code == 201, answer.text

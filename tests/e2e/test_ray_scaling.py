"""Replicas on a real Ray: generated text streams through it, and a load starts another replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from transformers import AutoTokenizer

from tests.bounds import HANG
from tests.e2e.ray_cluster import RayCluster, ray_cluster
from tests.e2e.test_ray_cluster import Traffic, publish, until
from tests.live_server import upload
from tests.object_storage import ObjectStorage
from tests.peft_adapters import PeftAdapter
from tests.postgres_process import PostgresProcess
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SMALL = ("--cpus", "0.1")
MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]
TOKENS = 10


@pytest.fixture(scope="module")
def cluster(new_home: Callable[[], Path], postgres: PostgresProcess, s3: ObjectStorage) -> Iterator[RayCluster]:
    with ray_cluster(new_home, postgres, s3) as opened:
        yield opened


def greedy(tiny: TinyDecoder, adapter: PeftAdapter) -> str:
    """Return PEFT's text."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    return str(tokenizer.decode(tiny.greedy(adapter, ids, TOKENS), skip_special_tokens=True)).rstrip("\ufffd")


def test_a_load_whose_requests_wait_starts_another_replica(
    cluster: RayCluster, peft_saved: dict[str, PeftAdapter]
) -> None:
    scaled = ("--replicas", "1", "--max-replicas", "2", "--target", "1000")
    cluster.deploy(*scaled, *SMALL)
    publish(cluster.client, "busy", 1, peft_saved["first"])
    assert len(cluster.replicas) == 1
    # By the requests under way, one replica would do for 1000 clients: the batches of long texts take its time.
    with Traffic(cluster, ["busy"], {}, threads=16, text="Where is my parcel? " * 40) as traffic:
        until(lambda: len(cluster.replicas) == 2, 4 * HANG)
    assert traffic.right > 0
    assert traffic.wrong == []
    assert traffic.failed == {}


def test_a_stream_of_generated_text_through_ray_is_peft_s(cluster: RayCluster, tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "tiny-chat")
    saved = make_adapters(tiny, tmp_path / "adapters")[:2]
    cluster.deploy("--replicas", "2", *SMALL, "--foundation", str(tiny.folder))
    for i, adapter in enumerate(saved):
        answer = upload(cluster.client, f"a{i}", adapter.zip())
        assert answer.status_code == 201, answer.text
    with openai.OpenAI(
        base_url=f"{cluster.client.base_url}/v1", api_key="unused", timeout=HANG, max_retries=0
    ) as client:
        for i, adapter in enumerate(saved):
            chunks = list(
                client.chat.completions.create(
                    model=f"a{i}",
                    messages=MESSAGES,
                    temperature=0,
                    max_tokens=TOKENS,
                    extra_body={"ignore_eos": True},
                    stream=True,
                )
            )
            assert len(chunks) > 2
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == greedy(tiny, adapter)

"""What /metrics shows of what a real server did, read by Prometheus's own parser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rootstock.service.engine.core.observer import BatchStats
from rootstock.service.telemetry.metrics import NAMED_ADAPTERS, STAGES, Metrics
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def value(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    wanted = set(labels.items())
    return sum(v for (n, given), v in samples(client).items() if n == f"rootstock_{name}" and wanted <= given)


def adapters_named(client: httpx.Client) -> set[str]:
    return {dict(labels)["adapter"] for _, labels in samples(client) if "adapter" in dict(labels)}


def ask(client: httpx.Client, model: str, inputs: object = "Any text at all.") -> Mapping[str, object]:
    answer = client.post("/v1/predict", json={"model": model, "inputs": inputs})
    assert answer.status_code == 200, answer.text
    document: Mapping[str, object] = answer.json()
    return document


@pytest.fixture
def client(serve: Callable[..., RunningServer]) -> Iterator[httpx.Client]:
    with serve(slots=4, queue_items=64).client() as client:
        yield client


def test_an_answer_counts_under_its_adapter_s_name_and_task_in_every_stage(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    upload(client, "mood", peft_saved["first"].zip())
    asked = [ask(client, "mood", ["one", "two words"]), ask(client, "mood@1"), ask(client, "foundation")]
    of = {"adapter": "mood", "task": "text-classification"}
    for stage in STAGES:
        assert value(client, "latency_seconds_count", **of, stage=stage) == 2
        told = sum(answer["timings"][f"{stage}_ms"] for answer in asked[:2]) / 1e3  # type: ignore[index]
        assert value(client, "latency_seconds_sum", **of, stage=stage) == pytest.approx(told, abs=1e-5)
    used = sum(answer["usage"]["prompt_tokens"] for answer in asked[:2])  # type: ignore[index]
    assert value(client, "adapter_tokens_total", **of) == used
    assert 0 < value(client, "adapter_compute_seconds_total", **of) < value(client, "batch_seconds_sum")
    assert adapters_named(client) == {"mood", "foundation"}


def test_the_stages_of_an_answer_add_up_to_no_more_than_the_whole(client: httpx.Client) -> None:
    timings = ask(client, "foundation", ["a few", "texts of", "some length"] * 8)["timings"]
    assert list(timings) == [f"{stage}_ms" for stage in STAGES]  # type: ignore[call-overload]
    *parts, whole = timings.values()  # type: ignore[attr-defined]
    assert all(part >= 0 for part in parts)
    assert 0 < sum(parts) <= whole + 0.01


def test_series_vanish_with_the_adapter_and_not_with_one_of_its_versions(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    for name in ("first", "second"):
        upload(client, "mood", peft_saved[name].zip())
    ask(client, "mood")
    assert client.delete("/v1/adapters/mood/versions/1").status_code == 204
    assert adapters_named(client) == {"mood"}
    assert client.delete("/v1/adapters/mood").status_code == 204
    assert adapters_named(client) == set()
    upload(client, "mood", peft_saved["first"].zip())
    ask(client, "mood")
    assert value(client, "latency_seconds_count", adapter="mood", stage="total") == 1


def test_of_many_adapters_the_first_have_series_and_the_rest_share_one(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    names = [f"a{i}" for i in range(NAMED_ADAPTERS + 3)]
    data = peft_saved["first"].zip()
    for name in names:
        assert upload(client, name, data).status_code == 201
        ask(client, name)
    assert adapters_named(client) == {*names[:NAMED_ADAPTERS], "other"}
    assert value(client, "latency_seconds_count", adapter="other", stage="total") == 3


def test_a_batch_counts_its_inputs_and_their_tokens(client: httpx.Client) -> None:
    answer = ask(client, "foundation", ["short", "a text that is quite a bit longer than the other one"])
    assert value(client, "batch_rows_sum") == 2
    assert value(client, "batch_adapters_sum") == value(client, "batch_rows_count")
    assert value(client, "batch_tokens_sum") == answer["usage"]["prompt_tokens"]  # type: ignore[index]


def test_padding_is_counted_in_tokens_and_as_a_share_of_each_batch() -> None:
    metrics = Metrics()
    metrics.batch(BatchStats(rows=4, adapters=2, tokens=75, padded=100, seconds=0.1))
    metrics.batch(BatchStats(rows=1, adapters=1, tokens=50, padded=50, seconds=0.1))
    metrics.batch(BatchStats(rows=1, adapters=1, tokens=0, padded=0, seconds=0.1))  # failed before it was padded
    get = metrics.registry.get_sample_value
    assert get("rootstock_padding_tokens_total") == 25
    assert get("rootstock_batch_padding_ratio_sum") == 0.25
    assert get("rootstock_batch_padding_ratio_count") == 2


def test_loads_and_evictions_are_counted_by_tier(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    for name in ("first", "second", "scalar"):
        upload(client, name, peft_saved[name].zip())
    for name in ("first", "second", "scalar", "first"):
        ask(client, name)
    assert value(client, "slots_limit") == value(client, "slots_used") == 2
    assert value(client, "loads_total", tier="slot", result="ok") == 4
    assert value(client, "load_seconds_count", tier="slot") == 4
    assert value(client, "evictions_total", tier="slot") == 2
    # An upload is in host memory already.
    assert value(client, "loads_total", tier="memory") == 0
    assert value(client, "cache_adapters") == 3
    assert 0 < value(client, "cache_bytes") < value(client, "cache_bytes_limit") == 512 * 2**20


def test_refusals_failures_and_verifications_are_counted_by_why(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    for counter, label, code in (
        ("refused", "reason", "overloaded"),
        ("failures", "code", "runner_fault"),
        ("verifications", "result", "golden"),
    ):
        key = (f"rootstock_{counter}_total", frozenset({(label, code)}))
        assert samples(client)[key] == 0, "an increase from nothing is no increase to Prometheus"
    body = {"model": "foundation", "inputs": ["x"] * 65}
    assert client.post("/v1/predict", json=body).status_code == 413
    assert value(client, "refused_total", reason="request_too_large") == 1
    late = {"model": "foundation", "inputs": "x", "timeout": 1e-6}
    assert client.post("/v1/predict", json=late).status_code == 504
    assert value(client, "failures_total", code="deadline_exceeded") == 1
    assert upload(client, "mood", peft_saved["first"].zip()).status_code == 201
    assert upload(client, "mood", b"no zip").status_code == 422
    assert value(client, "verifications_total", result="passed") == 1
    assert value(client, "verifications_total") == 2


def test_the_gauges_show_the_server_s_state_and_what_it_is(client: httpx.Client) -> None:
    assert value(client, "ready") == 1
    assert (value(client, "queue_items"), value(client, "queue_items_limit")) == (0, 64)
    assert value(client, "queue_tokens_limit") == 262_144
    limits = client.get("/v1/limits").json()
    told = {"runner": limits["runner"], "precision": "fp32", "fingerprint": limits["foundation"]["fingerprint"]}
    assert value(client, "server_info", **told) == 1
    assert value(client, "process_resident_memory_bytes") > 2**20

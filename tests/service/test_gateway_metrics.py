"""The metrics for gateways at /metrics of a real server: vLLM's names, with true residency."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from rootstock.adapters.registry import TenantRegistry
from rootstock.service.settings import Settings
from rootstock.service.telemetry import gateway_metrics
from tests.bounds import HANG
from tests.live_server import OWNER, READER, RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.families import make_decoder

LORA = "vllm:lora_requests_info"
GAUGES = {
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
}


def exported(client: httpx.Client) -> dict[str, list[Sample]]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {f.name: list(f.samples) for f in families if f.name.startswith("vllm:")}


def load(client: httpx.Client, name: str) -> float:
    """The value of the one series that a gateway's reader takes."""
    (sample,) = exported(client)[f"vllm:{name}"]
    assert sample.labels == {}
    value: float = sample.value
    return value


@dataclass(frozen=True)
class Seen:
    """The adapters as the endpoint picker reads them: names between commas, without spaces around them."""

    slots: int
    running: set[str]
    waiting: set[str]


def adapters(client: httpx.Client) -> Seen:
    (sample,) = exported(client)[LORA]
    assert abs(time.time() - sample.value) < HANG, "the latest series has the latest time as its value"
    labels = sample.labels
    listed = [{n.strip() for n in labels[f"{k}_lora_adapters"].split(",")} - {""} for k in ("running", "waiting")]
    return Seen(int(labels["max_lora"]), *listed)


def ask(client: httpx.Client, model: str) -> httpx.Response:
    return client.post("/v1/predict", json={"model": model, "inputs": f"A text for {model}."})


@pytest.fixture(scope="module")
def gateway_server(
    new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    tiny = make_decoder("llama", tmp_path_factory.mktemp("foundations") / "tiny-chat").folder
    settings = Settings(
        home=new_home(),
        foundations=f"default,{tiny}",
        served_names="gpt-4o-mini=tone@prod",
        slots=4,
        demo=False,
        log_level="error",
        gateway_metrics="admin",
    )
    with run_server(settings) as running:
        yield running


@pytest.fixture
def gateway(gateway_server: RunningServer, peft_saved: Mapping[str, PeftAdapter]) -> Iterator[httpx.Client]:
    """A client of a server with the adapters first, second and scalar, none of them in a slot."""
    with gateway_server.client() as client:
        for name in ("first", "second", "scalar"):
            assert upload(client, name, peft_saved[name].zip()).status_code == 201
        yield client
        for name in ("first", "second", "scalar"):
            client.delete(f"/v1/adapters/{name}?purge=true")


def engine_of(server: RunningServer, name: str) -> Any:
    return next(host for host in server.app.state.server.foundations if host.name == name).engine


def test_without_the_setting_the_page_has_none_of_these_names(client: httpx.Client) -> None:
    assert exported(client) == {}


def test_the_list_is_of_the_adapters_in_slots_also_when_no_request_uses_them(gateway: httpx.Client) -> None:
    def in_slots() -> set[str]:
        return {a["name"] for a in gateway.get("/v1/adapters").json()["adapters"] if a["residency"] == "slot"}

    assert exported(gateway).keys() == {LORA, *GAUGES}
    # Two slots of each of the three engines are reserved.
    assert adapters(gateway) == Seen(3 * 2, in_slots(), set())
    for name in ("first", "second", "scalar", "second"):
        assert ask(gateway, name).status_code == 200
        assert adapters(gateway).running == in_slots()
    assert in_slots() == {"second", "scalar"}


def test_every_reference_that_means_an_adapter_in_a_slot_is_listed(
    gateway: httpx.Client, peft_saved: Mapping[str, PeftAdapter]
) -> None:
    def publish(name: str) -> None:
        assert upload(gateway, "tone", peft_saved[name].zip()).status_code == 201

    publish("embedder")
    ask(gateway, "tone")
    assert gateway.put("/v1/adapters/tone/aliases/prod", json={"version": 1}).status_code == 200
    assert adapters(gateway).running == {"tone", "tone@prod", "gpt-4o-mini"}
    publish("second")
    # A request for the bare name now means version 2, which no request has brought into a slot.
    assert adapters(gateway).running == {"tone@prod", "gpt-4o-mini"}
    ask(gateway, "tone")
    # The adapter `second` has the same bytes.
    assert adapters(gateway).running == {"tone", "second", "tone@prod", "gpt-4o-mini"}
    publish("scalar")
    assert adapters(gateway).running == {"tone@2", "second", "tone@prod", "gpt-4o-mini"}
    gateway.delete("/v1/adapters/tone")
    assert adapters(gateway).running == {"second"}


def test_requests_and_adapters_that_wait_are_told_from_those_that_run(
    gateway_server: RunningServer, gateway: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = engine_of(gateway_server, "default").runner
    entered, go, run = threading.Event(), threading.Event(), runner.run

    def run_once_let(batch: Any) -> Any:
        entered.set()
        assert go.wait(HANG)
        return run(batch)

    monkeypatch.setattr(runner, "run", run_once_let)
    with ThreadPoolExecutor() as clients:
        try:
            answers = [clients.submit(ask, gateway, "first")]
            assert entered.wait(HANG)
            answers += [clients.submit(ask, gateway, name) for name in ("second", "scalar", "first")]
            until = time.monotonic() + HANG
            while load(gateway, "num_requests_waiting") < 3 and time.monotonic() < until:
                pass
            assert load(gateway, "num_requests_waiting") == 3
            assert load(gateway, "num_requests_running") == 1
            assert adapters(gateway) == Seen(6, {"first"}, {"second", "scalar"})
        finally:
            go.set()
        assert [answer.result(HANG).status_code for answer in answers] == [200] * 4
    assert load(gateway, "num_requests_waiting") == load(gateway, "num_requests_running") == 0
    assert adapters(gateway).waiting == set()


def test_the_use_of_the_cache_is_a_share_of_its_room(
    gateway_server: RunningServer, gateway: httpx.Client
) -> None:
    cache = engine_of(gateway_server, "tiny-chat").runner.cache
    assert load(gateway, "kv_cache_usage_perc") == 0
    row = cache.open()
    try:
        assert cache.extend(row, 200)
        share = cache.used / cache.capacity
        assert 0 < share < 1
        assert load(gateway, "kv_cache_usage_perc") == load(gateway, "gpu_cache_usage_perc") == share
    finally:
        cache.close(row)


@pytest.mark.parametrize("mode", ["admin", "open"])
def test_who_has_no_admin_key_sees_no_adapter_of_another_tenant(
    serve: Callable[..., RunningServer],
    peft_saved: Mapping[str, PeftAdapter],
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve(gateway_metrics=mode, api_key=READER, admin_key=OWNER)
    with running.client(OWNER) as owner, running.client() as gateway:
        for name in ("first", "second"):
            published = upload(owner, name, peft_saved[name].zip()).json()
            ask(owner, name)
        every = running.app.state.server.every_tenant
        acme = TenantRegistry(every, "acme")
        acme.publish("mood", published["digest"], task=published["task"], verification={}, size=1)
        if mode == "open":
            # The references of others come first in order of stored name, and must not use up the limit.
            monkeypatch.setattr(gateway_metrics, "MOST_REFERENCES", 2)
            for alias in ("one", "two"):
                acme.set_alias("mood", alias, 1)
        assert exported(gateway).keys() - {LORA} == GAUGES
        if mode == "open":
            assert adapters(owner).running == adapters(gateway).running == {"first", "second"}
        else:
            assert LORA not in exported(gateway)
            assert adapters(owner).running == {"first", "second", "acme/mood"}

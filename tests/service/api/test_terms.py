"""A request says how urgent it is and for how long its answer is of use, on every route that computes."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from rootstock.service.api.errors import answer_error
from rootstock.service.engine.core.errors import Expired, RunnerFault

PREDICT = ("/v1/predict", {"model": "foundation", "inputs": "How urgent?"})
FAN_OUT = ("/v1/predict", {"models": ["foundation"], "inputs": "How urgent?"})
EMBED = ("/v1/embeddings", {"model": "foundation", "input": "How urgent?"})
RERANK = ("/v1/rerank", {"model": "foundation", "query": "How urgent?", "documents": ["Very."]})
COMPUTE = pytest.mark.parametrize(("route", "body"), [PREDICT, FAN_OUT, EMBED])
ALL = pytest.mark.parametrize(("route", "body"), [PREDICT, FAN_OUT, EMBED, RERANK])
HEADER = "X-Request-Timeout"
# Over before the engine can look at it.
AT_ONCE = 1e-6


def begun(client: httpx.Client, priority: str) -> float:
    """How many requests of a priority have been computed."""
    pattern = rf'^rootstock_queue_seconds_count{{priority="{priority}"}} (.*)$'
    match = re.search(pattern, client.get("/metrics").text, re.MULTILINE)
    return float(match[1]) if match else 0.0


@COMPUTE
@pytest.mark.parametrize("priority", ["high", "normal", "low"])
def test_a_request_waits_with_the_priority_that_it_gives(
    client: httpx.Client, route: str, body: dict[str, Any], priority: str
) -> None:
    before = begun(client, priority)
    assert client.post(route, json={**body, "priority": priority}).status_code == 200
    assert begun(client, priority) == before + 1


def test_a_request_that_gives_none_is_of_normal_priority(client: httpx.Client) -> None:
    before = begun(client, "normal")
    assert client.post(PREDICT[0], json=PREDICT[1]).status_code == 200
    assert begun(client, "normal") == before + 1


@pytest.mark.parametrize(("route", "body"), [PREDICT, EMBED])
@pytest.mark.parametrize(
    ("timeout", "header"), [(AT_ONCE, None), (None, AT_ONCE), (AT_ONCE, 30), (30, AT_ONCE)], ids=str
)
def test_a_request_ends_in_504_after_the_smaller_of_its_timeouts(
    client: httpx.Client, route: str, body: dict[str, Any], timeout: float | None, header: float | None
) -> None:
    headers = {} if header is None else {HEADER: f"{header:f}"}
    answer = client.post(route, json={**body, "timeout": timeout}, headers=headers)
    assert answer.status_code == 504, answer.text
    assert answer.json()["error"]["code"] == "deadline_exceeded"


def test_a_model_of_a_fan_out_that_is_not_answered_in_time_says_so_in_its_place(client: httpx.Client) -> None:
    route, body = FAN_OUT
    answer = client.post(route, json={**body, "timeout": AT_ONCE})
    assert [result["error"]["code"] for result in answer.json()["results"]] == ["deadline_exceeded"]


@COMPUTE
def test_a_request_with_time_enough_is_answered(client: httpx.Client, route: str, body: dict[str, Any]) -> None:
    answer = client.post(route, json={**body, "timeout": 30}, headers={HEADER: "29.5"})
    assert answer.status_code == 200, answer.text


@ALL
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"priority": 1}, "priority"),
        ({"priority": None}, "priority"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": 30.5}, "timeout"),
    ],
    ids=str,
)
def test_what_is_no_priority_or_no_timeout_of_this_server_is_refused_and_named(
    client: httpx.Client, route: str, body: dict[str, Any], fields: dict[str, Any], param: str
) -> None:
    answer = client.post(route, json={**body, **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text


@ALL
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "31"])
def test_a_header_that_is_no_timeout_of_this_server_is_refused_and_named(
    client: httpx.Client, route: str, body: dict[str, Any], value: str
) -> None:
    answer = client.post(route, json={**body, "timeout": 5}, headers={HEADER: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, HEADER), answer.text


def test_the_limits_say_how_long_the_server_waits(client: httpx.Client) -> None:
    most = client.get("/v1/limits").json()["max_timeout"]
    assert most == 30
    over = client.post(PREDICT[0], json={**PREDICT[1], "timeout": most + 1})
    message = over.json()["error"]["message"]
    assert message == "timeout is 31 seconds; the limit of this server is 30; ask for less"


def test_the_schema_states_priority_timeout_and_the_headers(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    for route, name in (("predict", "PredictBody"), ("embeddings", "EmbeddingsBody"), ("rerank", "RerankBody")):
        properties = schema["components"]["schemas"][name]["properties"]
        assert properties["priority"]["enum"] == ["high", "normal", "low"]
        assert "timeout" in properties
        parameters = schema["paths"][f"/v1/{route}"]["post"]["parameters"]
        assert [p["name"] for p in parameters if p["in"] == "header"] == [HEADER, "X-Request-Key"]


def test_a_request_that_came_too_late_is_no_fault_in_the_log() -> None:
    late, broken = Expired("not answered within 1 s"), RunnerFault("out of memory")
    with capture_logs() as logged:
        statuses = [answer_error({"path": "/v1/predict"}, error).status_code for error in (late, broken)]
    assert statuses == [504, 500]
    assert [entry["code"] for entry in logged] == ["runner_fault"]

"""MLflow's own scoring client calls /invocations with tables and lists, and the answers equal /v1/predict's."""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.live_server import RunningServer
from tests.peft_adapters import TEXTS

with warnings.catch_warnings():
    # MLflow warns about the type hints of its own functions.
    warnings.simplefilter("ignore")
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

pytestmark = pytest.mark.usefixtures("published")
PAIRS = {"text": TEXTS, "text_pair": TEXTS[::-1]}
ROWS = [{"text": a, "text_pair": b} for a, b in zip(*PAIRS.values(), strict=True)]


@pytest.fixture(scope="module")
def scorer(server: RunningServer) -> ScoringServerClient:
    host, port = server.url.removeprefix("http://").split(":")
    return ScoringServerClient(host, int(port))


def native(client: httpx.Client, model: str, inputs: Any, **parameters: Any) -> list[Any]:
    body = {"model": model, "inputs": inputs, "parameters": parameters}
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 200, answer.text
    listed: list[Any] = answer.json()["predictions"]
    return listed


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"text": TEXTS}),
        pd.DataFrame(TEXTS),
        pd.DataFrame({"review": TEXTS}, index=list("abcd")),
        np.array(TEXTS),
        np.array(TEXTS).reshape(-1, 1),
        TEXTS,
        json.dumps({"instances": TEXTS, "params": {"model": "mood", "top_k": 2}}),
        {"dataframe_records": [{"text": text} for text in TEXTS], "params": {"model": "mood", "top_k": 2}},
    ],
)
@pytest.mark.calls("mlflow-skinny", "ScoringServerClient.invoke")
def test_the_scoring_client_gets_the_native_predictions(
    client: httpx.Client, scorer: ScoringServerClient, data: Any
) -> None:
    if isinstance(data, dict):
        answer = scorer.invoke(json.dumps(data))
    else:
        answer = scorer.invoke(data, params={"model": "mood", "top_k": 2})
    assert answer.get_predictions(predictions_format="ndarray").tolist() == native(client, "mood", TEXTS, top_k=2)


def test_a_table_may_hold_pairs_or_questions(client: httpx.Client, scorer: ScoringServerClient) -> None:
    table = scorer.invoke(pd.DataFrame(PAIRS), params={"model": "ranking"})
    frame = table.get_predictions()
    assert frame["score"].tolist() == [one["score"] for one in native(client, "ranking", ROWS)]
    asked = {"question": ["Who met Babbage?"], "context": [TEXTS[3]]}
    read = scorer.invoke(pd.DataFrame(asked), params={"model": "reader"}).get_predictions()
    (expected,) = native(client, "reader", [{"question": asked["question"][0], "context": TEXTS[3]}])
    assert read["answer"].tolist() == [expected["answer"]]


@pytest.mark.parametrize(
    "body", [{"inputs": PAIRS}, {"inputs": ROWS}, {"instances": ROWS}, {"dataframe_records": ROWS}]
)
def test_pairs_come_as_rows_or_as_columns(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/invocations", json={**body, "params": {"model": "ranking"}})
    assert answer.json() == {"predictions": native(client, "ranking", ROWS)}


def test_one_text_or_one_row_is_a_list_of_one(client: httpx.Client) -> None:
    for inputs in ("x", ["x"], {"text": "x"}, {"text": ["x"]}):
        answer = client.post("/invocations", json={"inputs": inputs, "params": {"model": "mood"}})
        assert answer.json() == {"predictions": native(client, "mood", ["x"])}, inputs


@pytest.mark.calls("mlflow-skinny", "ScoringServerClient.ping")
@pytest.mark.calls("mlflow-skinny", "ScoringServerClient.wait_server_ready")
@pytest.mark.calls("mlflow-skinny", "ScoringServerClient.get_version")
def test_the_scoring_client_probes_and_reads_the_version(scorer: ScoringServerClient) -> None:
    scorer.wait_server_ready()
    assert json.loads(scorer.get_version()) == {"version": version("rootstock")}


def test_the_scoring_client_raises_what_the_server_refuses(scorer: ScoringServerClient) -> None:
    with pytest.raises(Exception, match=r"error code 404, response: .*nobody"):
        scorer.invoke(TEXTS, params={"model": "nobody"})


MOOD = {"params": {"model": "mood"}}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"inputs": "x"}, 422, "invalid_parameter", "params.model"),
        ({"inputs": "x", "params": {"model": 3}}, 422, "invalid_parameter", "params.model"),
        ({"inputs": "x", "params": []}, 422, "invalid_request", "params"),
        (MOOD, 422, "invalid_input", None),
        ({**MOOD, "inputs": "x", "instances": ["x"]}, 422, "invalid_input", None),
        ({**MOOD, "inputs": 3}, 422, "invalid_request", "inputs"),
        ({**MOOD, "inputs": []}, 422, "invalid_request", "inputs"),
        ({**MOOD, "inputs": {}}, 422, "invalid_request", "inputs"),
        ({**MOOD, "inputs": [[]]}, 422, "invalid_request", "inputs"),
        ({**MOOD, "inputs": [["a", "b"]]}, 422, "invalid_request", "inputs"),
        ({**MOOD, "inputs": {"text": ["a"], "text_pair": []}}, 422, "invalid_input", "inputs"),
        ({**MOOD, "inputs": {"text": ["a"], "mood": ["b"]}}, 422, "invalid_request", "inputs[0].mood"),
        ({**MOOD, "inputs": {"text": ["a"] * (2**14 + 1)}}, 413, "request_too_large", "inputs"),
        ({**MOOD, "instances": "x"}, 422, "invalid_request", "instances"),
        ({**MOOD, "instances": []}, 422, "invalid_request", "instances"),
        ({**MOOD, "instances": [{"text": 1, "text_pair": "x"}]}, 422, "invalid_request", "instances[0].text"),
        ({**MOOD, "instances": ["x"] * 257}, 413, "request_too_large", "instances"),
        ({**MOOD, "instances": ["word " * 100]}, 422, "input_too_long", "instances"),
        ({**MOOD, "dataframe_records": ["x"]}, 422, "invalid_request", "dataframe_records"),
        ({**MOOD, "dataframe_split": {"data": [["x"]]}}, 422, "invalid_request", "dataframe_split.columns"),
        ({**MOOD, "dataframe_split": {"columns": ["text"], "data": [["x", "y"]]}}, 422, "invalid_input", None),
        ({**MOOD, "dataframe_split": {"columns": ["a", "a"], "data": [["x", "y"]]}}, 422, "invalid_input", None),
        ({**MOOD, "dataframe_split": {"columns": [None], "data": [["x"]]}}, 422, "invalid_request", None),
        ({"inputs": "x", "params": {"model": "mood", "x": 1}}, 422, "invalid_parameter", "params.x"),
        ({"inputs": "x", "params": {"model": "nobody"}}, 404, "unknown_adapter", None),
        ({"inputs": "x", "params": {"model": "ranking"}}, 422, "invalid_input", "inputs[0]"),
        ({"signature_name": "x", **MOOD}, 422, "invalid_request", "signature_name"),
        ([], 422, "invalid_request", None),
    ],
)
def test_rows_that_no_task_takes_are_refused_by_their_field(
    client: httpx.Client, body: Any, status: int, code: str, param: str | None
) -> None:
    answer = client.post("/invocations", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    if param is not None:
        assert error["param"] == param, error
    assert 0 < len(error["message"]) < 1000


def test_csv_is_refused_with_the_remedy(client: httpx.Client) -> None:
    answer = client.post("/invocations", content=b"text\nx\n", headers={"Content-Type": "text/csv"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")

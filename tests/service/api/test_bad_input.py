"""Every bad input gets a clear error in the one shape, loses nothing, and leaves the server serving."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from tests.bounds import HANG
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter

OK = {"model": "foundation", "inputs": "still here"}


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in the one shape; every answer also has its request id."""
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    return error


@pytest.fixture(autouse=True)
def _still_serving(client: httpx.Client) -> Any:
    yield
    assert client.post("/v1/predict", json=OK).status_code == 200


@pytest.mark.parametrize("body", ["{", "", '{"model": "foundation", "inputs": "x"', "\x00"])
def test_malformed_json_is_400(client: httpx.Client, body: str) -> None:
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, error_of(answer)["type"]) in [
        (400, "invalid_request_error"),
        (422, "invalid_request_error"),
    ]
    if body:
        assert answer.status_code == 400


@pytest.mark.parametrize("reference", ["nobody", "nobody@3", "nobody@prod", "nobody@sha256:0123456789ab"])
def test_an_unknown_model_is_404_and_never_the_foundation_s_answer(client: httpx.Client, reference: str) -> None:
    answer = client.post("/v1/predict", json={"model": reference, "inputs": "x"})
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "unknown_adapter"


@pytest.mark.parametrize("reference", ["", "Ä", "a b", "../x", "a@", "a@0", "a@sha256:12", "x" * 200, "a\n"])
def test_a_reference_that_cannot_be_one_is_422(client: httpx.Client, reference: str) -> None:
    answer = client.post("/v1/predict", json={"model": reference, "inputs": "x"})
    assert answer.status_code == 422
    assert error_of(answer)["code"] == "invalid_reference"


@pytest.mark.parametrize("inputs", [[], 3, None, [3], [None], [["a", "b"]], {"a": 1}, True])
def test_inputs_of_the_wrong_type_or_an_empty_list_are_422(client: httpx.Client, inputs: Any) -> None:
    answer = client.post("/v1/predict", json={"model": "foundation", "inputs": inputs})
    assert answer.status_code == 422
    assert error_of(answer)["param"] == "inputs"


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        (["x", {"question": "x"}], "inputs[1].context"),
        ([{"question": "x", "context": 3}], "inputs[0].context"),
        ({"question": "x", "context": "y", "title": "z"}, "inputs.title"),
        ({"text": "x", "context": "y"}, "inputs.question"),
    ],
)
def test_an_input_whose_form_is_plain_is_refused_by_the_key_that_is_wrong(
    client: httpx.Client, inputs: Any, param: str
) -> None:
    answer = client.post("/v1/predict", json={"model": "foundation", "inputs": inputs})
    assert answer.status_code == 422
    assert error_of(answer)["param"] == param
    assert param in error_of(answer)["message"]


@pytest.mark.parametrize(
    "body",
    [{}, {"inputs": "x"}, {"model": "a", "models": ["b"], "inputs": "x"}, {"models": [], "inputs": "x"}, [], "x"],
)
def test_a_body_without_one_of_model_and_models_is_422(client: httpx.Client, body: Any) -> None:
    assert client.post("/v1/predict", json=body).status_code == 422


def test_an_unknown_key_is_422_and_named(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json={**OK, "temperature": 1})
    assert answer.status_code == 422
    assert error_of(answer)["param"] == "temperature"


def test_a_parameter_foreign_to_the_task_is_422_and_named(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json={**OK, "parameters": {"top_k": 2}})
    assert answer.status_code == 422
    assert error_of(answer)["param"] == "parameters.top_k"


def test_a_pair_for_a_task_without_pairs_is_422(client: httpx.Client) -> None:
    pair = {"text": "a", "text_pair": "b"}
    answer = client.post("/v1/predict", json={"model": "foundation", "inputs": [pair]})
    assert answer.status_code == 422


def test_more_inputs_than_the_limit_are_413_also_across_models(client: httpx.Client) -> None:
    many = ["x"] * 257
    assert client.post("/v1/predict", json={"model": "foundation", "inputs": many}).status_code == 413
    fan_out = {"models": ["foundation"] * 26, "inputs": ["x"] * 10}
    assert client.post("/v1/predict", json=fan_out).status_code == 413


def test_a_declared_body_over_the_cap_is_413_before_it_is_sent(server: RunningServer) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=HANG)
    connection.putrequest("POST", "/v1/predict")
    connection.putheader("Content-Length", str(10 * 2**20))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["code"] == "body_too_large"
    connection.close()


def test_an_undeclared_body_over_the_cap_is_413_while_it_is_read(server: RunningServer) -> None:
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(40):
            sent += 2**16
            yield b" " * 2**16

    with server.client() as client:
        answer = client.post("/v1/predict", content=chunks())
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "body_too_large"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/v1/predict", 405)])
def test_routes_that_do_not_exist_answer_in_the_one_shape(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert error_of(answer)["type"] == "invalid_request_error"


def test_a_given_request_id_comes_back_and_a_bad_one_is_replaced(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"X-Request-Id": "abc-123"}).headers["x-request-id"] == "abc-123"
    assert client.get("/livez", headers={"X-Request-Id": "x" * 500}).headers["x-request-id"] != "x" * 500


class BlockedRunner:
    """Holds the real runner's batches until told to go on, and counts the rows that it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.rows = 0
        run = OnnxRunner.run

        def wait_and_run(runner: OnnxRunner, batch: Any) -> Any:
            self.rows += len(batch.slots)
            self.entered.release()
            assert self.go.wait(HANG)
            return run(runner, batch)

        monkeypatch.setattr(OnnxRunner, "run", wait_and_run)


def test_a_full_queue_is_429_with_retry_after_and_recovers(
    serve: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = BlockedRunner(monkeypatch)
    running = serve(queue_items=5, batch_rows=1)
    answers: list[int] = []

    def send() -> None:
        with running.client() as client:
            answers.append(client.post("/v1/predict", json=OK).status_code)

    first = threading.Thread(target=send)
    first.start()
    assert blocked.entered.acquire(timeout=HANG)
    with running.client() as client:
        items, waiting = 0, [threading.Thread(target=send) for _ in range(4)]
        for thread in waiting:
            thread.start()
        while items < 4:
            items = _queued(client)
        refused = client.post("/v1/predict", json=OK)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert error_of(refused)["type"] == "rate_limit_error"
        never = client.post("/v1/predict", json={"model": "foundation", "inputs": ["x"] * 6})
        assert never.status_code == 413
        blocked.go.set()
        for thread in [first, *waiting]:
            thread.join(HANG)
        assert answers == [200] * 5
        assert client.post("/v1/predict", json=OK).status_code == 200


def test_a_client_that_left_is_not_computed(
    serve: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = BlockedRunner(monkeypatch)
    running = serve(batch_rows=1)
    host, port = running.url.removeprefix("http://").split(":")
    body = json.dumps(OK).encode()
    fields = ["POST /v1/predict HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head = "\r\n".join([*fields, f"Content-Length: {len(body)}", "", ""])
    connections = [socket.create_connection((host, int(port))) for _ in range(3)]
    connections[0].sendall(head.encode() + body)
    assert blocked.entered.acquire(timeout=HANG)
    with running.client() as client:
        for connection in connections[1:]:
            connection.sendall(head.encode() + body)
        while _queued(client) < 2:
            pass
        for connection in connections[1:]:
            connection.close()
        calls = running.app.state.server.foundations.first.engine.postprocessor.calls
        while len(calls) > 1:
            client.get("/livez")
        blocked.go.set()
        assert b" 200 " in connections[0].recv(100)
        assert client.post("/v1/predict", json=OK).status_code == 200
    assert blocked.rows == 2
    connections[0].close()


def test_a_fault_of_the_server_s_own_is_500_in_the_one_shape_and_is_logged_with_its_request_id(
    serve: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve()
    monkeypatch.setattr(running.app.state.server.registry, "list", lambda *_: 1 / 0)
    with running.client() as client:
        answer = client.get("/v1/adapters", headers={"X-Request-Id": "find-me"})
        assert answer.status_code == 500
        assert error_of(answer)["type"] == "server_error"
        assert "division" not in answer.text
        assert answer.headers["x-request-id"] == "find-me"
        logged = capfd.readouterr().err
        assert '"request_id": "find-me"' in logged
        assert "ZeroDivisionError" in logged
        assert "locals" not in logged, "a log must not hold keys or what users sent"
        assert 'rootstock_requests_total{route="/v1/adapters",status="500"} 1.0' in client.get("/metrics").text


def _queued(client: httpx.Client) -> int:
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("rootstock_queue_items{")).split()[1]))


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "foundation", "inputs": "\\ud800"}',
        '{"models": ["foundation", "\\ud800"], "inputs": "x"}',
        '{"model": "foundation", "inputs": "x", "parameters": {"\\ud800": 1}}',
    ],
)
def test_text_that_utf_8_cannot_hold_is_400(client: httpx.Client, body: str) -> None:
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "surrogate" in error_of(answer)["message"]


@pytest.mark.parametrize(
    "fields", [{"activte": "false"}, {"name": ["one", "two"]}, {"labels": "[" * 100_000}, {"max_length": "many"}]
)
def test_form_fields_that_are_unknown_twice_or_unreadable_publish_nothing(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter], fields: dict[str, Any]
) -> None:
    files = {"bundle": ("x.zip", peft_saved["first"].zip(), "application/zip")}
    answer = client.post("/v1/adapters", data={"name": "typo", **fields}, files=files)
    assert answer.status_code == 422
    assert len(error_of(answer)["message"]) < 1000
    assert client.get("/v1/adapters/typo").status_code == 404


def test_a_stored_bundle_that_was_damaged_is_neither_served_nor_handed_out(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]
) -> None:
    running = serve()
    with running.client() as client:
        digest = upload(client, "mood", peft_saved["first"].zip()).json()["digest"]
        path = running.app.state.server.foundations.first.catalog.store.path(digest)
        path.write_bytes(path.read_bytes()[:500])
        answer = client.get("/v1/adapters/mood/versions/1/bundle")
        assert (answer.status_code, error_of(answer)["code"]) == (500, "corrupt_bundle")


def test_a_server_whose_registry_is_gone_is_not_ready(serve: Callable[..., RunningServer]) -> None:
    running = serve()
    home = running.app.state.server.foundations.first.catalog.store.path("sha256:" + "0" * 64).parents[2]
    with running.client() as client:
        assert client.head("/readyz").status_code == 200
        for path in home.glob("registry.db*"):
            path.unlink()
        answer = client.get("/readyz")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "registry_unavailable")


def test_a_server_that_drains_answers_and_asks_its_clients_to_leave(serve: Callable[..., RunningServer]) -> None:
    running = serve()
    with running.client() as client:
        assert "connection" not in client.get("/readyz").headers
        running.app.state.server.ready = False
        answer = client.post("/v1/predict", json={"model": "foundation", "inputs": "still here"})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200


def test_an_alias_to_a_version_that_does_not_exist_is_404(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    assert upload(client, "aliased", peft_saved["first"].zip()).status_code == 201
    answer = client.put("/v1/adapters/aliased/aliases/prod", json={"version": 9})
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "unknown_version"
    assert client.post("/v1/predict", json={"model": "aliased@prod", "inputs": "x"}).status_code == 404


def test_a_failed_upload_names_check_and_member_and_publishes_nothing(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    before = client.get("/v1/adapters").json()
    for data, check in (
        (b"not a zip", "rejected_members"),
        (peft_saved["first"].zip()[:-400], "rejected_members"),
    ):
        answer = upload(client, "broken", data)
        assert answer.status_code == 422
        assert error_of(answer)["code"] == check
    wrong_labels = upload(client, "broken", peft_saved["first"].zip(), labels='["a", "b"]')
    assert error_of(wrong_labels)["code"] == "rejected_labels"
    assert "3 outputs; there are 2 labels" in error_of(wrong_labels)["message"]
    assert client.get("/v1/adapters").json() == before


def test_labels_are_a_list_or_an_id2label_and_anything_else_publishes_nothing(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    data = peft_saved["first"].zip()
    assert upload(client, "named", data, labels='{"2": "c", "0": "a", "1": "b"}').status_code == 201
    question = {"model": "named", "inputs": "x", "parameters": {"top_k": None}}
    given = {entry["label"] for entry in client.post("/v1/predict", json=question).json()["predictions"][0]}
    assert given == {"a", "b", "c"}
    wrong = {
        "a,b,c": "is not JSON",
        '{"0": "a", "1": "b", "3": "c"}': "has other keys than the ids 0 to 2",
        '{"a": 0, "b": 1, "c": 2}': "has other keys than the ids 0 to 2",
        '{"0": "a", "0": "b", "1": "c"}': "same key twice",
        '{"0": "a", "1": "b", "2": 3}': "is not a list of strings",
        '["a", "b", null]': "is not a list of strings",
        '["a", "b", ""]': "label 2 is empty",
        '["a", " ", "c"]': "label 1 is empty",
        '["a", "b", "\\ud800"]': "surrogate",
        "NaN": "is not a list of strings",
    }
    for labels, told in wrong.items():
        answer = upload(client, "unnamed", data, labels=labels)
        assert (answer.status_code, error_of(answer)["code"]) == (422, "rejected_labels"), labels
        assert told in error_of(answer)["message"], labels
    assert client.get("/v1/adapters/unnamed").status_code == 404


def test_an_adapter_whose_outputs_are_not_finite_is_refused_by_the_probe(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter], tmp_path: Any
) -> None:
    from safetensors.numpy import load_file, save_file

    saved = peft_saved["first"]
    tensors = load_file(saved.folder / "adapter_model.safetensors")
    huge = {k: np.full_like(v, 3e38) if "lora" in k else v for k, v in tensors.items()}
    for path in saved.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file(huge, tmp_path / "adapter_model.safetensors")
    answer = upload(client, "huge", PeftAdapter(tmp_path, saved.task_type, saved.labels).zip())
    assert answer.status_code == 422
    assert error_of(answer)["code"] in ("rejected_golden", "rejected_finite")
    assert client.get("/v1/adapters/huge").status_code == 404

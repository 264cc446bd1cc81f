"""The Open Inference Protocol: tritonclient calls every task, and the answers equal those of /v1/predict."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.live_server import OWNER, READER, RunningServer
from tests.peft_adapters import TEXTS

pytestmark = pytest.mark.usefixtures("published")
HEADER = "Inference-Header-Content-Length"
PAIRS = list(zip(TEXTS, TEXTS[::-1], strict=True))
QUESTIONS = ["Who met Babbage?", "When?", "Where was it?", "Who?"]


@pytest.fixture(scope="module")
def caller(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as caller:
        yield caller


def tensor(name: str, texts: list[str], binary: bool = True, shape: list[int] | None = None) -> Any:
    made = triton.InferInput(name, shape or [len(texts)], "BYTES")
    made.set_data_from_numpy(np.array(texts, dtype=object).reshape(shape or [len(texts)]), binary_data=binary)
    return made


def native(client: httpx.Client, model: str, inputs: Any, **parameters: Any) -> list[Any]:
    body = {"model": model, "inputs": inputs, "parameters": parameters}
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 200, answer.text
    listed: list[Any] = answer.json()["predictions"]
    return listed


def strings(array: np.ndarray) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else one for one in array.ravel().tolist()]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [[len(TEXTS)], [len(TEXTS), 1]])
@pytest.mark.calls("tritonclient", "infer")
def test_a_classifier_gives_labels_and_scores(
    client: httpx.Client, caller: triton.InferenceServerClient, binary: bool, shape: list[int]
) -> None:
    outputs = [triton.InferRequestedOutput(n, binary) for n in ("scores", "label", "score", "labels")]
    inputs = [tensor("text", TEXTS, binary, shape)]
    result = caller.infer("mood", inputs, outputs=outputs, request_id="r1")
    best = native(client, "mood", TEXTS)
    assert strings(result.as_numpy("label")) == [one["label"] for one in best]
    assert np.allclose(result.as_numpy("score"), [one["score"] for one in best])
    labels = strings(result.as_numpy("labels"))
    every = native(client, "mood", TEXTS, top_k=None)
    expected = [[{one["label"]: one["score"] for one in row}[name] for name in labels] for row in every]
    assert labels == ["slow", "fine", "lost"]
    assert np.allclose(result.as_numpy("scores"), expected)
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("mood", "2", "r1")
    assert [one["name"] for one in answer["outputs"]] == ["scores", "label", "score", "labels"]


def test_without_requested_outputs_all_come_as_bytes(
    client: httpx.Client, caller: triton.InferenceServerClient
) -> None:
    result = caller.infer("mood", [tensor("text", TEXTS)])
    assert [one["name"] for one in result.get_response()["outputs"]] == ["label", "score", "labels", "scores"]
    assert all("data" not in one for one in result.get_response()["outputs"])
    assert strings(result.as_numpy("label")) == [one["label"] for one in native(client, "mood", TEXTS)]


def test_a_version_is_called_and_a_parameter_reaches_the_task(
    client: httpx.Client, caller: triton.InferenceServerClient
) -> None:
    logits = {"function_to_apply": "none"}
    result = caller.infer("mood", [tensor("text", TEXTS)], model_version="1", parameters=logits)
    expected = native(client, "mood@1", TEXTS, **logits)
    assert np.allclose(result.as_numpy("score"), [one["score"] for one in expected])
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("model", ["foundation", "embedder", "embedder@1"])
def test_an_embedder_gives_one_matrix(
    client: httpx.Client, caller: triton.InferenceServerClient, model: str
) -> None:
    result = caller.infer(model, [tensor("text", TEXTS)])
    assert np.allclose(result.as_numpy("embeddings"), np.array(native(client, model, TEXTS)))
    assert ("model_version" in result.get_response()) == (model != "foundation")


def test_pairs_are_ranked_and_classified(client: httpx.Client, caller: triton.InferenceServerClient) -> None:
    pairs = [{"text": a, "text_pair": b} for a, b in PAIRS]
    tensors = [tensor("text_pair", [b for _, b in PAIRS], binary=False), tensor("text", [a for a, _ in PAIRS])]
    ranked = caller.infer("ranking", tensors).as_numpy("score")
    assert np.allclose(ranked, [one["score"] for one in native(client, "ranking", pairs)])
    classified = caller.infer("mood", tensors).as_numpy("score")
    assert np.allclose(classified, [one["score"] for one in native(client, "mood", pairs)])


def test_other_tasks_give_their_predictions_as_json(
    client: httpx.Client, caller: triton.InferenceServerClient
) -> None:
    tagged = caller.infer("tagger", [tensor("text", TEXTS)], parameters={"aggregation_strategy": "simple"})
    assert [json.loads(one) for one in strings(tagged.as_numpy("predictions"))] == native(
        client, "tagger", TEXTS, aggregation_strategy="simple"
    )
    both = [tensor("question", QUESTIONS), tensor("context", TEXTS)]
    asked = [{"question": q, "context": c} for q, c in zip(QUESTIONS, TEXTS, strict=True)]
    read = [json.loads(one) for one in strings(caller.infer("reader", both).as_numpy("predictions"))]
    assert read == native(client, "reader", asked)


def test_the_only_input_may_have_any_name(client: httpx.Client, caller: triton.InferenceServerClient) -> None:
    named = [caller.infer("mood", [tensor(n, TEXTS)]).as_numpy("score") for n in ("text", "input-0")]
    assert np.array_equal(*named)


@pytest.mark.calls("tritonclient", "is_server_live")
@pytest.mark.calls("tritonclient", "is_server_ready")
@pytest.mark.calls("tritonclient", "is_model_ready")
@pytest.mark.calls("tritonclient", "get_server_metadata")
@pytest.mark.calls("tritonclient", "get_model_metadata")
@pytest.mark.calls("tritonclient", "get_model_repository_index")
def test_metadata_readiness_and_index_name_what_can_be_called(
    client: httpx.Client, caller: triton.InferenceServerClient
) -> None:
    assert caller.is_server_live()
    assert caller.is_server_ready()
    assert caller.get_server_metadata()["name"] == "rootstock"
    mood = caller.get_model_metadata("mood")
    assert mood["versions"] == ["1", "2"]
    assert mood["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    for model in ("mood", "ranking", "embedder", "tagger", "reader", "foundation"):
        metadata = caller.get_model_metadata(model)
        tensors = [tensor(one["name"], TEXTS) for one in metadata["inputs"]]
        given = caller.infer(model, tensors).get_response()["outputs"]
        forms = [(one["name"], one["datatype"], len(one["shape"])) for one in given]
        assert forms == [(one["name"], one["datatype"], len(one["shape"])) for one in metadata["outputs"]]
        assert caller.is_model_ready(model)
    assert caller.get_model_metadata("mood", "1") == mood
    assert caller.is_model_ready("mood", "1")
    assert not caller.is_model_ready("mood", "9")
    assert not caller.is_model_ready("nobody")
    index = caller.get_model_repository_index()
    listed = {(one["name"], one["version"]) for one in index}
    assert {("foundation", ""), ("mood", "1"), ("mood", "2"), ("reader", "1")} <= listed
    assert {one["state"] for one in index} == {"READY"}


def test_an_error_is_one_that_tritonclient_reads(caller: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"^\[404\].*nobody"):
        caller.infer("nobody", [tensor("text", TEXTS)])
    with pytest.raises(InferenceServerException, match=r"^\[404\].*nobody"):
        caller.get_model_metadata("nobody")
    with pytest.raises(InferenceServerException, match=r"there is no output 'logits'; this model has label"):
        caller.infer("mood", [tensor("text", TEXTS)], outputs=[triton.InferRequestedOutput("logits")])
    with pytest.raises(InferenceServerException, match=r"^\[422\].*class_count|classification"):
        caller.infer("mood", [tensor("text", TEXTS)], outputs=[triton.InferRequestedOutput("label", True, 2)])
    with pytest.raises(InferenceServerException, match=r"^\[404\] there is no route GET /v2/models/mood/stats"):
        caller.get_inference_statistics("mood")
    with pytest.raises(
        InferenceServerException, match=r"^\[404\] there is no route POST /v2/repository/models/mood/load"
    ):
        caller.load_model("mood")
    numbers = triton.InferInput("text", [1], "FP32")
    numbers.set_data_from_numpy(np.zeros(1, np.float32))
    with pytest.raises(InferenceServerException, match="datatype FP32"):
        caller.infer("mood", [numbers])


def test_a_refusal_before_the_route_is_one_that_tritonclient_reads(serve: Callable[..., RunningServer]) -> None:
    running = serve(api_key=READER, admin_key=OWNER, max_body_mb=1)
    with triton.InferenceServerClient(running.url.removeprefix("http://")) as caller:
        inputs = [tensor("text", ["x"])]
        with pytest.raises(InferenceServerException, match=r"^\[401\] the request has no key"):
            caller.infer("foundation", inputs)
        with pytest.raises(InferenceServerException, match=r"^\[403\] this key does not allow"):
            caller.infer("foundation", inputs, headers={"Authorization": "Bearer wrong"})
        key = {"Authorization": f"Bearer {READER}"}
        with pytest.raises(InferenceServerException, match=r"^\[413\] the body has at least"):
            caller.infer("foundation", [tensor("text", ["x" * 2**20])], headers=key)
        assert caller.infer("foundation", inputs, headers=key).as_numpy("embeddings").shape == (1, 384)
    with running.client() as stranger:
        assert stranger.get("/v2").headers["www-authenticate"] == "Bearer"
        # Cohere's API has routes under /v2 too, and its errors have the common form.
        assert stranger.post("/v2/embed", json={"texts": ["x"]}).json()["error"]["code"] == "missing_key"


ONE: dict[str, Any] = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}
BINARY = {**{k: v for k, v in ONE.items() if k != "data"}, "parameters": {"binary_data_size": 5}}
HUGE = {"name": "text", "datatype": "BYTES", "shape": [257], "data": ["x"] * 257}


@pytest.mark.parametrize(
    ("model", "body", "status"),
    [
        ("mood", {}, 422),
        ("mood", [], 422),
        ("mood", {"inputs": []}, 422),
        ("mood", {"inputs": "x"}, 422),
        ("mood", {"inputs": ["x"]}, 422),
        ("mood", {"inputs": [{}]}, 422),
        ("mood", {"inputs": [{**ONE, "shape": [2]}]}, 422),
        ("mood", {"inputs": [{**ONE, "shape": [-1]}]}, 422),
        ("mood", {"inputs": [{**ONE, "shape": []}]}, 422),
        ("mood", {"inputs": [{**ONE, "shape": [True]}]}, 422),
        ("mood", {"inputs": [{**ONE, "shape": [2**40]}]}, 422),
        ("mood", {"inputs": [{**ONE, "shape": [1, 2], "data": ["x", "y"]}]}, 422),
        ("mood", {"inputs": [{**ONE, "shape": [0], "data": []}]}, 422),
        ("mood", {"inputs": [{**ONE, "data": [1]}]}, 422),
        ("mood", {"inputs": [{**ONE, "data": [None]}]}, 422),
        ("mood", {"inputs": [{**ONE, "data": "x"}]}, 422),
        ("mood", {"inputs": [{**ONE, "data": [{"text": "x"}]}]}, 422),
        ("mood", {"inputs": [{k: v for k, v in ONE.items() if k != "data"}]}, 422),
        ("mood", {"inputs": [{**ONE, "datatype": "FP32"}]}, 422),
        ("mood", {"inputs": [{**ONE, "datatype": "bytes"}]}, 422),
        ("mood", {"inputs": [{**ONE, "content": 1}]}, 422),
        ("mood", {"inputs": [{**ONE, "parameters": {"x": 1}}]}, 422),
        ("mood", {"inputs": [{**ONE, "parameters": {"binary_data_size": 1}}]}, 422),
        ("mood", {"inputs": [BINARY]}, 422),
        ("mood", {"inputs": [ONE, ONE]}, 422),
        ("mood", {"inputs": [ONE, {**ONE, "name": "context"}]}, 422),
        ("mood", {"inputs": [ONE] * 9}, 422),
        ("mood", {"inputs": [ONE, {**ONE, "name": "text_pair", "shape": [2], "data": ["x", "y"]}]}, 422),
        ("mood", {"inputs": [HUGE]}, 413),
        ("mood", {"inputs": [{**ONE, "shape": [2**14 + 1], "data": ["x"] * (2**14 + 1)}]}, 413),
        ("mood", {"inputs": [{**ONE, "data": ["word " * 100]}]}, 422),
        ("mood", {"inputs": [ONE], "outputs": [{"name": "logits"}]}, 422),
        ("mood", {"inputs": [ONE], "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]}, 422),
        ("mood", {"inputs": [ONE], "parameters": {"top_k": 2}}, 422),
        ("mood", {"inputs": [ONE], "parameters": {"sequence_id": 2}}, 422),
        ("mood", {"inputs": [ONE], "parameters": {"binary_data_output": "yes"}}, 422),
        ("mood", {"inputs": [ONE], "id": 7}, 422),
        ("mood", {"inputs": [ONE], "model_name": "ranking"}, 422),
        ("mood@x@y", {"inputs": [ONE]}, 422),
        ("nobody", {"inputs": [ONE]}, 404),
        ("ranking", {"inputs": [ONE]}, 422),
        ("reader", {"inputs": [ONE]}, 422),
        ("tagger", {"inputs": [ONE, {**ONE, "name": "text_pair"}]}, 422),
        ("mood/versions/9", {"inputs": [ONE]}, 404),
        ("mood/versions/0", {"inputs": [ONE]}, 422),
        ("mood/versions/one", {"inputs": [ONE]}, 422),
        ("mood@1/versions/1", {"inputs": [ONE]}, 422),
        ("foundation/versions/1", {"inputs": [ONE]}, 422),
    ],
)
def test_tensors_that_no_task_takes_are_refused_in_the_protocol_s_form(
    client: httpx.Client, model: str, body: Any, status: int
) -> None:
    answer = client.post(f"/v2/models/{model}/infer", json=body)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)
    assert 0 < len(answer.json()["error"]) < 1000


def packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    ("size", "tail", "header"),
    [
        (5, packed(b"x")[:4], None),
        (5, packed(b"x") + b"y", None),
        (4, packed(b"x")[:4], None),
        (5, b"\xff\xff\xff\xffx", None),
        (5, packed(b"\xff"), None),
        (3, b"\1\0\0", None),
        (0, b"", None),
        (2**40, packed(b"x"), None),
        (5, packed(b"x"), "-1"),
        (5, packed(b"x"), "²"),
        (5, packed(b"x"), "9" * 5000),
        (5, packed(b"x"), "10"),
        (5, packed(b"x"), "99999"),
        (5, packed(b"x"), ""),
    ],
)
def test_bytes_that_do_not_fit_their_json_are_refused(
    client: httpx.Client, size: int, tail: bytes, header: str | None
) -> None:
    head = json.dumps({"inputs": [{**BINARY, "parameters": {"binary_data_size": size}}]}).encode()
    headers = {HEADER: (str(len(head)) if header is None else header).encode("latin-1")}
    answer = client.post("/v2/models/mood/infer", content=head + tail, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert isinstance(answer.json()["error"], str)


def test_bytes_that_fit_their_json_are_read(client: httpx.Client) -> None:
    head = json.dumps({"inputs": [{**BINARY, "parameters": {"binary_data_size": 6}}]}).encode()
    headers = {HEADER: str(len(head)), "Content-Type": "application/octet-stream"}
    tail = packed("é".encode())
    answer = client.post("/v2/models/mood/infer", content=head + tail, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [one["label"] for one in native(client, "mood", ["é"])]


@pytest.mark.parametrize(
    ("model", "instances"),
    [
        ("mood", TEXTS),
        ("mood@1", [{"text": a, "text_pair": b} for a, b in PAIRS]),
        ("foundation", TEXTS[:1]),
        ("reader", [{"question": q, "context": c} for q, c in zip(QUESTIONS, TEXTS, strict=True)]),
    ],
)
@pytest.mark.calls("HTTP", "POST /v1/models/{ref}:predict")
def test_instances_of_the_v1_protocol_are_predicted(client: httpx.Client, model: str, instances: Any) -> None:
    answer = client.post(f"/v1/models/{model}:predict", json={"instances": instances})
    assert answer.json() == {"predictions": native(client, model, instances)}


@pytest.mark.parametrize(
    ("model", "body", "status", "code"),
    [
        ("mood", {}, 422, "invalid_request"),
        ("mood", {"instances": []}, 422, "invalid_request"),
        ("mood", {"instances": "x"}, 422, "invalid_request"),
        ("mood", {"instances": [1]}, 422, "invalid_request"),
        ("mood", {"instances": [{"txt": "x"}]}, 422, "invalid_request"),
        ("mood", {"inputs": ["x"]}, 422, "invalid_request"),
        ("mood", {"instances": ["x"], "parameters": {"x": 1}}, 422, "invalid_parameter"),
        ("mood", {"instances": ["x"] * 257}, 413, "request_too_large"),
        ("nobody", {"instances": ["x"]}, 404, "unknown_adapter"),
        ("reader", {"instances": ["x"]}, 422, "invalid_input"),
        ("a:b", {"instances": ["x"]}, 422, "invalid_reference"),
    ],
)
def test_instances_that_no_task_takes_are_refused(
    client: httpx.Client, model: str, body: Any, status: int, code: str
) -> None:
    answer = client.post(f"/v1/models/{model}:predict", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text

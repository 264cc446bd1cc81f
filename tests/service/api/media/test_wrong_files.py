"""A request with a file that cannot be read, or for a model of texts, is refused by its field and never fails."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.live_server import RunningServer
from tests.media import PNG, WAV

PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
IMAGE = {"image": {"b64": base64.b64encode(PNG).decode()}}
AUDIO = {"audio": {"b64": base64.b64encode(WAV).decode()}}
NO_IMAGES = "is an image, and the model takes a text (modality text)"
NO_RECORDINGS = "is a recording, and the model takes a text (modality text)"


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert 0 < len(error["message"]) < 600
    return answer.status_code, error["param"], error["message"]


@pytest.mark.parametrize(
    ("inputs", "param", "words"),
    [
        (IMAGE, "inputs[0]", NO_IMAGES),
        ({"image": PNG_URL}, "inputs[0]", NO_IMAGES),
        (AUDIO, "inputs[0]", NO_RECORDINGS),
        (["x", {"text": "x", "text_pair": "y"}, AUDIO, IMAGE], "inputs[2]", NO_RECORDINGS),
        ({"image": {"b64": "AAA"}}, "inputs[0].image.b64", "3 characters, not a multiple of 4"),
        ({"image": {"b64": PNG_URL}}, "inputs[0].image.b64", "a data URL; send it as the value of 'image'"),
        ({"image": {"b64": ""}}, "inputs[0].image.b64", "an empty file"),
        ({"audio": PNG_URL}, "inputs[0].audio", "send it under 'image'"),
        (["x", {"image": "photo.png"}], "inputs[1].image", "not base64"),
        ({"image": "https://images.example/a.png"}, "inputs[0].image", "ROOTSTOCK_MEDIA_HOSTS"),
        ({"image": "HTTP://127.0.0.1/"}, "inputs[0].image", "ROOTSTOCK_MEDIA_HOSTS"),
        ({"image": "file:///etc/passwd"}, "inputs[0].image", "ROOTSTOCK_MEDIA_HOSTS"),
        ({"image": None}, "inputs.image", "string"),
        ({"image": 3}, "inputs.image", "string"),
        ({"image": [IMAGE]}, "inputs.image", "string"),
        ([{"image": {}}], "inputs[0].image.b64", "required"),
        ([{"image": {"b64": 3}}], "inputs[0].image.b64", "string"),
        ([{"image": {"b64": "AAAA", "x": 1}}], "inputs[0].image.x", "not permitted"),
        ([IMAGE | AUDIO], "inputs[0].audio", "not permitted"),
        ([IMAGE | {"text": "x"}], "inputs[0].image", "not permitted"),
        ({"images": "AAAA"}, "inputs", "{image}, {audio}"),
    ],
)
def test_a_file_is_refused_by_its_place(client: httpx.Client, inputs: Any, param: str, words: str) -> None:
    for models in ({"model": "foundation"}, {"models": ["foundation", "foundation"]}):
        status, place, message = error_of(client.post("/v1/predict", json={**models, "inputs": inputs}))
        assert (status, place) == (422, param), message
        assert words in message


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/models/foundation:predict", {"instances": [IMAGE]}, "inputs[0]"),
        ("/invocations", {"instances": [IMAGE], "params": {"model": "foundation"}}, "instances[0]"),
        ("/models/foundation/pipeline/feature-extraction", {"inputs": IMAGE}, "inputs[0]"),
        ("/models/foundation/pipeline/feature-extraction", {"inputs": [IMAGE]}, "inputs[0]"),
        ("/v1/embeddings", {"model": "foundation", "input": [IMAGE]}, "input[0]"),
        ("/v1/embeddings", {"model": "foundation", "input": [{"image": PNG_URL}]}, "input[0]"),
        ("/v1/embeddings", {"model": "foundation", "input": PNG_URL, "modality": "image"}, "input[0]"),
        ("/embeddings", {"input": [PNG_URL], "modality": "image"}, "input[0]"),
        ("/v1/embeddings", {"model": "foundation", "input": [IMAGE, {"text": "x"}]}, "input"),
        ("/v1/embeddings", {"model": "foundation", "input": [1, 2], "modality": "image"}, "input"),
        ("/v1/embeddings", {"model": "foundation", "input": ["x", IMAGE]}, "input"),
        ("/v1/embeddings", {"model": "foundation", "input": [{"image": 3}]}, "input[0].image"),
        ("/v1/embeddings", {"model": "foundation", "input": []}, "input"),
        ("/v1/embeddings", {"model": "foundation", "input": "x", "modality": "video"}, "modality"),
    ],
)
def test_every_route_with_inputs_refuses_a_file_for_a_model_of_texts(
    client: httpx.Client, path: str, body: Any, param: str
) -> None:
    status, place, message = error_of(client.post(path, json=body))
    assert (status, place) == (422, param), message


def test_an_allowed_host_is_asked_only_at_a_public_address(serve: Callable[..., RunningServer]) -> None:
    body = {"model": "foundation", "inputs": ["x", {"image": "http://localhost/a.png"}]}
    with serve(media_hosts="localhost, images.example").client() as client:
        status, param, message = error_of(client.post("/v1/predict", json=body))
        assert (status, param) == (422, "inputs[1].image")
        assert "localhost has an address that is not public" in message
        body["inputs"] = {"image": "http://other.example/a.png"}
        assert "not among the hosts" in error_of(client.post("/v1/predict", json=body))[2]


def test_jina_s_texts_are_embedded_as_strings_are(client: httpx.Client) -> None:
    texts = ["a", "b"]
    answers = [
        client.post("/v1/embeddings", json={"model": "foundation", "input": given}).json()["data"]
        for given in (texts, [{"text": text} for text in texts])
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("fields", "files", "status", "param", "words"),
    [
        ({"model": "foundation"}, [("file", PNG)], 422, "inputs[0]", NO_IMAGES),
        ({"model": "foundation"}, [("files", PNG), ("files", WAV)], 422, "inputs[0]", NO_IMAGES),
        ({"model": "foundation"}, [("audio", b"x")], 422, "inputs[0]", NO_RECORDINGS),
        ({"models": ["foundation", "foundation"]}, [("image", b"x")], 422, "inputs[0]", NO_IMAGES),
        ({"model": "foundation"}, [("file", b"x")], 422, "file", "under image or audio"),
        ({"model": "foundation"}, [("image", b"")], 422, "inputs[0].image", "empty file"),
        ({"model": "foundation"}, [("photo", PNG)], 422, "photo", "send files under file, files, image, audio"),
        ({"model": ["foundation", "x"]}, [("file", PNG)], 422, "model", "given twice"),
        ({"model": "foundation", "models": "x"}, [("file", PNG)], 422, "models", "send one of the two"),
        ({}, [("file", PNG)], 422, "model", "is missing"),
        ({"model": "foundation", "parameters": "{"}, [("file", PNG)], 422, "parameters", "not JSON"),
        ({"model": "foundation", "parameters": "[]"}, [("file", PNG)], 422, "parameters", "dictionary"),
        ({"model": "foundation", "timeout": "soon"}, [("file", PNG)], 422, "timeout", "not JSON"),
        ({"model": "foundation", "priority": "high!"}, [("file", PNG)], 422, "priority", "Input should be"),
        ({"model": "foundation", "inputs": "x"}, [("file", PNG)], 422, "inputs", "both inputs and files"),
        ({"model": "foundation", "top_k": "1"}, [("file", PNG)], 422, "top_k", "unknown field"),
    ],
)
def test_a_form_is_refused_by_its_field(
    client: httpx.Client, fields: Any, files: Any, status: int, param: str, words: str
) -> None:
    parts = [(name, ("name", data, "application/octet-stream")) for name, data in files]
    found, place, message = error_of(client.post("/v1/predict", data=fields, files=parts))
    assert (found, place) == (status, param), message
    assert words in message


def test_a_form_without_a_file_is_refused_or_has_a_text(client: httpx.Client) -> None:
    none = client.post("/v1/predict", files={"model": (None, "foundation")})
    assert error_of(none) == (422, "file", "the form has no file; send one under file, files, image, audio")
    text = client.post("/v1/predict", files={"model": (None, "foundation"), "inputs": (None, "x")})
    assert text.status_code == 200


def test_a_form_of_too_many_files_is_refused_with_the_limit(client: httpx.Client) -> None:
    parts = [("image", ("name.png", PNG, "image/png"))] * 257
    answer = client.post("/v1/predict", data={"model": "foundation"}, files=parts)
    assert answer.status_code == 400
    assert "Too many files. Maximum number of files is 256" in answer.json()["error"]["message"]


def test_inputs_in_the_query_do_not_replace_a_body_that_is_a_file(client: httpx.Client) -> None:
    query = {"model": "foundation", "inputs": "x"}
    answer = client.post("/v1/predict", params=query, content=PNG, headers={"content-type": "image/png"})
    assert error_of(answer) == (
        422,
        "inputs",
        "the query has inputs, and the body is a file; send one of the two",
    )


def test_the_type_of_a_part_goes_before_its_name_and_the_name_before_the_content(client: httpx.Client) -> None:
    def refusal(name: str, data: bytes, kind: str) -> str:
        files = {name: ("name", data, kind)}
        return error_of(client.post("/v1/predict", data={"model": "foundation"}, files=files))[2]

    assert NO_RECORDINGS in refusal("image", PNG, "audio/wav")
    assert NO_RECORDINGS in refusal("audio", PNG, "application/octet-stream")
    assert NO_IMAGES in refusal("file", PNG, "text/plain")
    assert NO_RECORDINGS in refusal("file", WAV, "application/octet-stream")


@pytest.mark.parametrize("path", ["/v1/predict?model=foundation", "/models/foundation", "/"])
@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("image/png", PNG, "image"),
        ("image/jpeg", b"anything", "image"),
        ("IMAGE/PNG; name=x", b"{}", "image"),
        ("audio/flac", b"anything", "recording"),
        ("application/octet-stream", PNG, "image"),
        ("application/octet-stream", WAV, "recording"),
        (None, PNG, "image"),
        (None, WAV, "recording"),
    ],
)
def test_a_body_that_is_a_file_is_refused_by_a_model_of_texts(
    client: httpx.Client, path: str, kind: str | None, data: bytes, words: str
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post(path, content=data, headers=headers)
    status, param, message = error_of(answer)
    assert (status, words in message, "text" in message) == (422, True, True), message
    assert param == "inputs[0]"


def test_a_file_of_no_known_kind_is_415_with_the_types_that_are_read(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    answer = client.post("/v1/predict?model=foundation", content=b"\x00" * 100, headers=headers)
    assert answer.status_code == 415
    assert "a file as image/… or audio/…" in answer.json()["error"]["message"]
    empty = client.post("/v1/predict?model=foundation", content=b"", headers={"Content-Type": "image/png"})
    assert error_of(empty)[:2] == (422, "inputs[0].image")


def test_a_body_over_the_limit_is_413_with_the_setting_s_name(client: httpx.Client) -> None:
    photo = b"\xff\xd8\xff" + b"x" * 2**20
    body = {"model": "foundation", "inputs": {"image": {"b64": base64.b64encode(photo).decode()}}}
    for answer in (
        client.post("/v1/predict", json=body),
        client.post("/v1/predict?model=foundation", content=photo, headers={"Content-Type": "image/jpeg"}),
        client.post("/v1/predict", data={"model": "foundation"}, files={"file": photo}),
    ):
        assert answer.status_code == 413
        assert "limit of this route is 1048576 bytes (ROOTSTOCK_MAX_BODY_MB)" in answer.json()["error"]["message"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.text(max_size=6)
    | st.sampled_from(["AAAA", PNG_URL, "http://a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["image", "audio", "b64", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.sampled_from(["/v1/predict", "/v1/embeddings", "/models/foundation", "/embeddings"]))
def test_no_json_input_fails_on_the_server(client: httpx.Client, value: Any, path: str) -> None:
    body = {"input" if "embeddings" in path else "inputs": value}
    if path.startswith("/v1"):
        body["model"] = "foundation"
    answer = client.post(path, content=json.dumps(body))
    assert answer.status_code in (200, 413, 422), answer.text


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["model", "models", "file", "image", "inputs", "parameters", "timeout", "", 'a"b']),
            st.none() | st.sampled_from(["a.png", "", "é\x00"]),
            st.sampled_from([b"foundation", b"", PNG, WAV, b"\xff\x00", b"{}", b"1"]),
            st.sampled_from(["image/png", "text/plain", "", "x" * 99]),
        ),
        max_size=5,
    ),
    st.sampled_from(["/v1/predict", "/models/foundation", "/?model=foundation"]),
)
def test_no_form_fails_on_the_server(client: httpx.Client, parts: Any, path: str) -> None:
    files = [(name, (filename, data, kind)) for name, filename, data, kind in parts]
    answer = client.post(path, files=files) if files else client.post(path, data={"model": "x"})
    assert answer.status_code in (200, 400, 404, 415, 422), answer.text


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200),
    st.sampled_from([b"--x\r\n", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n", b"", PNG]),
    st.sampled_from(["multipart/form-data; boundary=x", "multipart/form-data", "image/png", "audio/x", ""]),
)
def test_no_body_fails_on_the_server(client: httpx.Client, data: bytes, start: bytes, kind: str) -> None:
    for path in ("/v1/predict?model=foundation", "/models/foundation"):
        answer = client.post(path, content=start + data, headers={"Content-Type": kind})
        assert answer.status_code in (200, 400, 415, 422), answer.text

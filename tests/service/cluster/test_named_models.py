"""The adapters that the ingress reads from a request, against what the routes themselves are asked for."""

from __future__ import annotations

import json
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.cluster import named_models as module
from rootstock.service.cluster.named_models import MOST_BYTES, named_models

JSON = "application/json"


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("/v1/predict", {"model": "support@3", "inputs": "x"}, ["support"]),
        ("/v1/predict", {"model": "support@sha256:" + "a" * 64, "inputs": "x"}, ["support"]),
        ("/v1/predict", {"models": ["one", "two@prod", "one@2"], "inputs": "x"}, ["one", "two"]),
        ("/v1/predict", {"adapters": [{"model": "acme/tone"}, {"model": "style"}]}, ["tone", "style"]),
        ("/v1/chat/completions", {"model": "writer", "stream": True}, ["writer"]),
        ("/v1/embeddings", {"input": "x", "model": "text-embedding-3-small"}, ["sentences"]),
        ("/v1/predict", {"model": "foundation", "inputs": "x"}, []),
        ("/v1/predict", {"model": "auto:selector", "inputs": "x"}, []),
        ("/v1/predict", {"model": "No name", "inputs": "x"}, []),
        ("/v1/predict", {"model": 3, "models": "x", "adapters": [1, {"model": None}]}, []),
        ("/models/support/embed", {"inputs": "x"}, ["support"]),
        ("/models/acme/support", {"inputs": "x"}, ["support"]),
        ("/models/support/pipeline/text-classification", {"inputs": "x"}, ["support"]),
        ("/v2/models/support/versions/3/infer", {"inputs": []}, ["support"]),
        ("/v1/models/support@3:predict", {"instances": ["x"]}, ["support"]),
    ],
)
def test_a_request_names_its_adapters_in_the_path_or_the_body(path: str, body: object, names: list[str]) -> None:
    served = {"text-embedding-3-small": "sentences@prod"}
    assert named_models(path, b"", JSON, json.dumps(body).encode(), served) == names


def test_a_query_and_a_form_with_files_name_adapters_too() -> None:
    assert named_models("/embed", b"model=support%403&x=1", JSON, b'{"inputs": "x"}') == ["support"]
    files = {"image": ("a.png", b"\x89PNG" + bytes(1000), "image/png")}
    for fields, names in (({"model": "pets"}, ["pets"]), ({"models": ["pets", "art@2"]}, ["pets", "art"])):
        form = httpx.Request("POST", "http://x/v1/predict", data=fields, files=files)
        assert named_models("/v1/predict", b"", form.headers["content-type"], form.read()) == names


def test_of_a_long_body_the_beginning_counts() -> None:
    long = "x" * (2 * MOST_BYTES)
    assert named_models("/v1/predict", b"", JSON, json.dumps({"model": "m", "inputs": long}).encode()) == ["m"]
    assert named_models("/v1/predict", b"", JSON, json.dumps({"inputs": long, "model": "m"}).encode()) == []


@pytest.mark.parametrize(
    "line", [b'name="model"\r\n', b'--x\r\nname="model"\r\n', b'--x\r\nname="model"\r\n\r\nm\r\n', b"--x"]
)
def test_a_form_takes_few_steps_however_it_is_made(line: bytes) -> None:
    steps = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    hostile = (line * MOST_BYTES)[:MOST_BYTES]
    sys.setprofile(count)
    try:
        names = named_models("/v1/predict", b"", "multipart/form-data; boundary=x", hostile)
    finally:
        sys.setprofile(None)
    assert len(names) <= 1
    assert steps < 5000
    # One call of an expression over a body may take quadratic time.
    assert not [one for one in vars(module).values() if isinstance(getattr(one, "pattern", ""), bytes)]


@given(st.text(), st.binary(), st.text(), st.binary())
def test_no_request_is_too_strange_to_be_placed(path: str, query: bytes, content_type: str, body: bytes) -> None:
    names = named_models(path, query, content_type, body)
    assert all("," not in name for name in names)
    named_models(path, query, "multipart/form-data; boundary=x", body)
    named_models(path, query, JSON, b'{"model": "x"' + body)

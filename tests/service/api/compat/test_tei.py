"""The routes in TEI's form answer as the native ones, TEI's documented requests and huggingface_hub's client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient, close_session
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter

pytestmark = pytest.mark.usefixtures("three_published")
TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]
LONG = "word " * 400


@pytest.fixture
def online(loopback_only: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let huggingface_hub's client send requests, which the tests' environment forbids."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield
    close_session()


def post(client: httpx.Client, path: str, body: Any, model: str | None = None) -> Any:
    answer = client.post(path, json=body, params={} if model is None else {"model": model})
    assert answer.status_code == 200, answer.text
    return answer.json()


def native_vectors(client: httpx.Client, model: str, texts: list[str], **fields: Any) -> Any:
    data = post(client, "/v1/embeddings", {"model": model, "input": texts, **fields})["data"]
    return pytest.approx(np.array([one["embedding"] for one in data]), abs=1e-6)


@pytest.mark.parametrize("model", [None, "foundation", "embedder", "embedder@1"])
@pytest.mark.calls("HTTP", "POST /embed")
def test_embed_gives_the_native_vectors_of_one_text_and_of_several(
    client: httpx.Client, model: str | None
) -> None:
    wanted = native_vectors(client, model or "foundation", TEXTS)
    plain = np.array(post(client, "/embed", {"inputs": TEXTS, "normalize": False}, model))
    assert plain == wanted
    unit = np.array(post(client, "/embed", {"inputs": TEXTS}, model))
    assert np.abs(unit - plain / np.linalg.norm(plain, axis=1, keepdims=True)).max() < 1e-6
    assert post(client, "/embed", {"inputs": TEXTS[0]}, model) == [pytest.approx(unit[0].tolist(), abs=1e-6)]


def test_embed_normalises_the_vectors_of_a_model_that_does_not(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter], spec: FoundationSpec
) -> None:
    plain = open_bundle(peft_saved["embedder"].zip(), Limits(), spec)
    manifest = replace(plain.manifest, head=replace(plain.manifest.head, normalize=False))
    assert upload(client, "pooled", write_bundle(manifest, plain.files).to_zip()).status_code == 201
    own = np.array(post(client, "/embed", {"inputs": TEXTS, "normalize": False}, "pooled"))
    norms = np.linalg.norm(own, axis=1, keepdims=True)
    assert np.abs(norms - 1).min() > 0.1
    unit = np.array(post(client, "/embed", {"inputs": TEXTS}, "pooled"))
    assert np.abs(unit - own / norms).max() < 1e-5


def test_an_adapter_s_own_address_is_that_of_a_server_of_one_model(client: httpx.Client) -> None:
    for path, body in (
        ("/embed", {"inputs": TEXTS}),
        ("/tokenize", {"inputs": TEXTS}),
        ("/similarity", {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}}),
    ):
        named = post(client, path, body, "embedder")
        assert post(client, f"/models/embedder{path}", body) == _close(named)
    ranked = post(client, "/rerank", {"query": "x", "texts": TEXTS}, "ranking")
    assert post(client, "/models/ranking/rerank", {"query": "x", "texts": TEXTS}) == _close(ranked)
    assert client.get("/models/mood/info").json() == client.get("/info", params={"model": "mood"}).json()


def _close(value: Any) -> Any:
    """Return a value that equals those whose numbers differ by no more than two passes of one text."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-5)
    if isinstance(value, list):
        return [_close(one) for one in value]
    return {name: _close(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.usefixtures("online")
@pytest.mark.calls("huggingface_hub", 'InferenceClient(".../embed").feature_extraction')
def test_the_inference_client_embeds_as_sentence_transformers_does(
    server: RunningServer, foundation: FoundationFiles
) -> None:
    expected = SentenceTransformer(str(foundation.folder), device="cpu").encode(TEXTS)
    answer = InferenceClient(f"{server.url}/embed").feature_extraction(TEXTS, normalize=True, truncate=True)  # type: ignore[arg-type]
    assert np.abs(np.asarray(answer) - expected).max() < 1e-5


@pytest.mark.usefixtures("online")
@pytest.mark.calls("huggingface_hub", 'InferenceClient(".../similarity").sentence_similarity')
def test_the_inference_client_compares_sentences(server: RunningServer) -> None:
    ours = InferenceClient(f"{server.url}/similarity").sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    assert ours[0] == pytest.approx(1, abs=1e-5)
    assert len(ours) == len(TEXTS)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.calls("HTTP", "POST /predict")
def test_predict_gives_every_label_of_the_native_classification(client: httpx.Client, raw: bool) -> None:
    parameters = {"top_k": None, **({"function_to_apply": "none"} if raw else {})}
    inputs = [TEXTS[0], {"text": TEXTS[1], "text_pair": TEXTS[2]}]
    native = post(client, "/v1/predict", {"model": "mood", "inputs": inputs, "parameters": parameters})
    batch = {"inputs": [[TEXTS[0]], TEXTS[1:]], "raw_scores": raw}
    assert post(client, "/predict", batch, "mood") == _close(native["predictions"])
    one = post(client, "/predict", {"inputs": TEXTS[0], "raw_scores": raw}, "mood")
    pair = post(client, "/predict", {"inputs": TEXTS[1:], "raw_scores": raw}, "mood")
    assert [one, pair] == _close(native["predictions"])


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.calls("HTTP", "POST /rerank")
def test_rerank_gives_the_native_ranking_with_the_texts_on_request(client: httpx.Client, raw: bool) -> None:
    native = post(
        client, "/v1/rerank", {"model": "ranking", "query": "x", "documents": TEXTS, "raw_scores": raw}
    )["results"]
    body = {"query": "x", "texts": TEXTS, "raw_scores": raw}
    wanted = [{"index": one["index"], "score": one["relevance_score"]} for one in native]
    assert post(client, "/rerank", body, "ranking") == _close(wanted)
    shown = post(client, "/rerank", {**body, "return_text": True}, "ranking")
    assert shown == _close([{**one, "text": TEXTS[one["index"]]} for one in wanted])


@pytest.mark.calls("HTTP", "POST /similarity")
def test_similarity_is_the_cosine_of_the_native_vectors(client: httpx.Client) -> None:
    vectors = np.array(post(client, "/embed", {"inputs": TEXTS}, "embedder"))
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}}
    assert post(client, "/similarity", body, "embedder") == pytest.approx(vectors @ vectors[0], abs=1e-5)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.calls("HTTP", "POST /tokenize")
def test_tokens_are_those_of_transformers_with_their_places(
    client: httpx.Client, foundation: FoundationFiles, special: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(foundation.folder)
    texts = ["Zoë's parcel, 東京 🎉", "ok", ""]
    answer = post(client, "/tokenize", {"inputs": texts, "add_special_tokens": special})
    for text, tokens in zip(texts, answer, strict=True):
        wanted = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        assert [token["id"] for token in tokens] == wanted["input_ids"]
        for token, (start, stop) in zip(tokens, wanted["offset_mapping"], strict=True):
            if token["id"] in tokenizer.all_special_ids and start == stop:
                entry = tokenizer.convert_ids_to_tokens(token["id"])
                place: dict[str, Any] = {"text": entry, "special": True, "start": None, "stop": None}
            else:
                place = {"text": text[start:stop], "special": False, "start": start, "stop": stop}
            assert token == {"id": token["id"], **place}
    assert post(client, "/tokenize", {"inputs": texts[0], "add_special_tokens": special}) == answer[:1]


@pytest.mark.calls("HTTP", "POST /decode")
def test_decoding_is_transformers_with_and_without_special_tokens(
    client: httpx.Client, foundation: FoundationFiles
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(foundation.folder)
    ids = tokenizer(TEXTS).input_ids
    for skip in (True, False):
        wanted = tokenizer.batch_decode(ids, skip_special_tokens=skip)
        assert post(client, "/decode", {"ids": ids, "skip_special_tokens": skip}) == wanted
        assert post(client, "/decode", {"ids": ids[0], "skip_special_tokens": skip}) == wanted[:1]


@pytest.mark.parametrize(
    ("body", "side"),
    [({"truncation_direction": "Right"}, "END"), ({"truncation_direction": "left"}, "START"), ({}, True)],
)
def test_a_long_text_is_cut_on_request_at_the_end_that_it_names(
    client: httpx.Client, body: dict[str, Any], side: Any
) -> None:
    text = f"{LONG} parcel"
    answer = post(client, "/embed", {"inputs": text, "truncate": True, "normalize": False, **body})
    assert np.array(answer) == native_vectors(client, "foundation", [text], truncate=side)
    refused = client.post("/embed", json={"inputs": text, **body})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (422, "input_too_long", "inputs")
    assert error["message"].endswith("or set truncate to true")


@pytest.mark.calls("HTTP", "GET /info")
def test_info_tells_each_kind_of_model_and_its_limit(client: httpx.Client, foundation: FoundationFiles) -> None:
    kinds = {}
    for model in (None, "embedder", "mood", "ranking"):
        info = client.get("/info", params={} if model is None else {"model": model}).json()
        (kinds[model],) = info["model_type"]
        assert info["max_input_length"] == (256 if model is None else 32)
        assert info["model_dtype"] == "float32"
        assert info["max_client_batch_size"] == client.get("/v1/limits").json()["max_inputs"]
    assert kinds == {None: "embedding", "embedder": "embedding", "mood": "classifier", "ranking": "reranker"}
    labels = client.get("/info", params={"model": "mood"}).json()["model_type"]["classifier"]
    assert labels["id2label"] == {str(i): label for label, i in labels["label2id"].items()}
    assert len(labels["id2label"]) == 3


def test_info_refuses_a_model_that_tei_does_not_have(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    assert upload(client, "tags", peft_saved["tokens"].zip(), max_length="32").status_code == 201
    for model, status, code in (("tags", 422, "wrong_task"), ("nobody", 404, "unknown_adapter")):
        answer = client.get("/info", params={"model": model})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.calls("HTTP", "GET /health")
def test_health_is_readiness(client: httpx.Client) -> None:
    assert client.get("/health").json() == client.get("/readyz").json()


@pytest.mark.parametrize(
    ("path", "model", "body", "status", "param"),
    [
        ("/embed", "nobody", {"inputs": "x"}, 404, None),
        ("/embed", "NOT A NAME", {"inputs": "x"}, 422, None),
        ("/embed", "mood", {"inputs": "x"}, 422, "model"),
        ("/embed", None, {"inputs": []}, 422, "inputs"),
        ("/embed", None, {"inputs": [[101, 102]]}, 422, "inputs"),
        ("/embed", None, {"inputs": None}, 422, "inputs"),
        ("/embed", None, {"inputs": "x", "prompt_name": "query"}, 422, "prompt_name"),
        ("/embed", None, {"inputs": "x", "truncation_direction": "up"}, 422, "truncation_direction"),
        ("/embed", None, {"inputs": "x", "normalize": 1}, 422, "normalize"),
        ("/embed", None, {"inputs": ["x"] * 2049}, 413, "inputs"),
        ("/embed", None, {"inputs": "x" * (2**18 + 1)}, 413, "inputs[0]"),
        ("/embed_all", None, {"inputs": "x"}, 422, None),
        ("/predict", None, {"inputs": "x"}, 422, "model"),
        ("/predict", "ranking", {"inputs": "x"}, 422, "model"),
        ("/predict", "mood", {"inputs": ["x"]}, 422, "inputs"),
        ("/predict", "mood", {"inputs": ["x", "y", "z"]}, 422, "inputs"),
        ("/predict", "mood", {"inputs": [["x", "y", "z"]]}, 422, "inputs"),
        ("/predict", "mood", {"inputs": [[]]}, 422, "inputs"),
        ("/predict", "mood", {"inputs": [["x"], "y"]}, 422, "inputs"),
        ("/predict", "mood", {"inputs": {}}, 422, "inputs"),
        ("/similarity", None, {"inputs": {"source_sentence": "x"}}, 422, "inputs.sentences"),
        ("/similarity", None, {"inputs": {"source_sentence": "x", "sentences": []}}, 422, "inputs.sentences"),
        ("/similarity", None, {"inputs": ["x", "y"]}, 422, "inputs"),
        ("/similarity", "mood", {"inputs": {"source_sentence": "x", "sentences": ["y"]}}, 422, "model"),
        ("/rerank", None, {"query": "x", "texts": ["y"]}, 422, "model"),
        ("/rerank", "ranking", {"query": "x", "texts": []}, 422, "texts"),
        ("/rerank", "ranking", {"query": "x", "texts": [3]}, 422, "texts.0"),
        ("/rerank", "ranking", {"query": "x", "texts": ["y"], "documents": ["y"]}, 422, "documents"),
        ("/rerank", "ranking", {"query": "x", "texts": [LONG]}, 422, "texts"),
        ("/rerank", "ranking", {"query": "x", "texts": ["y"] * 257}, 413, "texts"),
        ("/tokenize", None, {"inputs": [3]}, 422, "inputs"),
        ("/tokenize", None, {"inputs": ["x"], "prompt": "x"}, 422, "prompt"),
        ("/tokenize", "nobody", {"inputs": ["x"]}, 404, None),
        ("/tokenize", None, {"inputs": ["x" * (2**18 + 1)]}, 413, "inputs[0]"),
        ("/decode", None, {"ids": [10**6]}, 422, "ids"),
        ("/decode", None, {"ids": [-1]}, 422, "ids"),
        ("/decode", None, {"ids": [True]}, 422, "ids"),
        ("/decode", None, {"ids": [[1], 2]}, 422, "ids"),
        ("/decode", None, {"ids": "x"}, 422, "ids"),
        ("/decode", None, {"ids": [[1] * 10_000] * 2}, 413, "ids"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_by_its_field(
    client: httpx.Client, path: str, model: str | None, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post(path, json=body, params={} if model is None else {"model": model})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), answer.text

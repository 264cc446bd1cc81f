"""Hugging Face's inference API, called by huggingface_hub's client, against transformers' pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import transformers
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from sentence_transformers import SentenceTransformer

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.settings import Settings
from tests.live_server import OWNER, READER, RunningServer, run_server, upload
from tests.masked_lm import home_of, make_filling, pipeline_of
from tests.parity.foundations import Tiny
from tests.peft_adapters import TEXTS, PeftAdapter, peft_model, save_adapter, tokenizer_of

CONTEXT = "Ada Lovelace met Charles Babbage in London in June 1833."
QUESTION = "Who met Charles Babbage?"
NLI = {"task": "zero-shot-classification", "labels": '["contradiction", "neutral", "entailment"]'}


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client send requests, which tests otherwise forbid it; all go to the server."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def saved(
    foundation: FoundationFiles, peft_saved: dict[str, PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PeftAdapter]:
    answers = save_adapter(foundation.folder, tmp_path_factory.mktemp("qa"), "QUESTION_ANS", 5, labels=2, r=4)
    return {"mood": peft_saved["first"], "tags": peft_saved["tokens"], "nli": peft_saved["second"], "qa": answers}


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], saved: dict[str, PeftAdapter]) -> Iterator[RunningServer]:
    settings = Settings(
        home=new_home(), demo=False, log_level="error", max_body_mb=1, api_key=READER, admin_key=OWNER
    )
    with run_server(settings) as running, running.client(OWNER) as client:
        for name, adapter in saved.items():
            answer = upload(client, name, adapter.zip(), **(NLI if name == "nli" else {}))
            assert answer.status_code == 201, answer.text
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client(READER) as client:
        yield client


@pytest.fixture(scope="module")
def hub(server: RunningServer) -> Callable[[str], InferenceClient]:
    """Return a function that makes the hub's client of a reference."""
    return lambda name: InferenceClient(model=f"{server.url}/models/{name}", token=READER)


@pytest.fixture(scope="module")
def pipeline(foundation: FoundationFiles, saved: dict[str, PeftAdapter]) -> Callable[..., Any]:
    """Return a function that makes transformers' pipeline of an adapter, with other labels if given."""

    def make(task: str, name: str, labels: list[str] | None = None) -> Any:
        model = peft_model(foundation.folder, saved[name]).merge_and_unload()
        if labels is not None:
            model.config.id2label = dict(enumerate(labels))
            model.config.label2id = {label: i for i, label in enumerate(labels)}
        return transformers.pipeline(task, model=model, tokenizer=tokenizer_of(foundation.folder), device="cpu")

    return make


def close(found: Any, expected: Any) -> bool:
    """Tell whether two answers are equal, numbers within 1e-4."""
    if isinstance(expected, dict):
        return set(found) >= set(expected) and all(close(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, (float, np.floating)):
        return bool(abs(found - expected) < 1e-4)
    return bool(found == expected)


def plain(elements: Any) -> list[dict[str, Any]]:
    """The elements that the client returns as dictionaries."""
    return [asdict(element) for element in elements]


@pytest.mark.calls("huggingface_hub", "text_classification")
def test_a_text_is_classified(hub: Callable[[str], InferenceClient], pipeline: Callable[..., Any]) -> None:
    expected = pipeline("text-classification", "mood")(TEXTS[0], top_k=None)
    assert close(plain(hub("mood").text_classification(TEXTS[0])), expected)
    assert close(plain(hub("Mood@1").text_classification(TEXTS[0], top_k=1)), expected[:1])


@pytest.mark.calls("huggingface_hub", "token_classification")
def test_tokens_are_classified(hub: Callable[[str], InferenceClient], pipeline: Callable[..., Any]) -> None:
    expected = pipeline("token-classification", "tags")(TEXTS[3], aggregation_strategy="simple")
    found = plain(hub("tags").token_classification(TEXTS[3]))
    assert expected
    assert close(found, [dict(entity) for entity in expected])


@pytest.mark.calls("huggingface_hub", "question_answering")
def test_a_question_is_answered(hub: Callable[[str], InferenceClient], client: httpx.Client) -> None:
    # transformers 5 has no such pipeline; other tests compare the native route with its code.
    body = {"model": "qa", "inputs": {"question": QUESTION, "context": CONTEXT}}
    (best,) = client.post("/v1/predict", json=body).json()["predictions"]
    assert close(plain([hub("qa").question_answering(QUESTION, CONTEXT)]), [best])
    (three,) = client.post("/v1/predict", json={**body, "parameters": {"top_k": 3}}).json()["predictions"]
    assert close(plain(hub("qa").question_answering(QUESTION, CONTEXT, top_k=3)), three)


@pytest.mark.calls("huggingface_hub", "zero_shot_classification")
def test_labels_of_the_request_are_scored(
    hub: Callable[[str], InferenceClient], pipeline: Callable[..., Any]
) -> None:
    labels = ["delivery", "music", "history"]
    model = pipeline("zero-shot-classification", "nli", ["contradiction", "neutral", "entailment"])
    for options in ({}, {"multi_label": True}, {"hypothesis_template": "It is about {}."}):
        expected = model(TEXTS[0], labels, **options)
        found = plain(hub("nli").zero_shot_classification(TEXTS[0], labels, **options))  # type: ignore[arg-type]
        assert [one["label"] for one in found] == expected["labels"]
        assert close([one["score"] for one in found], expected["scores"])


@pytest.mark.calls("huggingface_hub", "feature_extraction")
@pytest.mark.calls("huggingface_hub", "sentence_similarity")
def test_texts_are_embedded_and_compared(
    hub: Callable[[str], InferenceClient], server: RunningServer, foundation: FoundationFiles
) -> None:
    encoder = SentenceTransformer(str(foundation.folder), device="cpu")
    expected = encoder.encode(TEXTS)
    for one in (hub("foundation"), hub("sentence-transformers/all-MiniLM-L6-v2")):
        assert np.abs(one.feature_extraction(TEXTS[0]) - expected[0]).max() < 1e-4  # type: ignore[operator]
        assert np.abs(one.feature_extraction(TEXTS) - expected).max() < 1e-4  # type: ignore[arg-type]
    root = InferenceClient(base_url=server.url, token=READER)
    assert np.abs(root.feature_extraction(TEXTS[0], normalize=True) - expected[0]).max() < 1e-4
    found = root.sentence_similarity(TEXTS[0], TEXTS[1:])
    assert np.abs(np.array(found) - encoder.similarity(expected[:1], expected[1:])[0].numpy()).max() < 1e-4
    assert hub("foundation").feature_extraction("long " * 600, truncate=True).shape == (384,)
    assert hub("foundation").feature_extraction("x", dimensions=32).shape == (32,)


def test_a_server_s_refusal_reaches_the_client(
    hub: Callable[[str], InferenceClient], server: RunningServer
) -> None:
    for name, words in (("nobody", "no adapter is named"), ("tags", "top_k")):
        with pytest.raises(HfHubHTTPError, match=words):
            hub(name).text_classification("x", top_k=2)
    with pytest.raises(HfHubHTTPError, match="403"):
        InferenceClient(model=f"{server.url}/models/mood", token="wrong").text_classification("x")


@pytest.mark.calls("huggingface_hub", "fill_mask")
def test_masks_are_filled_by_the_path_of_the_task(tmp_path: Path) -> None:
    tiny: Tiny = make_filling(tmp_path / "model")
    settings = Settings(
        home=home_of(tiny, tmp_path / "home"),
        foundation=str(tiny.folder),
        demo=False,
        log_level="error",
        threads=1,
    )
    text = "Where is my [MASK]?"
    with run_server(settings) as running:
        client = InferenceClient(model=f"{running.url}/models/foundation/pipeline/fill-mask")
        found = plain(client.fill_mask(text, top_k=3))
    assert close(found, pipeline_of(tiny.folder)(text, top_k=3))


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("mood", {}, 422, "inputs"),
        ("mood", {"inputs": []}, 422, "inputs"),
        ("mood", {"inputs": 3}, 422, "inputs"),
        ("mood", {"inputs": None}, 422, "inputs"),
        ("mood", {"inputs": [["a"]]}, 422, "inputs"),
        ("mood", {"inputs": "x", "parameters": 3}, 422, "parameters"),
        ("mood", {"inputs": "x", "parameters": {"x": 1}}, 422, "parameters.x"),
        ("mood", {"inputs": "x", "prompt_name": "query"}, 422, "prompt_name"),
        ("mood", {"inputs": "x", "normalize": True}, 422, "normalize"),
        ("mood", {"inputs": "x", "stream": True}, 422, "stream"),
        ("mood", {"inputs": ["x"] * 257}, 413, "inputs"),
        ("mood", {"inputs": "long " * 600}, 422, "inputs"),
        ("mood", {"inputs": {"question": "x", "context": "y"}}, 422, "inputs[0]"),
        ("mood/pipeline/fill-mask", {"inputs": "x"}, 422, "model"),
        ("mood/pipeline/nothing", {"inputs": "x"}, 422, "model"),
        ("mood/pipeline/sentence-similarity", {"inputs": "x"}, 422, "inputs"),
        ("mood/pipeline/text-generation", {"inputs": "x"}, 422, "model"),
        ("mood/pipeline/summarization", {"inputs": "x"}, 422, "model"),
        ("mood/pipeline/text-classification", {"inputs": {"source_sentence": "x", "sentences": ["y"]}}, 422,
         "inputs"),
        ("mood", {"inputs": {"source_sentence": "x", "sentences": ["y"]}}, 422, "model"),
        ("foundation", {"inputs": {"source_sentence": "x"}}, 422, "inputs.sentences"),
        ("foundation", {"inputs": {"source_sentence": "x", "sentences": []}}, 422, "inputs.sentences"),
        ("foundation", {"inputs": {"source_sentence": 1, "sentences": ["x"]}}, 422, "inputs.source_sentence"),
        ("foundation", {"inputs": {"source_sentence": "x", "sentences": ["x", "a" * (2**18 + 1)]}}, 413,
         "inputs.sentences[1]"),
        ("foundation", {"inputs": {"source_sentence": "a" * (2**18 + 1), "sentences": ["x"]}}, 413,
         "inputs.source_sentence"),
        ("foundation", {"inputs": {"source_sentence": "x", "sentences": ["x", "a " * 600]}}, 422, "inputs"),
        ("foundation", {"inputs": {"source_sentence": "x", "sentences": ["x"] * 2048}}, 413, "inputs"),
        ("foundation", {"inputs": "x", "dimensions": 385}, 422, "dimensions"),
        ("foundation", {"inputs": [{"text": "x", "text_pair": "y"}]}, 422, "inputs"),
        ("nli", {"inputs": "x"}, 422, "parameters.candidate_labels"),
        ("nobody", {"inputs": "x"}, 404, None),
        ("", {"inputs": "x"}, 422, None),
        ("a b", {"inputs": "x"}, 422, None),
        ("a/b/c", {"inputs": "x"}, 422, None),
        ("foundation/v1/chat/completions", {"model": "x", "messages": [{"role": "user", "content": "x"}]}, 422,
         "model"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_by_its_field(
    client: httpx.Client, path: str, body: Any, status: int, param: str | None
) -> None:
    answer = client.post(f"/models/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_the_path_alone_takes_the_model_of_the_body(client: httpx.Client) -> None:
    native = client.post("/v1/predict", json={"model": "mood", "inputs": "x", "parameters": {"top_k": None}})
    assert client.post("/", json={"model": "mood", "inputs": "x"}).json() == native.json()["predictions"]
    assert client.post("/", json={"model": "nobody", "inputs": "x"}).status_code == 404


def test_a_call_needs_a_key_and_is_counted_under_its_route(server: RunningServer) -> None:
    for path in ("/", "/models/mood", "/models/mood/pipeline/text-classification"):
        with server.client() as stranger:
            assert stranger.post(path, json={"inputs": "x"}).status_code == 401
        with server.client(READER) as reader:
            assert reader.post(path, json={"inputs": "x"}).status_code == 200
            page = reader.get("/metrics").text
    for template in ("/", "/models/{name:path}", "/models/{name:path}/pipeline/{task}"):
        assert f'route="{template}"' in page

"""Images and recordings are answered as transformers' pipelines do, in whatever form a request holds them."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from PIL import Image

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.predictions import AudioClassificationResult, ImageClassificationResult
from rootstock.adapters.media import AudioFile, ImageFile
from tests.media import WAV, png, wav
from tests.media_server import LABELS, MediaServer, run_media_server

PNGS = [png(8, 8), png(40, 30, (3, 250, 9)), png(33, 64, (9, 9, 200))]
WAVS = [WAV, wav(3200)]
SIGNS, DIGITS = {"model": "signs"}, {"model": "digits"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pixels(data: bytes) -> Any:
    return Image.open(io.BytesIO(data)).convert("RGB")


def samples(data: bytes) -> dict[str, Any]:
    with wave.open(io.BytesIO(data)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 2**15
        return {"raw": raw, "sampling_rate": file.getframerate()}


def close(found: Any, expected: Any) -> bool:
    """Tell whether two lists of labels are equal, scores within 1e-4."""
    return [one["label"] for one in found] == [one["label"] for one in expected] and bool(
        np.allclose([one["score"] for one in found], [one["score"] for one in expected], atol=1e-4)
    )


@pytest.fixture(scope="module")
def media(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    with run_media_server(new_home(), tmp_path_factory.mktemp("media"), "default") as running:
        yield running


@pytest.fixture(scope="module")
def client(media: MediaServer) -> Iterator[httpx.Client]:
    with media.running.client() as client:
        yield client


@pytest.fixture(scope="module")
def images(media: MediaServer) -> list[list[dict[str, Any]]]:
    """Transformers' five best labels of each image."""
    pipeline = media.pipeline("image")
    return [pipeline(pixels(data)) for data in PNGS]


@pytest.fixture(scope="module")
def recordings(media: MediaServer) -> list[list[dict[str, Any]]]:
    pipeline = media.pipeline("audio")
    return [pipeline(samples(data)) for data in WAVS]


def predictions(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["predictions"]
    return found


def test_every_form_of_an_image_has_the_pipeline_s_answer(client: httpx.Client, images: list[Any]) -> None:
    url = f"data:image/png;base64,{b64(PNGS[0])}"
    for given in ({"image": {"b64": b64(PNGS[0])}}, {"image": url}, {"image": b64(PNGS[0])}):
        (found,) = predictions(client.post("/v1/predict", json={**SIGNS, "inputs": given}))
        assert len(found) == 5
        assert close(found, images[0])
    many = [{"image": {"b64": b64(data)}} for data in PNGS]
    found = predictions(client.post("/v1/predict", json={**SIGNS, "inputs": many}))
    assert all(map(close, found, images))
    for parts in ([("file", PNGS[0]), ("file", PNGS[1])], [("image", PNGS[0]), ("files", PNGS[1])]):
        files = [(name, ("a.png", data, "image/png")) for name, data in parts]
        found = predictions(client.post("/v1/predict", data=SIGNS, files=files))
        assert len(found) == 2
        assert all(map(close, found, images))
    for kind in ("image/png", "application/octet-stream"):
        answer = client.post("/v1/predict", params=SIGNS, content=PNGS[0], headers={"Content-Type": kind})
        assert close(predictions(answer)[0], images[0])


def test_every_form_of_a_recording_has_the_pipeline_s_answer(client: httpx.Client, recordings: list[Any]) -> None:
    many = [{"audio": {"b64": b64(data)}} for data in WAVS]
    found = predictions(client.post("/v1/predict", json={**DIGITS, "inputs": many}))
    assert all(map(close, found, recordings))
    files = [("audio", ("a.wav", data, "audio/wav")) for data in WAVS]
    assert all(map(close, predictions(client.post("/v1/predict", data=DIGITS, files=files)), recordings))
    answer = client.post("/v1/predict", params=DIGITS, content=WAVS[0], headers={"Content-Type": "audio/wav"})
    assert close(predictions(answer)[0], recordings[0])


def test_parameters_reach_the_task_from_a_body_a_form_and_a_query(
    client: httpx.Client, media: MediaServer
) -> None:
    expected = media.pipeline("image")(pixels(PNGS[0]), top_k=2, function_to_apply="sigmoid")
    parameters = {"top_k": 2, "function_to_apply": "sigmoid"}
    fields = {**SIGNS, "parameters": json.dumps(parameters)}
    for answer in (
        client.post("/v1/predict", json={**SIGNS, "inputs": {"image": b64(PNGS[0])}, "parameters": parameters}),
        client.post("/v1/predict", data=fields, files={"file": PNGS[0]}),
        client.post("/v1/predict", params=fields, content=PNGS[0]),
    ):
        assert close(predictions(answer)[0], expected)


def test_one_image_goes_to_several_models_and_each_modality_answers_for_itself(
    client: httpx.Client, images: list[Any]
) -> None:
    files = {"file": ("a.png", PNGS[0], "image/png")}
    models = {"models": ["signs", "signs@1", "vision", "digits", "foundation", "nobody"]}
    results = client.post("/v1/predict", data=models, files=files).json()["results"]
    assert close(results[0]["predictions"][0], images[0])
    assert close(results[1]["predictions"][0], images[0])
    assert results[2]["task"] == "image-feature-extraction"
    assert [one["error"]["code"] for one in results[3:]] == ["invalid_input", "invalid_input", "unknown_adapter"]
    assert "(modality text)" in results[4]["error"]["message"]


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        ("signs", "a text", "image"),
        ("signs", ["a text"], "image"),
        ("signs", {"text": "x", "text_pair": "y"}, "image"),
        ("signs", {"audio": b64(WAV)}, "image"),
        ("digits", {"image": b64(PNGS[0])}, "record"),
        ("digits", "a text", "record"),
        ("foundation", {"image": b64(PNGS[0])}, "modality text"),
    ],
)
def test_an_input_of_another_modality_is_422_and_names_the_one_that_is_taken(
    client: httpx.Client, model: str, inputs: Any, words: str
) -> None:
    answer = client.post("/v1/predict", json={"model": model, "inputs": inputs})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == "inputs[0]"
    assert words in error["message"]


@pytest.mark.parametrize("data", [b"no image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", PNGS[0][:45]])
def test_bytes_that_are_no_image_are_422(client: httpx.Client, data: bytes) -> None:
    for answer in (
        client.post("/v1/predict", json={**SIGNS, "inputs": {"image": b64(data)}}),
        client.post("/v1/predict", data=SIGNS, files={"image": data}),
        client.post("/models/signs", content=data, headers={"Content-Type": "image/png"}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client send requests, which tests otherwise forbid it; all go to the server."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
@pytest.mark.calls("huggingface_hub", "image_classification")
def test_the_hub_s_client_classifies_images(media: MediaServer, images: list[Any], tmp_path: Path) -> None:
    hub = InferenceClient(model=f"{media.running.url}/models/signs")
    (tmp_path / "a.png").write_bytes(PNGS[0])
    for given in (PNGS[0], tmp_path / "a.png", str(tmp_path / "a.png")):
        assert close([asdict(one) for one in hub.image_classification(given)], images[0])
    found = hub.image_classification(PNGS[1], top_k=2, function_to_apply="softmax")
    assert close([asdict(one) for one in found], images[1][:2])


@pytest.mark.usefixtures("online")
@pytest.mark.calls("huggingface_hub", "audio_classification")
def test_the_hub_s_client_classifies_recordings(
    media: MediaServer, recordings: list[Any], tmp_path: Path
) -> None:
    hub = InferenceClient(model=f"{media.running.url}/models/digits")
    (tmp_path / "a.wav").write_bytes(WAVS[0])
    for given in (WAVS[0], tmp_path / "a.wav"):
        assert close([asdict(one) for one in hub.audio_classification(given)], recordings[0])
    found = hub.audio_classification(WAVS[1], top_k=2)
    assert close([asdict(one) for one in found], recordings[1][:2])


def test_the_hub_s_routes_answer_one_input_and_a_list(client: httpx.Client, images: list[Any]) -> None:
    one = client.post("/models/signs", json={"inputs": b64(PNGS[0])}).json()
    assert close(one, images[0])
    many = client.post("/models/signs", json={"inputs": [b64(PNGS[0]), {"image": b64(PNGS[1])}]}).json()
    assert all(map(close, many, images))
    path = "/models/vision/pipeline/image-feature-extraction"
    assert len(client.post(path, content=PNGS[0]).json()) == 16


def test_images_and_recordings_are_embedded_in_the_forms_of_jina_and_infinity(client: httpx.Client) -> None:
    for model, modality, data in (("vision", "image", PNGS[0]), ("sound", "audio", WAV)):
        native = client.post("/v1/predict", json={"model": model, "inputs": {modality: b64(data)}})
        expected = predictions(native)[0]
        url = f"data:{modality}/x;base64,{b64(data)}"
        for path, body in (
            ("/v1/embeddings", {"input": [{modality: b64(data)}]}),
            ("/v1/embeddings", {"input": [{modality: url}, {modality: url}]}),
            ("/v1/embeddings", {"input": url, "modality": modality}),
            ("/embeddings", {"input": [url], "modality": modality}),
        ):
            answer = client.post(path, json={"model": model, **body})
            assert answer.status_code == 200, answer.text
            assert all(np.allclose(one["embedding"], expected, atol=1e-5) for one in answer.json()["data"])


def test_the_python_client_classifies_and_embeds_files(
    media: MediaServer, images: list[Any], recordings: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PNGS[0])
    with Client(media.running.url) as client:
        for given in (tmp_path / "a.png", PNGS[0], pixels(PNGS[0]), ImageFile(PNGS[0])):
            result = client.predict("signs", given, ImageClassificationResult)
            assert result.label == images[0][0]["label"]
            assert close(result.raw, images[0])
        assert close(client.predict("digits", AudioFile(WAV), AudioClassificationResult).raw, recordings[0])
        found = client.pipeline("signs")([str(tmp_path / "a.png"), pixels(PNGS[1])], top_k=3)
        assert all(close(one, expected[:3]) for one, expected in zip(found, images, strict=False))
        classifier = client.classifier("signs")
        assert classifier.classes_.tolist() == sorted(LABELS)
        assert classifier.predict([PNGS[0], ImageFile(PNGS[1])]).tolist() == [
            one[0]["label"] for one in images[:2]
        ]
        assert client.classifier("digits").predict_proba([WAV]).shape == (1, len(LABELS))
        assert client.embed("vision", [tmp_path / "a.png"]).shape == (1, 16)

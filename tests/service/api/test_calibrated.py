"""Calibrated scores over HTTP are torch's softmax or sigmoid of PEFT's logits over the bundle's temperature."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Calibration, FoundationSpec
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter, peft_outputs

TEXTS = ["Where is my parcel?", "ok", "It broke. Café naïve!"]
# By name: the problem type and the temperature of the same weights.
MODELS = {"hot": ("single_label_classification", 1.7), "cold": ("single_label_classification", 0.4)}
MODELS |= {"multi": ("multi_label_classification", 3.0)}


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter], spec: FoundationSpec) -> None:
    for name in ("first", "tokens", "scalar"):
        assert upload(client, name, peft_saved[name].zip()).status_code == 201
    plain = open_bundle(peft_saved["first"].zip(), Limits(), spec)
    for name, (problem_type, temperature) in MODELS.items():
        manifest = replace(plain.manifest, problem_type=problem_type, calibration=Calibration(temperature))
        assert upload(client, name, write_bundle(manifest, plain.files).to_zip()).status_code == 201


@pytest.fixture(scope="module")
def logits(foundation: FoundationFiles, peft_saved: dict[str, PeftAdapter]) -> torch.Tensor:
    return torch.tensor(np.stack(peft_outputs(foundation.folder, peft_saved["first"], TEXTS)))


def wanted(logits: torch.Tensor, model: str, calibrated: bool) -> torch.Tensor:
    problem_type, temperature = MODELS[model]
    scaled = logits / temperature if calibrated else logits
    return scaled.sigmoid() if problem_type == "multi_label_classification" else scaled.softmax(-1)


def scores(predictions: list[list[dict[str, Any]]]) -> np.ndarray:
    by_label = [{item["label"]: item["score"] for item in row} for row in predictions]
    return np.array([[row[label] for label in sorted(row)] for row in by_label])


def ask(client: httpx.Client, calibrated: bool, **model: Any) -> httpx.Response:
    parameters = {"top_k": None, **({"calibrated": True} if calibrated else {})}
    return client.post("/v1/predict", json={"inputs": TEXTS, "parameters": parameters, **model})


def test_calibrated_and_other_requests_at_once_get_each_its_scores(
    client: httpx.Client, logits: torch.Tensor
) -> None:
    calls = [(model, calibrated) for model in MODELS for calibrated in (True, False)] * 4
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda call: ask(client, call[1], model=call[0]), calls))
    for (model, calibrated), answer in zip(calls, answers, strict=True):
        given = scores(answer.json()["predictions"])
        np.testing.assert_allclose(given, wanted(logits, model, calibrated), atol=1e-4)


def test_a_fan_out_calibrates_each_model_by_its_own_temperature(
    client: httpx.Client, logits: torch.Tensor
) -> None:
    models = [*MODELS, "first"]
    results = ask(client, True, models=models).json()["results"]
    for model, result in zip(MODELS, results, strict=False):
        np.testing.assert_allclose(scores(result["predictions"]), wanted(logits, model, True), atol=1e-4)
    assert results[-1]["error"]["param"] == "parameters.calibrated"


def test_calibrated_logits_are_the_logits_over_the_temperature(
    client: httpx.Client, logits: torch.Tensor
) -> None:
    parameters = {"top_k": None, "calibrated": True, "function_to_apply": "none"}
    body = {"model": "hot", "inputs": TEXTS, "parameters": parameters}
    given = scores(client.post("/v1/predict", json=body).json()["predictions"])
    np.testing.assert_allclose(given, logits / 1.7, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        ("first", True, "has no calibration"),
        ("scalar", True, "has no calibration"),
        ("tokens", True, "token-classification has no parameter 'calibrated'"),
        ("foundation", True, "feature-extraction has no parameter 'calibrated'"),
        ("hot", "yes", "calibrated is 'yes'; expected true or false"),
    ],
)
def test_what_has_no_calibrated_scores_is_refused(
    client: httpx.Client, model: str, value: Any, message: str
) -> None:
    answer = client.post("/v1/predict", json={"model": model, "inputs": "x", "parameters": {"calibrated": value}})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["param"], message in error["message"]) == ("parameters.calibrated", True)


def test_false_is_what_transformers_pipeline_gives_and_needs_no_calibration(client: httpx.Client) -> None:
    body = {"model": "first", "inputs": TEXTS}
    with_false = client.post("/v1/predict", json={**body, "parameters": {"calibrated": False}}).json()
    assert with_false["predictions"] == client.post("/v1/predict", json=body).json()["predictions"]

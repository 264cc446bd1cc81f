"""POST /v1/moderations, called by the openai client, against PEFT's own scores."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.live_server import upload
from tests.peft_adapters import TEXTS, PeftAdapter

LABELS = '["fine", "insult", "threat"]'


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    """Publish one classifier for one label and for several, and adapters that cannot moderate."""
    uploads: list[tuple[str, str, dict[str, str]]] = [
        ("single", "first", {"labels": LABELS}),
        ("several", "second", {"labels": LABELS, "problem_type": "multi_label_classification"}),
        ("tags", "tokens", {}),
        ("scalar", "scalar", {"problem_type": "regression"}),
    ]
    for name, adapter, fields in uploads:
        answer = upload(client, name, peft_saved[adapter].zip(), **fields)
        assert answer.status_code == 201, answer.text


def logits(client: httpx.Client, model: str) -> np.ndarray:
    """The adapter's logits by the native route, whose scores other tests compare with PEFT's."""
    parameters = {"top_k": None, "function_to_apply": "none"}
    body = {"model": model, "inputs": TEXTS, "parameters": parameters}
    rows = client.post("/v1/predict", json=body).json()["predictions"]
    return np.array(
        [
            [next(p["score"] for p in row if p["label"] == label) for label in ("fine", "insult", "threat")]
            for row in rows
        ]
    )


@pytest.mark.calls("openai", "moderations.create")
def test_of_labels_that_exclude_each_other_all_but_the_first_flag(
    api: openai.OpenAI, client: httpx.Client
) -> None:
    answer = api.moderations.create(model="single", input=TEXTS)
    raw = logits(client, "single")
    expected = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    assert answer.model == "single"
    for result, row in zip(answer.results, expected, strict=True):
        scores = result.category_scores.model_dump()
        found = [scores[label] for label in ("fine", "insult", "threat")]
        assert np.abs(np.array(found) - row).max() < 1e-5
        applies = result.categories.model_dump()
        assert [applies[label] for label in ("fine", "insult", "threat")] == [i == row.argmax() for i in range(3)]
        assert result.flagged == (row.argmax() != 0)


def test_of_labels_that_may_apply_together_each_flags_from_a_half_on(
    api: openai.OpenAI, client: httpx.Client
) -> None:
    answer = api.moderations.create(model="several", input=[{"type": "text", "text": text} for text in TEXTS])
    expected = 1 / (1 + np.exp(-logits(client, "several")))
    for result, row in zip(answer.results, expected, strict=True):
        applies = result.categories.model_dump()
        assert [applies[label] for label in ("fine", "insult", "threat")] == (row >= 0.5).tolist()
        assert result.flagged == bool((row >= 0.5).any())


@pytest.mark.parametrize("model", ["foundation", "tags", "scalar"])
def test_a_model_without_probabilities_of_labels_is_422(client: httpx.Client, model: str) -> None:
    answer = client.post("/v1/moderations", json={"model": model, "input": "x"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "wrong_task", "model")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "x"}, 422, "model"),
        ({"model": "single"}, 422, "input"),
        ({"model": "nobody", "input": "x"}, 404, None),
        ({"model": "single", "input": []}, 422, "input"),
        ({"model": "single", "input": [1]}, 422, "input"),
        ({"model": "single", "input": [[101]]}, 422, "input"),
        ({"model": "single", "input": {"type": "text", "text": "x"}}, 422, "input"),
        ({"model": "single", "input": [{"type": "image_url", "image_url": {"url": "x"}}]}, 422, "input[0].type"),
        ({"model": "single", "input": ["x"] * 257}, 413, "input"),
        ({"model": "single", "input": ["x", "long " * 600]}, 422, "input"),
        ({"model": "single", "input": "x", "top_k": 1}, 422, "top_k"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused_by_its_field(
    client: httpx.Client, body: Any, status: int, param: str | None
) -> None:
    answer = client.post("/v1/moderations", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text

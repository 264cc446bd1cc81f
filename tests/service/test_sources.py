"""Models of other libraries, converted and served: the server answers as each does in its own library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import joblib
import numpy as np
import pytest
import skops.io
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification, pipeline
from typer.testing import CliRunner

from rootstock.adapters.cli.adapter_commands import app
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server
from tests.peft_adapters import tokenizer_of
from tests.tiny_models import (
    CLASSES,
    LABELS,
    TEXTS,
    save_foundation,
    save_setfit,
    save_tuned_classifier,
    save_tuned_encoder,
    vectors,
)

CLOSE = 1e-4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_foundation(tmp_path_factory.mktemp("foundation") / "tiny")


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("home")
    with run_server(
        Settings(home=home, foundation=str(tiny), demo=False, log_level="error", threads=1)
    ) as running:
        yield running


@pytest.fixture
def push(server: RunningServer, tiny: Path) -> Callable[..., str]:
    """Return a function that pushes a path with the command, and returns what it printed."""

    def pushed(path: Path, *words: str) -> str:
        command = ["push", str(path), "--name", "mine", "--foundation", str(tiny), "--url", server.url, *words]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return pushed


def scores(client: httpx.Client, labels: list[str]) -> np.ndarray:
    """The server's scores of each text, in the order of the labels."""
    body = {"model": "mine", "inputs": TEXTS, "parameters": {"top_k": len(labels)}}
    rows = [
        {p["label"]: p["score"] for p in row}
        for row in client.post("/v1/predict", json=body).json()["predictions"]
    ]
    return np.array([[row[label] for label in labels] for row in rows])


def embeddings(client: httpx.Client, model: str) -> np.ndarray:
    answer = client.post("/v1/embeddings", json={"model": model, "input": TEXTS}).json()
    return np.array([row["embedding"] for row in answer["data"]])


def test_a_head_of_scikit_learn_scores_as_it_does_on_the_server_s_embeddings(
    client: httpx.Client, push: Callable[..., str], tmp_path: Path
) -> None:
    features = embeddings(client, "foundation")
    estimator = LogisticRegression(C=30).fit(features, [LABELS[i] for i in CLASSES])
    skops.io.dump(estimator, tmp_path / "topics.skops")
    assert "made from a scikit-learn head" in push(tmp_path / "topics.skops").splitlines()
    got = scores(client, list(estimator.classes_))
    assert np.abs(got - estimator.predict_proba(features)).max() < CLOSE


def test_a_setfit_model_scores_as_its_head_on_its_body(
    client: httpx.Client, push: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    body = save_tuned_encoder(tiny, tmp_path / "body")
    folder = save_setfit(body, tmp_path / "setfit")
    printed = push(folder, "--trust-pickle", "--max-difference", "1e-4")
    assert "made from a SetFit model, as a LoRA of rank 3; its outputs differ by at most" in printed
    expected = joblib.load(folder / "model_head.pkl").predict_proba(vectors(folder))
    assert np.abs(scores(client, LABELS) - expected).max() < CLOSE


def test_a_model_of_sentence_transformers_embeds_as_it_does_itself(
    client: httpx.Client, push: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    folder = save_tuned_encoder(tiny, tmp_path / "tuned")
    printed = push(folder, "--rank", "3")
    assert "made from a sentence-transformers model, as a LoRA of rank 3; its outputs differ" in printed
    expected = np.asarray(SentenceTransformer(str(folder), device="cpu").encode(TEXTS))
    assert np.abs(embeddings(client, "mine") - expected).max() < CLOSE * np.abs(expected).max()


def test_a_whole_checkpoint_scores_as_the_pipeline_of_transformers(
    client: httpx.Client, push: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    folder = save_tuned_classifier(tiny, tmp_path / "checkpoint-500", rank=3)
    printed = push(folder, "--max-difference", "1e-4")
    assert "made from a whole checkpoint, as a LoRA of rank 3" in printed
    assert "ignored: optimizer.pt, rng_state.pth, scheduler.pt" in printed
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer_of(tiny), top_k=None)
    rows = [{p["label"]: p["score"] for p in row} for row in classify(TEXTS)]
    expected = np.array([[row[label] for label in LABELS] for row in rows])
    assert np.abs(scores(client, LABELS) - expected).max() < CLOSE

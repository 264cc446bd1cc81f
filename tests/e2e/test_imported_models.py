"""Models of other libraries on the default foundation and CLINC150, served, against their own library.

`python -m pytest -m slow -s tests/e2e/test_imported_models.py` prints the figures of docs/importing.md.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skops.io
import torch
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
from typer.testing import CliRunner

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("ROOTSTOCK_DATA") or ROOT.parent / "shared" / "data") / "clinc150" / "banking"
CLOSE = 1e-4
SETFIT = "setfit==1.2.0"
SHOTS = 20
AT_ONCE = 50


@dataclass(frozen=True)
class IntentRows:
    """Texts with their intents: SHOTS training rows a label, and all test rows."""

    train: Sequence[str]
    labels: Sequence[str]
    test: Sequence[str]
    expected: Sequence[str]


@pytest.fixture(scope="module")
def rows() -> IntentRows:
    if not DATA.is_dir():
        pytest.skip(f"the data is not there: {DATA} (ROOTSTOCK_DATA)")
    files = {}
    for name in ("train", "test"):
        with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
            files[name] = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    kept: list[tuple[str, str]] = []
    for text, label in files["train"]:
        if sum(label == other for _, other in kept) < SHOTS:
            kept.append((text, label))
    return IntentRows(*zip(*kept, strict=True), *zip(*files["test"], strict=True))


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path]) -> Iterator[RunningServer]:
    with run_server(Settings(home=new_home(), demo=False, log_level="error", threads=1)) as running:
        yield running


@pytest.fixture
def push(server: RunningServer) -> Callable[..., dict[str, Any]]:
    """Return a function that pushes a path with the command, and returns its JSON answer."""

    def pushed(path: Path, *words: str) -> dict[str, Any]:
        command = ["push", str(path), "--name", "mine", "--url", server.url, "--json", *words]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    return pushed


def parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in groups that the server admits at once."""
    yield from (list(texts[start : start + AT_ONCE]) for start in range(0, len(texts), AT_ONCE))


def scores(client: httpx.Client, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    rows = []
    for part in parts(texts):
        body = {"model": "mine", "inputs": part, "parameters": {"top_k": len(labels)}}
        answer = client.post("/v1/predict", json=body).json()
        found = [{p["label"]: p["score"] for p in row} for row in answer["predictions"]]
        rows += [[row[label] for label in labels] for row in found]
    return np.array(rows)


def embeddings(client: httpx.Client, model: str, texts: Sequence[str]) -> np.ndarray:
    answers = [
        client.post("/v1/embeddings", json={"model": model, "input": part}).json() for part in parts(texts)
    ]
    return np.array([row["embedding"] for answer in answers for row in answer["data"]])


def accuracy(probabilities: np.ndarray, labels: Sequence[str], expected: Sequence[str]) -> float:
    found = np.asarray(labels)[probabilities.argmax(axis=1)]
    return float(np.mean(found == np.asarray(expected)))


def report(kind: str, **figures: float) -> None:
    print(f"\n{kind}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def test_a_head_of_scikit_learn(
    client: httpx.Client, push: Callable[..., dict[str, Any]], rows: IntentRows, tmp_path: Path
) -> None:
    head = LogisticRegression(C=30).fit(embeddings(client, "foundation", rows.train), rows.labels)
    skops.io.dump(head, tmp_path / "banking.skops")
    push(tmp_path / "banking.skops")
    labels = list(head.classes_)
    got, wanted = (
        scores(client, rows.test, labels),
        head.predict_proba(embeddings(client, "foundation", rows.test)),
    )
    difference = float(np.abs(got - wanted).max())
    served, own = (accuracy(found, labels, rows.expected) for found in (got, wanted))
    report("scikit-learn", difference=difference, own_accuracy=own, served_accuracy=served)
    assert difference < CLOSE


def test_a_model_of_sentence_transformers_with_a_merged_adapter(
    client: httpx.Client,
    push: Callable[..., dict[str, Any]],
    rows: IntentRows,
    foundation: FoundationFiles,
    tmp_path: Path,
) -> None:
    model = SentenceTransformer(str(foundation.folder), device="cpu")
    torch.manual_seed(0)
    adapted = get_peft_model(model[0].auto_model, LoraConfig(r=8, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-3)
    for step in range(10):
        first = list(rows.train[step * 20 : step * 20 + 20 : 2])
        optimizer.zero_grad()
        vectors = [model.forward(model.tokenize(texts))["sentence_embedding"] for texts in (first, first)]
        torch.nn.functional.cross_entropy(vectors[0] @ vectors[1].T * 20, torch.arange(len(first))).backward()
        optimizer.step()
    model[0].auto_model = adapted.merge_and_unload()
    model.save(str(tmp_path / "tuned"))
    figures = push(tmp_path / "tuned", "--max-difference", "1e-4")["source"]
    wanted = np.asarray(SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode(list(rows.test)))
    difference = float(np.abs(embeddings(client, "mine", rows.test) - wanted).max())
    report("sentence-transformers", difference=difference, rank=figures["rank"])
    assert difference < CLOSE


@pytest.fixture(scope="module")
def setfit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has SetFit beside this environment's packages."""
    folder = tmp_path_factory.mktemp("setfit")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "these.pth").write_text(sysconfig.get_paths()["purelib"])
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", SETFIT]
    subprocess.run([*map(str, install)], check=True)
    return python


@pytest.mark.parametrize("kind", ["frozen", "tuned", "torch"])
def test_a_model_of_setfit(
    client: httpx.Client,
    server: RunningServer,
    rows: IntentRows,
    foundation: FoundationFiles,
    setfit: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    given, texts, folder = tmp_path / "rows.json", tmp_path / "texts.txt", tmp_path / "setfit"
    given.write_text(json.dumps({"train": rows.train, "labels": rows.labels, "test": rows.test}))
    texts.write_text("\n".join(rows.train))
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    training = [setfit, ROOT / "tests" / "e2e" / "setfit_training.py", foundation.folder, given, folder, kind]
    subprocess.run([*map(str, training)], check=True, env=environment)
    # SetFit's own head is a class of SetFit, which the command can read only where SetFit is installed.
    pushing = [setfit, "-m", "rootstock.adapters.cli.console", "adapters", "push", folder, "--name", "mine"]
    pushing += ["--url", server.url, "--trust-pickle", "--texts", texts, "--json"]
    done = subprocess.run([*map(str, pushing)], check=True, env=environment, capture_output=True, text=True)
    figures = json.loads(done.stdout)["source"]
    wanted, labels = np.load(folder / "expected.npy"), sorted(set(rows.labels))
    got = scores(client, rows.test, labels)
    difference = float(np.abs(got - wanted).max())
    measured = {key: figures[key] for key in ("rank", "max_difference")}
    measured |= {"own accuracy": accuracy(wanted, labels, rows.expected)}
    measured |= {"accuracy": accuracy(got, labels, rows.expected), "difference": difference}
    report(f"SetFit, {kind}", **measured)
    assert difference < (0.1 if kind == "tuned" else CLOSE)


def test_a_whole_checkpoint_of_the_trainer(
    client: httpx.Client,
    push: Callable[..., dict[str, Any]],
    rows: IntentRows,
    foundation: FoundationFiles,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    labels = sorted(set(rows.labels))
    tokenizer = AutoTokenizer.from_pretrained(foundation.folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        foundation.folder, num_labels=len(labels), id2label=dict(enumerate(labels))
    )
    encoded = tokenizer(list(rows.train), truncation=True, max_length=64)
    data = [
        {"input_ids": ids, "labels": labels.index(label)}
        for ids, label in zip(encoded["input_ids"], rows.labels, strict=True)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"), per_device_train_batch_size=16, num_train_epochs=8, learning_rate=1e-4,
        report_to="none", save_strategy="epoch", save_total_limit=1, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer).train()
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(rows.train))
    figures = push(checkpoint, "--texts", str(texts))["source"]
    assert "optimizer.pt" in figures["ignored"]
    model.eval()
    with torch.no_grad():
        inputs = [tokenizer(text, return_tensors="pt") for text in rows.test]
        wanted = np.array([model(**tokens).logits[0].softmax(-1).numpy() for tokens in inputs])
    got = scores(client, rows.test, labels)
    measured = {"own accuracy": accuracy(wanted, labels, rows.expected)}
    measured |= {
        "accuracy": accuracy(got, labels, rows.expected),
        "difference": float(np.abs(got - wanted).max()),
    }
    report("whole checkpoint", rank=figures["rank"], max_difference=figures["max_difference"], **measured)
    assert abs(measured["own accuracy"] - measured["accuracy"]) <= 0.01

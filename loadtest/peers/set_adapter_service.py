"""PEFT behind BentoML as a tutorial gives it: `set_adapter` and one forward pass a request.

`bentoml serve rootstock.loadtest.peers.set_adapter_service:SetAdapter`, with the foundation's folder, that of the
adapters (each a folder PEFT saved, by name), their labels and torch's threads in the environment.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import bentoml
from fastapi import FastAPI
from pydantic import BaseModel

FOUNDATION = "PEER_FOUNDATION"
ADAPTERS = "PEER_ADAPTERS"
THREADS = "PEER_THREADS"
LABELS = "PEER_LABELS"

app = FastAPI()


class PeerBody(BaseModel):
    """One text under one adapter."""

    model: str
    inputs: str


@app.post("/v1/predict")
def predict(body: PeerBody) -> dict[str, Any]:
    """Every label's score, best first; a plain function, which FastAPI runs in its pool of threads."""
    answer: dict[str, Any] = app.state.classifier.predict(body.model, body.inputs)
    return answer


class Classifier:
    """A sequence classifier of transformers with adapters that PEFT loaded by name."""

    def __init__(self, foundation: Path, adapters: Path, labels: int) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(foundation)
        model = AutoModelForSequenceClassification.from_pretrained(foundation, num_labels=labels)
        names = sorted(path.name for path in adapters.iterdir())
        self._model: Any = PeftModel.from_pretrained(model, adapters / names[0], adapter_name=names[0])
        for name in names[1:]:
            self._model.load_adapter(adapters / name, adapter_name=name)
        self._model.eval()
        # The adapter that is set belongs to the model, which threads share.
        self._lock = threading.Lock()

    def predict(self, name: str, text: str) -> dict[str, Any]:
        """The scores of one text under one adapter."""
        tokens = self._tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        with self._lock, self._torch.inference_mode():
            self._model.set_adapter(name)
            scores = self._model(**tokens).logits[0].softmax(-1).tolist()
        labels = [{"label": f"LABEL_{i}", "score": score} for i, score in enumerate(scores)]
        best = sorted(labels, key=lambda one: -one["score"])
        return {"model": name, "predictions": [best]}


@bentoml.service(name="set_adapter", workers=1, metrics={"enabled": False}, traffic={"timeout": 3600})
@bentoml.asgi_app(app)
class SetAdapter:
    """One worker that holds every adapter."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(int(os.environ[THREADS]))
        folders = (Path(os.environ[FOUNDATION]), Path(os.environ[ADAPTERS]))
        app.state.classifier = Classifier(*folders, labels=int(os.environ[LABELS]))

"""PEFT behind BentoML as in a tutorial: `set_adapter` and one forward pass a request.

Run `bentoml serve rootstock.loadtest.peers.set_adapter_service:SetAdapter`. The environment names the
foundation's folder, the folder of the adapters (each a folder that PEFT saved), their labels and torch's threads.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import bentoml
from fastapi import FastAPI
from pydantic import BaseModel

from rootstock.loadtest.peers.set_adapter import ADAPTERS, FOUNDATION, NUMBER_OF_LABELS, THREADS_OF_TORCH

app = FastAPI()


class PeerBody(BaseModel):
    """One text under one adapter."""

    model: str
    inputs: str


@app.post("/v1/predict")
def predict(body: PeerBody) -> dict[str, Any]:
    """Return every label's score, best first. FastAPI runs a plain function in its pool of threads."""
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
        # `set_adapter` changes the model, which threads share.
        self._lock = threading.Lock()

    def predict(self, name: str, text: str) -> dict[str, Any]:
        """Return the scores of one text under one adapter."""
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

        torch.set_num_threads(int(os.environ[THREADS_OF_TORCH]))
        folders = (Path(os.environ[FOUNDATION]), Path(os.environ[ADAPTERS]))
        app.state.classifier = Classifier(*folders, labels=int(os.environ[NUMBER_OF_LABELS]))

"""Runs a server with tiny foundations of images and of sound and an adapter for each, beside their pipelines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.media_foundations import make_media_foundation
from tests.peft_adapters import PeftAdapter

LABELS = ["fist", "palm", "thumb", "wave", "two", "three"]
_CLASSES = {
    "image": transformers.AutoModelForImageClassification,
    "audio": transformers.AutoModelForAudioClassification,
}
_HEADS = {"image": ["classifier"], "audio": ["classifier", "projector"]}


@dataclass(frozen=True)
class MediaServer:
    """The server, with the folder of each modality's foundation and of its adapter."""

    running: RunningServer
    foundations: Mapping[str, Path]
    adapters: Mapping[str, PeftAdapter]

    def pipeline(self, modality: str) -> Any:
        """Return transformers' classification pipeline of a modality's adapter."""
        folder = self.foundations[modality]
        base = _CLASSES[modality].from_pretrained(folder, num_labels=len(LABELS))
        model = PeftModel.from_pretrained(base, self.adapters[modality].folder).merge_and_unload().eval()
        model.config.id2label = dict(enumerate(LABELS))
        processor = transformers.AutoFeatureExtractor if modality == "audio" else transformers.AutoImageProcessor
        name = "feature_extractor" if modality == "audio" else "image_processor"
        options = {name: processor.from_pretrained(folder)}
        return transformers.pipeline(f"{modality}-classification", model=model, device="cpu", **options)


def save_media_adapter(modality: str, foundation: Path, folder: Path) -> PeftAdapter:
    """Save a LoRA of a foundation's attention with a new head, as PEFT does."""
    torch.manual_seed(1)
    base = _CLASSES[modality].from_pretrained(foundation, num_labels=len(LABELS))
    targets = r".*\.(q_proj|v_proj|query|value)"
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, modules_to_save=_HEADS[modality]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_((0.3 if "modules_to_save" in name else 0.1) * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return PeftAdapter(folder, "", len(LABELS))


@contextmanager
def run_media_server(home: Path, folder: Path, foundations: str = "", **settings: Any) -> Iterator[MediaServer]:
    """Run a server of the foundations `vision` and `sound`, behind `foundations`, with `signs` and `digits`."""
    made = {"image": folder / "vision", "audio": folder / "sound"}
    make_media_foundation("vit", made["image"])
    make_media_foundation("wav2vec2", made["audio"])
    adapters = {
        modality: save_media_adapter(modality, foundation, folder / "adapters" / modality)
        for modality, foundation in made.items()
    }
    listed = ",".join(filter(None, (foundations, *map(str, made.values()))))
    chosen = {"demo": False, "log_level": "error", "threads": 1, "runner": "torch", **settings}
    with run_server(Settings(home=home, foundations=listed, **chosen)) as running:
        with running.client(chosen.get("admin_key")) as client:
            for modality, name, foundation in (("image", "signs", "vision"), ("audio", "digits", "sound")):
                answer = upload_media(client, name, adapters[modality], foundation)
                assert answer.status_code == 201, answer.text
        yield MediaServer(running, made, adapters)


def upload_media(client: httpx.Client, name: str, adapter: PeftAdapter, foundation: str) -> httpx.Response:
    """Upload an adapter with LABELS, and return the response."""
    return upload(client, name, adapter.zip(), foundation=foundation, labels=json.dumps(LABELS))

"""A recipe for generated text on a tiny random foundation, with rows that an adapter learns in a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from rootstock.service.settings import Settings
from rootstock.training.results import RunResult
from tests.live_server import RunningServer, run_server, upload
from tests.service.engine.generate.families import TinyDecoder
from tests.service.engine.generate.rewriters import TinyRewriter

_COLOURS = ("red", "green", "blue", "black", "white", "grey")
_THINGS = ("cup", "kettle", "train", "parcel", "coat", "lamp", "bell", "boat")


def write_rows(folder: Path, name: str = "rows.csv") -> Path:
    """Write rows with one or two answers to each prompt."""
    lines = ["thing,colour,text"]
    for i, (thing, colour) in enumerate((t, c) for t in _THINGS for c in _COLOURS):
        lines.append(f"{thing},{colour},The {thing} is {colour}.")
        if i % 3 == 0:
            lines.append(f'{thing},{colour},"A {colour} {thing}."')
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_generation_recipe(folder: Path, tiny: TinyDecoder | TinyRewriter, **changes: Any) -> Path:
    """Write a recipe beside the rows; keyword arguments replace its keys, dicts one level deep."""
    rewrites = isinstance(tiny, TinyRewriter)
    system = {} if rewrites else {"system_prompt": "Be brief."}
    value: dict[str, Any] = {
        "task_type": "SEQ_2_SEQ_LM" if rewrites else "CAUSAL_LM",
        "base_model": str(tiny.folder),
        "name": "tiny-writer",
        "license": "cc-by-4.0",
        "description": "A test.",
        "data": {"path": "rows.csv", "splits": {"test_size": 0.2, "val_size": 0.2, "seed": 1}},
        "prompts": {**system, "template": "{thing}: {colour}", "completion": "{text}"},
        "peft": {"method": "lora", "r": 8, "lora_alpha": 16},
        "training": {
            "learning_rate": 0.01,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "max_length": 100,
        },
        "generation": {"metric": "perplexity", "shots": 0 if rewrites else 1, "max_new_tokens": 12},
    }
    for key, change in changes.items():
        value[key] = {**value.get(key, {}), **change} if isinstance(change, dict) else change
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


@contextmanager
def serve_outcome(home: Path, tiny: TinyDecoder | TinyRewriter, outcome: RunResult) -> Iterator[RunningServer]:
    """Start a server of the foundation with a run's adapter, which it has verified."""
    settings = Settings(home=home, foundation=str(tiny.folder), demo=False, log_level="error", threads=1)
    with run_server(settings) as running, running.client() as client:
        answer = upload(client, "tiny-writer", outcome.results.zip.read_bytes())
        assert answer.status_code == 201, answer.text
        assert answer.json()["verification"]["golden"] == "passed"
        yield running

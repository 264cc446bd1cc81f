"""The adapters that a server of the chat foundation registers open, answer as PEFT's, and are made from here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rootstock.adapters.bundle import Bundle, Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.spec import FoundationSpec
from rootstock.service.composition.demo_adapters import CHAT_DEMO
from rootstock.service.settings import Settings
from rootstock.training.recipe.recipe_file import load_recipe
from tests.chat_foundation import needs_chat
from tests.live_server import run_server
from tests.marks import slow_except

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in CHAT_DEMO.glob("*.zip"))
RECIPES = {load_recipe(path).recipe.name: path for path in (ROOT / "training/recipes/generation").glob("*.yaml")}

pytestmark = needs_chat


@pytest.fixture(scope="module")
def chat_spec(chat_foundation: Path) -> FoundationSpec:
    return describe(locate(str(chat_foundation)))


def _bundle(name: str, spec: FoundationSpec) -> Bundle:
    return open_bundle((CHAT_DEMO / f"{name}.zip").read_bytes(), Limits(), spec)


@pytest.mark.parametrize("name", slow_except(["gardener"], NAMES))
def test_the_golden_tokens_of_a_chat_demo_are_pefts_own(
    name: str, chat_foundation: Path, chat_spec: FoundationSpec, tmp_path: Path
) -> None:
    bundle = _bundle(name, chat_spec)
    golden = bundle.golden()
    assert golden is not None
    for member, content in bundle.files.items():
        (tmp_path / member).write_bytes(content)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(chat_foundation), tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(chat_foundation)
    for prompt, output in zip(golden.inputs, golden.outputs, strict=True):
        ids = tokenizer.encode(prompt)
        tokens = output[:, 0].astype(int).tolist()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == tokens
        scores = logits.log_softmax(-1)[range(len(tokens)), tokens]
        np.testing.assert_allclose(output[:, 1], scores.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_demo_is_made_from_the_recipe_that_lies_here_and_its_card_states_its_gain(
    name: str, chat_spec: FoundationSpec
) -> None:
    bundle = _bundle(name, chat_spec)
    source = load_recipe(RECIPES[name])
    assert bundle.manifest.provenance["recipe_sha256"] == source.sha256
    assert bundle.manifest.license == source.recipe.license
    assert "prompted" in bundle.files["README.md"].decode()


def test_the_gardener_is_made_from_the_data_that_lie_here(chat_spec: FoundationSpec) -> None:
    data = (ROOT / "training" / "data" / "gardener.jsonl").read_bytes()
    made = _bundle("gardener", chat_spec).manifest.provenance["data_sha256"]
    assert made == {"train": "sha256:" + hashlib.sha256(data).hexdigest()}


@pytest.mark.slow
def test_a_server_of_the_chat_foundation_publishes_its_demos_alone(
    chat_foundation: Path, new_home: Callable[[], Path]
) -> None:
    settings = Settings(home=new_home(), foundation=str(chat_foundation), log_level="error")
    with run_server(settings) as running, running.client() as client:
        listed = client.get("/v1/adapters").json()
        assert {one["name"] for one in listed["adapters"]} == set(NAMES)
        answer = client.post(
            "/v1/chat/completions",
            json={
                "model": "gardener",
                "messages": [{"role": "user", "content": "How do I make friends?"}],
                "temperature": 0,
                "max_tokens": 8,
            },
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]

"""Scores of pairs are those of sentence-transformers' CrossEncoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder

from rootstock.service.engine.encode.modalities.text import Tokenizer
from tests.service.engine.tiny import TEXTS, oracle, theirs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("parameters", "activation"),
    [({}, None), ({"function_to_apply": "sigmoid"}, None), ({"function_to_apply": "none"}, torch.nn.Identity())],
)
def test_pairs_are_scored_as_a_cross_encoder_does(
    ours: Tokenizer, tmp_path: Path, parameters: dict[str, Any], activation: Any
) -> None:
    model = oracle("text-ranking", ("relevance",))
    model.model.save_pretrained(tmp_path)
    theirs().save_pretrained(tmp_path)
    encoder = CrossEncoder(str(tmp_path), device="cpu", local_files_only=True)
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    wanted = encoder.predict(pairs, activation_fn=activation, show_progress_bar=False)
    for pair, score in zip(pairs, wanted, strict=True):
        assert model.answer(pair, parameters, ours) == {"score": pytest.approx(float(score), abs=1e-6, rel=1e-5)}

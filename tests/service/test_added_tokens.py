"""A pushed folder of an adapter with added tokens answers as PEFT does with the tokenizer beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, PreTrainedTokenizerFast

from rootstock.adapters.client.upload import read_source
from rootstock.adapters.foundation.location import FoundationFiles
from tests.live_server import RunningServer, upload
from tests.parity.oracle import move

TEXTS = ["<acme> sells parcels", "a text without one"]


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")
def test_a_pushed_folder_with_added_tokens_embeds_as_peft_does_and_takes_no_token_ids(
    serve: Callable[..., RunningServer], foundation: FoundationFiles, tmp_path: Path
) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(foundation.folder / "tokenizer.json"))
    tokenizer.add_tokens(["<acme>"])
    new = len(tokenizer) - 1

    def base() -> AutoModel:
        model = AutoModel.from_pretrained(foundation.folder, attn_implementation="eager")
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        return model.eval()

    options = {"target_modules": ["query"], "trainable_token_indices": [new], "r": 2}
    model = get_peft_model(base(), LoraConfig(task_type="FEATURE_EXTRACTION", **options))
    torch.manual_seed(0)
    move(model, 0.05)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    tokenizer.save_pretrained(tmp_path)
    data, ignored = read_source(tmp_path)
    assert "tokenizer.json" not in ignored
    with serve().client() as client:
        answer = upload(client, "acme", data)
        assert answer.status_code == 201, answer.text
        body = {"model": "acme", "input": TEXTS}
        vectors = [row["embedding"] for row in client.post("/v1/embeddings", json=body).json()["data"]]
        bare = client.post("/v1/embeddings", json={**body, "model": "foundation"}).json()
        ids = client.post("/tokenize", json={"model": "acme", "prompt": TEXTS[0]}).json()["tokens"]
        whole = {"adapters": [{"model": "acme", "weight": 1}]}
        for model in ({"model": "acme"}, whole):
            refused = client.post("/v1/embeddings", json={**model, "input": ids})
            assert refused.status_code == 422
            assert "send texts" in refused.json()["error"]["message"]
        assert client.post("/v1/embeddings", json={"model": "foundation", "input": ids}).status_code == 200
    # The foundation reads the token as several, and its vectors differ.
    assert np.abs(np.array(bare["data"][0]["embedding"]) - vectors[0]).max() > 1e-3
    reference = PeftModel.from_pretrained(base(), tmp_path).get_base_model().eval()
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.inference_mode():
            hidden = reference(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        wanted = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy()
        assert np.abs(np.array(vector) - wanted).max() < 1e-4

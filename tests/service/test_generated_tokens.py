"""A server answers with the tokens that an uploaded adapter adds, and with those of no other adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.peft_adapters import save_adapter
from tests.service.engine.generate.families import make_decoder
from tests.service.engine.generate.token_adapters import ADDED, KNOWN, bring_tokens
from tests.service.generating_server import run_decoder_server

TEXT = "Where is my <acme> parcel? <zeta> said"
GREEDY = {"temperature": 0, "max_tokens": 10, "prompt": TEXT}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
def test_completions_and_chats_read_and_write_the_tokens_of_their_adapter_alone(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model", tie_word_embeddings=True)
    assert tiny.spec.causal_lm is not None
    first = tiny.spec.causal_lm.vocabulary
    one = bring_tokens(tiny, tmp_path / "one", 0, trainable_token_indices=[KNOWN, first, first + 1])
    other = save_adapter(tiny.folder, tmp_path / "other", "CAUSAL_LM", 1, target_modules=["q_proj"])
    expected = one.greedy(one.ours.encode(TEXT), 10)
    assert any(token >= first for token in expected)
    with (
        run_decoder_server(tmp_path / "home", tiny.folder, [one.saved, other]) as running,
        running.client() as client,
    ):
        answer = client.post("/v1/completions", json={"model": "a0", **GREEDY, "logprobs": 1}).json()
        choice = answer["choices"][0]
        assert choice["text"] == one.theirs.decode(expected, skip_special_tokens=True)
        assert choice["logprobs"]["tokens"] == [one.theirs.decode([token]) for token in expected]
        assert answer["usage"]["prompt_tokens"] == len(one.ours.encode(TEXT))
        with client.stream("POST", "/v1/completions", json={"model": "a0", **GREEDY, "stream": True}) as events:
            lines = [line[6:] for line in events.iter_lines() if line.startswith("data: {")]
        assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == choice["text"]
        bias = {"logit_bias": {str(first): 100}, "temperature": 0, "max_tokens": 2}
        chat = {"messages": [{"role": "user", "content": "<zeta>?"}], **bias}
        said = client.post("/v1/chat/completions", json={"model": "a0", **chat}).json()
        assert said["choices"][0]["message"]["content"] == ADDED[0] * 2
        for model in ("a1", "foundation"):
            refused = client.post("/v1/chat/completions", json={"model": model, **chat})
            assert refused.status_code == 422, refused.text
            assert f"0 to {first - 1}" in refused.json()["error"]["message"]
        ids = client.post("/v1/completions", json={"model": "a1", "prompt": [first], "max_tokens": 1})
        assert ids.status_code == 422
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [ADDED[0]]}}}
        shaped = {"messages": chat["messages"], "response_format": form, "max_tokens": 40}
        json_text = client.post("/v1/chat/completions", json={"model": "a0", **shaped}).json()
        assert json.loads(json_text["choices"][0]["message"]["content"]) == ADDED[0]

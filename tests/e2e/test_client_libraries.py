"""litellm and langchain-openai chat with a server, an adapter as their model, and get PEFT's greedy answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import litellm
import pytest
from langchain_openai import ChatOpenAI
from transformers import AutoTokenizer

from tests.live_server import RunningServer
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder
from tests.service.generating_server import run_decoder_server

pytestmark = pytest.mark.usefixtures("loopback_only", "current_loop")
MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 10, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="module")
def saved(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(tiny, tmp_path_factory.mktemp("adapters"))[:2]


@pytest.fixture(scope="module")
def server(
    tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    with run_decoder_server(tmp_path_factory.mktemp("home"), tiny.folder, saved) as running:
        yield running


@pytest.fixture(scope="module")
def expected(tiny: TinyDecoder, saved: list[PeftAdapter]) -> dict[str, str]:
    """Return PEFT's text for each model."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    adapters = {"foundation": None, "a0": saved[0], "a1": saved[1]}
    return {
        name: tokenizer.decode(tiny.greedy(adapter, ids, 10), skip_special_tokens=True).rstrip("\ufffd")
        for name, adapter in adapters.items()
    }


def _litellm(server: RunningServer, model: str, provider: str = "openai", **options: Any) -> Any:
    return litellm.completion(
        f"{provider}/{model}",
        MESSAGES,
        api_base=f"{server.url}/v1",
        api_key="unused",
        max_retries=0,
        **GREEDY,
        **options,
    )


# litellm copies a chunk's attributes by their names, and pydantic has deprecated some of them.
@pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated")
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
@pytest.mark.parametrize("model", ["foundation", "a0", "a1"])
@pytest.mark.calls("litellm", 'completion("openai/REF")')
@pytest.mark.calls("litellm", 'completion("hosted_vllm/REF")')
def test_litellm_chats_and_streams(
    server: RunningServer, expected: dict[str, str], model: str, provider: str
) -> None:
    answer = _litellm(server, model, provider)
    assert answer.choices[0].message.content.rstrip("\ufffd") == expected[model]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 10
    chunks = list(_litellm(server, model, provider, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 10


def test_litellm_reports_an_unknown_adapter_as_not_found(server: RunningServer) -> None:
    with pytest.raises(litellm.NotFoundError, match="nobody"):
        _litellm(server, "nobody")


@pytest.mark.parametrize("model", ["foundation", "a0", "a1"])
@pytest.mark.calls("langchain-openai", "ChatOpenAI.invoke")
@pytest.mark.calls("langchain-openai", "ChatOpenAI.stream")
def test_langchain_chats_and_streams(server: RunningServer, expected: dict[str, str], model: str) -> None:
    chat = ChatOpenAI(model=model, base_url=f"{server.url}/v1", api_key="unused", max_retries=0, **GREEDY)
    answer = chat.invoke(MESSAGES)
    assert str(answer.content).rstrip("\ufffd") == expected[model]
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 10
    assert "".join(str(chunk.content) for chunk in chat.stream(MESSAGES)) == answer.content

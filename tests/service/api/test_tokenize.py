"""POST /tokenize and /detokenize, against transformers' tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Preprocessing, Prompting
from rootstock.service.settings import Settings
from tests.live_server import run_server, upload
from tests.peft_adapters import PeftAdapter, save_adapter, tokenizer_of
from tests.service.engine.generate.families import TinyDecoder, make_decoder

TEXTS = (
    "",
    "ok",
    "Where is my parcel, Zoë?\n\n It was due on Monday…",
    "<|im_start|> [CLS] 東京 🎉",
    "a " * 20_000,
)
MESSAGES = [
    {"role": "user", "content": "Where is my parcel?"},
    {"role": "assistant", "content": "In Dorset Street."},
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="module")
def client(
    new_home: Callable[[], Path], tiny: TinyDecoder, peft_saved: dict[str, PeftAdapter], tmp_path_factory: Any
) -> Iterator[httpx.Client]:
    """A client of a server of an encoder and a decoder, with an adapter of each: `scalar` and `brief`."""
    saved = save_adapter(
        tiny.folder, tmp_path_factory.mktemp("saved") / "brief", "CAUSAL_LM", 1, target_modules=["q_proj"]
    )
    plain = open_bundle(saved.zip(), Limits(), tiny.spec)
    manifest = replace(plain.manifest, prompting=Prompting("Be brief."), preprocessing=Preprocessing(100))
    settings = Settings(
        home=new_home(),
        foundations=f"default,{tiny.folder}",
        demo=False,
        log_level="error",
        threads=1,
        generation_cache_tokens=1024,
    )
    with run_server(settings) as running, running.client() as client:
        brief = upload(client, "brief", write_bundle(manifest, plain.files).to_zip())
        assert brief.status_code == 201, brief.text
        assert upload(client, "scalar", peft_saved["scalar"].zip(), max_length="64").status_code == 201
        yield client


def tokenized(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/tokenize", json=body)
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()
    assert value["count"] == len(value["tokens"])
    return value


@pytest.mark.parametrize("model", ["default", "tiny-chat", "scalar", "brief"])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_has_the_tokens_of_transformers_and_back_again(
    client: httpx.Client, tiny: TinyDecoder, foundation: FoundationFiles, model: str, text: str
) -> None:
    tokenizer = tokenizer_of(foundation.folder if model in ("default", "scalar") else tiny.folder)
    answer = tokenized(client, model=model, prompt=text, return_token_strs=True)
    assert answer["tokens"] == tokenizer(text).input_ids
    assert answer["token_strs"] == tokenizer.convert_ids_to_tokens(answer["tokens"])
    plain = tokenized(client, model=model, prompt=text, add_special_tokens=False)
    assert plain["tokens"] == tokenizer(text, add_special_tokens=False).input_ids
    assert plain["token_strs"] is None
    ids = answer["tokens"][:16_000]
    back = client.post("/detokenize", json={"model": model, "tokens": ids})
    assert back.json() == {"prompt": tokenizer.decode(ids)}


@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": False}, {"add_special_tokens": True}])
def test_a_chat_has_the_tokens_of_its_template_and_of_the_bundle_s_system_prompt(
    client: httpx.Client, tiny: TinyDecoder, options: dict[str, Any]
) -> None:
    tokenizer = tokenizer_of(tiny.folder)
    for model, first in (("tiny-chat", []), ("brief", [{"role": "system", "content": "Be brief."}])):
        answer = tokenized(client, model=model, messages=MESSAGES, **options)
        assert answer["tokens"] == tokenizer.apply_chat_template(
            [*first, *MESSAGES],
            add_generation_prompt=options.get("add_generation_prompt", True),
            return_dict=False,
        )


def test_the_limit_is_that_of_the_model_that_the_reference_means(client: httpx.Client) -> None:
    limits = {model: tokenized(client, model=model, prompt="ok")["max_model_len"] for model in LIMITS}
    assert limits == LIMITS


LIMITS = {"default": 256, "scalar": 64, "tiny-chat": 128, "brief": 100}


@pytest.mark.parametrize(
    ("route", "body", "status", "param"),
    [
        ("tokenize", {"model": "nobody", "prompt": "x"}, 404, None),
        ("detokenize", {"model": "nobody", "tokens": [1]}, 404, None),
        ("tokenize", {"model": "default", "messages": MESSAGES}, 422, "messages"),
        ("tokenize", {"model": "tiny-chat"}, 422, "prompt"),
        ("tokenize", {"model": "tiny-chat", "prompt": "x", "messages": MESSAGES}, 422, "messages"),
        ("tokenize", {"model": "tiny-chat", "messages": []}, 422, "messages"),
        ("tokenize", {"model": "tiny-chat", "prompt": [1]}, 422, "prompt"),
        ("tokenize", {"model": "tiny-chat", "prompt": "x" * (2**18 + 1)}, 413, "prompt"),
        (
            "tokenize",
            {"model": "tiny-chat", "messages": [{"role": "user", "content": "x" * (2**18 + 1)}]},
            413,
            "messages",
        ),
        ("detokenize", {"model": "tiny-chat", "tokens": [1, 10**6]}, 422, "tokens"),
        ("detokenize", {"model": "tiny-chat", "tokens": [-1]}, 422, "tokens"),
        ("detokenize", {"model": "default", "tokens": [2**70]}, 422, "tokens"),
        ("detokenize", {"model": "default", "tokens": [1.5]}, 422, "tokens.0"),
        ("detokenize", {"model": "default", "tokens": [1] * 20_000}, 413, "tokens"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_by_its_field(
    client: httpx.Client, route: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post(f"/{route}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_no_tokens_are_an_empty_text(client: httpx.Client) -> None:
    assert client.post("/detokenize", json={"model": "brief", "tokens": []}).json() == {"prompt": ""}

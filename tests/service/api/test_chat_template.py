"""A bundle's own chat template: in chats and /tokenize as transformers renders it, and ended at its limits."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.chat_template import SETTINGS, TEMPLATE
from rootstock.adapters.client.client import Client
from rootstock.adapters.spec import Prompting
from tests.adapters.chat_templates import CHATML, GEMMA, LLAMA_3, MISTRAL, PHI_3, QWEN_2_5
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter, save_adapter, tokenizer_of
from tests.service.engine.generate.families import TinyDecoder, make_decoder
from tests.service.generating_server import run_decoder_server

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 6, "ignore_eos": True}
USER = [{"role": "user", "content": "Where is it?"}]
CHATS = [USER, [*USER, {"role": "assistant", "content": "Here."}, {"role": "user", "content": "é"}]]
# Each renders the chat with which an upload is checked.
LATER = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{{ messages[0].content * 10**9 }}",
    "power": "{% set x = 9 + messages|length %}{{ x ** (x ** x) }}",
    "output": "{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}",
    "message": "{{ raise_exception('No ' ~ messages[0].content ~ ' here, Zoë') }}",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="module")
def saved(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    return save_adapter(
        tiny.folder, tmp_path_factory.mktemp("saved") / "one", "CAUSAL_LM", 1, target_modules=["q_proj"]
    )


@pytest.fixture(scope="module")
def server(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_decoder_server(tmp_path_factory.mktemp("home"), tiny.folder) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def bundle(tiny: TinyDecoder, saved: PeftAdapter, template: str | None, system: str | None = None) -> bytes:
    plain = open_bundle(saved.zip(), Limits(), tiny.spec)
    manifest = replace(plain.manifest, prompting=Prompting(system, template))
    return write_bundle(manifest, plain.files).to_zip()


def published(client: httpx.Client, name: str, data: bytes) -> dict[str, Any]:
    answer = upload(client, name, data)
    assert answer.status_code in (200, 201), answer.text
    value: dict[str, Any] = answer.json()
    return value


def text_of(tiny: TinyDecoder, template: str, messages: list[dict[str, str]], reply: bool = True) -> str:
    text: str = tokenizer_of(tiny.folder).apply_chat_template(
        messages, chat_template=template, add_generation_prompt=reply, tokenize=False
    )
    return text


@pytest.mark.parametrize(
    ("template", "system"),
    [
        (CHATML, None),
        (PHI_3, None),
        (PHI_3, "Be brief."),
        (MISTRAL, None),
        (GEMMA, None),
        (QWEN_2_5, "Be brief."),
    ],
)
def test_an_answer_is_that_of_the_prompt_that_transformers_renders(
    client: httpx.Client, tiny: TinyDecoder, saved: PeftAdapter, template: str, system: str | None
) -> None:
    assert published(client, "own", bundle(tiny, saved, template, system))["verification"]["chat_template"]
    for chat in CHATS:
        first = [] if system is None else [{"role": "system", "content": system}]
        prompt = text_of(tiny, template, [*first, *chat])
        completion = {"model": "own", "prompt": prompt, **GREEDY}
        by_text = client.post("/v1/completions", json=completion).json()
        by_chat = client.post("/v1/chat/completions", json={"model": "own", "messages": chat, **GREEDY}).json()
        assert by_chat["choices"][0]["message"]["content"] == by_text["choices"][0]["text"]
        assert by_chat["usage"]["prompt_tokens"] == by_text["usage"]["prompt_tokens"]


def test_a_system_prompt_that_its_template_refuses_is_refused_at_upload(
    client: httpx.Client, tiny: TinyDecoder, saved: PeftAdapter
) -> None:
    answer = upload(client, "bad", bundle(tiny, saved, GEMMA, "Be brief."))
    assert answer.status_code == 422
    assert "System role not supported" in answer.json()["error"]["message"]


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("special", [None, False, True])
def test_the_tokens_are_those_of_transformers(
    client: httpx.Client, tiny: TinyDecoder, saved: PeftAdapter, reply: bool, special: bool | None
) -> None:
    published(client, "own", bundle(tiny, saved, LLAMA_3))
    body = {"model": "own", "messages": CHATS[1], "add_generation_prompt": reply, "add_special_tokens": special}
    expected = tokenizer_of(tiny.folder).apply_chat_template(
        CHATS[1], chat_template=LLAMA_3, add_generation_prompt=reply, return_dict=False
    )
    answer = client.post("/tokenize", json=body)
    assert answer.json()["tokens"] == expected, answer.text
    assert client.post("/tokenize", json={**body, "model": "foundation"}).json()["tokens"] != expected


@pytest.mark.parametrize("kind", ["jinja", "settings", "named", "both"])
def test_a_folder_of_peft_brings_the_template_beside_it(
    server: RunningServer, client: httpx.Client, tiny: TinyDecoder, saved: PeftAdapter, tmp_path: Path, kind: str
) -> None:
    beside: dict[str, Any] = {
        "jinja": {TEMPLATE: GEMMA},
        "settings": {SETTINGS: json.dumps({"chat_template": GEMMA})},
        "named": {
            SETTINGS: json.dumps(
                {"chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": GEMMA}]}
            )
        },
        "both": {TEMPLATE: GEMMA, SETTINGS: json.dumps({"chat_template": PHI_3})},
    }[kind]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((saved.folder / name).read_bytes())
    for name, text in beside.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with Client(server.url) as ours:
        done = ours.push(tmp_path, f"peft-{kind}")
        verification = done.verification
        assert verification["chat_template"] is True
        assert verification["ignored"] == ([SETTINGS] if kind == "both" else [])
        shown = ours.show(f"peft-{kind}").versions[0].document["verification"]
        assert shown["chat_template"] is True
        pulled = ours.pull(f"peft-{kind}@1", tmp_path).path.read_bytes()
    tokens = client.post("/tokenize", json={"model": f"peft-{kind}", "messages": USER}).json()["tokens"]
    text = text_of(tiny, GEMMA, USER)
    assert tokens == tokenizer_of(tiny.folder)(text, add_special_tokens=False).input_ids
    manifest = json.loads(zipfile.ZipFile(io.BytesIO(pulled)).read("bundle.json"))
    assert manifest["prompting"] == {"system_prompt": None, "chat_template": GEMMA}
    again = published(client, f"again-{kind}", pulled)
    assert again["digest"] == done.digest
    assert again["verification"]["chat_template"] is True


def test_a_folder_of_another_task_keeps_its_template_out(tiny: TinyDecoder, tmp_path: Path) -> None:
    tagger = save_adapter(tiny.folder, tmp_path / "heads", "SEQ_CLS", 1, labels=2, target_modules=["q_proj"])
    (tagger.folder / TEMPLATE).write_text("{% for x", encoding="utf-8")
    opened = open_bundle(tagger.zip(), Limits(), tiny.spec)
    assert opened.manifest.prompting == Prompting()
    assert TEMPLATE in opened.ignored


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}", "line 1"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "longer than 1 s"),
        ("{{ 'a' * 10**9 }}", "more than 256 MiB"),
        ("{{ raise_exception('Never') }}", "Never"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_upload(
    client: httpx.Client, tiny: TinyDecoder, saved: PeftAdapter, template: str, reason: str
) -> None:
    answer = upload(client, "bad", bundle(tiny, saved, template))
    assert answer.status_code == 422, answer.text
    message = answer.json()["error"]["message"]
    assert message.startswith("template: chat_template: it renders no chat")
    assert reason in message
    assert "leave it out" in message
    assert client.get("/v1/adapters/bad").status_code == 404


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({TEMPLATE: b"x" * (2**16 + 1)}, "65537 characters and the limit is 65536"),
        ({TEMPLATE: b"\xff"}, "not text in UTF-8"),
        ({SETTINGS: b"{"}, "tokenizer_config.json"),
        ({SETTINGS: json.dumps({"chat_template": "x" * (2**16 + 1)}).encode()}, "65537 characters"),
    ],
)
def test_a_file_with_no_template_that_can_be_read_is_refused(
    client: httpx.Client, saved: PeftAdapter, files: dict[str, bytes], where: str
) -> None:
    data = io.BytesIO(saved.zip())
    with zipfile.ZipFile(data, "a") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    answer = upload(client, "bad", data.getvalue())
    assert answer.status_code == 422
    assert where in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", LATER)
def test_a_chat_that_a_template_cannot_render_is_422_while_other_chats_go_on(
    server: RunningServer, client: httpx.Client, tiny: TinyDecoder, saved: PeftAdapter, name: str
) -> None:
    template = "{% if messages[0].content == 'attack' %}" + LATER[name] + "{% endif %}" + LLAMA_3
    published(client, "late", bundle(tiny, saved, template))
    published(client, "good", bundle(tiny, saved, PHI_3))
    attack = {"model": "late", "messages": [{"role": "user", "content": "attack"}]}

    def chat(model: str) -> str | None:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as api:
            parts = api.chat.completions.create(
                model=model, messages=USER, stream=True, temperature=0, max_tokens=40  # type: ignore[arg-type]
            )  # fmt: skip
            return "".join(part.choices[0].delta.content or "" for part in parts)

    before = {model: chat(model) for model in ("good", "foundation")}
    with ThreadPoolExecutor(16) as threads:
        attacks = [threads.submit(client.post, "/v1/chat/completions", json=attack) for _ in range(2)]
        attacks.append(threads.submit(client.post, "/tokenize", json=attack))
        chats = [(model, threads.submit(chat, model)) for model in before for _ in range(3)]
        for model, answer in chats:
            assert answer.result() == before[model]
        for done in attacks:
            answer = done.result()
            assert (answer.status_code, answer.json()["error"]["param"]) == (422, "messages"), answer.text
            assert "the adapter's chat template refuses the messages" in answer.json()["error"]["message"]
    if name == "message":
        assert answer.json()["error"]["message"].endswith("No attack here, Zoë")
    assert client.get("/readyz").status_code == 200


def test_a_bundle_brings_a_template_to_a_foundation_without_one(
    saved: PeftAdapter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bare = make_decoder("llama", tmp_path_factory.mktemp("bare") / "tiny-chat")
    (bare.folder / TEMPLATE).unlink()
    adapter = save_adapter(
        bare.folder, tmp_path_factory.mktemp("saved") / "one", "CAUSAL_LM", 1, target_modules=["q_proj"]
    )
    with run_decoder_server(tmp_path_factory.mktemp("home"), bare.folder) as running, running.client() as client:
        published(client, "own", bundle(bare, adapter, PHI_3))
        for model, status in (("own", 200), ("foundation", 422)):
            body = {"model": model, "messages": USER, **GREEDY}
            assert client.post("/v1/chat/completions", json=body).status_code == status

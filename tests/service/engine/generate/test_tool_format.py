"""Tools, calls and results in a prompt: as the template describes them, or else as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rootstock.service.engine.generate.constraint.tool_format import Tool
from rootstock.service.engine.generate.prompt import Chat, PromptTokenizer
from tests.service.engine.generate.families import TEMPLATE, save_tokenizer

# As in Qwen2.5's template, in short.
HERMES = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "Answer with <tool_call>{name, arguments}</tool_call><|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = Tool("track", "Finds a parcel.", {"type": "object", "properties": {"id": {"type": "string"}}}, "tools")
CALL = {"id": "c", "type": "function", "function": {"name": "track", "arguments": {"id": "é"}}}
MESSAGES = [
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "Rome"},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedTokenizerFast]:
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    return folder, save_tokenizer(folder)


def _with_template(saved: tuple[Path, PreTrainedTokenizerFast], folder: Path, template: str) -> PromptTokenizer:
    tokenizer = AutoTokenizer.from_pretrained(saved[0])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return PromptTokenizer(folder)


def test_a_template_that_describes_tools_in_this_form_is_rendered_as_transformers_renders_it(
    saved: tuple[Path, PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    ids = _with_template(saved, tmp_path, HERMES).encode_chat(Chat(MESSAGES, [TOOL]))
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        MESSAGES, tools=[TOOL.for_template()], add_generation_prompt=True, return_dict=False
    )
    assert ids == expected


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE + "{% if tools %}[TOOL_CALLS] as arguments{% endif %}"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_for_any_other_template_the_system_message_describes_them(
    saved: tuple[Path, PreTrainedTokenizerFast], tmp_path: Path, template: str, system: str | None
) -> None:
    tokenizer = _with_template(saved, tmp_path, template)
    text = tokenizer.decode(tokenizer.encode_chat(Chat(MESSAGES, [TOOL]).with_system(system)))
    roles = [part.partition("\n")[0] for part in text.split("<|im_start|>")[1:]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert (system or "You may call") in text
    assert json.dumps(TOOL.for_template()) in text
    assert '<tool_call>\n{"name": "track", "arguments": {"id": "é"}}\n</tool_call>' in text
    assert "<tool_response>\nRome\n</tool_response>" in text


def test_without_tools_the_prompt_is_that_of_the_messages_alone(
    saved: tuple[Path, PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    tokenizer = _with_template(saved, tmp_path, TEMPLATE)
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        MESSAGES[:1], add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.encode_chat(Chat(MESSAGES[:1])) == expected

"""Chat templates of uploaders: rendered as transformers renders them, and ended at a limit."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from rootstock.adapters.chat_template import special_tokens
from rootstock.adapters.template_process import TemplateFault, TemplateProcess
from tests.adapters.chat_templates import CHATML, CHATS, QWEN_2_5, TEMPLATES, TOOL
from tests.service.engine.generate.families import save_tokenizer

USER = [{"role": "user", "content": "Hello"}]
# About ten seconds of work without a limit.
SLOW = "{% for i in range(9000) %}{% for j in range(9000) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def templates() -> TemplateProcess:
    return TemplateProcess()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer") / "model"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return save_tokenizer(folder)


def _of_transformers(
    tokenizer: PreTrainedTokenizerFast, template: str, messages: Any, tools: Any = None, reply: bool = True
) -> str | None:
    """Return the text that transformers renders, or None if the template refuses the messages."""
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tools, chat_template=template, add_generation_prompt=reply, tokenize=False
        )
    except (TemplateError, TypeError):
        return None
    return text


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_templates_of_model_families_give_the_text_of_transformers(
    templates: TemplateProcess, tokenizer: Any, folder: Path, name: str, tools: Any, reply: bool
) -> None:
    rendered = 0
    for chat in CHATS:
        expected = _of_transformers(tokenizer, TEMPLATES[name], chat, tools, reply)
        call = templates.text, TEMPLATES[name], special_tokens(folder), chat, tools, reply
        if expected is None:
            with pytest.raises(TemplateFault):
                call[0](*call[1:])
        else:
            assert call[0](*call[1:]) == expected
            rendered += 1
    assert rendered >= 2


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_messages_of_any_text_give_the_text_of_transformers(
    templates: TemplateProcess, tokenizer: Any, folder: Path, texts: list[str]
) -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    for template in (CHATML, QWEN_2_5):
        expected = _of_transformers(tokenizer, template, messages)
        assert templates.text(template, special_tokens(folder), messages) == expected


ATTACKS = {
    "a range": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "loops in loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "longer",
    ),
    "a product": ("{{ 'a' * 10**9 }}", "MiB of memory"),
    "a product of variables": ("{{ 'a' * (messages|length * 10**8) }}", ""),
    "a power": ("{% set x = messages|length + 8 %}{{ x ** (x ** x) }}", "longer"),
    "a constant power": ("{{ 9 ** (9 ** 9) }}", "longer"),
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    "a recursive loop": ("{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}", ""),
    "a centred text": ("{{ messages[0].content|center(10**9) }}", "MiB of memory"),
    "a wide format": ("{{ '%1000000000d' % 3 }}", "MiB of memory"),
    "a wide str.format": ("{{ '{:>1000000000}'.format('a') }}", "MiB of memory"),
    "a wide indent": ("{{ messages|tojson(indent=10**9) }}", "MiB of memory"),
    "a long output": ("{% for i in range(99999) %}1234567890{% endfor %}", "the limit is 524288"),
    "a long constant": ("{{ 'abcdefghij' * 10**6 }}", "compiles to"),
    "a growing list": (
        "{% set n = namespace(x=[0]) %}{% for i in range(999) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "MiB of memory",
    ),
    "a growing text": (
        "{% set n = namespace(x='a') %}{% for i in range(999) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "MiB of memory",
    ),
    "a long prompt of a short message": ("{{ messages[0].content * 40000 }}", "the limit for these messages is"),
    "deep brackets": ("{{" + "(" * 20_000 + "1" + ")" * 20_000 + "}}", ""),
    "a deep expression": ("{{ 1" + "+1" * 20_000 + " }}", ""),
    "deep blocks": ("{% if 1 %}" * 2000 + "{% endif %}" * 2000, ""),
    "a long message": ("{{ raise_exception(('a' * 10**6) ~ messages[0].content) }}", "aaaa"),
    "half a character": ("{{ '\\ud800' }}", "surrogates"),
    "half a character in a message": ("{{ raise_exception('\\ud800') }}", "?"),
    "a class": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "the globals of a function": ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    "a changed list": ("{{ messages.append(1) }}", "unsafe"),
    "a file": ("{% include '/etc/passwd' %}", "no loader"),
    "no template": ("{% if %}", "line 1"),
    "an unknown filter": ("{{ messages|nothing }}", "No filter named 'nothing'"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_or_ended_and_the_next_chat_is_rendered(
    templates: TemplateProcess, name: str
) -> None:
    template, reason = ATTACKS[name]
    with pytest.raises(TemplateFault) as refused:
        templates.text(template, {}, USER)
    assert reason in str(refused.value)
    assert len(str(refused.value)) <= 500
    assert templates.text(CHATML, {}, USER).endswith("assistant\n")


def test_memory_that_other_templates_hold_refuses_no_chat() -> None:
    templates = TemplateProcess()
    for i in range(16):
        with pytest.raises(TemplateFault, match="it writes 3800000 characters"):
            templates.text(f"{{{{ 'abcdefgh{i:02}' * 380000 }}}}", {}, USER)
    # This alone is within the limit.
    assert templates.text("{% set x = messages[0].content * 38000000 %}ok", {}, USER) == "ok"


def test_the_process_imports_nothing_from_the_folder_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert TemplateProcess().text(CHATML, {}, USER).endswith("assistant\n")


def test_a_chat_whose_process_the_system_ends_is_rendered_again(templates: TemplateProcess) -> None:
    busy = "{% for i in range(99999) %}{% for j in range(20) %}{% endfor %}{% endfor %}ok"
    templates.text(CHATML, {}, USER)
    process = templates._process
    assert process is not None
    with ThreadPoolExecutor(1) as thread:
        rendered = thread.submit(templates.text, busy, {}, USER)
        # The chat is in the process, on its way there, or still here: the text is the same.
        process.kill()
        assert rendered.result() == "ok"


def test_a_template_that_takes_long_lets_the_others_have_their_turn() -> None:
    templates, done = TemplateProcess(), []

    async def render(name: str, template: str) -> None:
        try:
            await templates.render(template, {}, USER)
        except TemplateFault:
            assert template is SLOW
        done.append(name)

    async def work() -> None:
        slow = [render(f"slow {i}", SLOW) for i in range(3)]
        await asyncio.gather(*slow, render("other", CHATML))

    asyncio.run(work())
    assert done.index("other") <= 1


def test_a_chat_that_nobody_waits_for_any_more_leaves_the_queue() -> None:
    templates = TemplateProcess()

    async def work() -> None:
        waiting = [asyncio.create_task(templates.render(SLOW + str(i), {}, USER)) for i in range(60)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # The first is in the process; the others would take their second each.
        async with asyncio.timeout(45):
            assert await templates.render(CHATML, {}, USER)

    asyncio.run(work())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_has_no_setting_of_the_server_and_ends_with_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROOTSTOCK_ADMIN_KEY", "secret")
    templates = TemplateProcess()
    templates.text(CHATML, {}, USER)
    assert templates._process is not None
    process = Path("/proc", str(templates._process.pid))
    assert b"secret" not in (process / "environ").read_bytes()
    assert os.getsid(templates._process.pid) != os.getsid(0)
    del templates
    assert not process.exists()

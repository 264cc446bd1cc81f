"""Turns a chat into the text of a prompt as transformers does. Server and trainer share it."""

from __future__ import annotations

import json
import marshal
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, Any]

SETTINGS = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
# jinja2 computes constant expressions while it compiles: {{ 'a' * 10**7 }} becomes 10 MB of code.
_MAX_CODE_BYTES = 4 * 2**20


class ChatTemplate:
    """A chat template, rendered as transformers' `apply_chat_template` does, in a sandbox.

    `source` is its text. `special` holds the special tokens by their names, such as `bos_token`, which a template
    may use. Raise ValueError if the template is not valid.
    """

    def __init__(self, source: str, special: Mapping[str, str | None]) -> None:
        self.source = source
        self._template = compile_template(source)
        self._special = dict(special)

    @classmethod
    def of(cls, folder: Path) -> ChatTemplate | None:
        """Return the template in a foundation's folder; None if the foundation has none."""
        path = folder / TEMPLATE
        source = path.read_text(encoding="utf-8") if path.is_file() else stated_template(_settings(folder))
        return None if source is None else cls(source, special_tokens(folder))

    def text(self, messages: Sequence[Message], tools: Sequence[Any] | None = None, reply: bool = True) -> str:
        """Return the text of a chat, and with `reply` the beginning of the assistant's next message.

        The template writes special tokens itself. It can raise anything for messages that it does not expect.
        """
        return self._template.render(
            messages=messages, tools=tools, documents=None, add_generation_prompt=reply, **self._special
        )


def with_system(messages: Sequence[Message], text: str | None) -> Sequence[Message]:
    """Return the messages with this system message first, unless they begin with one or the text is None."""
    if text is None or (messages and messages[0].get("role") == "system"):
        return messages
    return [{"role": "system", "content": text}, *messages]


def special_tokens(folder: Path) -> dict[str, str | None]:
    """Return a foundation's special tokens by the names that a template may use, such as `bos_token`."""
    return {key: _content(value) for key, value in _settings(folder).items() if key.endswith("_token")}


def stated_template(settings: Mapping[str, Any]) -> str | None:
    """Return the chat template in the value of a `tokenizer_config.json`; None if it states none."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = (one for one in template if isinstance(one, dict))
        template = next((one.get("template") for one in named if one.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def stated_end(settings: Mapping[str, Any]) -> str | None:
    """Return the token that ends a text, in the value of a `tokenizer_config.json`; None if it states none."""
    return _content(settings.get("eos_token"))


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return settings


def _content(token: Any) -> str | None:
    """Return the text of a special token, which a file states as text or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def compile_template(source: str) -> jinja2.Template:
    """Return the template. Raise ValueError if it is not valid, or if its compiled form is too large.

    The options, filters and tags are those of transformers' `apply_chat_template`.
    """
    # Only a server that generates text pays for the template engine: 3 MB.
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationTag(Extension):
        """The tag {% generation %}, with which a template marks the assistant's text for training."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own form

        def parse(self, parser: Any) -> Any:
            """Return the body of the tag unchanged."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        code = environment.compile(source)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"the chat template is not valid: line {error.lineno}: {error.message}") from None
    if (size := len(marshal.dumps(code))) > _MAX_CODE_BYTES:
        raise ValueError(
            f"the chat template compiles to {size} bytes and the limit is {_MAX_CODE_BYTES}; shorten it"
        )
    return jinja2.Template.from_code(environment, code, environment.make_globals(None))


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)

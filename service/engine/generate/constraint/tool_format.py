"""The form in which an answer calls tools: the one of Hermes' models, which Qwen and SmolLM2 use too.

A call is `<tool_call>`, a line with `{"name": …, "arguments": …}`, and `</tool_call>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CALL = "<tool_call>"
END = "}\n</tool_call>"
NEXT_CALL = f"\n{CALL}"
ARGUMENTS = ', "arguments": '


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that an answer may call. `parameters` is the JSON schema of its arguments.

    `param` is the field of the request that states the parameters.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    param: str

    def for_template(self) -> dict[str, Any]:
        """Return the tool as chat templates read it, which is OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


def call_head(name: str) -> str:
    """Return what stands between the mark of a call and its arguments."""
    return f'\n{{"name": {json.dumps(name)}{ARGUMENTS}'


def name_in(head: str) -> str | None:
    """Return the name in what stands between the mark of a call and its `ARGUMENTS`; None if it is no call."""
    found = re.fullmatch(r'\n\{"name": ("[^"\\]*")', head)
    return None if found is None else str(json.loads(found[1]))


def is_hermes(template: str) -> bool:
    """Tell whether a chat template describes calls in this form."""
    return CALL in template and "arguments" in template and "<function=" not in template


def as_plain_messages(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return the messages of a chat with its tools, calls and results as text, for a template that knows none."""
    plain = [_as_plain(message) for message in messages]
    if not tools:
        return plain
    system = plain.pop(0)["content"] + "\n\n" if plain and plain[0]["role"] == "system" else ""
    return [{"role": "system", "content": system + _description(tools)}, *plain]


def _as_plain(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = [
        CALL + call_head(call["function"]["name"]) + _json(call["function"]["arguments"]) + END
        for call in message.get("tool_calls", ())
    ]
    return {"role": message["role"], "content": "\n".join(filter(None, [message["content"], *calls]))}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _description(tools: Sequence[Tool]) -> str:
    lines = "\n".join(_json(tool.for_template()) for tool in tools)
    return (
        "You may call one or more functions to answer the user. These are the functions, each as JSON:\n"
        f"<tools>\n{lines}\n</tools>\n"
        "To call a function, write its name and its arguments as JSON between these marks:\n"
        f'{CALL}\n{{"name": NAME{ARGUMENTS}ARGUMENTS{END}'
    )

"""The messages of a chat, as a request sends them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictStr, model_validator
from pydantic_core import from_json

from rootstock.service.api.strict import Strict


class TextPart(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: StrictStr


class CalledFunction(Strict):
    """The function of an earlier call, and its arguments as the text of a JSON object."""

    name: StrictStr
    arguments: StrictStr


class EarlierCall(Strict):
    """A call in an earlier message of the assistant."""

    id: StrictStr
    type: Literal["function"] = "function"
    function: CalledFunction


# A message says something, or it is the assistant's and calls tools.
_SAID: dict[str, Any] = {
    "required": ["content"],
    "properties": {"content": {"type": ["string", "array"]}, "tool_calls": {"type": "null"}},
}
_CALLED: dict[str, Any] = {
    "required": ["tool_calls"],
    "properties": {"role": {"const": "assistant"}, "tool_calls": {"type": "array"}},
}


class ChatMessage(Strict):
    """A message of a chat. The assistant's may call tools, and a message of the role `tool` is a call's result.

    `name`, `refusal` and `tool_call_id` have no effect: a template shows results in the order of the messages.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": [_SAID, _CALLED]})

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: StrictStr | Annotated[list[TextPart], Field(min_length=1)] | None = None
    name: StrictStr | None = None
    refusal: StrictStr | None = None
    tool_calls: Annotated[list[EarlierCall], Field(min_length=1, fail_fast=True)] | None = None
    tool_call_id: StrictStr | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> ChatMessage:
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} has tool_calls; only the assistant's may")
        if self.content is None and self.tool_calls is None:
            raise ValueError("the message has no content; add it")
        for call in self.tool_calls or ():
            if not isinstance(_loaded(call.function.arguments), dict):
                raise ValueError(
                    f"the arguments of the call {call.id[:64]!r} are not the text of a JSON object; send one,"
                    " such as '{}'"
                )
        return self

    def plain(self) -> dict[str, Any]:
        """Return the message as a chat template reads it: arguments of calls are objects."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": content,
        }
        if self.tool_calls is not None:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": _loaded(call.function.arguments)},
                }
                for call in self.tool_calls
            ]
        return message


def _loaded(text: str) -> Any:
    """Return the value of a JSON text, or None for a text that is none."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return None

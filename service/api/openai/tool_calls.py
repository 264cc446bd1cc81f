"""The calls of tools in an answer, found in its text while it streams."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel

from rootstock.service.engine.generate.constraint.tool_format import ARGUMENTS, CALL, END, name_in
from rootstock.service.engine.generate.stop_strings import StopStrings


class FunctionCall(BaseModel):
    """The name of a called function, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class FunctionCallDelta(BaseModel):
    """The name of a called function, or the next part of its arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(BaseModel):
    """The beginning of call number `index`, with an id and a name, or the next part of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta


class ToolCallText:
    """The text of one answer that may call tools, cut into plain text and calls as it arrives.

    If the text is `structured`, an answer is either a text, which may quote the mark of a call, or calls.
    """

    def __init__(self, structured: bool = False) -> None:
        # The number of calls that have begun.
        self.calls = 0
        self._structured = structured
        self._told = False
        self._state: Literal["text", "head", "arguments"] = "text"
        self._mark = StopStrings([CALL])
        self._head = ""

    def feed(self, piece: str) -> Iterator[str | ToolCallDelta]:
        """Take the next piece of the text. Yield what it completes: plain text, or parts of calls."""
        free = ""
        for character in piece:
            text, met = self._mark.feed(character)
            free += text
            if met:
                yield from self._out(free)
                yield from self._turn()
                free = ""
        yield from self._out(free)

    def flush(self) -> Iterator[str | ToolCallDelta]:
        """Yield the text that is held back, at its end. In a call that is cut off, it is the mark of its end."""
        if self._state == "text":
            yield from self._out(self._mark.flush())

    def _out(self, text: str) -> Iterator[str | ToolCallDelta]:
        """Yield text of the current state. Between calls there is only a line break."""
        if self._state == "head":
            self._head += text
        elif text and self._state == "arguments":
            yield ToolCallDelta(index=self.calls - 1, function=FunctionCallDelta(arguments=text))
        elif text and not self.calls:
            self._told = True
            yield text

    def _turn(self) -> Iterator[str | ToolCallDelta]:
        """Go on after a mark: to the head of a call, to its arguments, or to the text after it."""
        if self._state == "text" and self._structured and self._told:
            mark = CALL
            yield CALL
        elif self._state == "text":
            self._state, self._head, mark = "head", "", ARGUMENTS
        elif self._state == "head" and (name := name_in(self._head)) is None:
            # A text that only begins like a call.
            self._state, mark = "text", CALL
            yield from self._out(CALL + self._head + ARGUMENTS)
        elif self._state == "head":
            self._state, mark = "arguments", END
            function = FunctionCallDelta(name=name, arguments="")
            self.calls += 1
            yield ToolCallDelta(index=self.calls - 1, id=_new_id(), type="function", function=function)
        else:
            self._state, mark = "text", CALL
        self._mark = StopStrings([mark])


def split_calls(text: str, structured: bool = False) -> tuple[str, list[ToolCall]]:
    """Return the plain text of a whole answer, and its calls. `structured` is as of ToolCallText."""
    parts = ToolCallText(structured)
    plain, calls = "", list[ToolCall]()
    for part in _all(parts, text):
        if isinstance(part, str):
            plain += part
        elif part.id is not None:
            calls.append(ToolCall(id=part.id, function=FunctionCall(name=part.function.name or "", arguments="")))
        else:
            calls[part.index].function.arguments += part.function.arguments
    return plain, calls


def _all(parts: ToolCallText, text: str) -> Iterable[str | ToolCallDelta]:
    yield from parts.feed(text)
    yield from parts.flush()


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"

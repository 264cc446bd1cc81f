"""The tools that the answer to a chat may call, in the form of OpenAI's API."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictStr

from rootstock.service.api.predict import Body
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.constraint.grammar import Grammar, tool_grammar
from rootstock.service.engine.generate.constraint.tool_format import Tool

_MOST_TOOLS = 128
_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class FunctionSpec(Strict):
    """A function. `parameters` is the JSON schema of its arguments; without it there are none.

    The server always enforces the schema, so that `strict` has no effect.
    """

    name: Annotated[StrictStr, Field(pattern=_NAME)]
    description: StrictStr | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None


class FunctionTool(Strict):
    """A tool: a function."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Strict):
    """The name of a function."""

    name: StrictStr


class NamedTool(Strict):
    """The choice of one tool."""

    type: Literal["function"]
    function: NamedFunction


class ToolFields(Body):
    """The tools of a request for a chat.

    With the `tool_choice` `auto`, the default, the answer is a text or calls; with `required` it is calls, and
    with the name of a function one call of it; with `none` it is a text, and the model is not told of the tools.
    """

    tools: Annotated[list[FunctionTool], Field(min_length=1, max_length=_MOST_TOOLS, fail_fast=True)] | None = (
        None
    )
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: StrictBool = True

    def callable_tools(self) -> list[Tool]:
        """Return the tools that the model is told of. Raise InvalidParameter for a choice outside them."""
        tools = [_tool(i, one.function) for i, one in enumerate(self.tools or ())]
        names = Counter(tool.name for tool in tools)
        name, count = names.most_common(1)[0] if names else ("", 0)
        if count > 1:
            raise InvalidParameter(f"tools has {count} functions named {name!r}; rename all but one", "tools")
        chosen = self.tool_choice
        if isinstance(chosen, NamedTool) and chosen.function.name not in names:
            raise InvalidParameter(
                f"tool_choice names the function {chosen.function.name[:64]!r}, which is not in tools; add it",
                "tool_choice",
            )
        if chosen == "required" and not tools:
            raise InvalidParameter(
                "tool_choice is required, and the request has no tools; add one", "tool_choice"
            )
        return [] if chosen == "none" else tools

    def constrained(self, tools: list[Tool], content: Grammar | None) -> Grammar | None:
        """Return the grammar of an answer that may call these tools, and whose text has the grammar `content`."""
        if not tools:
            return content
        chosen = self.tool_choice
        if isinstance(chosen, NamedTool):
            tools = [tool for tool in tools if tool.name == chosen.function.name]
            return tool_grammar(tools, "tools", forced=True, parallel=False)
        return tool_grammar(tools, "tools", chosen == "required", self.parallel_tool_calls, content)


def _tool(index: int, function: FunctionSpec) -> Tool:
    param = f"tools.{index}.function.parameters"
    parameters = {"type": "object"} | (function.parameters or {"properties": {}, "additionalProperties": False})
    if parameters["type"] != "object":
        raise InvalidParameter(
            f"{param} has the type {str(parameters['type'])[:64]!r}; arguments are an object: state 'object'",
            param,
        )
    return Tool(function.name, function.description or "", parameters, param)

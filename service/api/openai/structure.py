"""The form that a text must have, as OpenAI's `response_format` and vLLM's `structured_outputs` state it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictStr

from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.constraint.grammar import (
    Grammar,
    choice_grammar,
    json_grammar,
    regex_grammar,
)

# The engine checks a schema's size and content, so its keys are not counted here.
Schema = dict[str, Any]


class PlainText(Strict):
    """Any text: the default."""

    type: Literal["text"]


class JsonObject(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Strict):
    """A JSON schema with a name. The server always enforces it, so that `strict` has no effect."""

    name: StrictStr
    schema_: Annotated[Schema, Field(alias="schema")]
    description: StrictStr | None = None
    strict: StrictBool | None = None


class JsonSchema(Strict):
    """A JSON text that a schema allows."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")]


class StructuredOutputs(Strict):
    """The form of a text: JSON by a schema, a match of a regular expression, or one of several texts."""

    json_: Annotated[Schema | None, Field(alias="json")] = None
    regex: Annotated[StrictStr, Field(min_length=1)] | None = None
    choice: Annotated[list[StrictStr], Field(min_length=1, fail_fast=True)] | None = None


def structure_of(format_: ResponseFormat | None, outputs: StructuredOutputs | None) -> Grammar | None:
    """Return the grammar that one of two fields states. Raise InvalidParameter for more, or beyond the limits."""
    if outputs is not None and format_ is not None:
        raise InvalidParameter(
            "the request has both response_format and structured_outputs; send one of the two",
            "structured_outputs",
        )
    if isinstance(format_, JsonSchema):
        return json_grammar(format_.json_schema.schema_, "response_format.json_schema.schema")
    if isinstance(format_, JsonObject):
        return json_grammar({"type": "object"}, "response_format")
    return None if outputs is None else _grammar(outputs)


def _grammar(outputs: StructuredOutputs) -> Grammar:
    given = [name for name, value in outputs if value is not None]
    if len(given) != 1:
        raise InvalidParameter(
            f"structured_outputs has {len(given)} of the fields json, regex and choice; send one of them",
            "structured_outputs",
        )
    if outputs.json_ is not None:
        return json_grammar(outputs.json_, "structured_outputs.json")
    if outputs.regex is not None:
        return regex_grammar(outputs.regex, "structured_outputs.regex")
    return choice_grammar(outputs.choice or [], "structured_outputs.choice")

"""The texts of a request, as a string or a list of strings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator


def _read_texts(value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected a string or a list of at least one string; this route takes no token ids")
    return texts


_Several = Annotated[list[str], Field(min_length=1)]
Texts = Annotated[list[str], PlainValidator(_read_texts, json_schema_input_type=str | _Several)]

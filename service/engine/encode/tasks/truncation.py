"""Truncation of an input that is too long, by transformers' name for it and those of other servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.core.errors import InvalidParameter

# transformers and Voyage; Text Embeddings Inference, Jina (true or false) and Cohere (where to cut); vLLM.
TRUNCATION = ("truncation", "truncate", "truncate_prompt_tokens")
_SIDES: dict[str, Literal["left", "right"]] = {"START": "left", "END": "right"}
# A bundle's own max_length is no less: below it special tokens fill a row.
_LEAST = 3


def check_truncation(parameters: Mapping[str, Any]) -> None:
    """Raise InvalidParameter for a value that means nothing, or for two spellings at once."""
    given = [name for name in TRUNCATION if name in parameters]
    if len(given) > 1:
        raise InvalidParameter(f"{given[0]} and {given[1]} say the same; give one of them", _where(given[1]))
    for name in given:
        value = parameters[name]
        if name == "truncation" and not isinstance(value, bool):
            raise InvalidParameter(f"truncation is {value!r}; expected true or false", _where(name))
        if name == "truncate" and not isinstance(value, bool) and value not in ("NONE", *_SIDES):
            raise InvalidParameter(
                f"truncate is {value!r}; expected true, false, NONE, START or END", _where(name)
            )
        if name == "truncate_prompt_tokens" and (
            not isinstance(value, int) or isinstance(value, bool) or (value < _LEAST and value != -1)
        ):
            raise InvalidParameter(
                f"{name} is {value!r}; expected a whole number of at least {_LEAST}, or -1 for the model's limit",
                _where(name),
            )


def truncates(parameters: Mapping[str, Any]) -> bool:
    """Tell whether an input that is too long is cut; otherwise it is refused."""
    wish = parameters.get("truncate", False)
    return bool(
        parameters.get("truncation") or (wish and wish != "NONE") or "truncate_prompt_tokens" in parameters
    )


def preprocessing_for(preprocessing: Preprocessing, parameters: Mapping[str, Any]) -> Preprocessing:
    """Return an adapter's preprocessing with the limit and the side that a request asks for.

    Raise InvalidParameter for more tokens than the adapter takes.
    """
    if (side := parameters.get("truncate")) in _SIDES:
        return replace(preprocessing, truncation_side=_SIDES[side])
    most = parameters.get("truncate_prompt_tokens", -1)
    if most == -1:
        return preprocessing
    if most > preprocessing.max_length:
        raise InvalidParameter(
            f"truncate_prompt_tokens is {most} and the model's limit is {preprocessing.max_length} tokens; give "
            "no more than that, or -1 for the limit",
            _where("truncate_prompt_tokens"),
        )
    return replace(preprocessing, max_length=most)


def _where(name: str) -> str:
    return f"parameters.{name}"

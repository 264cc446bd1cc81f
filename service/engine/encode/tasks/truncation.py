"""Read the parameters that ask for truncation, by transformers' name and those of other servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.core.errors import InvalidParameter

# transformers and Voyage; Text Embeddings Inference, Jina (true or false) and Cohere (where to cut); vLLM.
TRUNCATION = ("truncation", "truncate", "truncate_prompt_tokens")
_SIDES: dict[str, Literal["left", "right"]] = {"START": "left", "END": "right"}
# A bundle's own max_length is never less: below 3, special tokens alone fill a row.
_LEAST = 3


def check_truncation(parameters: Mapping[str, Any]) -> None:
    """Raise InvalidParameter for an unknown value, or for two of the names at once."""
    names = [name for name in TRUNCATION if name in parameters]
    if len(names) > 1:
        message = f"{names[0]} and {names[1]} set the same thing; give only one of them"
        raise InvalidParameter(message, _where(names[1]))
    for name in names:
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
    """Tell whether an input that is too long is truncated. Otherwise it is refused."""
    side = parameters.get("truncate", False)
    return bool(
        parameters.get("truncation") or (side and side != "NONE") or "truncate_prompt_tokens" in parameters
    )


def preprocessing_for(preprocessing: Preprocessing, parameters: Mapping[str, Any]) -> Preprocessing:
    """Return an adapter's preprocessing with the length limit and the truncation side that a request asks for.

    Raise InvalidParameter for more tokens than the adapter takes.
    """
    if (side := parameters.get("truncate")) in _SIDES:
        return replace(preprocessing, truncation_side=_SIDES[side])
    most = parameters.get("truncate_prompt_tokens", -1)
    if most == -1:
        return preprocessing
    if most > preprocessing.max_length:
        raise InvalidParameter(
            f"truncate_prompt_tokens is {most} and the model's limit is {preprocessing.max_length} tokens; "
            "lower it, or give -1 for the limit",
            _where("truncate_prompt_tokens"),
        )
    return replace(preprocessing, max_length=most)


def _where(name: str) -> str:
    return f"parameters.{name}"

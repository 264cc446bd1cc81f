"""The form of every JSON object that is received: known keys alone, and as many errors as one can read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from rootstock.service.engine.core.errors import InvalidInput, TooLarge

# Each unknown key is one error, and each error takes more memory than its key.
MAX_KEYS = 64
# Of any list: `max_inputs` is at most so many, and each item of a list is looked at before that is.
MAX_ITEMS = 2**14


class Strict(BaseModel):
    """A JSON object: unknown keys are refused. Too many keys or items are refused before any is looked at."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_small(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) > MAX_KEYS:
            raise InvalidInput(
                f"an object has {len(value)} keys and the limit is {MAX_KEYS}; leave out those that are unknown"
            )
        for name, given in value.items():
            if isinstance(given, list) and len(given) > MAX_ITEMS:
                raise TooLarge(
                    f"{name[:64]} has {len(given)} items and the limit of any list is {MAX_ITEMS}; "
                    "send as many as max_inputs of /v1/limits",
                    name[:64],
                )
        return value

"""A token that an adapter's tokenizer has beside those of the foundation's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# The most tokens that an adapter may add, and the longest.
MAX_ADDED_TOKENS = 1024
MAX_TOKEN_CHARACTERS = 256


@dataclass(frozen=True, order=True)
class AddedToken:
    """An entry of `added_tokens` in a `tokenizer.json`: a text that is one token, and how it is found in a text.

    `single_word` finds it only between characters that belong to no word. `lstrip` and `rstrip` take the white
    space beside it. `normalized` finds it in the normalised text. `special` tokens are left out of decoded text.
    """

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a `tokenizer.json` has it."""
        return asdict(self)

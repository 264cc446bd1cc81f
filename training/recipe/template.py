"""Templates of texts, with the columns of a row as placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter


class ColumnTemplate:
    """A text with placeholders such as {column}. {{ and }} stand for the braces themselves.

    What is between the braces is a column's name and nothing else: no attribute, index, conversion or format.
    Raise ValueError for any other text.
    """

    def __init__(self, text: str) -> None:
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{error}; write {{{{ and }}}} for braces that are no placeholder") from None
        self._parts: list[tuple[str, str | None]] = []
        for literal, name, form, conversion in parsed:
            if name is not None and (not name or form or conversion):
                written = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise ValueError(
                    f"{{{written}}} is not a placeholder; write a column's name in braces, and {{{{ and }}}} for "
                    "braces that are none"
                )
            self._parts.append((literal, name))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, each once, in the order of their first places."""
        return tuple(dict.fromkeys(name for _, name in self._parts if name is not None))

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with the values of a row; every column must be among them."""
        return "".join(literal + ("" if name is None else values[name]) for literal, name in self._parts)

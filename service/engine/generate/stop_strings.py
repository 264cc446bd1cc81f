"""Find the string that ends a text while the text streams."""

from __future__ import annotations

from collections.abc import Iterable


class StopStrings:
    """A matcher of stop strings in a text that arrives in pieces.

    The first stop string that is complete ends the text; of two that are complete at the same character, the
    longer one. The result is therefore the same however the text is cut into pieces.

    Source: Knuth, Morris and Pratt 1977. The time for a character does not grow with the length of the strings.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        """Raise ValueError for an empty stop string, which would end every text before its first character."""
        self._stops = tuple(stops)
        if "" in self._stops:
            raise ValueError("a stop string is empty; leave it out")
        self._borders = [_borders(stop) for stop in self._stops]
        # The number of characters of each stop string that the text so far ends with.
        self._matched = [0] * len(self._stops)
        self._held = ""
        self._met = False

    def feed(self, piece: str) -> tuple[str, bool]:
        """Take the next piece. Return the text that can be sent now, and whether a stop string was met.

        Text that can be the beginning of a stop string is held back. The stop string and all text after it are
        never returned.
        """
        if self._met:
            return "", True
        text = self._held + piece
        for end, character in enumerate(piece, start=len(self._held) + 1):
            if length := self._advance(character):
                self._met, self._held = True, ""
                return text[: end - length], True
        free = len(text) - max(self._matched, default=0)
        self._held = text[free:]
        return text[:free], False

    def flush(self) -> str:
        """Return the text that is held back: the text has ended, and no stop string can be completed."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return held

    def _advance(self, character: str) -> int:
        """Return the length of the longest stop string that this character completes, or 0."""
        complete = 0
        for i, stop in enumerate(self._stops):
            length = self._matched[i]
            while length and stop[length] != character:
                length = self._borders[i][length - 1]
            length += stop[length] == character
            self._matched[i] = length
            if length == len(stop):
                complete = max(complete, length)
        return complete


def _borders(text: str) -> list[int]:
    """Return, for each prefix of the text, the length of the longest shorter prefix that it also ends with."""
    borders = [0]
    for character in text[1:]:
        length = borders[-1]
        while length and text[length] != character:
            length = borders[length - 1]
        borders.append(length + (text[length] == character))
    return borders

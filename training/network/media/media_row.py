"""An image or a recording as the model takes it: a file, its class, and the changes of a copy of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Patch:
    """A box of another image, and the share of the whole image that it covers.

    `box` holds the top, bottom, left and right edge as shares of height and width.
    """

    file: Path
    target: int
    box: Box

    @property
    def share(self) -> float:
        """The share of the image that the box covers."""
        top, bottom, left, right = self.box
        return (bottom - top) * (right - left)


@dataclass(frozen=True)
class MediaRow:
    """An image or a recording.

    `length` is in samples for a foundation that reads recordings of any length, and else 1. `view` numbers the
    changed copies from 1; 0 is the row itself. `patch` covers a part of the copy of an image. `content`, if any,
    stands for the file's bytes.
    """

    file: Path
    targets: tuple[int, ...]
    length: int = 1
    view: int = 0
    patch: Patch | None = None
    content: bytes | None = None
    cut: bool = False
    words: tuple[int, ...] = ()
    first: tuple[int | None, ...] = ()
    values: tuple[float, ...] = ()

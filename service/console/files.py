"""The files of the console's page, held in memory: a first visit asks for thirty of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

PAGE = "index.html"
_FOLDER = Path(__file__).parent / "static"
# The system's own table of types differs from one machine to another.
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class ConsoleFile:
    """A file's bytes, its media type, and the ETag that stands for the bytes."""

    body: bytes
    media_type: str
    etag: str


@cache
def console_files() -> Mapping[str, ConsoleFile]:
    """Return the files by their paths in the folder of the page, such as `views/live.js`."""
    return {path.relative_to(_FOLDER).as_posix(): _read(path) for path in _FOLDER.rglob("*") if path.is_file()}


def etag_of(body: bytes) -> str:
    """Return the ETag of an answer with these bytes. Another release that writes other bytes changes it."""
    return f'"{sha256(body).hexdigest()[:32]}"'


def _read(path: Path) -> ConsoleFile:
    body = path.read_bytes()
    return ConsoleFile(body, _TYPES[path.suffix], etag_of(body))

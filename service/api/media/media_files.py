"""The files of a request's images and recordings, wherever their bytes are."""

from __future__ import annotations

import asyncio

from rootstock.adapters.media import MEDIA_FILES, MediaFile, MediaModality
from rootstock.service.api.media.encoded_file import decode_file
from rootstock.service.api.media.media_input import Base64File, MediaInput
from rootstock.service.api.media.remote_file import RemoteFiles
from rootstock.service.engine.core.errors import InvalidInput

_ADDRESSES = ("http:", "https:", "ftp:", "file:", "//")
# The length of a text that is decoded in a thread, which takes longer than to start one.
_LONG = 2**18


class MediaFiles:
    """The reader of one request's files: those at addresses hold at most `max_bytes` together."""

    def __init__(self, remote: RemoteFiles, max_bytes: int) -> None:
        self._remote = remote
        self._left = max_bytes
        self._ends: float | None = None

    async def read(self, value: MediaInput, where: str) -> MediaFile:
        """Return the file of an input. Raise InvalidInput or TooLarge if there is none to be had."""
        return await self.open(value.source, value.modality, f"{where}.{value.modality}")

    async def open(self, source: str | Base64File | bytes, modality: MediaModality, where: str) -> MediaFile:
        """Return the file of a source of a known modality. Raise as `read` does."""
        return MEDIA_FILES[modality](await self._bytes(source, modality, where))

    async def _bytes(self, source: str | Base64File | bytes, modality: MediaModality, where: str) -> bytes:
        if isinstance(source, bytes):
            if not source:
                raise InvalidInput(f"{where} is an empty file; send the bytes of the file", where)
            return source
        if isinstance(source, Base64File):
            where = f"{where}.b64"
            if source.b64[:5].lower() == "data:":
                raise InvalidInput(f"{where} is a data URL; send it as the value of {modality!r} itself", where)
            source = source.b64
        elif source[:6].lower().startswith(_ADDRESSES):
            return await self._fetched(source, modality, where)
        if len(source) < _LONG:
            return decode_file(source, modality, where)
        return await asyncio.to_thread(decode_file, source, modality, where)

    async def _fetched(self, address: str, modality: MediaModality, where: str) -> bytes:
        if self._ends is None:
            self._ends = asyncio.get_running_loop().time() + self._remote.seconds
        data = await self._remote.fetch(address, modality, where, self._left, self._ends)
        if not data:
            raise InvalidInput(f"{where} leads to an empty file; give the address of a file", where)
        self._left -= len(data)
        return data

"""Define a task on files, images or recordings, each of which is one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.encode.modalities.reader import MediaReader
from rootstock.service.engine.encode.sample import Sample
from rootstock.service.engine.encode.tasks.task import Task

# The bytes of a file that take as long to decode as a character takes to tokenise.
_BYTES_A_CHARACTER = 64


class MediaTask(Task[MediaReader]):
    """A task on images or on recordings."""

    def read(
        self,
        value: ImageFile | AudioFile,
        preprocessing: Preprocessing,
        parameters: Mapping[str, Any],
        reader: MediaReader,
    ) -> Sample:
        """Return the sample of a file. Raise InvalidInput if it cannot be decoded."""
        return reader.read(value)

    def effort(self, value: ImageFile | AudioFile, parameters: Mapping[str, Any]) -> int:
        """Return the effort to decode a file, in characters of text."""
        return 1 + len(value.data) // _BYTES_A_CHARACTER

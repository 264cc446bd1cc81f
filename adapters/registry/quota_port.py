"""The interface through which servers on one registry tell each other what they spent of quotas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Use(NamedTuple):
    """The thing that is counted: the holder of a quota, `key/` and an id or `tenant/` and a name, and a unit."""

    holder: str
    unit: str


class QuotaUses(Protocol):
    """The use of quotas by all servers, by the minute. It is safe for many threads and processes."""

    def add(self, spent: Mapping[Use, int], minute: int) -> dict[tuple[Use, int], int]:
        """Add to the use in a minute, and return the use of all in this minute and the one before.

        Raise RegistryUnavailable if the registry cannot be reached, and StoreFull if its disk has no room. Either
        way, add nothing.
        """
        ...

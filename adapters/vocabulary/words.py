"""The rows of a foundation's word embedding that an adapter changes or adds: plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# The most rows that an adapter may change or add.
MAX_WORD_ROWS = 4096


@dataclass(frozen=True)
class WordTable:
    """A foundation's word embedding: its module in the trunk, and its shape.

    `stand_in` is the row that the trunk reads for a token beyond its table. It is not the padding token, by which
    some architectures count positions.
    """

    name: str
    rows: int
    width: int
    stand_in: int


@dataclass(frozen=True, eq=False)
class WordRows:
    """The tokens whose embedding an adapter changes: their ids, ascending, and the changes (ids, width) fp32.

    A change is the adapter's row minus the foundation's, or for a token beyond its table minus that of the
    `stand_in`. Source: PEFT's `TrainableTokensLayer`, which replaces rows of the embedding.
    """

    ids: npt.NDArray[np.int64]
    changes: npt.NDArray[np.float32]

    def places(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return for each token the index of its change plus 1, or 0 for a token without one."""
        at = np.minimum(np.searchsorted(self.ids, tokens), len(self.ids) - 1)
        return np.where(self.ids[at] == tokens, at + 1, 0)


def within(tokens: npt.NDArray[np.int64], table: WordTable) -> npt.NDArray[np.int64]:
    """Return the tokens as the trunk reads them: one beyond its table is the stand-in."""
    return np.where(tokens >= table.rows, table.stand_in, tokens)

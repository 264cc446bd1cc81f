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
    some architectures count positions. The module multiplies its rows by `scale` (Gemma).
    """

    name: str
    rows: int
    width: int
    stand_in: int
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class WordRows:
    """The tokens whose embedding an adapter changes: their ids, ascending, and the changes (ids, width) fp32.

    A change is what the embedding gives for the adapter's row minus what it gives for the foundation's, or for a
    token beyond its table for that of the `stand_in`. Source: PEFT's `TrainableTokensLayer`, which replaces rows
    of the embedding.
    """

    ids: npt.NDArray[np.int64]
    changes: npt.NDArray[np.float32]

    def places(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return for each token the index of its change plus 1, or 0 for a token without one."""
        at = np.minimum(np.searchsorted(self.ids, tokens), len(self.ids) - 1)
        return np.where(self.ids[at] == tokens, at + 1, 0)


@dataclass(frozen=True, eq=False)
class OutputRows:
    """The rows of a decoder's output layer that an adapter changes or adds: their ids, ascending.

    `rows` (ids, width) and `biases` (ids,) are fp32. They are the changes of the foundation's rows, and the whole
    rows of tokens that it does not have. `vocabulary` is one more than the largest id that an answer can have.
    Without biases, the layer has none or the adapter changes none.
    """

    ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.float32]
    vocabulary: int
    biases: npt.NDArray[np.float32] | None = None

    def arrays(self) -> list[npt.NDArray[np.float32]]:
        """Return the arrays of numbers."""
        return [self.rows] if self.biases is None else [self.rows, self.biases]


def within(tokens: npt.NDArray[np.int64], table: WordTable) -> npt.NDArray[np.int64]:
    """Return the tokens as the trunk reads them: one beyond its table is the stand-in."""
    return np.where(tokens >= table.rows, table.stand_in, tokens)

"""sentence-transformers on the bare foundation: a peer of `vs-peft`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from rootstock.adapters.spec import Array


class SentencePeer:
    """The foundation as sentence-transformers loads it, on the CPU."""

    def __init__(self, foundation: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(foundation), device="cpu", local_files_only=True)

    def run(self, texts: Sequence[str]) -> list[Array]:
        """Return the embeddings of the texts, computed in one batch."""
        return list(self._model.encode(list(texts), batch_size=len(texts), show_progress_bar=False))

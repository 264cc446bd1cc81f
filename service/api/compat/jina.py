"""Jina's fields of an embedding, which /v1/embeddings takes besides OpenAI's."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool

from rootstock.service.api.strict import Strict


class JinaFields(Strict):
    """Jina's fields. `embedding_type` is another name of `encoding_format`.

    With `normalized`, vectors have length 1; without it they are the model's own. The vectors do not depend on
    `task`, because a bundle states its prefix itself. This server embeds each text alone.
    """

    task: (
        Literal[
            "retrieval.query",
            "retrieval.passage",
            "text-matching",
            "classification",
            "clustering",
            "separation",
            "code.query",
            "code.passage",
        ]
        | None
    ) = None
    embedding_type: Literal["float", "base64"] | None = None
    normalized: StrictBool | None = None
    late_chunking: Literal[False] | None = None

"""The task text-ranking: the relevance of one text to another, from a cross-encoder with one output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.scores import activate
from rootstock.service.engine.encode.tasks.task import check_one_of
from rootstock.service.engine.encode.tasks.text_task import TextTask

FUNCTIONS = ("sigmoid", "none")


class TextRanking(TextTask):
    """The task that returns a pair's score, as sentence-transformers' CrossEncoder does (version 6.2).

    `function_to_apply` is sigmoid, the default, or none.
    """

    name = "text-ranking"
    takes = (tuple,)
    own_parameters = frozenset({"function_to_apply"})
    # CrossEncoder tokenises its pairs in batches.
    keeps_empty_pair = True

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter unless `function_to_apply` is one of `FUNCTIONS`."""
        super().check(parameters)
        check_one_of(parameters, "function_to_apply", FUNCTIONS)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> dict[str, float]:
        """Return the score."""
        return {"score": float(activate(parameters.get("function_to_apply") or "sigmoid", raws[0])[0])}

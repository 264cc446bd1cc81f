"""The task fill-mask: likely tokens for a text's mask tokens, from the foundation's own language-model head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rootstock.adapters.spec import FILL_MASK, Adapter, Array, Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter
from rootstock.service.engine.encode.modalities.text import Input, TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.scores import softmax
from rootstock.service.engine.encode.tasks.task import check_count, check_rows
from rootstock.service.engine.encode.tasks.text_task import TextTask
from rootstock.service.engine.encode.tasks.truncation import truncates

MAX_TOP_K = 100
MAX_TARGETS = 256
_TOP_K = 5
# The bytes of one token in a sequence of the answer, which is decoded text.
_TOKEN_BYTES = 8
# The most characters of a target. No token is longer, so a longer target is refused without tokenising it.
_LONGEST = 128


class FillMask(TextTask):
    """The task that returns tokens by score, best first, as transformers' FillMaskPipeline does.

    `top_k` is the number of tokens: 5 by default, and at most the number of targets. `targets` is a string or a
    list of strings, the only tokens to choose from. Scores are always those among the whole vocabulary. A target
    is an entry of the vocabulary or a text of one token. Any other target is refused. The pipeline would use its
    first token, or the unknown token, and warn in its log, which no client of a server sees. Texts are decoded as
    tokenizer.json says.
    """

    name = FILL_MASK
    own_parameters = frozenset({"top_k", "targets"})

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise unless `top_k` is at least 1 and there is at least one target."""
        super().check(parameters)
        check_count(parameters, "top_k")
        if (parameters.get("top_k") or 1) > MAX_TOP_K:
            message = f"top_k is {parameters['top_k']}; expected at most {MAX_TOP_K}"
            raise InvalidParameter(message, "parameters.top_k")
        if (value := parameters.get("targets")) is None:
            return
        targets = [value] if isinstance(value, str) else value
        if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
            raise InvalidParameter(
                f"targets is {value!r}; expected a string or a list of at least one", "parameters.targets"
            )
        if len(targets) > MAX_TARGETS:
            message = f"{len(targets)} targets; expected at most {MAX_TARGETS}"
            raise InvalidParameter(message, "parameters.targets")

    def encode(
        self,
        value: Input,
        preprocessing: Preprocessing,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
        most: int,
    ) -> list[TextSample]:
        """Return one row. It counts as one row for each of its masks."""
        _targets(parameters, tokenizer)
        row = self.read(value, preprocessing, parameters, tokenizer)
        masks = tuple(i for i, token in enumerate(row.ids) if token == tokenizer.mask_id)
        if not masks:
            mask = tokenizer.decode([tokenizer.mask_id or 0], skip_special=False)
            after = " after truncation" if truncates(parameters) else ""
            raise InvalidInput(
                f"an input holds no {mask}{after}; put one in place of a word to fill in", "inputs"
            )
        check_rows(len(masks), most, "one for each mask")
        return [replace(row, masks=masks)]

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate one sequence for each returned token, for one mask."""
        return _TOKEN_BYTES * tokens * (parameters.get("top_k") or _TOP_K)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> Any:
        """Return a list of tokens with their scores, or for several masks a list of such lists, one for each."""
        (row,), scores = rows, softmax(raws[0])
        targets = _targets(parameters, tokenizer)
        chosen = np.arange(scores.shape[1]) if targets is None else np.asarray(targets)
        count = min(parameters.get("top_k") or _TOP_K, len(chosen))
        single = len(row.masks) == 1
        filled = [
            [
                _filled(row, mask, int(chosen[i]), float(at_mask[i]), single, tokenizer)
                for i in _best(at_mask, count)
            ]
            for mask, at_mask in zip(row.masks, scores[:, chosen], strict=True)
        ]
        return filled[0] if single else filled


def _targets(parameters: Mapping[str, Any], tokenizer: Tokenizer) -> list[int] | None:
    """Return the targets' ids, each once. Raise InvalidParameter for a target that is not one token."""
    targets = parameters.get("targets")
    if targets is None:
        return None
    ids: dict[int, None] = {}
    for target in [targets] if isinstance(targets, str) else targets:
        token_id = tokenizer.token_id(target) if len(target) <= _LONGEST else None
        if token_id is None:
            raise InvalidParameter(
                f"target {target[:_LONGEST]!r} is not one token of the foundation's vocabulary; give one that is",
                "parameters.targets",
            )
        ids[token_id] = None
    return list(ids)


def _best(scores: Array, count: int) -> list[int]:
    """Return the indices of the highest scores, best first, without sorting the whole vocabulary."""
    highest = np.argpartition(-scores, count - 1)[:count]
    order: list[int] = highest[np.argsort(-scores[highest], kind="stable")].tolist()
    return order


def _filled(
    row: TextSample, place: int, token: int, score: float, single: bool, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Return one answer: the row with one token filled in.

    With several masks (`single` false), the text keeps the other masks and all special tokens.
    """
    ids = [token if i == place else other for i, other in enumerate(row.ids)]
    text = tokenizer.decode([i for i in ids if i != tokenizer.pad_id], skip_special=single)
    return {
        "score": score,
        "token": token,
        "token_str": tokenizer.decode([token], skip_special=False),
        "sequence": text,
    }

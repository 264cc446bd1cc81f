"""fill-mask: what may stand at a text's mask tokens, by the foundation's own language-model head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rootstock.adapters.spec import FILL_MASK, Adapter, Array, Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter
from rootstock.service.engine.encode.modalities.text import Input, TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.task import Task, check_count, check_rows
from rootstock.service.engine.encode.tasks.text_classification import softmax
from rootstock.service.engine.encode.tasks.truncation import truncates

MAX_TOP_K = 100
MAX_TARGETS = 256
_TOP_K = 5
# Of a sequence in an answer, a token takes so many bytes and is decoded.
_TOKEN_BYTES = 8
# Longer than any token; a longer target is not tokenised to find out.
_LONGEST = 128


class FillMask(Task):
    """Tokens by score, best first, as transformers' FillMaskPipeline gives them.

    `top_k`: how many, by default 5, or as many as there are targets. `targets`: a string or a list of them, the
    only tokens to choose from; scores stay those among the whole vocabulary. A target is an entry of the
    vocabulary or a text of one token. The pipeline takes the first token of any other, or the unknown one, with a
    warning in its log, which here nobody would see: it is refused. Texts are decoded as tokenizer.json says.
    """

    name = FILL_MASK
    parameters = frozenset({"top_k", "targets"})

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise unless `top_k` is at least 1 and there is at least one target."""
        super().check(parameters)
        check_count(parameters, "top_k")
        if (parameters.get("top_k") or 1) > MAX_TOP_K:
            raise InvalidParameter(f"top_k is {parameters['top_k']}; at most {MAX_TOP_K}", "parameters.top_k")
        if (given := parameters.get("targets")) is None:
            return
        targets = [given] if isinstance(given, str) else given
        if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
            raise InvalidParameter(
                f"targets is {given!r}; expected a string or a list of at least one", "parameters.targets"
            )
        if len(targets) > MAX_TARGETS:
            raise InvalidParameter(f"{len(targets)} targets; at most {MAX_TARGETS}", "parameters.targets")

    def encode(
        self,
        value: Input,
        preprocessing: Preprocessing,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
        most: int,
    ) -> list[TextSample]:
        """Return one row, which counts once for each of its masks."""
        _targets(parameters, tokenizer)
        (row,) = super().encode(value, preprocessing, parameters, tokenizer, most)
        masks = tuple(i for i, token in enumerate(row.ids) if token == tokenizer.mask_id)
        if not masks:
            mask = tokenizer.decode([tokenizer.mask_id or 0], skip_special=False)
            left = " that truncation leaves" if truncates(parameters) else ""
            raise InvalidInput(f"an input holds no {mask}{left}; put one where a word is to be found", "inputs")
        check_rows(len(masks), most, "one a mask")
        return [replace(row, masks=masks)]

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Count one sequence a token that is given, for one mask."""
        return _TOKEN_BYTES * tokens * (parameters.get("top_k") or _TOP_K)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> Any:
        """Return a list of tokens with their scores, or for several masks one such list a mask."""
        (row,), scores = rows, softmax(raws[0])
        targets = _targets(parameters, tokenizer)
        chosen = np.arange(scores.shape[1]) if targets is None else np.asarray(targets)
        count = min(parameters.get("top_k") or _TOP_K, len(chosen))
        single = len(row.masks) == 1
        filled = [
            [_filled(row, place, int(chosen[i]), float(those[i]), single, tokenizer) for i in _best(those, count)]
            for place, those in zip(row.masks, scores[:, chosen], strict=True)
        ]
        return filled[0] if single else filled


def _targets(parameters: Mapping[str, Any], tokenizer: Tokenizer) -> list[int] | None:
    """Return the targets' ids, each once. Raise InvalidParameter for one that is no token."""
    given = parameters.get("targets")
    if given is None:
        return None
    ids: dict[int, None] = {}
    for target in [given] if isinstance(given, str) else given:
        token_id = tokenizer.token_id(target) if len(target) <= _LONGEST else None
        if token_id is None:
            raise InvalidParameter(
                f"target {target[:_LONGEST]!r} is not one token of the foundation's vocabulary; give one that is",
                "parameters.targets",
            )
        ids[token_id] = None
    return list(ids)


def _best(scores: Array, count: int) -> list[int]:
    """Return where the highest are, best first, without sorting a whole vocabulary."""
    highest = np.argpartition(-scores, count - 1)[:count]
    order: list[int] = highest[np.argsort(-scores[highest], kind="stable")].tolist()
    return order


def _filled(
    row: TextSample, place: int, token: int, score: float, single: bool, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Fill one token in. Of several masks show the others as they are, special tokens with them."""
    ids = [token if i == place else other for i, other in enumerate(row.ids)]
    text = tokenizer.decode([i for i in ids if i != tokenizer.pad_id], skip_special=single)
    return {
        "score": score,
        "token": token,
        "token_str": tokenizer.decode([token], skip_special=False),
        "sequence": text,
    }

"""The inputs of an embedding: token ids become texts, and many inputs become several calls of the engine."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np

from rootstock.adapters.spec import EMBEDDING, Array
from rootstock.service.api.inputs import Input
from rootstock.service.api.server import Server
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import EngineError, Expired, InvalidInput, TooLarge
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.encode.modalities.reader import modality_of
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.references.composed_model import Asked

# The limit of OpenAI's API. A server whose engine takes more in one call takes them here too.
MAX_TEXTS = 2048
# The limits of one list of token ids, and of all lists: those of 2,048 texts with 512 tokens each.
MAX_IDS = 2**14
MAX_ALL_IDS = 2**20
# The limit of an answer in bytes of fp32.
_MAX_VECTOR_BYTES = 2**24
_INDEX = re.compile(r"\binputs\[(\d+)\]")

TextInput = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


class EmbeddedTexts(NamedTuple):
    """The vectors of inputs, (inputs, dimensions) in fp32, and the number of tokens that were computed for them.

    `resolved` is what the model meant.
    """

    vectors: Array
    tokens: int
    resolved: ResolvedReference


async def read_texts(server: Server, reference: Asked, given: TextInput, sticky: str) -> list[str]:
    """Return the texts of an input.

    Raise InvalidInput for tokens that are not exactly those of a text, and for any if the adapter adds tokens,
    because no route gives its ids.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], str):
        return list(cast(Sequence[str], given))
    one = isinstance(given[0], int)
    lists = [cast(Sequence[int], given)] if one else cast(Sequence[Sequence[int]], given)
    _check_count(server, reference, len(lists), sticky)
    host, adapter = await server.foundations.adapter(reference, sticky)
    if adapter is not None and adapter.preprocessing.tokens:
        raise InvalidInput(
            "input holds token ids, and the adapter adds tokens to those that POST /tokenize gives; send texts",
            "input",
        )
    async with server.texts:
        tokenizer = await asyncio.to_thread(host.tokenizer)
        return await asyncio.to_thread(_decode, tokenizer, lists, one)


async def embed(
    server: Server,
    reference: Asked,
    texts: Sequence[Input],
    parameters: Mapping[str, Any],
    options: RequestOptions,
) -> EmbeddedTexts:
    """Embed texts, images or recordings under the one version that the reference means now to the request.

    It makes as many calls as the engine needs.

    A timeout in `options` counts for all calls together; without one, each call has the server's own.
    """
    task = _task_of(texts)
    size = _check_count(server, reference, len(texts), options.sticky)
    # A composition is of fixed versions already.
    if len(texts) > size and isinstance(reference, str):
        reference = await asyncio.to_thread(server.foundations.directory.fix, reference, options.sticky)
    ends = None if options.timeout_s is None else time.monotonic() + options.timeout_s
    parts: list[Array] = []
    tokens = 0
    for start in range(0, len(texts), size):
        if start and ends is not None:
            options = replace(options, timeout_s=ends - time.monotonic())
            if cast(float, options.timeout_s) <= 0:
                raise Expired("the request was not answered within its timeout; send fewer texts")
        part = texts[start : start + size]
        try:
            answer = await server.foundations.predict(reference, part, parameters, task, options)
        except EngineError as error:
            raise _shift(error, start) from None
        parts.append(np.asarray(answer.predictions, np.float32))
        tokens += answer.prompt_tokens
        if sum(part.nbytes for part in parts) > _MAX_VECTOR_BYTES:
            raise TooLarge(
                f"the vectors would take more than {_MAX_VECTOR_BYTES // 2**20} MiB, the limit; send fewer texts",
                "inputs",
            )
    return EmbeddedTexts(np.concatenate(parts), tokens, answer.resolved)


def _task_of(inputs: Sequence[Input]) -> str:
    tasks = {EMBEDDING[modality_of(value)] for value in inputs}
    if len(tasks) > 1:
        raise InvalidInput(
            "the inputs are of several modalities, and a model takes one; send one request for each modality",
            "inputs",
        )
    return tasks.pop()


def _check_count(server: Server, reference: Asked, count: int, sticky: str) -> int:
    """Return the most texts of one call of the engine. Raise TooLarge for more texts than a request may hold."""
    engine = server.foundations.directory.host(reference, sticky).encoder
    size = MAX_TEXTS if engine is None else engine.limits.max_inputs
    if count > (most := max(size, MAX_TEXTS)):
        raise TooLarge(f"the request has {count} texts; the limit is {most}; split it", "inputs")
    return size


def _decode(tokenizer: PromptTokenizer, lists: Sequence[Sequence[int]], one: bool) -> list[str]:
    if (total := sum(map(len, lists))) > MAX_ALL_IDS:
        raise TooLarge(f"input has {total} token ids; the limit is {MAX_ALL_IDS}; split the request", "input")
    texts = []
    for i, ids in enumerate(lists):
        where = "input" if one else f"input[{i}]"
        if len(ids) > MAX_IDS:
            raise TooLarge(f"{where} has {len(ids)} token ids; the limit is {MAX_IDS}; shorten it", where)
        try:
            texts.append(tokenizer.text_of(ids))
        except InvalidInput as error:
            reason = str(error).removesuffix("; send ids of /tokenize")
            raise InvalidInput(
                f"{where}: {reason}; only the ids that POST /tokenize gives can be read, not those of another "
                "tokenizer such as OpenAI's cl100k; send texts (in langchain-openai: "
                "check_embedding_ctx_length=False)",
                where,
            ) from None
    return texts


def _shift(error: EngineError, start: int) -> EngineError:
    """Return the error of a later call with the indices of the whole request."""
    if start and error.param is not None:

        def moved(match: re.Match[str]) -> str:
            return f"inputs[{int(match[1]) + start}]"

        error.param = _INDEX.sub(moved, error.param)
        error.args = (_INDEX.sub(moved, str(error.args[0])),)
    return error

"""The routes of a server as calls: what each sends, and how its answer is read. Nothing is sent here."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from rootstock.adapters.client.composition.weighted_adapters import Model, model_fields
from rootstock.adapters.client.errors import Misused, Refused, Unreadable, json_object, kind_of
from rootstock.adapters.client.exchange import HttpCall
from rootstock.adapters.client.predictions import TaskResult, read_outcomes, read_results
from rootstock.adapters.client.records import (
    AdapterPage,
    AdapterRecord,
    AliasRecord,
    DeletedRecord,
    PublishedRecord,
    RankedText,
    SharingRecord,
    TextRecord,
    UndeletedRecord,
)
from rootstock.adapters.client.routing.routed_results import (
    RoutedResults,
    read_routed,
    routed_predictions,
    routing_fields,
)
from rootstock.adapters.media import (
    ImageFile,
    MediaFile,
    MediaModality,
    PillowImage,
    media_file,
    modality_of_type,
)
from rootstock.adapters.reference import AUTO, check_alias, check_name

if TYPE_CHECKING:
    import httpx
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
Document = dict[str, Any]
# The forms of a text, then those of a file: its path, its bytes, an image of Pillow, or a file with its modality.
GivenInput = str | Mapping[str, Any] | os.PathLike[str] | bytes | PillowImage | MediaFile
Messages = str | Sequence[Mapping[str, Any]]

_ADAPTERS = "/v1/adapters"


def predict(
    model: Model, inputs: Any, result: type[TaskResult] | None, parameters: Mapping[str, Any]
) -> HttpCall[list[Any]]:
    """Return the call that asks one model; its result is a list, also for one input."""
    body = {**model_fields(model), "inputs": _json(inputs), **_options(result, parameters)}
    count = len(inputs) if isinstance(inputs, list | tuple) else 1

    def read(document: Document) -> list[Any]:
        # The model `auto` has a digest and a task for each input.
        of_router = "routes" in document
        return (routed_predictions if of_router else read_results)(document, result, count)

    return _post("/v1/predict", body, read)


def route(
    inputs: Any,
    selector: str | None,
    threshold: float | None,
    fallback: str | None,
    parameters: Mapping[str, Any],
) -> HttpCall[RoutedResults]:
    """Return the call that lets a selector, the server's by default, choose the model of each input."""
    model = AUTO if selector is None else f"{AUTO}:{selector}"
    body = {"model": model, "inputs": _json(inputs), **_options(None, parameters)}
    count = len(inputs) if isinstance(inputs, list | tuple) else 1
    body |= routing_fields(threshold, fallback)
    return _post("/v1/predict", body, lambda document: read_routed(document, None, count))


def fan_out(
    models: Sequence[str], inputs: Any, parameters: Mapping[str, Any]
) -> HttpCall[list[list[Any] | Refused]]:
    """Return the call that asks several models about the same inputs."""
    body = {"models": [*models], "inputs": _json(inputs), **_options(None, parameters)}
    count = len(inputs) if isinstance(inputs, list | tuple) else 1
    return _post("/v1/predict", body, lambda document: read_outcomes(document, body["models"], count))


def embed(
    model: Model, inputs: GivenInput | Sequence[GivenInput], options: Mapping[str, Any]
) -> HttpCall[NDArray[np.float32]]:
    """Return the call that embeds; its result has shape (size,) for one input, else (inputs, size)."""
    given: Any = inputs
    single = isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)
    items = [_item(one) for one in ([given] if single else given)]
    if all(isinstance(one, str) for one in items):
        sent: Any = items[0] if single else items
    else:
        # In Jina's list of objects a text is an object too.
        sent = [{"text": one} if isinstance(one, str) else one for one in items]
    body = {**model_fields(model), "input": sent, "encoding_format": "base64", **options}

    def read(document: Document) -> NDArray[np.float32]:
        vectors = _vectors(document, len(items))
        return vectors[0] if single else vectors

    return _post("/v1/embeddings", body, read)


def rerank(
    model: str, query: str, documents: Sequence[str | Mapping[str, Any]], options: Mapping[str, Any]
) -> HttpCall[list[RankedText]]:
    """Return the call that ranks documents, best first."""

    def read(document: Document) -> list[RankedText]:
        digest = document["digest"]
        return [
            RankedText(one["index"], one["relevance_score"], documents[one["index"]], digest)
            for one in document["results"]
        ]

    return _post("/v1/rerank", {"model": model, "query": query, "documents": [*documents], **options}, read)


def chat(model: Model, messages: Messages, options: Mapping[str, Any]) -> HttpCall[TextRecord]:
    """Return the call that answers a chat, or one message of the user."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
    return _post("/v1/chat/completions", {**model_fields(model), "messages": said, **options}, TextRecord.read)


def complete(model: Model, prompt: str, options: Mapping[str, Any]) -> HttpCall[TextRecord]:
    """Return the call that continues, or with an encoder–decoder model rewrites, a text."""
    return _post("/v1/completions", {**model_fields(model), "prompt": prompt, **options}, TextRecord.read)


def streamed(call: HttpCall[TextRecord], opened: Callable[[httpx.Response], T]) -> HttpCall[T]:
    """Return the call that gets the same text as a stream, which `opened` reads."""
    content = {"json": {**call.content["json"], "stream": True}}
    return HttpCall(call.method, call.path, opened, content, streams=True)


def document_at(path: str) -> HttpCall[Document]:
    """Return the call that gets a route's JSON object."""
    return HttpCall("GET", path, _object)


def limits() -> HttpCall[Document]:
    """Return the call that gets the server's limits."""
    return document_at("/v1/limits")


def most_inputs() -> HttpCall[int]:
    """Return the call that gets the most inputs of one call."""

    def read(document: Document) -> int:
        most = int(document["max_inputs"])
        if most < 1:
            raise ValueError(f"max_inputs is {most}")
        return most

    return HttpCall("GET", "/v1/limits", reader_of(read))


def metrics() -> HttpCall[str]:
    """Return the call that gets the metrics as text."""
    return HttpCall("GET", "/metrics", lambda response: response.text)


def ready() -> HttpCall[Document]:
    """Return the call that succeeds once the server admits requests."""
    return document_at("/readyz")


def model(reference: str) -> HttpCall[Document]:
    """Return the call that describes a model."""
    return document_at(f"/v1/models/{quote(reference, safe='@:')}")


def push(content: Mapping[str, Any], ignored: Sequence[str]) -> HttpCall[PublishedRecord]:
    """Return the call that publishes an upload.

    It is repeatable, because the digest of the content decides: if the name already has a version with it, the
    server answers with that version and makes no other.
    """

    def read(document: Document) -> PublishedRecord:
        if ignored and isinstance(verification := document.get("verification"), dict):
            verification["ignored"] = sorted({*(verification.get("ignored") or ()), *ignored})
        return PublishedRecord.read(document)

    def read_response(response: httpx.Response) -> PublishedRecord:
        # The status alone says whether there is a new version.
        return replace(reader_of(read)(response), created=response.status_code == 201)

    return HttpCall("POST", _ADAPTERS, read_response, content)


def publish_from(source: str, name: str, fields: Mapping[str, Any], activate: bool) -> HttpCall[PublishedRecord]:
    """Return the call that lets the server fetch and publish an adapter. It is repeatable, as `push` is."""
    body = {"name": check_name(name), "source": source, **fields, "activate": activate}
    return push({"json": body}, ())


def page(limit: int, after: str | None, search: str | None) -> HttpCall[AdapterPage]:
    """Return the call that gets a page of adapters."""
    query = {"limit": limit, "after": after, "search": search}
    params = {name: value for name, value in query.items() if value is not None}

    def read(document: Document) -> AdapterPage:
        got = AdapterPage.read(document)
        if after is not None and got.next == after:
            raise Unreadable(f"{_ADAPTERS} gave no page of adapters: the next page is the same one")
        return got

    return HttpCall("GET", _ADAPTERS, reader_of(read), {"params": params})


def show(name: str) -> HttpCall[AdapterRecord]:
    """Return the call that describes an adapter with its versions."""
    return HttpCall("GET", _path(name), reader_of(AdapterRecord.read))


def describe(name: str, version: int) -> HttpCall[Document]:
    """Return the call that describes one version of an adapter."""
    return document_at(f"{_path(name)}/versions/{version:d}")


def bundle(name: str, version: int) -> HttpCall[bytes]:
    """Return the call that gets a version's zip."""

    def read(response: httpx.Response) -> bytes:
        data = response.content
        if not data.startswith(b"PK"):
            raise Unreadable(
                f"{_url(response)} gave {len(data)} bytes that are no zip: is this a Rootstock server?"
            )
        return data

    return HttpCall("GET", f"{_path(name)}/versions/{version:d}/bundle", read)


def promote(name: str, version: int, alias: str) -> HttpCall[AliasRecord]:
    """Return the call that points an alias at a version."""
    path = f"{_path(name)}/aliases/{quote(check_alias(alias), safe='')}"
    return HttpCall("PUT", path, reader_of(AliasRecord.read), {"json": {"version": version}})


def share(name: str, shared: bool) -> HttpCall[SharingRecord]:
    """Return the call that lets all tenants use an adapter, or its own tenant alone."""
    return HttpCall("PUT", f"{_path(name)}/sharing", reader_of(SharingRecord.read), {"json": {"shared": shared}})


def rollback(name: str) -> HttpCall[AliasRecord]:
    """Return the call that moves `live` back. It is not repeatable: twice would move it back by two versions."""
    return HttpCall("POST", f"{_path(name)}/rollback", reader_of(AliasRecord.read), repeatable=False)


def delete(name: str, version: int | None, force: bool, purge: bool) -> HttpCall[None]:
    """Return the call that deletes a version or an adapter. It is not repeatable: the second time gives 404."""
    path = _path(name) if version is None else f"{_path(name)}/versions/{version:d}"
    params = {name: "true" for name, wanted in (("force", force), ("purge", purge)) if wanted}
    content = {"params": params} if params else {}
    return HttpCall("DELETE", path, lambda response: None, content, repeatable=False)


def deleted(name: str) -> HttpCall[list[DeletedRecord]]:
    """Return the call that lists the deleted versions of an adapter that can come back."""
    read = reader_of(lambda document: [DeletedRecord.read(one) for one in document["versions"]])
    return HttpCall("GET", f"{_path(name)}/deleted", read)


def undelete(name: str, version: int | None) -> HttpCall[UndeletedRecord]:
    """Return the call that brings deleted versions back. It is not repeatable: the second time gives 404."""
    path = _path(name) if version is None else f"{_path(name)}/versions/{version:d}"
    return HttpCall("POST", f"{path}/undelete", reader_of(UndeletedRecord.read), repeatable=False)


def _options(result: type[TaskResult] | None, parameters: Mapping[str, Any]) -> Document:
    """Return the fields of /v1/predict that are stated. The task makes the server refuse a model of another."""
    options: Document = {"task": result.task} if result is not None and result.task else {}
    return {**options, "parameters": dict(parameters)} if parameters else options


def _json(inputs: Any) -> Any:
    """Return an input or a list of inputs as JSON."""
    return [_item(one) for one in inputs] if isinstance(inputs, list | tuple) else _item(inputs)


def _item(value: Any) -> Any:
    """Return an input as JSON: a file as the base64 of its bytes. Raise Misused if it cannot be sent."""
    if isinstance(value, Mapping):
        return {name: _field(name, one) for name, one in value.items()}
    file = _file(value)
    if file is None:
        return value
    return {"image" if isinstance(file, ImageFile) else "audio": _base64(file.data)}


def _field(name: str, value: Any) -> Any:
    """Return a field of an input as JSON. Its name decides what a file is."""
    modality = modality_of_type(name)
    file = None if modality is None else _file(value, modality)
    return value if file is None else _base64(file.data)


def _file(value: Any, modality: MediaModality | None = None) -> MediaFile | None:
    try:
        return media_file(value, modality)
    except OSError as error:
        raise Misused(f"the input {str(value)!r} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise Misused(f"an input is a file, and {error}; give ImageFile(data) or AudioFile(data)") from None


def _base64(data: bytes) -> dict[str, str]:
    return {"b64": b64encode(data).decode("ascii")}


def _post(path: str, body: Document, read: Callable[[Document], T]) -> HttpCall[T]:
    return HttpCall("POST", path, reader_of(read), {"json": body})


def reader_of(read: Callable[[Document], T]) -> Callable[[httpx.Response], T]:
    """Return the reader of a response whose JSON object `read` reads."""

    def read_response(response: httpx.Response) -> T:
        try:
            return read(_object(response))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            raise Unreadable(f"{_url(response)} gave another answer than Rootstock's ({error!r})") from error

    return read_response


def _object(response: httpx.Response) -> Document:
    document = json_object(response)
    if document is None:
        raise Unreadable(f"{_url(response)} gave {kind_of(response)}: is this a Rootstock server?")
    return document


def _vectors(document: Document, count: int) -> NDArray[np.float32]:
    import base64

    import numpy as np

    rows = [np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4") for one in document["data"]]
    if len(rows) != count:
        raise ValueError(f"{len(rows)} vectors for {count} texts")
    return np.array(rows, dtype=np.float32)


def _path(name: str) -> str:
    return f"{_ADAPTERS}/{quote(check_name(name), safe='')}"


def _url(response: httpx.Response) -> str:
    return str(response.url.copy_with(query=None))

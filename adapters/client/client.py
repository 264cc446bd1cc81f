"""A client with a Python method for each HTTP route of a Rootstock server."""

from __future__ import annotations

import io
import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, BinaryIO, Self, cast
from urllib.parse import quote

import httpx

from rootstock.adapters.client.errors import (
    Misused,
    Refused,
    Unreachable,
    Unreadable,
    json_object,
    kind_of,
    refusal,
)
from rootstock.adapters.errors import UnknownVersion
from rootstock.adapters.reference import LIVE, Reference, check_alias, check_name

DEFAULT_URL = "http://127.0.0.1:3000"
MAX_TRIES = 4
MAX_WAIT = 5.0

_RECONNECT_AFTER = 0.2
_ADAPTERS = "/v1/adapters"

# Inside Client, `list` is the method.
list_ = list
Document = dict[str, Any]
Progress = Callable[[int, int], None]


class Client:
    """A client of one server, by its address; most methods return the JSON document that the route answers with.

    Methods raise Unreachable, Refused or Unreadable, which are all ClientError. They raise InvalidName, before
    anything is sent, for a text that cannot name an adapter or alias. A request is sent again in two cases only.
    A GET whose connection is refused is tried once more. An inference call that gets 429 with a Retry-After
    waits that long and tries again, with at most `MAX_TRIES` tries and `MAX_WAIT` seconds of waiting in all.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        timeout: float = 60,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Use the server at `url`, with `key` as bearer token; `timeout` bounds each wait in seconds."""
        address = _address(url)
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
            raise Misused("the key is not one line of printable ASCII without spaces around it")
        self._url = str(address).rstrip("/")
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            transport=transport,
            # A proxy from the environment cannot reach a server on this machine.
            trust_env=not _is_loopback(address.host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, model: str, inputs: Any, parameters: Mapping[str, Any] | None = None) -> Document:
        """Return the predictions of one adapter for one input or a list of inputs."""
        return self._infer({"model": model}, inputs, parameters)

    def predict_many(
        self, models: Sequence[str], inputs: Any, parameters: Mapping[str, Any] | None = None
    ) -> Document:
        """Return the answers of several adapters for the same inputs: `results`, in the order of `models`.

        The result of an adapter that could not answer holds an `error`.
        """
        return self._infer({"models": [*models]}, inputs, parameters)

    def embeddings(self, model: str, inputs: str | Sequence[str]) -> Document:
        """Return the embeddings of one text or a list of texts, in OpenAI's shape."""
        texts = inputs if isinstance(inputs, str) else [*inputs]
        return self._patiently("/v1/embeddings", {"model": model, "input": texts})

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> Document:
        """Return the answer to a chat, in OpenAI's shape; options are those of its body, such as max_tokens."""
        body = {"model": model, "messages": [dict(message) for message in messages], **options}
        return self._patiently("/v1/chat/completions", body)

    def complete(self, model: str, prompt: str, **options: Any) -> Document:
        """Return the answer to a text, in OpenAI's shape; options are those of its body, such as max_tokens."""
        return self._patiently("/v1/completions", {"model": model, "prompt": prompt, **options})

    def limits(self) -> Document:
        """Return the server's limits: tasks, ranks, sizes, and the foundation's fingerprint."""
        return self._document("GET", "/v1/limits")

    def models(self) -> Document:
        """Return the foundation and every adapter, in OpenAI's shape."""
        return self._document("GET", "/v1/models")

    def metrics(self) -> str:
        """Return the server's metrics in Prometheus's text format."""
        return self._send("GET", "/metrics").text

    def publish(
        self,
        data: bytes | Path,
        name: str,
        *,
        task: str | None = None,
        labels: Sequence[str] | None = None,
        problem_type: str | None = None,
        max_length: int | None = None,
        foundation: str | None = None,
        activate: bool = True,
        progress: Progress | None = None,
    ) -> Document:
        """Publish an adapter as the next version of `name`.

        `data` is the bytes of a zip, or the path of a zip or a folder. `task`, `labels`, `problem_type`,
        `max_length` and `foundation` are for a plain PEFT folder only. Known extras of a folder are not sent, and
        are listed with those that the server ignored, at `verification.ignored`. `progress` is called with the
        bytes sent so far and the bytes in all. The two are equal once, when the server begins to verify.
        """
        if isinstance(labels, str):
            raise Misused(f"labels is the text {labels!r}; give a list with one text for each label")
        form = {
            "name": check_name(name),
            "task": task,
            "labels": None if labels is None else json.dumps([*labels]),
            "problem_type": problem_type,
            "max_length": None if max_length is None else str(max_length),
            "foundation": foundation,
            "activate": "true" if activate else "false",
        }
        fields = {field: value for field, value in form.items() if value is not None}
        ignored: tuple[str, ...] = ()
        if isinstance(data, Path) and data.is_dir():
            data, ignored = read_source(data)
        with ExitStack() as opened:
            source = io.BytesIO(data) if isinstance(data, bytes) else opened.enter_context(data.open("rb"))
            # httpx reads a file piece by piece while it sends, and calls only the methods that _Watched has.
            bundle = cast("IO[bytes]", _Watched(source, progress))
            files = {"bundle": (f"{name}.zip", bundle, "application/zip")}
            answer = self._document("POST", _ADAPTERS, data=fields, files=files)
        if ignored and isinstance(verification := answer.get("verification"), dict):
            verification["ignored"] = sorted({*(verification.get("ignored") or ()), *ignored})
        return answer

    def list(self, limit: int = 100) -> Iterator[Document]:
        """Yield every adapter in order of name; pages of `limit` adapters are fetched on demand."""
        query: dict[str, str | int] = {"limit": limit}
        while True:
            page = self._document("GET", _ADAPTERS, params=query)
            listed, after = page.get("adapters"), page.get("next")
            if not isinstance(listed, list_) or (after is not None and after == query.get("after")):
                raise Unreadable(f"{self._url}{_ADAPTERS} gave no page of adapters")
            yield from listed
            if after is None:
                return
            query["after"] = str(after)

    def show(self, name: str) -> Document:
        """Return an adapter with its aliases and versions."""
        return self._document("GET", _path(name))

    def resolve(self, reference: str) -> tuple[str, int]:
        """Return the name and version that a reference means now.

        Raise an AdapterError if it does not mean exactly one version.
        """
        parsed = Reference.parse(reference)
        if parsed.version is not None:
            return parsed.name, parsed.version
        adapter = self.show(parsed.name)
        if parsed.digest_prefix is not None:
            start = f"sha256:{parsed.digest_prefix}"
            versions = [v["version"] for v in adapter.get("versions", ()) if v["digest"].startswith(start)]
        else:
            versions = [v for alias, v in adapter.get("aliases", {}).items() if alias == (parsed.alias or LIVE)]
        if len(versions) != 1:
            raise UnknownVersion(
                f"{reference} means {len(versions)} versions of {parsed.name}, not one; see its versions with: "
                f"rootstock adapters show {parsed.name}"
            )
        return parsed.name, int(versions[0])

    def pull(self, name: str, version: int) -> bytes:
        """Return the bundle of a version, as one zip."""
        path = f"{_path(name)}/versions/{version:d}/bundle"
        data = self._send("GET", path).content
        if not data.startswith(b"PK"):
            raise Unreadable(
                f"{self._url}{path} gave {len(data)} bytes that are no zip: is this a Rootstock server?"
            )
        return data

    def set_alias(self, name: str, alias: str, version: int) -> Document:
        """Point an alias at a version."""
        path = f"{_path(name)}/aliases/{quote(check_alias(alias), safe='')}"
        return self._document("PUT", path, json={"version": version})

    def rollback(self, name: str) -> Document:
        """Move `live` back to the version that it pointed at before."""
        return self._document("POST", f"{_path(name)}/rollback")

    def remove(self, name: str, version: int | None = None, force: bool = False) -> None:
        """Delete a version, or the whole adapter if `version` is None.

        With `force`, delete a version even if aliases point at it.
        """
        path = _path(name) if version is None else f"{_path(name)}/versions/{version:d}"
        self._send("DELETE", path, params={"force": "true"} if force else None)

    def _infer(self, which: Document, inputs: Any, parameters: Mapping[str, Any] | None) -> Document:
        options = {} if parameters is None else {"parameters": dict(parameters)}
        return self._patiently("/v1/predict", {**which, "inputs": inputs, **options})

    def _patiently(self, path: str, body: Document) -> Document:
        left = MAX_WAIT
        for _ in range(MAX_TRIES - 1):
            try:
                return self._document("POST", path, json=body)
            except Refused as refusal:
                if refusal.status != 429 or refusal.retry_after is None or refusal.retry_after > left:
                    raise
                time.sleep(refusal.retry_after)
                left -= refusal.retry_after
        return self._document("POST", path, json=body)

    def _document(self, method: str, path: str, **options: Any) -> Document:
        response = self._send(method, path, **options)
        document = json_object(response)
        if document is None:
            raise Unreadable(f"{self._url}{path} gave {kind_of(response)}: is this a Rootstock server?")
        return document

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._exchange(method, path, **options)
        except httpx.TimeoutException as error:
            raise Unreachable(f"no answer from {self._url} within {self._timeout:g} s") from error
        except httpx.ConnectError as error:
            raise Unreachable(f"cannot reach {self._url} ({error})") from error
        except httpx.RequestError as error:
            raise Unreachable(
                f"the connection to {self._url} broke off before it had answered ({error})"
            ) from error
        if response.is_success:
            return response
        raise refusal(f"{self._url}{path}", response)

    def _exchange(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.ConnectError as error:
            if method != "GET" or not _is_refused_connection(error):
                raise
        # A server that restarts refuses connections for a moment.
        time.sleep(_RECONNECT_AFTER)
        return self._http.request(method, path, **options)


def packed(folder: Path) -> bytes:
    """Return the zip of an adapter's folder; raise Misused as `read_source` does."""
    return _packed(folder)[0]


def read_source(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """Return the zip in a file, or of an adapter's folder, and the folder's known extras that it leaves out.

    The folder is a bundle's, or the output of PEFT's `save_pretrained`, the Trainer or sentence-transformers.
    Raise Misused if it is not an adapter's folder, or holds an unknown file.
    """
    return _packed(path) if path.is_dir() else (path.read_bytes(), ())


def _packed(folder: Path) -> tuple[bytes, tuple[str, ...]]:
    from rootstock.adapters.bundle.archive import CONFIG, MEMBERS, WEIGHTS, pack
    from rootstock.adapters.bundle.plain.extras import extra_of, is_description, system_file, why_unknown

    sent: dict[str, bytes] = {}
    ignored, unknown = set(), []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        extra = system_file(name) or extra_of(name)
        if name in MEMBERS or (extra is not None and is_description(name)):
            sent[name] = path.read_bytes()
        elif extra is not None:
            ignored.add(extra)
        else:
            unknown.append(name)
    if WEIGHTS not in sent and "adapter_model.bin" in unknown:
        problem = f"{folder} has its weights in adapter_model.bin, a pickle, which is never read"
        raise Misused(f"{problem}; save it again with save_pretrained, which writes {WEIGHTS}")
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in sent]:
        reasons = [f"; {name}: {why}" for name in unknown if (why := why_unknown(name)) != "unknown"]
        problem = f"{folder} is not an adapter's folder: it has no {' and no '.join(missing)}"
        raise Misused("".join((problem, *reasons[:1])))
    if unknown:
        problem = f"{folder} holds {unknown[0]}, which is no known part of an adapter ({why_unknown(unknown[0])})"
        raise Misused(f"{problem}; move it elsewhere, or push a folder with only {', '.join(MEMBERS)}")
    return pack(sent), tuple(sorted(ignored))


class _Watched:
    """A file to upload, which reports how many bytes have been read."""

    def __init__(self, source: BinaryIO, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        self._total = source.seek(0, io.SEEK_END)
        source.seek(0)

    def read(self, size: int = -1) -> bytes:
        # httpx reads the next piece only after it has sent the one before.
        if self._progress is not None:
            self._progress(self._source.tell(), self._total)
        return self._source.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Misused(f"{url!r} is not an address ({error}); give one like {DEFAULT_URL}") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise Misused(f"{url!r} is not an http address; give one like {DEFAULT_URL}")
    if address.userinfo or address.query or address.fragment:
        raise Misused(
            f"an address may not hold a user, query or fragment; give one like {DEFAULT_URL}, and the key apart"
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _path(name: str) -> str:
    return f"{_ADAPTERS}/{quote(check_name(name), safe='')}"


def _is_refused_connection(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None

"""A stand-in server for the client's and the command line's tests: keeps what it was sent."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DIGESTS = {number: f"sha256:{number}{'c' * 63}" for number in (1, 2, 3)}
VERIFICATION = {
    "runner": "onnx",
    "precision": "fp32",
    "golden": "passed",
    "inputs": 8,
    "max_difference": 3e-06,
    "warnings": ["[a] warning"],
}
ZIP = b"PK\x05\x06" + b"\0" * 18


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    key: str | None
    json: Any = None
    form: dict[str, str] = field(default_factory=dict)
    bundle: bytes = b""


def version(number: int) -> dict[str, Any]:
    return {
        "version": number,
        "digest": DIGESTS[number],
        "task": "text-classification",
        "status": "ready",
        "created_at": "2025-01-02T03:04:05Z",
        "size": 1234567,
        "residency": "store",
        "verification": VERIFICATION,
    }


def prediction(model: str, count: int) -> dict[str, Any]:
    """The answer of one model to so many inputs."""
    predictions = [{"label": "x", "score": 1.0}] * count
    told = {"model": model, "version": 2, "digest": DIGESTS[2], "task": "text-classification"}
    return {**told, "predictions": predictions}


class StandIn:
    """A server that speaks the contract with made-up answers and remembers what it was asked.

    `instead` holds answers that are given before the usual ones, each once.
    """

    def __init__(self) -> None:
        self.port = 0
        self.reset()

    def reset(self) -> None:
        self.seen: list[Seen] = []
        self.instead: list[Response] = []
        self.names = ["a", "b", "c"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.seen]

    async def answer(self, request: Request) -> Response:
        self.seen.append(await _seen(request))
        if self.instead:
            return self.instead.pop(0)
        return self._usual(self.seen[-1])

    def _usual(self, seen: Seen) -> Response:
        parts = seen.path.removeprefix("/v1/").split("/")
        match seen.method, parts:
            case "POST", ["predict"] if "models" in seen.json:
                return JSONResponse({"results": [prediction(model, 1) for model in seen.json["models"]]})
            case "POST", ["predict"]:
                inputs = seen.json["inputs"]
                return JSONResponse(
                    prediction(seen.json["model"], len(inputs) if isinstance(inputs, list) else 1)
                )
            case "POST", ["embeddings"]:
                texts = [seen.json["input"]] if isinstance(seen.json["input"], str) else seen.json["input"]
                vector = base64.b64encode(np.arange(2, dtype="<f4")).decode()
                return JSONResponse({"object": "list", "data": [{"embedding": vector} for _ in texts]})
            case "GET", ["limits" | "models" as what]:
                return JSONResponse({"what": what, "max_inputs": 256})
            case "POST", ["adapters"]:
                told = {"name": seen.form["name"], "version": 4, "digest": DIGESTS[1], "status": "ready"}
                told |= {"task": seen.form.get("task", "text-classification"), "verification": VERIFICATION}
                return JSONResponse(told, 201)
            case "GET", ["adapters"]:
                return self._page(int(seen.query["limit"]), seen.query.get("after", ""))
            case "GET", ["adapters", name]:
                told = {"name": name, "live": 2, "task": "text-classification", "aliases": {"live": 2, "prod": 1}}
                told |= {"created_at": "2025-01-02T03:04:05Z", "versions": [version(n) for n in DIGESTS]}
                return JSONResponse(told)
            case "GET", ["adapters", _, "versions", _, "bundle"]:
                return Response(ZIP, media_type="application/zip")
            case "PUT", ["adapters", name, "aliases", alias]:
                number = seen.json["version"]
                return JSONResponse({"name": name, "alias": alias, "version": number, "digest": DIGESTS[number]})
            case "PUT", ["adapters", name, "aliases", alias, "split"]:
                return JSONResponse({"name": name, "alias": alias, "version": 1, **seen.json})
            case "DELETE", ["adapters", name, "aliases", alias, "split"]:
                return JSONResponse({"name": name, "alias": alias, "version": 1, "digest": DIGESTS[1]})
            case "PUT", ["adapters", name, "sharing"]:
                return JSONResponse({"name": name, "shared": seen.json["shared"]})
            case "PUT", ["adapters", name, "shadow"]:
                return JSONResponse({"name": name, "shadow": seen.json})
            case "PUT" | "GET", ["adapters", name, "rollback-rule"]:
                rule = {"window_seconds": 300, "min_requests": 50, "max_disagreement": 0.2, **(seen.json or {})}
                return JSONResponse({"name": name, "rule": rule})
            case "DELETE", ["adapters", name, "shadow" | "rollback-rule" as part]:
                return JSONResponse({"name": name, part.removeprefix("rollback-"): None})
            case "POST", ["adapters", name, "rollback"]:
                return JSONResponse({"name": name, "alias": "live", "version": 1, "digest": DIGESTS[1]})
            case "GET", ["adapters", name, "deleted"]:
                gone = {**version(1), "deleted_at": "2025-01-03T03:04:05Z", "aliases": ["prod"]}
                return JSONResponse({"name": name, "versions": [{**gone, "purged_at": "2025-01-10T03:04:05Z"}]})
            case "POST", ["adapters", name, "undelete"]:
                return JSONResponse({"name": name, "versions": [1, 2], "aliases": {"live": 2, "prod": 1}})
            case "POST", ["adapters", name, "versions", number, "undelete"]:
                return JSONResponse({"name": name, "versions": [int(number)], "aliases": {}})
            case "DELETE", ["adapters", *_]:
                return Response(status_code=204)
        return refusal(404, "not_found", "no such route")

    def _page(self, limit: int, after: str) -> Response:
        names = [name for name in self.names if name > after]
        shown = names[:limit]
        listed = [
            {
                "name": name,
                "live": None if name == "b" else 2,
                "versions": [1, 2],
                "task": "text-classification",
                "aliases": {"live": 2},
                "residency": "slot",
            }
            for name in shown
        ]
        return JSONResponse({"adapters": listed, "next": shown[-1] if len(names) > limit else None})


async def _seen(request: Request) -> Seen:
    header = request.headers.get("Authorization")
    seen = Seen(request.method, request.url.path, dict(request.query_params), header)
    if request.headers.get("Content-Type", "").startswith("multipart/"):
        async with request.form() as form:
            for name, value in form.items():
                if isinstance(value, UploadFile):
                    seen.bundle = await value.read()
                    seen.form[name] = str(value.filename)
                else:
                    seen.form[name] = value
    elif body := await request.body():
        seen.json = json.loads(body)
    return seen


def refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    detail = {"message": message, "type": "invalid_request_error", "param": "name", "code": code}
    return JSONResponse({"error": detail}, status, headers)


@contextmanager
def serving(stand_in: StandIn, listener: socket.socket | None = None) -> Iterator[StandIn]:
    """The stand-in behind a real HTTP server, on a port that accepts connections from the start."""
    listener = listener or bound()
    listener.listen()
    stand_in.port = listener.getsockname()[1]
    methods = ["GET", "POST", "PUT", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", stand_in.answer, methods=methods)])
    config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none", loop="asyncio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield stand_in
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def bound() -> socket.socket:
    """A port that is ours and refuses connections until it listens."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


@contextmanager
def raw_server(handle: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server of one connection that does as it is told with it."""
    with bound() as listener:
        listener.listen()

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                handle(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()

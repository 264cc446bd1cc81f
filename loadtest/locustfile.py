"""Locust users of a server that runs: PredictUser classifies, ChatUser streams generated text.

`locust -f loadtest/locustfile.py PredictUser --host http://127.0.0.1:3000 --popularity zipf`
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from locust import FastHttpUser, events, task
from locust.exception import StopUser

from rootstock.loadtest.fixtures.popularity import POPULARITIES, choose
from rootstock.loadtest.judgement.chat_stream import BrokenStream, chat_answer, events_of

TEXTS = (
    "Where is my parcel? It was due on Monday.",
    "The new headphones sound dull, and the left ear cup broke within a week.",
    "Great value, arrived early.",
    "Please cancel my order and refund the card that I paid with.",
    "ok",
)
# (digest, text) → label, over all users of a run: one digest gives one text one label.
_SEEN: dict[tuple[str, str], str] = {}
# The class of a user → the next name for a request.
_CHOICES: dict[str, Iterator[str]] = {}
_GENERATES = "text-generation"
_CHAT = "/v1/chat/completions"
# Tokens of a chat's answer at most.
_TOKENS = 64


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _arguments(parser: Any) -> None:
    parser.add_argument(
        "--popularity",
        choices=POPULARITIES,
        default="uniform",
        env_var="LOCUST_POPULARITY",
        help="Spread of the requests over the adapters or models",
    )


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _start(**_: Any) -> None:
    _SEEN.clear()
    _CHOICES.clear()


class PredictUser(FastHttpUser):  # type: ignore[misc]
    """A user that sends one prediction after another. A malformed answer, or two labels for one input, fails."""

    def on_start(self) -> None:
        """List the adapters once a run. Stop if there are none."""
        if type(self).__name__ in _CHOICES:
            return
        with self.client.get("/v1/adapters", params={"limit": 1000}, catch_response=True) as response:
            adapters = (response.json() or {}).get("adapters", []) if response.status_code == 200 else []
            names = [a["name"] for a in adapters if a["live"] is not None]
            if not names:
                response.failure("the server lists no live adapter; publish one")
                raise StopUser
        _CHOICES[type(self).__name__] = choose(names, self.environment.parsed_options.popularity)

    @task  # type: ignore[untyped-decorator]
    def predict(self) -> None:
        """Send one text under the next adapter."""
        name, text = next(_CHOICES[type(self).__name__]), random.choice(TEXTS)  # noqa: S311 - traffic, not secrets
        body = {"model": name, "inputs": text}
        with self.client.post("/v1/predict", json=body, catch_response=True) as response:
            fault = _fault(response, name, text)
            if fault is not None:
                response.failure(fault)


class ChatUser(FastHttpUser):  # type: ignore[misc]
    """A user that streams one chat after another from a server with OpenAI's routes.

    Locust's table has a line for the time to the first piece of text (`first token`) and one for the time between
    two pieces (`token`). Most servers send a piece for each token. The line of the request itself has the time to
    the end.
    """

    def on_start(self) -> None:
        """List the models that generate text once a run. Stop if there are none."""
        if type(self).__name__ in _CHOICES:
            return
        with self.client.get("/v1/models", catch_response=True) as response:
            models = (response.json() or {}).get("data", []) if response.status_code == 200 else []
            # A server that states no tasks generates with all its models.
            names = [model["id"] for model in models if model.get("task", _GENERATES) == _GENERATES]
            if not names:
                response.failure("the server lists no model that generates text; serve one, such as chat")
                raise StopUser
        _CHOICES[type(self).__name__] = choose(names, self.environment.parsed_options.popularity)

    @task  # type: ignore[untyped-decorator]
    def chat(self) -> None:
        """Stream the answer to one text under the next model."""
        name, text = next(_CHOICES[type(self).__name__]), random.choice(TEXTS)  # noqa: S311 - traffic, not secrets
        body = {
            "model": name,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": _TOKENS,
            "stream": True,
        }
        start = time.monotonic()
        # Compressed events could not be read as they come.
        headers = {"Accept-Encoding": "identity"}
        with self.client.post(_CHAT, json=body, headers=headers, stream=True, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            try:
                answer = chat_answer(list(events_of(response.stream)))
            except BrokenStream as error:
                response.failure(str(error))
                return
            # Locust has counted the time until the headers.
            response.request_meta["response_time"] = 1e3 * (answer.end - start)
        self._report("first token", answer.first - start)
        for earlier, later in pairwise(answer.times):
            self._report("token", later - earlier)

    def _report(self, kind: str, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=_CHAT,
            response_time=1e3 * seconds,
            response_length=0,
            exception=None,
            context=self.context(),
        )


def _fault(response: Any, name: str, text: str) -> str | None:
    """Return the fault of an answer, or None."""
    if response.status_code != 200:
        return f"status {response.status_code}"
    answer = response.json()
    if not isinstance(answer, dict) or answer.get("model") != name or not answer.get("digest"):
        return "the answer names another model, or no digest"
    predictions = answer.get("predictions")
    if not isinstance(predictions, list) or len(predictions) != 1:
        return "predictions is not a list of one"
    if isinstance(predictions[0], dict):
        label = str(predictions[0].get("label"))
        earlier = _SEEN.setdefault((answer["digest"], text), label)
        if earlier != label:
            return f"{name} at one digest answered one text with {earlier} and with {label}"
    return None

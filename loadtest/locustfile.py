"""A locust user that predicts under the adapters of a server and checks the answers.

`locust -f loadtest/locustfile.py --host http://127.0.0.1:3000 --popularity zipf`
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from locust import FastHttpUser, events, task
from locust.exception import StopUser

from rootstock.loadtest.fixtures.popularity import POPULARITIES, choose

TEXTS = (
    "Where is my parcel? It was due on Monday.",
    "The new headphones sound dull, and the left ear cup broke within a week.",
    "Great value, arrived early.",
    "Please cancel my order and refund the card that I paid with.",
    "ok",
)
# (digest, text) → label, over all users of a run: one digest gives one text one label.
_SEEN: dict[tuple[str, str], str] = {}
_CHOICES: dict[str, Iterator[str]] = {}


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _arguments(parser: Any) -> None:
    parser.add_argument(
        "--popularity",
        choices=POPULARITIES,
        default="uniform",
        env_var="LOCUST_POPULARITY",
        help="Spread of the requests over the adapters",
    )


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _start(**_: Any) -> None:
    _SEEN.clear()
    _CHOICES.clear()


class PredictUser(FastHttpUser):  # type: ignore[misc]
    """A user that sends one prediction after another. A malformed answer, or two labels for one input, fails."""

    def on_start(self) -> None:
        """List the adapters once a run. Stop if there are none."""
        if _CHOICES:
            return
        with self.client.get("/v1/adapters", params={"limit": 1000}, catch_response=True) as response:
            adapters = (response.json() or {}).get("adapters", []) if response.status_code == 200 else []
            names = [a["name"] for a in adapters if a["live"] is not None]
            if not names:
                response.failure("the server lists no live adapter")
                raise StopUser
        _CHOICES["run"] = choose(names, self.environment.parsed_options.popularity)

    @task  # type: ignore[untyped-decorator]
    def predict(self) -> None:
        """Send one text under the next adapter."""
        name, text = next(_CHOICES["run"]), random.choice(TEXTS)  # noqa: S311 - traffic, not secrets
        body = {"model": name, "inputs": text}
        with self.client.post("/v1/predict", json=body, catch_response=True) as response:
            fault = _fault(response, name, text)
            if fault is not None:
                response.failure(fault)


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

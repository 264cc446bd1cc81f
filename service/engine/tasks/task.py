"""The form of a task: check a call's parameters and inputs, then turn raw head outputs into predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from adapters.spec import Adapter, Array
from service.engine.errors import InvalidInput, InvalidParameter
from service.engine.tokenizer import Encoded, Input, Tokenizer


class Task(Protocol):
    """One Hugging Face pipeline tag. Predictions are what transformers' pipeline gives for it."""

    name: str
    pairs: bool
    parameters: frozenset[str]

    def check(self, parameters: Mapping[str, Any]) -> None:
        """InvalidParameter for a value that the task does not take; names are checked by `check_call`."""

    def predict(
        self, raw: Array, encoded: Encoded, adapter: Adapter, parameters: Mapping[str, Any], tokenizer: Tokenizer
    ) -> Any:
        """One input's prediction, JSON-ready."""


def check_call(task: Task, inputs: list[Input], parameters: Mapping[str, Any]) -> None:
    """InvalidParameter or InvalidInput unless the task takes these parameters and inputs."""
    known = task.parameters | {"truncation"}
    for name in parameters:
        if name not in known:
            raise InvalidParameter(
                f"{task.name} has no parameter {name!r}; it has: {', '.join(sorted(known))}", f"parameters.{name}"
            )
    check_bool(parameters, "truncation")
    task.check(parameters)
    if not task.pairs:
        for i, value in enumerate(inputs):
            if not isinstance(value, str):
                raise InvalidInput(f"{task.name} takes strings; inputs[{i}] is a pair", f"inputs[{i}]")


def check_bool(parameters: Mapping[str, Any], name: str) -> None:
    """InvalidParameter unless the parameter is absent, true or false."""
    if not isinstance(parameters.get(name, False), bool):
        raise InvalidParameter(f"{name} is {parameters[name]!r}; expected true or false", f"parameters.{name}")


def check_one_of(parameters: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    """InvalidParameter unless the parameter is absent, null or one of `allowed`."""
    if parameters.get(name) is not None and parameters[name] not in allowed:
        raise InvalidParameter(
            f"{name} is {parameters[name]!r}; one of: {', '.join(allowed)}", f"parameters.{name}"
        )

"""The help of `rootstock train`: each command ends with examples that it would take."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer

from rootstock.training.cli.app import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_ends_with_examples_that_it_would_take(name: str) -> None:
    command = COMMANDS[name]
    with command.make_context(name, ["--help"], resilient_parsing=True) as context:
        lines = command.get_help(context).partition("Examples:")[2].split("\n")
    examples = [line.strip() for line in lines if line.strip()]
    assert examples
    for example in examples:
        program, group, command_name, *arguments = shlex.split(example.partition(" > ")[0])
        assert (program, group, command_name) == ("rootstock", "train", name)
        with command.make_context(name, arguments):
            pass

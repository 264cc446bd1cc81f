"""The help of all commands has one style: a short sentence, options as sentences, and examples."""

from __future__ import annotations

import importlib
import shlex
from typing import Any

import pytest
import typer

from rootstock.adapters.cli.console import _GROUPS

_WIDTH = 80


def _commands() -> dict[str, Any]:
    """Return every command of the program, groups included, by the words that call it."""
    commands = {}
    for group, entry in _GROUPS.items():
        module, _, attribute = entry.app.partition(":")
        app = typer.main.get_command(getattr(importlib.import_module(module), attribute))
        commands[f"rootstock {group}"] = app
        for name, command in getattr(app, "commands", {}).items():
            commands[f"rootstock {group} {name}"] = command
    return commands


COMMANDS = _commands()


def _help_of(words: str) -> str:
    command = COMMANDS[words]
    with command.make_context(words, ["--help"], resilient_parsing=True, terminal_width=_WIDTH) as context:
        text: str = command.get_help(context)
    return text


@pytest.mark.parametrize("words", COMMANDS)
def test_each_command_begins_with_a_sentence_that_a_listing_shows_whole(words: str) -> None:
    command = COMMANDS[words]
    first = command.help.split("\n\n")[0]
    assert first[0].isupper()
    assert first.endswith(".")
    if words.count(" ") > 1:
        listing = _help_of(words.rpartition(" ")[0])
        assert f" {first}\n" in f"{listing}\n", "the listing cuts it off; shorten it"


@pytest.mark.parametrize("words", COMMANDS)
def test_each_option_is_explained_in_sentences(words: str) -> None:
    for parameter in COMMANDS[words].params:
        text = parameter.help or ""
        assert text[:1].isupper(), parameter.name
        assert text.endswith("."), parameter.name


@pytest.mark.parametrize("words", COMMANDS)
def test_each_command_ends_with_examples_that_it_would_take(words: str) -> None:
    lines = _help_of(words).partition("Examples:\n")[2].split("\n")
    examples = [line.strip() for line in lines if line.strip()]
    assert examples
    for example in examples:
        arguments = shlex.split(example.partition(" > ")[0])
        called = " ".join(arguments[:3]) if " ".join(arguments[:3]) in COMMANDS else " ".join(arguments[:2])
        assert called in (words, *(name for name in COMMANDS if name.startswith(f"{words} ")))
        rest = arguments[len(called.split()) :]
        # Paths in examples need not exist.
        with COMMANDS[called].make_context(called, rest, resilient_parsing=True):
            pass

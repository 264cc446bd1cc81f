"""SECURITY.md and docs/operations.md: a promise names tests that are there, and its actors are described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECURITY, OPERATIONS = "SECURITY.md", "docs/operations.md"


def rows(heading: str, page: str = SECURITY) -> list[list[str]]:
    """Return the cells of the table under a heading of a page, without its head."""
    _, _, rest = (ROOT / page).read_text(encoding="utf-8").partition(f"## {heading}\n")
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize(
    "row", [*rows("Promised"), *rows("Promised, and not", OPERATIONS)], ids=lambda row: row[0][:60]
)
def test_a_promise_names_tests_that_exist(row: list[str]) -> None:
    assert row[0].endswith(".")
    named = re.findall(r"`([^`]+)`", row[-1])
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_promise_is_against_actors_of_the_model() -> None:
    actors = {actor for actor, _, _ in rows("From whom")}
    assert {"caller", "publisher", "web page", "neighbour process", "thief of a disk"} <= actors
    named = {actor for _, against, _ in rows("Promised") for actor in against.split(", ")}
    assert named <= actors | {"–", "all"}


def test_the_pages_for_operators_and_newcomers_lead_here() -> None:
    assert "(../SECURITY.md)" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")

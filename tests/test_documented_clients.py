"""docs/clients.md lists the calls of clients. A test runs each one that works, in the version that is stated."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tests.service.api.compat.environments.environment import NODE, PYTHON

ROOT = Path(__file__).parents[1]
# The client of the rows that are requests.
REQUESTS = "HTTP"


class Row(NamedTuple):
    """A row of a table: a client, its version and one call. A row without a client continues the one above."""

    client: str
    version: str
    call: str
    works: bool


@cache
def table() -> list[Row]:
    rows: list[Row] = []
    client = version = ""
    for line in (ROOT / "docs" / "clients.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3 or not re.match(r"(yes|no)\b", cells[2]):
            continue
        if cells[0]:
            name, number, of_node = re.fullmatch(r"`([^`]+)` ?([\d.]*)( \(Node\))?.*", cells[0]).groups()
            client, version = name + (of_node or ""), number
        rows.append(Row(client, version, re.match(r"`([^`]+)`", cells[1])[1], cells[2].startswith("yes")))
    return rows


def marked() -> set[tuple[str, str]]:
    """Return the client and the call of each mark `calls` in the tests."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "tests").rglob("test_*.py")))
    return {
        tuple(ast.literal_eval(argument) for argument in node.args)
        for node in chain.from_iterable(map(ast.walk, trees))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.calls"
    }


def test_a_call_works_if_and_only_if_a_test_runs_it() -> None:
    listed = [(row.client, row.call) for row in table() if row.works]
    assert len(listed) == len(set(listed))
    assert set(listed) == marked()


def test_the_versions_are_those_that_the_tests_run() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    installed = [*pinned, *chain.from_iterable(PYTHON.values())]
    versions = {tuple(one.split("==")) for one in installed if "==" in one}
    versions |= {(f"{name} (Node)", number) for name, number in (one.rsplit("@", 1) for one in NODE["node"])}
    stated = {(row.client, row.version) for row in table() if row.client != REQUESTS}
    assert stated - versions == set()


def test_the_calls_of_client_libraries_that_work_are_many() -> None:
    works = [row for row in table() if row.works and row.client != REQUESTS]
    assert len(works) >= 30
    assert len({row.client for row in works}) >= 12

"""Structures of answers that are built to be costly: each ends, in bounded memory, beside others' requests."""

from __future__ import annotations

import resource
from typing import Any

import httpx
import pytest

COMPLETION = {"model": "tiny-chat", "prompt": "a", "max_tokens": 8, "temperature": 0}
# The most memory that one of these may take, in KiB; llguidance's own limits allow 20 MB a sequence.
MOST_MEMORY = 512 * 1024
EXPRESSIONS = {
    "nested repetition": "(a+)+$",
    "nested stars": "(a*)*b",
    "alternatives that overlap": "(a|a)*b",
    "alternatives of alternatives": "(a|aa|aaa|aaaa)*b",
    "a repetition of a repetition": "((a{1,100}){1,100}){1,100}",
    "a repetition of a million": "a{1000000}",
    "a repetition without a bound that fits": "a{99999999999999999999}",
    "optional atoms": "a?" * 1000 + "a" * 1000,
    "a word somewhere": "(.*a){20}",
    "the same far from the end": "(a|b)*a(a|b){30}",
    "classes of all letters": r"[\p{L}\p{N}]{500}" * 8,
    "4,097 characters": "a" * 4097,
    "a million characters": "a" * 10**6,
    "2,000 groups": "(" * 2000 + "a" + ")" * 2000,
    "800 alternatives": "|".join(f"a{i:04}" for i in range(800)),
    "a group that is not closed": "(" * 100,
    "a look ahead": "(?=a)a",
    "a look behind": "(?<=a)a",
    "a reference back": r"(a)\1",
    "a recursion": "(?R)",
    "a comment": "(?#" + "a" * 100,
    "a class that is not closed": "[a",
    "a range that goes back": "[z-a]",
    "a range of counts that goes back": "a{5,1}",
    "a NUL": "a\x00b",
    "a property of nobody": r"\p{Nobody}",
    "an end of Lark's expression": 'a/ "b" /',
    "a rule of Lark": "a/\nstart: /b/",
    "nothing but an end": "$",
    "what matches nothing": "[^\\s\\S]",
}


def grown_by(before: int) -> int:
    """Return by how much the most memory of this process has grown, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_followed_or_refused_in_bounded_memory(attacker: httpx.Client, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    body = {**COMPLETION, "structured_outputs": {"regex": EXPRESSIONS[name]}}
    answer = attacker.post("/v1/completions", json=body)
    assert answer.status_code in (200, 413, 422), answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["code"] in ("invalid_parameter", "request_too_large")
        assert error["param"].startswith("structured_outputs")
        assert len(error["message"]) < 600
    assert grown_by(before) < MOST_MEMORY


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


SCHEMAS: dict[str, dict[str, Any]] = {
    "60 levels": nested(60),
    "itself": {"$ref": "#"},
    "itself through itself": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "another host's": {"$ref": "http://127.0.0.1:1/schema.json"},
    "a file's": {"$ref": "file:///etc/passwd"},
    "2,000 references in a chain": {
        "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(2000)},
        "$ref": "#/$defs/a0",
    },
    "a doubling of itself": {
        "$defs": {
            f"a{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/a{i + 1}"}] * 2, "minItems": 2}
            for i in range(30)
        }
        | {"a30": {"const": 1}},
        "$ref": "#/$defs/a0",
    },
    "a million items": {"type": "array", "minItems": 10**6, "items": {"const": 1}},
    "a text of a billion letters": {"type": "string", "minLength": 10**9},
    "a divisor of many digits": {"type": "integer", "multipleOf": 999_983},
    "a divisor of nothing": {"type": "integer", "multipleOf": 0},
    "20 patterns at once": {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrst"]},
    "an enumeration of 10,000": {"enum": [f"choice {i}" for i in range(10_000)]},
    "300 alternatives of arrays": {"anyOf": [{"type": "array", "items": {"const": i}} for i in range(300)]},
    "80 optional keys": {"type": "object", "properties": {f"k{i}": {"type": "integer"} for i in range(80)}},
    "a pattern that explodes": {"type": "string", "pattern": "(a|b)*a(a|b){30}"},
    "nothing that can be": {"allOf": [{"const": 1}, {"const": 2}]},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_followed_or_refused_in_bounded_memory(attacker: httpx.Client, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    format_ = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMAS[name]}}
    body = {**COMPLETION, "response_format": format_}
    answer = attacker.post("/v1/completions", json=body)
    assert answer.status_code in (200, 413, 422), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["param"].startswith("response_format")
    assert grown_by(before) < MOST_MEMORY


def test_a_choice_of_too_many_texts_is_refused(attacker: httpx.Client) -> None:
    body = {**COMPLETION, "structured_outputs": {"choice": [f"text {i}" for i in range(10_000)]}}
    answer = attacker.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "structured_outputs.choice")

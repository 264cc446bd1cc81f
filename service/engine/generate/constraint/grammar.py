"""State what an answer must be as a grammar: a JSON schema, a regular expression, choices or calls of tools."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.constraint.tool_format import CALL, END, NEXT_CALL, Tool, call_head

# llguidance bounds the states of a grammar, but neither the depth of its own recursion nor the time for a long
# regular expression or for large divisors. These limits do. ADR 18 has the figures.
MOST_CHARACTERS = 2**16
MOST_PATTERN_CHARACTERS = 2**12
MOST_DIVISOR = 10_000
MOST_MERGED = 12
# Keys of a schema that restrict nothing.
_ANNOTATIONS = frozenset(
    ("$comment", "$defs", "$id", "$schema", "default", "definitions", "description", "examples", "title")
)
# One form of JSON, as Python's json writes it: without this, an answer could consist of spaces for ever. The key
# replaces one of the request, which could switch checks off.
_FORM = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar of whole answers, in the Lark syntax of llguidance.

    `rule` is what the answer must be, and `rules` are the lines of the further rules that it names. `param` is
    the field of the request that states it. `parts` are grammars inside it, to find the one that is at fault.
    """

    rule: str
    param: str
    rules: tuple[str, ...] = ()
    parts: tuple[Grammar, ...] = ()

    @property
    def text(self) -> str:
        """Return the grammar for llguidance."""
        return "\n".join((f"start: {self.rule}", *self.rules))


def json_grammar(schema: Mapping[str, Any], param: str) -> Grammar:
    """Return the grammar of the JSON texts that a schema allows.

    Raise InvalidParameter for a schema beyond the limits; the compiler checks the schema itself.
    """
    text = _bounded_json({**schema, **_FORM}, param)
    _check_costs(schema, param)
    return Grammar(f"%json {text}", param)


def regex_grammar(pattern: str, param: str) -> Grammar:
    """Return the grammar of the texts that a regular expression matches as a whole.

    As in JSON Schema, digits and word characters are those of ASCII.

    Raise InvalidParameter for a pattern beyond the limits; the compiler checks the pattern itself.
    """
    from llguidance import regex_to_lark

    _check_pattern_characters(len(pattern), param)
    return Grammar(f"/{regex_to_lark(_encodable(pattern, param), 'dw')}/", param)


def choice_grammar(choices: Sequence[str], param: str) -> Grammar:
    """Return the grammar of exactly these texts. Raise InvalidParameter for too many characters."""
    _bounded_json(choices, param)
    # A terminal costs one state where a rule would cost one for each choice.
    return Grammar("CHOICE", param, (f"CHOICE: {' | '.join(_quoted(_encodable(c, param)) for c in choices)}",))


def tool_grammar(
    tools: Sequence[Tool], param: str, forced: bool, parallel: bool, content: Grammar | None = None
) -> Grammar:
    """Return the grammar of answers that call tools, in the format of tool_format.py.

    An answer is at least one call if `forced`; otherwise it may be a text, or the `content` if that is given.
    `parallel` allows several calls. Raise InvalidParameter for tools beyond the limits.
    """
    parts = [json_grammar(tool.parameters, tool.param) for tool in tools]
    rules = ["call: " + " | ".join(f"call_{i}" for i in range(len(tools)))]
    for i, (tool, part) in enumerate(zip(tools, parts, strict=True)):
        rules.append(f"call_{i}: {_quoted(call_head(tool.name))} {part.rule} {_quoted(END)}")
    more = f" ({_quoted(NEXT_CALL)} call)*" if parallel else ""
    calls = f"{_quoted(CALL)} call{more}"
    if forced:
        rule = calls
    elif content is not None:
        parts.append(content)
        rules += [f"content: {content.rule}", *content.rules]
        rule = f"content | {calls}"
    else:
        # A lazy terminal ends at the first mark, so that a text never holds one.
        rules += ["TEXT: /(?s:.*)/", f"opening[lazy]: TEXT {_quoted(CALL)}"]
        rule = f"TEXT | opening call{more}"
    grammar = Grammar(rule, param, tuple(rules), tuple(parts))
    if len(grammar.text) > 2 * MOST_CHARACTERS:
        raise InvalidParameter(
            f"{param} has schemas of {len(grammar.text)} characters together; the limit is {2 * MOST_CHARACTERS};"
            " send fewer or shorter ones",
            param,
        )
    return grammar


def _quoted(text: str) -> str:
    return json.dumps(text)


def _encodable(text: str, param: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidParameter(f"{param} holds half a character (a lone surrogate); remove it", param) from None
    return text


def _bounded_json(value: Any, param: str) -> str:
    """Return a value as JSON, and write no more of it than the limit allows."""
    pieces, size = [], 0
    for piece in json.JSONEncoder(separators=(",", ":")).iterencode(value):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_CHARACTERS:
            raise InvalidParameter(
                f"{param} has more than {MOST_CHARACTERS} characters as JSON; shorten it, for example its"
                " descriptions",
                param,
            )
    return "".join(pieces)


def _check_costs(schema: Mapping[str, Any], param: str) -> None:
    characters, expressions, divisors, merges = 0, 0, set[float](), False
    for one in _objects(schema):
        merges |= _merges(one)
        pattern, patterns, divisor = one.get("pattern"), one.get("patternProperties"), one.get("multipleOf")
        expressions += isinstance(one.get("format"), str)
        if isinstance(pattern, str):
            expressions, characters = expressions + 1, characters + len(pattern)
        if isinstance(patterns, Mapping):
            expressions, characters = expressions + len(patterns), characters + sum(map(len, patterns))
        if isinstance(divisor, int | float) and not isinstance(divisor, bool):
            divisors.add(divisor)
    _check_pattern_characters(characters, param)
    if merges and expressions > MOST_MERGED:
        raise InvalidParameter(
            f"{param} has {expressions} patterns and formats, and combines schemas by allOf, or by keys beside"
            f" anyOf, oneOf or $ref; the limit is {MOST_MERGED}; use fewer patterns, or do not combine schemas",
            param,
        )
    if _common_multiple(divisors) > MOST_DIVISOR:
        raise InvalidParameter(
            f"the product of all multipleOf of {param}, scaled to whole numbers, is above the limit of"
            f" {MOST_DIVISOR}; round them, or leave some out",
            param,
        )


def _merges(schema: Mapping[str, Any]) -> bool:
    """Tell whether a value must follow several schemas at once, whose expressions llguidance then intersects."""
    if isinstance(schema.get("allOf"), list):
        return True
    further = [key for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list)]
    if isinstance(schema.get("$ref"), str):
        further.append("$ref")
    return bool(further) and len(schema.keys() - _ANNOTATIONS) > 1


def _common_multiple(divisors: Collection[float]) -> float:
    """Return the product of the divisors, scaled by the least number that makes all of them whole."""
    if not all(abs(divisor) <= MOST_DIVISOR for divisor in divisors):
        return math.inf
    digits = [Fraction(str(divisor)) for divisor in divisors]
    unit = math.lcm(*(one.denominator for one in digits))
    return math.prod(abs(int(one * unit)) for one in digits)


def _check_pattern_characters(count: int, param: str) -> None:
    if count > MOST_PATTERN_CHARACTERS:
        raise InvalidParameter(
            f"{param} has regular expressions of {count} characters; the limit is {MOST_PATTERN_CHARACTERS};"
            " shorten them",
            param,
        )


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object inside a JSON value."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Mapping):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found

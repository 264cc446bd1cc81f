"""Compiles the regular expressions of an `adapter_config.json` as PEFT does, and limits their cost.

The server compiles and runs uploaded expressions, so it refuses one that could take long to compile or to match.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from typing import Any

from rootstock.adapters.bundle.kinds.methods import wrong_option

MAX_PATTERNS = 1024
_MAX_PATTERN_CHARS = 512
# The steps of a backtracking match are at most about the number of ways to split a name of this length.
_NAME_LENGTH = 50
_MAX_WAYS = 2**20
# The unit is a character: `re` compiles some 500,000 a second, and a set that ignores case costs as much as 100.
_MAX_COST = 2**17
_SET_COST = 100
_LAST_ASCII = 127
_MAX_QUOTED = 60
_LITERALS = (sre.LITERAL, sre.NOT_LITERAL)
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


# These three wrap a pattern as PEFT does. They cache, because `re` caches fewer than one config may hold.
@functools.lru_cache(maxsize=4 * MAX_PATTERNS)
def ending_in(pattern: str) -> re.Pattern[str]:
    """Return a pattern for a module's name that ends in `pattern`, for `rank_pattern` and `alpha_pattern`."""
    return re.compile(rf"(.*\.)?({pattern})$")


@functools.lru_cache(maxsize=MAX_PATTERNS)
def containing(pattern: str) -> re.Pattern[str]:
    """Return a pattern for a module that `pattern` names and for all modules in it, for `modules_to_save`."""
    return re.compile(rf"(^|.*\.){pattern}($|\..*)")


@functools.lru_cache(maxsize=MAX_PATTERNS)
def layer_of(pattern: str) -> re.Pattern[str]:
    """Return a pattern for a name with a layer's index (group `idx`) after `pattern`, for `layers_pattern`."""
    return re.compile(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.")


class PatternBudget:
    """A limit on the total cost of one config's regular expressions: to compile, and to match one name."""

    def __init__(self) -> None:
        self._cost = 0
        self._ways = 0.0

    def check(self, key: str, patterns: Sequence[str], compiled: Callable[[str], object]) -> None:
        """Raise Rejected (check "schema") that names `key` if a pattern is invalid or costs too much.

        The cost includes that of all patterns checked before. `compiled` compiles a pattern in the form in
        which it is used, and is called only after the pattern is known to be cheap.
        """
        if len(patterns) > MAX_PATTERNS:
            raise wrong_option(key, f"{len(patterns)} patterns and the limit is {MAX_PATTERNS}")
        for pattern in patterns:
            self._check_length(key, pattern)
            try:
                parsed: Any = sre_parse.parse(pattern)
                self._check_cost(key, pattern, parsed)
                compiled(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise wrong_option(key, f"{_quoted(pattern)} is not a regular expression: {error}") from None

    def _check_length(self, key: str, pattern: str) -> None:
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise wrong_option(
                key, f"a pattern has {len(pattern)} characters and the limit is {_MAX_PATTERN_CHARS}; shorten it"
            )
        self._cost += len(pattern)
        if self._cost > _MAX_COST:
            raise wrong_option(
                key, f"the patterns have more than {_MAX_COST} characters together; name the modules in a list"
            )

    def _check_cost(self, key: str, pattern: str, parsed: Any) -> None:
        if not _is_ascii(parsed):
            raise wrong_option(
                key,
                f"{_quoted(pattern)} has a character outside ASCII, which no module's name has; leave it out",
            )
        if _ignores_case(parsed):
            self._cost += _SET_COST * _sets(parsed)
        if self._cost > _MAX_COST:
            raise wrong_option(
                key, f"{_quoted(pattern)} has too many sets that ignore case; name the modules in a list"
            )
        self._ways += _ways(parsed)
        if self._ways > _MAX_WAYS:
            raise wrong_option(
                key, f"{_quoted(pattern)} nests repeats or repeats too often; name the modules in a list"
            )


def _quoted(pattern: str) -> str:
    """Return a pattern for a message, short enough to leave room for the remedy."""
    return repr(pattern if len(pattern) <= _MAX_QUOTED else pattern[:_MAX_QUOTED] + "…")


def _parts(parsed: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every operation of a parsed pattern with its arguments, nested operations included."""
    for op, args in parsed:
        yield op, args
        if op in _REPEATS:
            yield from _parts(args[2])
        elif op is sre.BRANCH:
            for branch in args[1]:
                yield from _parts(branch)
        elif op in (sre.SUBPATTERN, sre.ASSERT, sre.ASSERT_NOT):
            yield from _parts(args[-1])
        elif op is sre.ATOMIC_GROUP:
            yield from _parts(args)
        elif op is sre.GROUPREF_EXISTS:
            yield from (part for branch in args[1:] if branch is not None for part in _parts(branch))


def _is_ascii(parsed: Any) -> bool:
    """Return whether every character in the pattern is ASCII; `re` walks through a set's range one by one."""
    for op, args in _parts(parsed):
        items = args if op is sre.IN else [(op, args)]
        for kind, value in items:
            highest = value[1] if kind is sre.RANGE else value if kind in _LITERALS else 0
            if highest > _LAST_ASCII:
                return False
    return True


def _ignores_case(parsed: Any) -> bool:
    flags = parsed.state.flags
    for op, args in _parts(parsed):
        if op is sre.SUBPATTERN:
            flags |= args[1]
    return bool(flags & re.IGNORECASE)


def _sets(parsed: Any) -> int:
    return sum(op is sre.IN for op, _ in _parts(parsed))


def _ways(parsed: Any) -> float:
    """Return an upper limit on the number of ways in which a pattern can match one name.

    The limit is infinite if a repeat contains choices.
    """
    ways = 1.0
    for op, args in parsed:
        if op in _REPEATS:
            least, most, body = args
            inner = _ways(body)
            if least > _NAME_LENGTH or (most > 1 and inner > 1):
                ways = math.inf
            else:
                ways *= 1 + (inner if most <= 1 else min(most, _NAME_LENGTH))
        elif op is sre.BRANCH:
            ways *= sum(_ways(branch) for branch in args[1])
        elif op is sre.SUBPATTERN:
            ways *= _ways(args[-1])
        elif op in (sre.ASSERT, sre.ASSERT_NOT):
            ways *= _ways(args[1])
        elif op in (sre.GROUPREF, sre.GROUPREF_EXISTS, sre.ATOMIC_GROUP):
            ways = math.inf
    return ways

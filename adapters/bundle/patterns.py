"""The regular expressions of an `adapter_config.json`: PEFT's own around them, and a bound on what they cost.

An uploaded expression runs inside the server, so that one which could run for long is refused.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from typing import Any

from rootstock.adapters.bundle.kinds.methods import wrong_option

MAX_PATTERNS = 1024
_MAX_PATTERN_CHARS = 512
# A backtracking match takes at most about as many steps as a name of this length can be taken apart in ways.
_NAME_LENGTH = 50
_MAX_WAYS = 2**20


# PEFT's own expressions around a pattern. Kept compiled: `re` itself keeps fewer than one config may hold.
@functools.lru_cache(maxsize=4 * MAX_PATTERNS)
def ending_in(pattern: str) -> re.Pattern[str]:
    """Matches a module's name that ends in the pattern: `rank_pattern`, `alpha_pattern`."""
    return re.compile(rf"(.*\.)?({pattern})$")


@functools.lru_cache(maxsize=MAX_PATTERNS)
def containing(pattern: str) -> re.Pattern[str]:
    """Matches the name of a module inside one that the pattern names: `modules_to_save`."""
    return re.compile(rf"(^|.*\.){pattern}($|\..*)")


@functools.lru_cache(maxsize=MAX_PATTERNS)
def layer_of(pattern: str) -> re.Pattern[str]:
    """Matches a name with a layer's index, group `idx`, after the pattern: `layers_pattern`."""
    return re.compile(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.")


def check_patterns(key: str, patterns: list[str], compiled: Callable[[str], object]) -> None:
    """Rejected (check "schema") naming `key` for a pattern that is none or could run for long."""
    if len(patterns) > MAX_PATTERNS:
        raise wrong_option(key, f"{len(patterns)} patterns; at most {MAX_PATTERNS}")
    ways = 0.0
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise wrong_option(key, f"a pattern of {len(pattern)} characters; at most {_MAX_PATTERN_CHARS}")
        try:
            parsed: Any = sre_parse.parse(pattern)
            compiled(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise wrong_option(key, f"{pattern!r} is not a regular expression: {error}") from None
        ways += _ways(parsed)
        if ways > _MAX_WAYS:
            raise wrong_option(
                key, f"{pattern!r} repeats within repeats or too often; name the modules in a list"
            )


def _ways(parsed: Any) -> float:
    """A bound on the ways in which a pattern can match one name; infinite where choices nest in a repeat."""
    ways = 1.0
    for op, args in parsed:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
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

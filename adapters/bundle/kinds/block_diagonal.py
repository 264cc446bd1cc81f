"""LoRA with a block-diagonal factor (`use_bdlora`): its shape in the file, and the whole matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.spec import Array

_KEY = "use_bdlora"
_PATTERNS = {"A": "target_modules_bd_a", "B": "target_modules_bd_b"}
# A list holds at most this many names.
_MAX_NAMES = 1024


def check_blocks(option: Any) -> None:
    """Raise Rejected (check "schema") for a value of `use_bdlora` that is not PEFT's."""
    if not option:
        return
    if not isinstance(option, dict):
        raise wrong_option(_KEY, f"{option!r} is not an object")
    count = option.get("nblocks", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise wrong_option(_KEY, f"nblocks: {count!r} is not a number of blocks of at least 1")
    for key in _PATTERNS.values():
        names = option.get(key) or []
        if not isinstance(names, list) or len(names) > _MAX_NAMES or not all(isinstance(n, str) for n in names):
            raise wrong_option(_KEY, f"{key}: {names!r} is not a list of at most {_MAX_NAMES} parts of names")


def blocks_of(option: Mapping[str, Any] | None, module: str) -> tuple[Literal["A", "B"] | None, int]:
    """Return the factor of a module that is block-diagonal, if any, and its number of blocks.

    `module` is the name by which the config means the module. Raise Rejected (check "schema") for a module of
    which PEFT makes no such LoRA.
    """
    if not option:
        return None, 1
    a, b = (any(part in module for part in option.get(key) or []) for key in _PATTERNS.values())
    if a and b:
        raise wrong_option(_KEY, f"{module} is named for both factors; name it for one of them")
    if not (a or b) and option.get("match_strict", True):
        raise wrong_option(_KEY, f"{module} is named for neither factor; name it, or set match_strict to false")
    return ("A" if a else "B" if b else None), int(option.get("nblocks", 1))


def whole_matrix(blocks: Array, count: int) -> Array:
    """Return the block-diagonal matrix (out, in) of which `blocks` (out, in / count) holds the blocks.

    Source: PEFT's `BlockDiagonalLinear`.
    """
    height, width = len(blocks) // count, blocks.shape[1]
    whole = np.zeros((len(blocks), width * count), np.float32)
    for i in range(count):
        rows = slice(i * height, (i + 1) * height)
        whole[rows, i * width : (i + 1) * width] = blocks[rows]
    return whole

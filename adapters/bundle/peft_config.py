"""`adapter_config.json` read as PEFT reads it: which modules an adapter targets, and each one's scale.

The matching follows `peft.tuners.tuners_utils.check_target_module_exists` and `get_pattern_key`
(peft 0.21). An option that would change the outputs and is not served is refused by its name.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from typing import Any

from adapters.spec import Rejected, TaskClass

ALL_LINEAR = "all-linear"
_MAX_PATTERN_CHARS = 512
_MAX_PATTERNS = 1024
# A backtracking match takes at most about as many steps as a name of this length can be taken apart in ways.
_NAME_LENGTH = 50
_MAX_WAYS = 2**20

# Read by this module, or without effect on a trained adapter's outputs.
_KNOWN = {
    "peft_type", "task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "modules_to_save", "init_lora_weights",
    "bias", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "megatron_core", "qalora_group_size", "loftq_config", "runtime_config", "eva_config",
    "ensure_weight_tying",
}  # fmt: skip
# These initialisations move part of the base weight into the adapter: the frozen foundation lacks that part.
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class PeftConfig:
    """The parts of a PEFT config that decide an adapter's answer. `peft_type` None means head-only."""

    peft_type: str | None
    task_type: str | None
    values: Mapping[str, Any]

    def targets(self, task_class: TaskClass) -> tuple[str, ...]:
        """Full names (within the task class) of the linear modules that this adapter targets, sorted."""
        if self.peft_type is None:
            return ()
        target, exclude = self.values.get("target_modules"), self.values.get("exclude_modules")
        names: Iterable[str] = task_class.linears
        if isinstance(target, str) and target.lower() == ALL_LINEAR:
            names = [n for n in names if not (self.task_type == "SEQ_CLS" and n in ("score", "classifier"))]
            target = list(names)
        return tuple(sorted(n for n in names if not self._excluded(n, exclude) and self._targeted(n, target)))

    def rank(self, module: str) -> int:
        """The rank that the config gives a module."""
        return int(self._pattern("rank_pattern", module, self.values.get("r", 8)))

    def scale(self, module: str) -> float:
        """The factor on B·A: alpha / r, or alpha / sqrt(r) for rsLoRA."""
        rank = self.rank(module)
        alpha = float(self._pattern("alpha_pattern", module, self.values.get("lora_alpha", 8)))
        return alpha / math.sqrt(rank) if self.values.get("use_rslora") else alpha / rank

    def _pattern(self, key: str, module: str, default: Any) -> Any:
        for pattern, value in (self.values.get(key) or {}).items():
            if _ending_in(pattern).match(module):
                return value
        return default

    def _excluded(self, name: str, exclude: str | list[str] | None) -> bool:
        if isinstance(exclude, str):
            if re.fullmatch(exclude, name):
                return True
        elif exclude and any(name == e or name.endswith(f".{e}") for e in exclude):
            return True
        saved = self.values.get("modules_to_save") or []
        return any(_containing(m).match(name) for m in saved)

    def _targeted(self, name: str, target: str | list[str] | None) -> bool:
        if isinstance(target, str):
            return re.fullmatch(target, name) is not None
        if not any(name == t or name.endswith(f".{t}") for t in target or []):
            return False
        layers = self.values.get("layers_to_transform")
        if layers is None or layers == [] or name in (target or []):
            return True
        pattern = self.values.get("layers_pattern")
        patterns = [pattern] if isinstance(pattern, str) else pattern
        if patterns:
            matches = (_layer_of(p).match(name) for p in patterns)
            match = next((m for m in matches if m), None)
        else:
            match = re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", name)
        if match is None or match["idx"] is None:
            return False
        return int(match["idx"]) in ([layers] if isinstance(layers, int) else layers)


# PEFT's own expressions around a pattern. Kept compiled: `re` itself keeps fewer than one config may hold.
@functools.lru_cache(maxsize=4 * _MAX_PATTERNS)
def _ending_in(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({pattern})$")


@functools.lru_cache(maxsize=_MAX_PATTERNS)
def _containing(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(^|.*\.){pattern}($|\..*)")


@functools.lru_cache(maxsize=_MAX_PATTERNS)
def _layer_of(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.")


def read_config(value: Mapping[str, Any]) -> PeftConfig:
    """The config in the object of an `adapter_config.json`; Rejected for a kind or option that is not served."""
    kind, task = value.get("peft_type"), value.get("task_type")
    if kind not in (None, "LORA"):
        raise _wrong("peft_type", f"{kind!r} is not served; served: LORA, or null for a head alone")
    if task is not None and not isinstance(task, str):
        raise _wrong("task_type", f"{task!r} is not a string")
    if kind is None:
        return PeftConfig(None, task, {})
    for key, option in value.items():
        if key not in _KNOWN and option not in (None, False, [], {}):
            raise _wrong(key, f"{option!r} is not served: it may change the outputs; train without it")
    if value.get("bias", "none") != "none":
        raise _wrong("bias", f"{value['bias']!r} is not served; train with bias='none'")
    if value.get("init_lora_weights", True) not in _PLAIN_INITS:
        raise _wrong(
            "init_lora_weights",
            f"{value['init_lora_weights']!r} changes the base weights; save with "
            "path_initial_model_for_weight_conversion so that it becomes a plain LoRA",
        )
    _check_targets(value)
    _check_numbers(value)
    return PeftConfig("LORA", task, dict(value))


def _wrong(key: str, message: str) -> Rejected:
    return Rejected("schema", f"adapter_config.json: {key}", message)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _check_targets(value: Mapping[str, Any]) -> None:
    target = value.get("target_modules")
    if not (isinstance(target, str) or _strings(target)) or not target:
        raise _wrong("target_modules", f"{target!r} is not a pattern or a list of module names")
    for key in ("exclude_modules", "layers_pattern", "modules_to_save"):
        option = value.get(key)
        if option is not None and not isinstance(option, str) and not _strings(option):
            raise _wrong(key, f"{option!r} is not a list of strings")
        if key == "modules_to_save" and isinstance(option, str):
            raise _wrong(key, f"{option!r} is not a list of strings")
    for key in ("target_modules", "exclude_modules"):
        if isinstance(value.get(key), str):
            _check_patterns(key, [value[key]], re.compile)
        elif len(value.get(key) or []) > _MAX_PATTERNS:
            raise _wrong(key, f"{len(value[key])} names; at most {_MAX_PATTERNS}")
    patterns = value.get("layers_pattern")
    listed = [patterns] if isinstance(patterns, str) else patterns or []
    _check_patterns("layers_pattern", listed, _layer_of)
    _check_patterns("modules_to_save", value.get("modules_to_save") or [], _containing)
    layers = value.get("layers_to_transform")
    listed = [layers] if isinstance(layers, int) else layers
    if layers is not None and not (isinstance(listed, list) and all(_whole(v, 0) for v in listed)):
        raise _wrong("layers_to_transform", f"{layers!r} is not a layer index or a list of them")


def _check_numbers(value: Mapping[str, Any]) -> None:
    if not _rank(value.get("r", 8)):
        raise _wrong("r", f"{value.get('r')!r} is not a rank of at least 1")
    if not _number(value.get("lora_alpha", 8)):
        raise _wrong("lora_alpha", f"{value.get('lora_alpha')!r} is not a number")
    checks: dict[str, Callable[[Any], bool]] = {"rank_pattern": _rank, "alpha_pattern": _number}
    for key, fits in checks.items():
        patterns = value.get(key) or {}
        if not isinstance(patterns, dict):
            raise _wrong(key, f"{patterns!r} is not an object")
        _check_patterns(key, list(patterns), _ending_in)
        for pattern, number in patterns.items():
            if not fits(number):
                raise _wrong(key, f"{pattern!r}: {number!r} is not a valid value")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _rank(value: Any) -> bool:
    return _whole(value, 1)


def _number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond fp64
        return False


def _check_patterns(key: str, patterns: list[str], compiled: Callable[[str], object]) -> None:
    """Refuse patterns that could run for long: an uploaded regular expression runs inside the server."""
    if len(patterns) > _MAX_PATTERNS:
        raise _wrong(key, f"{len(patterns)} patterns; at most {_MAX_PATTERNS}")
    ways = 0.0
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise _wrong(key, f"a pattern of {len(pattern)} characters; at most {_MAX_PATTERN_CHARS}")
        try:
            parsed: Any = sre_parse.parse(pattern)
            compiled(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise _wrong(key, f"{pattern!r} is not a regular expression: {error}") from None
        ways += _ways(parsed)
        if ways > _MAX_WAYS:
            raise _wrong(key, f"{pattern!r} repeats within repeats or too often; name the modules in a list")


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

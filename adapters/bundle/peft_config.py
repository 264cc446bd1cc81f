"""Reads `adapter_config.json` as PEFT does: the modules that an adapter targets, and the scale of each.

The matching follows `peft.tuners.tuners_utils.check_target_module_exists`, `get_pattern_key` and, for IA3,
`IA3Model._check_target_module_feedforward` (peft 0.21). An unsupported option that would change the outputs is
refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rootstock.adapters.bundle.kinds.block_diagonal import check_blocks
from rootstock.adapters.bundle.kinds.methods import Unconverted, check_kind, wrong_option
from rootstock.adapters.bundle.kinds.token_indices import check_indices
from rootstock.adapters.bundle.names.former_names import former_name
from rootstock.adapters.bundle.patterns import MAX_PATTERNS, PatternBudget, containing, ending_in, layer_of
from rootstock.adapters.bundle.peft_options import KNOWN_TO, check_init, conversion_of, foreign_keys
from rootstock.adapters.spec import FoundationSpec, TaskClass

ALL_LINEAR = "all-linear"

# Each of these options is a list of module names or one regular expression.
_NAMING = ("target_modules", "exclude_modules", "feedforward_modules", "target_parameters")
_BIASES = ("none", "lora_only", "all")


@dataclass(frozen=True)
class PeftConfig:
    """The parts of a PEFT config that decide an adapter's outputs. `peft_type` None means a head alone.

    `foreign` are the config's keys that are not options of PEFT. `former` is the foundation's model type if the
    config names modules by their former names (`former_names`); else None. Names of modules in arguments and
    results are the present ones.
    """

    peft_type: str | None
    task_type: str | None
    values: Mapping[str, Any]
    foreign: tuple[str, ...] = ()
    former: str | None = None
    # The last task class that `targets` was asked about, with its answer: one load asks three times.
    _last: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def bias(self) -> str:
        """Return which biases were trained: `none`, `lora_only` (those of the targeted modules) or `all`."""
        return str(self.values.get("bias", "none"))

    def targets(self, task_class: TaskClass) -> tuple[str, ...]:
        """Return the full names (in the task class) of the linear modules that this adapter targets, sorted.

        An adapter of normalisation layers (LN_TUNING) or of tokens (TRAINABLE_TOKENS) has none.
        """
        if not self._last or self._last[0] is not task_class:
            self._last[:] = task_class, self._matches(task_class)
        names: tuple[str, ...] = self._last[1]
        return names

    def _matches(self, task_class: TaskClass) -> tuple[str, ...]:
        if self.peft_type in (None, "LN_TUNING", "TRAINABLE_TOKENS"):
            return ()
        target = self.values.get("target_modules")
        names: Iterable[str] = task_class.linears
        if isinstance(target, str) and target.lower() == ALL_LINEAR:
            left_out = ("score", "classifier") if self.task_type == "SEQ_CLS" else ()
            names = [n for n in names if n not in left_out and n not in task_class.convolutions]
            target = list(map(self.written, names))
        parameters = {n for n in task_class.linears.keys() - task_class.convolutions if self.by_parameter(n)}
        return tuple(sorted(self._selected(names, target) | parameters))

    def norms(self, task_class: TaskClass, foundation: FoundationSpec) -> tuple[str, ...]:
        """Return the full names of the normalisation layers that an adapter of these targets, sorted."""
        if self.peft_type != "LN_TUNING":
            return ()
        names = (task_class.prefix + norm for norm in foundation.norms)
        return tuple(sorted(self._selected(names, self.values.get("target_modules"))))

    def _selected(self, names: Iterable[str], target: str | list[str] | None) -> set[str]:
        """Return the modules among `names` that are targeted and not excluded."""
        exclude = self.values.get("exclude_modules")
        written = {name: self.written(name) for name in names}
        return {n for n, w in written.items() if not self._excluded(w, exclude) and self._targeted(w, target)}

    def targets_words(self, written: str) -> bool:
        """Return whether an adapter of tokens (TRAINABLE_TOKENS) targets the embedding that it calls so."""
        return self._targeted(written, self.values.get("target_modules"))

    def by_parameter(self, module: str) -> bool:
        """Return whether `target_parameters` names the weight of this module."""
        return ends_in(self.weight(module), self.values.get("target_parameters") or [])

    def weight(self, module: str) -> str:
        """Return the name by which this config means the weight of a module."""
        return f"{self.written(module)}.weight"

    def written(self, module: str) -> str:
        """Return the name by which this config means a module."""
        return module if self.former is None else former_name(self.former, module)

    def rank(self, module: str) -> int:
        """Return the rank that the config gives a module."""
        return int(self._pattern("rank_pattern", module, self.values.get("r", 8)))

    def scale(self, module: str) -> float:
        """Return the factor on B·A: alpha / r, or alpha / sqrt(r) for rsLoRA."""
        rank = self.rank(module)
        alpha = float(self._pattern("alpha_pattern", module, self.values.get("lora_alpha", 8)))
        return alpha / math.sqrt(rank) if self.values.get("use_rslora") else alpha / rank

    def is_feedforward(self, module: str) -> bool:
        """Return whether IA3 scales the input of this module; else it scales the output."""
        option, module = self.values["feedforward_modules"], self.written(module)
        if isinstance(option, str):
            return re.fullmatch(option, module) is not None
        return any(module.endswith(name) for name in option)

    def is_saved_whole(self, module: str) -> bool:
        """Return whether `modules_to_save` names the module or a module that contains it."""
        # A saved name must be the end of the module's name or of a containing module's name. One substring search
        # does this at once, because an uploaded name may have very many parts.
        module = self.written(module)
        return any(f"{saved}." in f"{module}." for saved in self.values.get("modules_to_save") or [])

    def _pattern(self, key: str, module: str, default: Any) -> Any:
        module = self.weight(module) if self.by_parameter(module) else self.written(module)
        for pattern, value in (self.values.get(key) or {}).items():
            if ending_in(pattern).match(module):
                return value
        return default

    def _excluded(self, name: str, exclude: str | list[str] | None) -> bool:
        if isinstance(exclude, str):
            if re.fullmatch(exclude, name):
                return True
        elif exclude and ends_in(name, exclude):
            return True
        saved = self.values.get("modules_to_save") or []
        return any(containing(m).match(name) for m in saved)

    def _targeted(self, name: str, target: str | list[str] | None) -> bool:
        if isinstance(target, str):
            return re.fullmatch(target, name) is not None
        if not ends_in(name, target or []):
            return False
        layers = self.values.get("layers_to_transform")
        if layers is None or layers == [] or name in (target or []):
            return True
        pattern = self.values.get("layers_pattern")
        patterns = [pattern] if isinstance(pattern, str) else pattern
        if patterns:
            matches = (layer_of(p).match(name) for p in patterns)
            match = next((m for m in matches if m), None)
        else:
            match = re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", name)
        if match is None or match["idx"] is None:
            return False
        return int(match["idx"]) in ([layers] if isinstance(layers, int) else layers)


def ends_in(name: str, ends: Iterable[str]) -> bool:
    """Return whether a name is one of `ends`, or ends in one of them after a dot."""
    return any(name == end or name.endswith(f".{end}") for end in ends)


def read_config(value: Mapping[str, Any]) -> PeftConfig:
    """Return the config in the object of an `adapter_config.json`.

    Raise Rejected (check "schema") for a kind or option that is not served. Raise Unconverted for a kind that
    must first be converted to LoRA.
    """
    kind, task = value.get("peft_type"), value.get("task_type")
    if kind is not None:
        try:
            check_kind(kind)
        except Unconverted:
            check_expressions(value)
            raise
    if task is not None and not isinstance(task, str):
        raise wrong_option("task_type", f"{task!r} is not a string")
    if kind is None:
        return PeftConfig(None, task, {})
    foreign = foreign_keys(kind, value)
    _check_targets(value)
    check_expressions(value)
    values = {key: option for key, option in value.items() if key in KNOWN_TO[kind]}
    if kind == "IA3":
        _check_feedforward(value)
    if (indices := value.get("trainable_token_indices")) is not None:
        check_indices(indices, "trainable_token_indices")
    if kind == "TRAINABLE_TOKENS":
        check_indices(value.get("token_indices"), "token_indices")
    if kind in ("IA3", "LN_TUNING", "TRAINABLE_TOKENS"):
        return PeftConfig(kind, task, values, foreign)
    if value.get("bias", "none") not in _BIASES:
        raise wrong_option("bias", f"{value['bias']!r} is not valid; choose one of: {', '.join(_BIASES)}")
    conversion = conversion_of(kind, value)
    if conversion is None:
        check_init(value.get("init_lora_weights", True))
    if kind == "ADALORA":
        _check_allocation(value)
    else:
        _check_lora(value)
    if conversion is not None:
        raise Unconverted(conversion)
    return PeftConfig(kind, task, values, foreign)


def check_expressions(value: Mapping[str, Any]) -> None:
    """Raise Rejected (check "schema") for a regular expression that is invalid or costs too much.

    The check works for a config of any kind. PEFT reads an expression in `target_modules`, `exclude_modules`
    and `feedforward_modules` if the option is a string. It also reads expressions in `modules_to_save`, and in
    every option whose name ends in `_pattern`: `layers_pattern`, and the keys of `rank_pattern`,
    `alpha_pattern`, `n_frequency_pattern` and others.
    """
    budget = PatternBudget()
    for key, option in value.items():
        if key in _NAMING:
            if isinstance(option, str):
                budget.check(key, [option], re.compile)
            elif isinstance(option, list) and len(option) > MAX_PATTERNS:
                raise wrong_option(key, f"{len(option)} names and the limit is {MAX_PATTERNS}")
        elif key == "modules_to_save":
            budget.check(key, _texts(option), containing)
        elif key == "layers_pattern":
            budget.check(key, _texts(option), layer_of)
        # The keys of AdaLoRA's `rank_pattern` are full names of modules, not expressions.
        elif key.endswith("_pattern") and value.get("peft_type") != "ADALORA":
            budget.check(key, _texts(option), ending_in)


def _texts(option: Any) -> list[str]:
    """Return the strings in an option: the option itself, the items of a list, or the keys of an object."""
    items = [option] if isinstance(option, str) else option if isinstance(option, list | dict) else []
    return [text for text in items if isinstance(text, str)]


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _check_targets(value: Mapping[str, Any]) -> None:
    target, parameters = value.get("target_modules"), value.get("target_parameters")
    if parameters is not None and not _strings(parameters):
        raise wrong_option("target_parameters", f"{parameters!r} is not a list of names of parameters")
    by_parameter = bool(parameters) and value.get("peft_type") == "LORA"
    if not (by_parameter and target in (None, [])) and (
        not (isinstance(target, str) or _strings(target)) or not target
    ):
        raise wrong_option("target_modules", f"{target!r} is not a pattern or a list of module names")
    for key in ("exclude_modules", "layers_pattern", "modules_to_save"):
        option = value.get(key)
        if option is not None and not isinstance(option, str) and not _strings(option):
            raise wrong_option(key, f"{option!r} is not a list of strings")
        if key == "modules_to_save" and isinstance(option, str):
            raise wrong_option(key, f"{option!r} is not a list of strings")
    layers = value.get("layers_to_transform")
    listed = [layers] if isinstance(layers, int) else layers
    if layers is not None and not (isinstance(listed, list) and all(_whole(v, 0) for v in listed)):
        raise wrong_option("layers_to_transform", f"{layers!r} is not a layer index or a list of them")


def _check_feedforward(value: Mapping[str, Any]) -> None:
    option: Any = value.get("feedforward_modules")
    target = value.get("target_modules")
    if isinstance(option, str):
        return
    if not _strings(option):
        raise wrong_option("feedforward_modules", f"{option!r} is not a pattern or a list of module names")
    if isinstance(target, list) and (unknown := sorted(set(option) - set(target))):
        raise wrong_option("feedforward_modules", f"{unknown[0]!r} is not in target_modules, {target!r}")


def _check_allocation(value: Mapping[str, Any]) -> None:
    """Check AdaLoRA's ranks: `rank_pattern` states for each module which of its `init_r` directions were kept."""
    rank = value.get("init_r", 12)
    if not _rank(rank):
        raise wrong_option("init_r", f"{rank!r} is not a rank of at least 1")
    if not _number(value.get("lora_alpha", 8)):
        raise wrong_option("lora_alpha", f"{value.get('lora_alpha')!r} is not a number")
    kept = value.get("rank_pattern") or {}
    if not isinstance(kept, dict):
        raise wrong_option("rank_pattern", f"{kept!r} is not an object")
    if len(kept) > MAX_PATTERNS:
        raise wrong_option("rank_pattern", f"{len(kept)} modules and the limit is {MAX_PATTERNS}")
    for name, mask in kept.items():
        if not isinstance(mask, list) or len(mask) != rank or not all(isinstance(k, bool) for k in mask):
            raise wrong_option(
                "rank_pattern", f"{name!r}: {mask!r} is not a list of {rank} booleans, as many as init_r"
            )


def _check_lora(value: Mapping[str, Any]) -> None:
    check_blocks(value.get("use_bdlora"))
    for key in ("use_dora", "lora_bias"):
        if not isinstance(value.get(key, False), bool | None):
            raise wrong_option(key, f"{value[key]!r} is not true or false")
    if value.get("use_dora") and value.get("lora_bias"):
        raise wrong_option("lora_bias", "true is not served together with use_dora; train without one of them")
    if not _rank(value.get("r", 8)):
        raise wrong_option("r", f"{value.get('r')!r} is not a rank of at least 1")
    if not _number(value.get("lora_alpha", 8)):
        raise wrong_option("lora_alpha", f"{value.get('lora_alpha')!r} is not a number")
    checks: dict[str, Callable[[Any], bool]] = {"rank_pattern": _rank, "alpha_pattern": _number}
    for key, fits in checks.items():
        patterns = value.get(key) or {}
        if not isinstance(patterns, dict):
            raise wrong_option(key, f"{patterns!r} is not an object")
        for pattern, number in patterns.items():
            if not fits(number):
                expected = "a rank of at least 1" if key == "rank_pattern" else "a number"
                raise wrong_option(key, f"{pattern!r}: {number!r} is not {expected}")


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

"""Reads a recipe file with the changes of the command line, resolves its paths, and hashes it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rootstock.adapters.strict_json.canonical import canonical
from rootstock.training.characters import check_characters, yaml_text
from rootstock.training.errors import RecipeError
from rootstock.training.recipe.faults import fault_lines
from rootstock.training.recipe.recipe import Recipe, TaskType
from rootstock.training.recipe.task_keys import drop_foreign_keys

DATA = "ROOTSTOCK_DATA"
_PROJECT = Path(__file__).resolve().parents[2]
# For values like 2026-99-99 or `!!int x` PyYAML raises Python's own errors.
_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)
# Paths do not change the result, so the hash leaves them out. The data's content has a separate hash.
_DATA_PATHS = ("path", "val_path", "test_path", "image_folder", "audio_folder")
_PATHS = {"output_dir": None, "tracking": None, "data": _DATA_PATHS}
# Keys that the hash leaves out where they are not set, so that a recipe without them keeps its hash.
_UNSET = (("prompts", "chat_template"), ("data", "label_separator"), ("data", "label_columns"))


@dataclass(frozen=True)
class RecipeFile:
    """A recipe and the file it was read from."""

    path: Path
    recipe: Recipe

    @property
    def sha256(self) -> str:
        """The hash of the recipe with every default written out, without the paths of its files."""
        value = self.recipe.model_dump(mode="json")
        drop_foreign_keys(value, self.recipe.task_type, hashed=True)
        for section, keys in _PATHS.items():
            for key in keys or ():
                value[section].pop(key, None)
            if keys is None:
                value.pop(section)
        for section, key in _UNSET:
            if value.get(section, {}).get(key, key) is None:
                del value[section][key]
        if value.get("problem_type", "") is None:
            del value["problem_type"]
        return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()

    @property
    def output_dir(self) -> Path:
        """The folder of the run's results: the recipe's output_dir, or runs/NAME."""
        return self._expanded(self.recipe.output_dir or f"runs/{self.recipe.name}")

    def resolve(self, path: str) -> Path:
        """Return a path that the recipe names, from the recipe's folder and with ${ROOTSTOCK_DATA} replaced."""
        folder = os.environ.get(DATA) or str(_PROJECT / "../shared/data")
        return self.path.parent / self._expanded(path.replace(f"${{{DATA}}}", folder))

    def _expanded(self, path: str) -> Path:
        try:
            return Path(path).expanduser()
        except RuntimeError:
            raise RecipeError(f"{self.path}: {path}: unknown user after ~; write the full path") from None

    def to_yaml(self) -> str:
        """Return the recipe as YAML, with every default and absolute paths. A run of it gives the same digest."""
        value = self.recipe.model_dump(mode="json", exclude_none=True)
        drop_foreign_keys(value, self.recipe.task_type)
        for section, keys in (
            ("data", _DATA_PATHS),
            ("domain_adaptation", ("target_path",)),
            ("peft", ("init_from_adapter",)),
        ):
            for key in keys:
                if key in value.get(section, {}):
                    value[section][key] = str(self.resolve(value[section][key]).resolve())
        for key, path in (value["evaluation"].get("out_of_scope") or {}).items():
            value["evaluation"]["out_of_scope"][key] = str(self.resolve(path).resolve())
        return yaml_text(value)


def load_recipe(path: Path, changes: Sequence[str] = ()) -> RecipeFile:
    """Return the recipe in a YAML file, with `changes` such as `training.seed=3`.

    Raise RecipeError, which names the file and every wrong key, if the recipe is invalid.
    """
    try:
        value = yaml.load(path.read_bytes(), Loader=_UniqueKeys)  # noqa: S506 - a subclass of SafeLoader
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except _UNREADABLE as error:
        raise RecipeError(f"{path}: not YAML: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: holds {type(value).__name__}; a recipe is a mapping of keys to values")
    make_changes(value, changes)
    return RecipeFile(path, validated(value, str(path)))


def changed(source: RecipeFile, changes: Mapping[str, Any]) -> RecipeFile:
    """Return the recipe with new values at dotted keys. Raise RecipeError if one of them is invalid."""
    value = source.recipe.model_dump(mode="json", exclude_unset=True)
    for key, new in changes.items():
        _put(value, key, new)
    return RecipeFile(source.path, validated(value, str(source.path)))


def naming(
    data: Path,
    task_type: TaskType,
    text_column: str,
    label_column: str,
    problem_type: str | None = None,
    **columns: Any,
) -> RecipeFile:
    """Return a recipe that names only a labelled file, to read its rows; `columns` are further keys of `data`."""
    if task_type == "SEQ_CLS":
        columns |= {"text_column": text_column}
    value = {
        "task_type": task_type, "name": "rows", "description": "-", "problem_type": problem_type,
        "data": {"path": data.name, "label_column": label_column, **columns},
    }  # fmt: skip
    if problem_type is None:
        del value["problem_type"]
    return RecipeFile(data, validated(value, str(data)))


def naming_chats(data: Path) -> RecipeFile:
    """Return a recipe that names only a file of chats, to read its rows."""
    value = {
        "task_type": "CAUSAL_LM", "name": "rows", "description": "-",
        "data": {"path": data.name, "messages_column": "messages"},
    }  # fmt: skip
    return RecipeFile(data, validated(value, str(data)))


def validated(value: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe of a mapping. Raise RecipeError, which begins with `where` and names every wrong key."""
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(f"{where}: {fault_lines(error, Recipe)}") from None
    check_characters(recipe.model_dump(mode="json"), where, RecipeError)
    return recipe


def make_changes(value: dict[str, Any], changes: Sequence[str]) -> None:
    """Put `changes` such as `training.seed=3` into a recipe's mapping. Raise RecipeError for any other text."""
    for change in changes:
        _make(value, change)


def _make(value: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip("."):
        raise RecipeError(f"{change!r} is not a change to a recipe; write key=value, such as training.seed=3")
    try:
        new = yaml.safe_load(text)
    except _UNREADABLE as error:
        raise RecipeError(f"{change!r}: the value is not YAML: {_reason(error)}") from None
    # YAML 1.1 reads 1e-3 as text.
    if isinstance(new, str):
        with suppress(ValueError):
            new = float(new)
    _put(value, key, new)


def _put(value: dict[str, Any], key: str, new: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = value.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{key}: {section} is the value {inner!r}, not a section; name a key of a section")
        value = inner
    value[last] = new


def _reason(error: Exception) -> str:
    """Return the message of a YAML error in one line."""
    return "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that rejects a repeated key. Without it YAML silently keeps the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)

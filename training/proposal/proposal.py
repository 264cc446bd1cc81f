"""Makes a recipe from a labelled file: the task, the columns and a split that its rows allow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from rootstock.adapters.reference import FOUNDATION
from rootstock.training.characters import on_one_line, yaml_text
from rootstock.training.data.dataset import Dataset, read_dataset
from rootstock.training.data.formats.tables import FORMATS
from rootstock.training.data.pair_split import split_pairs
from rootstock.training.data.split import split
from rootstock.training.data.text_pairs import read_pairs
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.proposal.columns import ColumnChoice, choose_columns
from rootstock.training.proposal.folders import folder_recipe
from rootstock.training.recipe.recipe_file import RecipeFile, changed, make_changes, validated

_SUFFIXES = (*FORMATS, ".conll")
_MOST_NAMED = 8
_INPUTS = {"text": "a text", "image": "an image", "audio": "a recording"}
# The splits to try, until the rows of every label are enough for one.
_SPLITS: tuple[dict[str, Any], ...] = (
    {},
    {"data.splits.choose_by": "cross_validation"},
    {"data.conflicts": "first"},
    {"data.conflicts": "first", "data.splits.choose_by": "cross_validation"},
)


@dataclass(frozen=True)
class Proposal:
    """A recipe for a labelled file, and what was chosen, with the reason, by the recipe's key."""

    source: RecipeFile
    choices: Mapping[str, str]

    def to_yaml(self, path: Path) -> str:
        """Return the recipe for a file at `path`, with the choices as comments."""
        value = self.source.recipe.model_dump(mode="json", exclude_unset=True)
        data = self.source.path.resolve()
        key = next(key for key in ("path", "image_folder", "audio_folder") if key in value["data"])
        value["data"][key] = os.path.relpath(data, path.resolve().parent)
        text = yaml_text(value, width=10**6)
        lines = [f"# A recipe for {on_one_line(data.name)}. Every key: rootstock train schema"]
        for line in text.removesuffix("\n").split("\n"):
            if line.startswith("description:") and "license" not in value:
                lines.append("# license: cc-by-4.0   # state one before you publish")
            comment = self.choices.get(line.partition(":")[0].strip())
            lines.append(f"{line}   # {comment}" if comment else line)
        return "\n".join(lines) + "\n"


def is_data(path: Path) -> bool:
    """Tell whether a path names labelled data and not a recipe."""
    return path.suffix.lower() in _SUFFIXES or path.is_dir()


def propose(data: Path, changes: Sequence[str] = ()) -> Proposal:
    """Return a recipe for a file of labelled rows, with `changes` such as `data.label_column=kind`.

    `data` may also be a folder of images or recordings. Raise DataError if it does not show its task, RecipeError
    if a change does not fit.
    """
    asked: dict[str, Any] = {}
    make_changes(asked, changes)
    keys, reason = folder_recipe(data, asked) if data.is_dir() else _file_recipe(data, asked)
    value = {"name": _name(data), "description": "-", **keys}
    make_changes(value, changes)
    source = RecipeFile(data, validated(value, str(data)))
    chosen = {"task_type": f"because {reason}"}
    if source.recipe.generates:
        sizes = split_pairs(read_pairs(source), source.recipe.data.splits).sizes
        chosen["splits"] = f"{_sizes(sizes)}; all answers to one prompt are in one part"
        described = f"Answers as the rows of {data.name} do."
    else:
        dataset = read_dataset(source)
        source, sizes = _split(source, dataset, asked)
        chosen |= _split_choices(source, sizes)
        described = _description(dataset, source.recipe.task.modality)
    if "description" not in asked:
        source = changed(source, {"description": described})
    return Proposal(source, {key: on_one_line(why) for key, why in chosen.items()})


def _file_recipe(data: Path, asked: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the keys of a recipe for a file, and the reason for its task."""
    try:
        raw = data.read_bytes()
    except OSError as error:
        raise DataError(f"{data}: cannot be read: {error.strerror}") from None
    choice = _choice(data, raw, asked)
    value: dict[str, Any] = {
        "task_type": choice.task_type,
        "base_model": "chat" if choice.task_type == "CAUSAL_LM" else "default",
        "data": {
            "path": data.name,
            **choice.keys.get("data", {}),
            "splits": {"test_size": 0.2, "val_size": 0.15, "seed": 0},
        },
    }
    if choice.problem_type is not None and "problem_type" not in asked:
        value["problem_type"] = choice.problem_type
    if isinstance(section := asked.get("data"), dict) and "label_columns" in section:
        value["data"].pop("label_column", None)
    if choice.task_type == "CAUSAL_LM":
        example = yaml.safe_load(
            (files("rootstock.training.recipe") / "examples/CAUSAL_LM.yaml").read_text("utf-8")
        )
        value |= {
            **choice.keys,
            "data": value["data"],
            **{key: example[key] for key in ("training", "generation")},
        }
    return value, choice.reason


def _choice(data: Path, raw: bytes, asked: Mapping[str, Any]) -> ColumnChoice:
    section = asked.get("data")
    stated = {key: str(value) for key, value in section.items()} if isinstance(section, dict) else {}
    if "task_type" in asked:
        stated["task_type"] = str(asked["task_type"])
    if stated.get("task_type") == "SEQ_2_SEQ_LM":
        raise RecipeError(
            f"{data}: task_type: SEQ_2_SEQ_LM needs a foundation of your choice; write its recipe with: "
            "rootstock train init recipe.yaml --task-type SEQ_2_SEQ_LM"
        )
    if "prompts" in asked:
        return ColumnChoice("CAUSAL_LM", {}, "its prompts are stated")
    if data.suffix.lower() in FORMATS:
        return choose_columns(data, raw, stated)
    return ColumnChoice("TOKEN_CLS", {}, "each line is a word with its tag")


def _split(source: RecipeFile, dataset: Dataset, asked: Mapping[str, Any]) -> tuple[RecipeFile, dict[str, int]]:
    """Return the recipe with the first of the splits that the rows allow, and the sizes of its parts.

    What the caller asked for stays. Raise DataError, for the plain split, if the rows allow none.
    """
    refusal: DataError | None = None
    for keys in _SPLITS:
        tried = changed(source, {key: value for key, value in keys.items() if not _is_in(asked, key)})
        try:
            return tried, split(dataset, tried.recipe.data.splits, tried.recipe.data.conflicts).sizes
        except DataError as error:
            refusal = refusal or error
    raise refusal or ValueError("there are no splits to try")


def _is_in(value: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _split_choices(source: RecipeFile, sizes: Mapping[str, int]) -> dict[str, str]:
    data = source.recipe.data
    given = data.splits.strategy == "given"
    chosen = {"splits": f"{_sizes(sizes)}; {'by the folders' if given else 'stratified by label'}"}
    if data.splits.choose_by == "cross_validation":
        chosen["choose_by"] = "some labels have too few rows for validation rows"
    if data.conflicts == "first":
        chosen["conflicts"] = "a text occurs twice with two labels"
    return chosen


def _sizes(sizes: Mapping[str, int]) -> str:
    choose = f"{sizes['validation']} to choose by, " if sizes["validation"] else ""
    return f"{sizes['train']} rows to train on, {choose}{sizes['test']} to report on"


def _description(dataset: Dataset, modality: str) -> str:
    kinds, first = dataset.kinds, dataset.train.examples[0]
    if first.value is not None:
        return f"Estimates a number from a text: {dataset.labels[0]}."
    listed = ", ".join(kinds[:_MOST_NAMED]) + (
        f" and {len(kinds) - _MOST_NAMED} more" if kinds[_MOST_NAMED:] else ""
    )
    does = (
        "Finds entities in a text"
        if dataset.tokens
        else f"Gives {_INPUTS[modality]} {'any' if first.several else 'one'} of the labels"
    )
    return f"{does}: {listed}."


def _name(data: Path) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", data.stem.lower()).strip("-._")[:64] or "adapter"
    return f"{name}-adapter" if name == FOUNDATION else name

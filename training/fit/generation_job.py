"""A generation job: everything that a recipe for generated text names, read and checked before it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rootstock.adapters.chat_template import ChatTemplate
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.language_model import LanguageModel
from rootstock.adapters.spec import TEXT_GENERATION, FoundationSpec
from rootstock.adapters.tasks import task_named
from rootstock.training.data.pair_split import PairSplit, drawn, drawn_groups, split_pairs
from rootstock.training.data.prompt_encoding import CompletionRow, PromptEncoder, encoder_of
from rootstock.training.data.text_pairs import PairData, read_pairs
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.fit.job import check_length, initial_adapter
from rootstock.training.fit.text_judge import PromptSet
from rootstock.training.metrics.text_figures import FIELDS, VALID_JSON, json_figures
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.trunk import sites
from rootstock.training.recipe.recipe_file import RecipeFile

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GenerationJob:
    """A recipe with its data read and encoded, ready to be trained.

    `train` are the rows to train on, without the `too_long` ones. `judged` are the prompts of validation and test
    to judge the adapter by, and `prompted` the same prompts with examples before them.
    """

    data: PairData
    parts: PairSplit
    network: NetworkSpec
    encoder: PromptEncoder
    train: tuple[CompletionRow, ...]
    too_long: int
    judged: Mapping[str, PromptSet]
    prompted: Mapping[str, PromptSet]
    device: torch.device


def prepare_generation(source: RecipeFile) -> GenerationJob:
    """Return the job of a recipe. Raise RecipeError, DataError or FoundationError if it cannot be trained."""
    import torch

    recipe, origin = source.recipe, str(source.path)
    data = read_pairs(source)
    parts = split_pairs(data, recipe.data.splits)
    files = locate(recipe.base_model)
    spec = describe(files)
    language = _language(source, spec)
    check_length(recipe.training.max_length, spec, origin)
    seed, generation = recipe.data.splits.seed, recipe.generation
    shots = drawn(parts.train, generation.shots, seed)
    prompting = recipe.prompts.prompting
    # The foundation learned its own template, so it is prompted in that one, if it has one.
    own = prompting if ChatTemplate.of(files.folder) is None else replace(prompting, chat_template=None)
    encoder, few_shot = (
        encoder_of(files.folder, language, one, origin, turns) for one, turns in ((prompting, ()), (own, shots))
    )
    rows = [encoder.row(pair.messages, pair.answer, pair.where) for pair in parts.train]
    train = tuple(row for row in rows if row.context <= recipe.training.max_length)
    if not train:
        raise DataError(
            f"{origin}: training.max_length: every row is longer than {recipe.training.max_length} "
            "tokens; raise it"
        )
    held_out = {"validation": parts.validation, "test": parts.test}
    groups = {name: drawn_groups(pairs, generation.rows, seed) for name, pairs in held_out.items()}
    judged = {name: PromptSet.of(groups[name], encoder, f"{origin}: {name}") for name in groups}
    prompted = {name: PromptSet.of(groups[name], few_shot, f"{origin}: {name}") for name in groups}
    _check_room([*judged.values(), *prompted.values()], encoder, generation.max_new_tokens, spec, origin)
    for one in judged.values():
        _check_metric(generation.metric, one, origin)
        _check_references(one, encoder, spec, origin)
    return GenerationJob(
        data,
        parts,
        _network(source, files, spec),
        encoder,
        train,
        len(rows) - len(train),
        judged,
        prompted,
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )


def _network(source: RecipeFile, files: FoundationFiles, spec: FoundationSpec) -> NetworkSpec:
    recipe = source.recipe
    changed = sites(recipe.peft, spec, spec.class_for(recipe.task.name), str(source.path))
    return NetworkSpec(
        files,
        spec,
        recipe.task,
        0,
        changed,
        recipe.peft,
        recipe.training.dropout,
        initial_adapter(recipe.peft, source),
        recipe.save_dtype,
    )


def _language(source: RecipeFile, spec: FoundationSpec) -> LanguageModel:
    """Return the foundation's language model. Raise RecipeError if the recipe's task type trains another kind."""
    recipe, origin = source.recipe, str(source.path)
    if spec.language_model is None:
        raise RecipeError(
            f"{origin}: base_model: {spec.name} generates no text; choose one that does, such as chat"
        )
    if recipe.task.name in spec.tasks:
        return spec.language_model
    needs, has, other = "a decoder alone", "an encoder too", "such as chat"
    if recipe.task.name != TEXT_GENERATION:
        needs, has, other = "an encoder and a decoder", "a decoder alone", "such as a T5 or a BART"
    fitting = task_named(spec.own_tasks[0]).peft_type
    raise RecipeError(
        f"{origin}: task_type: {recipe.task_type} needs a foundation with {needs}; {spec.name} has {has}; set "
        f"{fitting}, or choose a base_model {other}"
    )


def _check_metric(metric: str, prompts: PromptSet, origin: str) -> None:
    """Raise RecipeError for a figure of JSON, if the answers are none."""
    if metric in (VALID_JSON, FIELDS) and metric not in json_figures(prompts.references):
        kind = "JSON" if metric == VALID_JSON else "JSON objects"
        raise RecipeError(
            f"{origin}: generation.metric: {metric} needs answers that are {kind}; choose another, such as rougeL"
        )


def _check_room(
    prompts: list[PromptSet], encoder: PromptEncoder, most: int, spec: FoundationSpec, origin: str
) -> None:
    """Raise RecipeError if a prompt leaves no room for an answer in the foundation's context."""
    longest = max(one.longest for one in prompts)
    if encoder.room(longest, spec.max_tokens) < most:
        raise RecipeError(
            f"{origin}: generation: a prompt has {longest} tokens and an answer up to {most}; {spec.name} takes "
            f"{spec.max_tokens} {encoder.context}; lower generation.shots or generation.max_new_tokens, or "
            "shorten the prompts"
        )


def _check_references(prompts: PromptSet, encoder: PromptEncoder, spec: FoundationSpec, origin: str) -> None:
    """Raise DataError for a reference beyond the foundation's context."""
    if (longest := max(row.context for row in prompts.rows)) > spec.max_tokens:
        raise DataError(
            f"{origin}: a prompt and its reference have {longest} tokens {encoder.context}; {spec.name} takes "
            f"{spec.max_tokens}; shorten the row, or leave it out"
        )

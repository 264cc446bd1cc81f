"""A finished adapter that generates text, on other rows: the figures of its answers, or of a server's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle import Bundle
from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.home.offline import open_offline
from rootstock.adapters.spec import GENERATION, TEXT_GENERATION, FoundationSpec, Rejected
from rootstock.adapters.tasks import task_named
from rootstock.training.data.pair_split import drawn_groups
from rootstock.training.data.prompt_encoding import encoder_of, only_text
from rootstock.training.data.text_pairs import PromptGroup, read_pair_rows
from rootstock.training.errors import TrainingError
from rootstock.training.fit.descent import Report, silent
from rootstock.training.fit.text_judge import PromptSet, TextJudge
from rootstock.training.metrics.text_figures import figures, intervals, text_counts
from rootstock.training.network.files import load
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.recipe.generation_section import Generation
from rootstock.training.recipe.recipe_file import RecipeFile, load_recipe, naming_chats
from rootstock.training.study.labelled_rows import stated_task

_BUDGET = 4096
_REQUESTS = 16


def assess_text(
    path: Path, foundation: str, data: Path, recipe: Path | None, report: Report = silent
) -> dict[str, Any]:
    """Return the figures of the greedy answers of a bundle's adapter to the prompts of a file.

    Without a recipe the file holds chats, in a column `messages`. Raise TrainingError for what is not a bundle of
    an adapter that generates, and DataError for rows that cannot be used.
    """
    spec, bundle = _opened(path, foundation)
    source = _source(data, recipe)
    settings = source.recipe.generation
    language = spec.language_model
    if language is None:
        raise TrainingError(f"{foundation}: generates no text; name the adapter's foundation with --foundation")
    network_spec = NetworkSpec(locate(foundation), spec, task_named(bundle.manifest.task), 0)
    encoder = encoder_of(network_spec.files.folder, language, bundle.manifest.prompting, str(path))
    prompts = PromptSet.of(_groups(source, data, settings), encoder, str(data))
    with tempfile.TemporaryDirectory(prefix="rootstock-open-") as folder:
        for name, content in bundle.files.items():
            (Path(folder) / name).write_bytes(content)
        network = load(Path(folder), network_spec)
    judge = TextJudge(encoder, settings, _BUDGET, report=report)
    judged = judge.judge(network, prompts, "")
    return _summary(judged.figures, judged.intervals, prompts.groups, judged.answers)


def assess_text_on_server(
    client: Client, reference: str, task: str, data: Path, recipe: Path | None
) -> dict[str, Any]:
    """Return the figures of a server's greedy answers under a reference, without a perplexity.

    `task` is the adapter's.
    """
    source = _source(data, recipe)
    settings = source.recipe.generation
    groups = _groups(source, data, settings)

    def answer(group: PromptGroup) -> str:
        most = settings.max_new_tokens
        if task == TEXT_GENERATION:
            answered = client.chat(reference, group.messages, temperature=0, max_tokens=most)
        else:
            text = only_text(group.messages, str(data))
            answered = client.complete(reference, text, temperature=0, max_tokens=most)
        return answered.text.strip()

    # A server computes several answers in one pass.
    with ThreadPoolExecutor(_REQUESTS) as threads:
        answers = list(threads.map(answer, groups))
    counts = text_counts(answers, [group.references for group in groups])
    return _summary(figures(counts), intervals(counts), groups, answers)


def generates(path: Path) -> bool:
    """Return whether the bundle at a path states that its adapter generates text."""
    return stated_task(path).task_type in [task_named(task).peft_type for task in GENERATION]


def _opened(path: Path, foundation: str) -> tuple[FoundationSpec, Bundle]:
    try:
        spec, bundle, _ = open_offline(path, foundation, ())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from None
    except Rejected as error:
        raise TrainingError(f"{path}: {error}") from None
    return spec, bundle


def _source(data: Path, recipe: Path | None) -> RecipeFile:
    return naming_chats(data) if recipe is None else load_recipe(recipe)


def _groups(source: RecipeFile, data: Path, settings: Generation) -> list[PromptGroup]:
    pairs = read_pair_rows(source, str(data.resolve()), "DATA").pairs
    return drawn_groups(pairs, settings.rows, source.recipe.data.splits.seed)


def _summary(
    values: Mapping[str, Any],
    bounds: Mapping[str, list[float]],
    groups: Sequence[PromptGroup],
    answers: Sequence[str],
) -> dict[str, Any]:
    rows = [
        {"prompt": group.messages[-1]["content"], "references": list(group.references), "answer": answer}
        for group, answer in zip(groups, answers, strict=True)
    ]
    return {**values, "intervals": dict(bounds), "answers": rows}

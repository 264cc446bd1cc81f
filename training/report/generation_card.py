"""README.md of a bundle that generates text: a model card, from the recipe and the figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rootstock.adapters.spec import TEXT_GENERATION
from rootstock.training.characters import yaml_text
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.recipe.recipe import Recipe
from rootstock.training.report.card import adapter_kind, front_matter, licence_sentence, table
from rootstock.training.report.generation_sections import PROMPTED, TITLES, gain_sentence, prompted_title, shown

_TYPES = {"rouge1": "rouge", "rouge2": "rouge", "rougeL": "rouge", "exact_match": "exact_match", "bleu": "bleu"}
_SAMPLES = 3


def render_generation(recipe: Recipe, network: NetworkSpec, metrics: Mapping[str, Any]) -> str:
    """Return the model card in Hugging Face's form: YAML front matter, then Markdown. No digest, time or path."""
    figures, sizes, name = metrics["test"], metrics["rows"], network.files.name
    scores = [
        {"type": _TYPES.get(kind, kind), "value": figures["adapter"][kind], "name": f"held-out {title}"}
        for kind, title in TITLES.items()
        if kind in figures["adapter"]
    ]
    front = yaml_text(front_matter(recipe, name, network.task.name, scores))
    compared = figures["comparison"][PROMPTED]
    sections = [
        f"---\n{front}---",
        f"# {recipe.name}",
        recipe.description.strip(),
        f"{adapter_kind(recipe, metrics['choice']['chosen'], len(network.sites))} for **{network.task.name}** on "
        f"`{name}`, which stays frozen.",
        "## Prompt",
        _prompt(recipe),
        "## Held-out figures",
        f"Measured on {figures['adapter']['rows']} prompts that were used neither to train ({sizes['train']} "
        f"rows) nor to choose ({sizes['validation']} rows), with the saved files loaded again.",
        _figures(metrics),
        gain_sentence("test", compared, metrics["shots"]),
        f"Reason for the choice: {metrics['choice']['reason']}.",
        "## Samples",
        "\n\n".join(_sample(sample) for sample in metrics["samples"][:_SAMPLES]),
        "## Data and licence",
        f"{sum(sizes.values())} distinct pairs of prompt and answer; the hashes of the data and of the recipe "
        f"are in `bundle.json`. {licence_sentence(recipe)}",
        "## Intended use and limits",
        "Intended for prompts like its training data. The figures come from greedy answers of at most "
        f"{recipe.generation.max_new_tokens} tokens to {figures['adapter']['rows']} prompts, so a small "
        "difference between two adapters can be chance. They compare words with references and say nothing about "
        "facts, other languages, domains or times.",
    ]
    return "\n\n".join(sections) + "\n"


def _prompt(recipe: Recipe) -> str:
    system = recipe.prompts.system_prompt
    lines = [] if system is None else ["System prompt, which the bundle holds:", _quoted(system)]
    if recipe.prompts.chat_template is not None:
        lines += ["Chat template, which the bundle holds in place of the foundation's:"]
        lines.append(_quoted(recipe.prompts.chat_template))
    if recipe.data.messages_column is None:
        message = "User's message" if recipe.task.name == TEXT_GENERATION else "Text to send"
        lines += [f"{message}, with the columns of a row in braces:", _quoted(recipe.prompts.template)]
    else:
        lines.append("Chats as they are in the data.")
    return "\n\n".join(lines)


def _figures(metrics: Mapping[str, Any]) -> str:
    figures = metrics["test"]
    models = {
        "this adapter": figures["adapter"],
        prompted_title(metrics["shots"]): figures["baselines"][PROMPTED],
    }
    columns = [name for name in TITLES if name in figures["adapter"]]
    rows = [[title, *(shown(c, values[c]) for c in columns)] for title, values in models.items()]
    return table(["", *(TITLES[c] for c in columns)], rows)


def _sample(sample: Mapping[str, Any]) -> str:
    parts = {
        "Prompt": sample["prompt"], "Reference": sample["references"][0], "This adapter": sample["adapter"],
        "Foundation, prompted": sample[PROMPTED],
    }  # fmt: skip
    return "\n\n".join(f"{title}:\n\n{_quoted(text)}" for title, text in parts.items())


def _quoted(text: str) -> str:
    """Return a text as an indented block, which Markdown shows unchanged."""
    return "\n".join(f"    {line}" for line in (text or "(empty)").split("\n"))

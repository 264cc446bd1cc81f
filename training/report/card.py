"""README.md of a bundle: a model card, from the recipe and the figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.training.characters import yaml_text
from rootstock.training.fit.method import Choice
from rootstock.training.metrics.values.number_figures import figure_text
from rootstock.training.network.network import pooling_of
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.recipe.problem_keys import MULTI, REGRESSION
from rootstock.training.recipe.recipe import Recipe
from rootstock.training.report.doubt_sections import copies_sentence

_SCORES = {
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "subset_accuracy": "right sets",
    "lrap": "ranking precision",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "spearman": "Spearman's correlation",
}
_BASELINES = {
    "head_only": "head alone on the frozen foundation",
    "from_scratch": "the same network from random weights",
    "majority": "most frequent label",
    "frequencies": "frequency of each label",
    "mean": "mean of the training rows",
}
_READINGS: dict[str | None, str] = {
    MULTI: "A text without a label that applies gets none.",
    REGRESSION: "It gives every text a number, also outside the range of its training rows.",
}
_INPUTS = {"text": "text", "image": "image", "audio": "recording"}
_VECTORS = {
    "mean": "the mean of the trunk's last states",
    "cls": "the first token's last state",
    "pooler": "the trunk's pooled output",
}


def render(recipe: Recipe, network: NetworkSpec, choice: Choice, metrics: Mapping[str, Any]) -> str:
    """Return the model card in Hugging Face's form: YAML front matter, then Markdown. No digest, time or path."""
    figures, sizes, name, task = metrics["test"], metrics["rows"], network.files.name, network.task.name
    scores = [
        {
            "type": kind.removeprefix("macro_").removeprefix("micro_"),
            "value": value,
            "name": f"held-out {_SCORES[kind]}",
        }
        for kind, value in figures["adapter"].items()
        if kind in _SCORES
    ]
    front = yaml_text(front_matter(recipe, name, task, scores))
    sections = [
        f"---\n{front}---",
        f"# {recipe.name}",
        recipe.description.strip(),
        f"{_made(recipe, choice, len(network.sites))} for **{task}** on `{name}`, which stays frozen.",
        _head(network),
        *_answers(metrics),
        "## Held-out figures",
        " ".join(filter(None, (_held_out(sizes), copies_sentence(metrics)))),
        _comparison(figures),
        f"Reason for the choice: {choice.reason}.",
        _breakdown(figures["adapter"]),
        *_calibrated(metrics),
        "## Data and licence",
        _data(recipe, sizes),
        "## Intended use and limits",
        _limits(recipe, figures),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _answers(metrics: Mapping[str, Any]) -> list[str]:
    """Return the section on the labels, or on the number."""
    names = ", ".join(f"`{label}`" for label in metrics["labels"])
    if metrics.get("problem_type") == REGRESSION:
        return ["## Number", f"{names} is a number; a server answers it as the score of that label."]
    if metrics.get("problem_type") == MULTI:
        names += ". Any number of them may apply; one applies from a score of 0.5 on."
    return ["## Labels", names]


def _made(recipe: Recipe, choice: Choice, sites: int) -> str:
    method = choice.chosen.method
    if method == "head_only":
        return "A linear head alone"
    return f"{adapter_kind(recipe, method, sites)}, and a head,"


def adapter_kind(recipe: Recipe, method: str, sites: int) -> str:
    """Return the kind of the adapter, with its rank and the number of layers that it changes."""
    kind = {"lora": "A LoRA adapter", "dora": "A DoRA adapter", "ia3": "An IA3 adapter"}[method]
    rank = "" if method == "ia3" else f" of rank {recipe.peft.r}"
    return f"{kind}{rank} on {sites} linear layers"


def _head(network: NetworkSpec) -> str:
    if not network.linear_head:
        return f"The head is that of `{network.task_class.name}`."
    vector = _VECTORS[pooling_of(network.foundation)]
    return f"The head, `head.weight` and `head.bias`, reads {vector}, scaled to length 1."


def front_matter(
    recipe: Recipe, base_model: str, task: str, metrics: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the front matter of a card, with the held-out figures in the hub's form."""
    dataset = {"name": f"{recipe.name} (held-out rows)", "type": "custom"}
    result = {"task": {"type": task}, "dataset": dataset, "metrics": list(metrics)}
    return {
        **({} if recipe.license is None else {"license": recipe.license}),
        "base_model": base_model,
        "library_name": "peft",
        "pipeline_tag": task,
        "tags": ["rootstock"],
        "model-index": [{"name": recipe.name, "results": [result]}],
    }


def _held_out(sizes: Mapping[str, int]) -> str:
    choice = f"to choose ({sizes['validation']} rows)" if sizes["validation"] else "to choose"
    return (
        f"Measured on {sizes['test']} rows that were used neither to train ({sizes['train']} rows) nor {choice}, "
        "with the saved files loaded again."
    )


def _comparison(figures: Mapping[str, Any]) -> str:
    """Return a table with one row for the adapter and each baseline."""
    columns = [k for k in _SCORES if k in figures["adapter"]]
    baselines = {
        title: figures["baselines"][name] for name, title in _BASELINES.items() if name in figures["baselines"]
    }
    models = {"this adapter": figures["adapter"], **baselines}
    rows = [
        [name, *(figure_text(k, scores[k], 3) if k in scores else "" for k in columns)]
        for name, scores in models.items()
    ]
    return table(["", *(_SCORES[k] for k in columns)], rows)


def _breakdown(adapter: Mapping[str, Any]) -> str:
    groups = adapter.get("labels") or adapter.get("entities")
    if groups is None:
        return ""
    rows = [
        [f"`{name}`", *(f"{rates[k]:.3f}" for k in ("precision", "recall", "f1")), str(rates["support"])]
        for name, rates in groups.items()
    ]
    first = "label" if "labels" in adapter else "entity"
    return table([first, "precision", "recall", "F1", "support"], rows)


def _calibrated(metrics: Mapping[str, Any]) -> list[str]:
    """Return the sentences on the temperature of a classifier of whole inputs."""
    calibration = metrics.get("calibration")
    if calibration is None or "labels" not in metrics["test"]["adapter"]:
        return []
    return [
        f"The expected calibration error on these rows is {100 * calibration['ece_before']:.1f} points. With the "
        f"temperature {calibration['temperature']:.2f}, which was fitted on other rows, it is "
        f"{100 * calibration['ece_after']:.1f}. A server applies the temperature with `parameters.calibrated`."
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, with numbers after the first column."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(recipe: Recipe, sizes: Mapping[str, int]) -> str:
    total = sum(sizes.values())
    return (
        f"{total} distinct labelled rows; the hashes of the data and of the recipe are in `bundle.json`. "
        f"{licence_sentence(recipe)}"
    )


def licence_sentence(recipe: Recipe) -> str:
    """Return the sentence of a card on the adapter's licence."""
    return f"Licence of this adapter: {recipe.license or 'none is stated'}."


def _limits(recipe: Recipe, figures: Mapping[str, Any]) -> str:
    reading = (
        "Entities are scored by whole words, and a word has the tag of its first token. An entity whose first or "
        "last word is wrong counts as wrong."
        if recipe.task_type == "TOKEN_CLS"
        else _READINGS.get(recipe.problem_type)
        or f"It gives every {_INPUTS[recipe.task.modality]} one of its labels, even one that no label fits."
    )
    limit = (
        f"An input may have {recipe.training.max_length} tokens; a server refuses a longer one, unless the "
        "request has it cut off. "
        if recipe.task.modality == "text"
        else ""
    )
    others = {"text": "languages, domains", "image": "cameras, places", "audio": "voices, microphones"}
    return (
        f"Intended for inputs like its training data. {reading} {limit}"
        f"The figures come from {figures['adapter']['rows']} rows, so a "
        "difference of a few points between two adapters can be chance. They say nothing about other "
        f"{others[recipe.task.modality]} or times."
    )

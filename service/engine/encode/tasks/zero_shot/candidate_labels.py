"""Read the candidate labels of a request, and the template that makes a text of each."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from rootstock.service.engine.core.errors import InvalidParameter

# The most characters of the template, and of a label: each row reads the hypothesis that they make.
MAX_HYPOTHESIS = 2**10
PARAMETERS = frozenset({"candidate_labels", "hypothesis_template"})


def candidate_labels(parameters: Mapping[str, Any]) -> list[str]:
    """Return the candidate labels, or an empty list if they do not have the right form."""
    labels = parameters.get("candidate_labels")
    if isinstance(labels, str):
        return [label.strip() for label in labels.split(",") if label.strip()]
    return labels if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else []


def check_candidates(parameters: Mapping[str, Any], template: str) -> None:
    """Raise InvalidParameter unless there is at least one label and the template has one place for it.

    `template` is the one to use unless the parameters hold another.
    """
    labels = candidate_labels(parameters)
    if not labels:
        raise InvalidParameter(
            f"candidate_labels is {parameters.get('candidate_labels')!r}; expected at least one label: a "
            "list of strings, or one string with commas between them",
            "parameters.candidate_labels",
        )
    for name, length in (
        ("candidate_labels", max(map(len, labels))),
        ("hypothesis_template", len(str(parameters.get("hypothesis_template", template)))),
    ):
        if length > MAX_HYPOTHESIS:
            subject = "a candidate label" if name == "candidate_labels" else name
            raise InvalidParameter(
                f"{subject} has {length} characters and the limit is {MAX_HYPOTHESIS}; shorten it",
                f"parameters.{name}",
            )
    _split(parameters, template)


def hypotheses(parameters: Mapping[str, Any], template: str) -> list[str]:
    """Return the text that the template makes of each label. Raise InvalidParameter for an unfit template."""
    before, after = _split(parameters, template)
    return [before + label + after for label in candidate_labels(parameters)]


def _split(parameters: Mapping[str, Any], default: str) -> tuple[str, str]:
    """Return the parts of the template before and after its label.

    `str.format` would be unsafe: a request's template could reach into objects, or ask for a padding of any
    width.
    """
    template = parameters.get("hypothesis_template", default)
    try:
        parts = list(Formatter().parse(template))
        fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
        if fields != [("", "", None)]:
            raise ValueError("it does not contain {} exactly once")
    except (TypeError, ValueError) as error:
        raise InvalidParameter(
            f"hypothesis_template is {template!r}: {error}; expected a string such as {default!r}",
            "parameters.hypothesis_template",
        ) from None
    at = next(i for i, part in enumerate(parts) if part[1] is not None)
    literals = [literal for literal, *_ in parts]
    return "".join(literals[: at + 1]), "".join(literals[at + 1 :])

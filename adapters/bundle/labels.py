"""Reads a plain PEFT folder's labels: from the option `--labels`, the form field `labels` or its config.json."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rootstock.adapters.bundle.manifest import check_labels
from rootstock.adapters.spec import Rejected
from rootstock.adapters.strict_json.canonical import canonical
from rootstock.adapters.strict_json.json_member import read_json, unique_keys


def read_labels(text: str) -> tuple[str, ...]:
    """Return the labels of a JSON array in id order, or of an object that maps ids to labels, as `id2label` does.

    Raise Rejected (check "labels") for any other text.
    """
    example = """give '["negative", "positive"]' or '{"0": "negative", "1": "positive"}'"""
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise Rejected("labels", "labels", f"{_start(text)} is not JSON: {reason}; {example}") from None
    if isinstance(value, dict):
        ids = [str(i) for i in range(len(value))]
        if set(value) != set(ids):
            raise Rejected(
                "labels",
                "labels",
                f"{_start(text)} has other keys than the ids 0 to {len(value) - 1}; {example}",
            )
        value = [value[i] for i in ids]
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise Rejected("labels", "labels", f"{_start(text)} is not a list of strings; {example}")
    return given_labels(value)


def config_labels(content: bytes | None, count: int, task: str) -> tuple[str, ...] | None:
    """Return the labels that `id2label` in a folder's config.json names for `count` ids; None if it names none.

    A config.json may also come from the base model, so one that does not fit the head is left out.
    """
    if content is None:
        return None
    try:
        labels = read_labels(json.dumps(read_json(content, "config.json").get("id2label")))
        check_labels(labels, task)
    except Rejected:
        return None
    return labels if len(labels) == count else None


def given_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a user's labels as a tuple; raise Rejected (check "labels") if one is empty or not valid Unicode."""
    for i, label in enumerate(labels):
        if not label.strip():
            raise Rejected("labels", "labels", f"label {i} is empty; give each id a name")
    try:
        canonical(labels)
    except ValueError as error:
        raise Rejected("labels", "labels", str(error)) from None
    return tuple(labels)


def _start(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")

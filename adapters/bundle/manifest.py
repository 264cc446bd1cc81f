"""Reads and writes `bundle.json`: an adapter's spec, its provenance and its files' hashes.

The digest of `bundle.json` is the digest of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from rootstock.adapters import tasks
from rootstock.adapters.bundle.calibration import (
    CALIBRATION,
    calibration_json,
    may_be_calibrated,
    read_calibration,
)
from rootstock.adapters.bundle.vocabulary.added_tokens import read_tokens
from rootstock.adapters.spec import (
    CLASSIFICATION,
    FILL_MASK,
    MAX_PREFIX_CHARACTERS,
    POOLINGS,
    PROBLEM_TYPES,
    TASKS,
    TEXT_GENERATION,
    UNLABELLED,
    Calibration,
    HeadSpec,
    Preprocessing,
    Prompting,
    Rejected,
)
from rootstock.adapters.strict_json.canonical import canonical, digest_of
from rootstock.adapters.strict_json.json_member import read_json

SCHEMA = 1
MAX_LABELS = 2**16
# Each token has a number for each label, which makes 8 MiB for 512 tokens in a batch.
MAX_TOKEN_LABELS = 2**12
# Every answer repeats its labels.
MAX_LABEL_CHARACTERS = 2**10
_MOST_LABELS = {"text-ranking": 1, "token-classification": MAX_TOKEN_LABELS}
# The tasks that must state a problem type.
SCORED = (*CLASSIFICATION.values(), "text-ranking")
_KEYS = {
    "schema",
    "task",
    "problem_type",
    "head",
    "foundation",
    "id2label",
    "preprocessing",
    "targets",
    "golden",
    "evaluation",
    "provenance",
    "license",
    "files",
}
# The key of the tokens that an adapter brings, in `preprocessing`.
_TOKENS = "added_tokens"
# Only a bundle for text generation has this key.
_PROMPTING = "prompting"
# Every chat begins with the system prompt.
MAX_SYSTEM_CHARACTERS = 2**14
MAX_TEMPLATE_CHARACTERS = 2**16


@dataclass(frozen=True)
class Manifest:
    """The content of `bundle.json`, field by field as docs/bundle-format.md specifies.

    `foundation` holds fingerprint, name and revision; its fingerprint is None for a plain PEFT folder.
    `preprocessing` is None for images and audio, which the foundation's own files say how to prepare.
    `files` maps every other member to `sha256:<64 hex>` of its bytes.
    """

    task: str
    problem_type: str | None
    head: HeadSpec
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    foundation: Mapping[str, str | None]
    targets: tuple[str, ...]
    files: Mapping[str, str]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
    prompting: Prompting = field(default_factory=Prompting)
    calibration: Calibration | None = None

    @property
    def modality(self) -> tasks.Modality:
        return tasks.task_named(self.task).modality

    def to_json(self) -> dict[str, Any]:
        """Return the JSON value of `bundle.json`."""
        head: dict[str, Any] = {"kind": self.head.kind}
        if self.head.kind != "linear":
            head["class"] = self.head.class_name
        else:
            head |= {"pooling": self.head.pooling, "normalize": self.head.normalize}
        prompting = {_PROMPTING: _stated(self.prompting)} if self.task == TEXT_GENERATION else {}
        return {
            "schema": SCHEMA,
            "task": self.task,
            "problem_type": self.problem_type,
            "head": head,
            "foundation": dict(self.foundation),
            "id2label": {str(i): label for i, label in enumerate(self.labels)},
            "preprocessing": {} if self.preprocessing is None else _prepared(self.preprocessing),
            "targets": list(self.targets),
            "golden": "golden.json" if "golden.json" in self.files else "none",
            "evaluation": dict(self.evaluation),
            "provenance": dict(self.provenance),
            "license": self.license,
            "files": dict(self.files),
            **prompting,
            **calibration_json(self.calibration),
        }

    def to_bytes(self) -> bytes:
        """Return `bundle.json` as stored: its canonical form."""
        return canonical(self.to_json())

    @property
    def digest(self) -> str:
        """Return the `sha256:<64 hex>` that identifies the bundle."""
        return digest_of(self.to_json())


def read_manifest(data: bytes) -> Manifest:
    """Return the manifest in the bytes of a `bundle.json`.

    Raise Rejected (check "schema") that names the key at fault.
    """
    value = read_json(data, "bundle.json")
    if isinstance(value.get("schema"), bool) or value.get("schema") != SCHEMA:
        raise _wrong("schema", f"{value.get('schema')!r}; this program reads schema {SCHEMA}")
    keys = _KEYS | ({_PROMPTING} if value.get("task") == TEXT_GENERATION else set())
    task, problem_type = value.get("task"), value.get("problem_type")
    known = keys | ({CALIBRATION} if may_be_calibrated(task, problem_type) else set())
    if unknown := sorted(set(value) - known):
        raise _wrong(unknown[0], f"unknown key; known: {', '.join(sorted(known))}")
    if missing := sorted(keys - set(value)):
        raise _wrong(missing[0], "this key is missing")
    if value["task"] == FILL_MASK:
        raise _wrong(
            "task",
            f"{FILL_MASK!r} is a task of the foundation, not of an adapter; choose one of: {', '.join(TASKS)}",
        )
    task = _one_of(value, "task", TASKS)
    if task in SCORED or problem_type is not None:
        problem_type = _one_of(value, "problem_type", problem_types(task))
    labels = _labels(_mapping(value, "id2label"))
    try:
        check_labels(labels, task)
    except Rejected as error:
        raise _wrong("id2label", error.message) from None
    manifest = Manifest(
        task=task,
        problem_type=problem_type,
        head=_head(_mapping(value, "head"), task),
        labels=labels,
        preprocessing=_preprocessing(_mapping(value, "preprocessing"), task),
        foundation=_foundation(_mapping(value, "foundation")),
        targets=_strings(value, "targets"),
        files={k: _string(v, f"files.{k}") for k, v in _mapping(value, "files").items()},
        evaluation=_mapping(value, "evaluation"),
        provenance=_mapping(value, "provenance"),
        license=None if value["license"] is None else _string(value["license"], "license"),
        prompting=_prompting(_mapping(value, _PROMPTING)) if task == TEXT_GENERATION else Prompting(),
        calibration=read_calibration(value[CALIBRATION]) if CALIBRATION in value else None,
    )
    try:
        # Read the bytes again, because a stored manifest must open again, and 1e17 is written as a whole number
        # beyond 2^53.
        canonical(read_json(manifest.to_bytes(), "bundle.json"))
    except Rejected:
        raise
    except ValueError as error:
        raise Rejected("schema", "bundle.json", f"has no RFC 8785 form: {error}") from None
    if value["golden"] != manifest.to_json()["golden"]:
        raise _wrong("golden", f"{value['golden']!r} does not agree with the members in `files`")
    return manifest


def _wrong(key: str, message: str) -> Rejected:
    return Rejected("schema", f"bundle.json: {key}", message)


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(value[key], dict):
        raise _wrong(key, f"{value[key]!r} is not an object")
    return cast("dict[str, Any]", value[key])


def _string(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise _wrong(key, f"{value!r} is not a string")
    return value


def _strings(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    if not isinstance(value[key], list):
        raise _wrong(key, f"{value[key]!r} is not a list")
    return tuple(_string(v, key) for v in value[key])


def _one_of(value: Mapping[str, Any], key: str, allowed: tuple[str, ...], within: str = "") -> str:
    if value[key] not in allowed:
        raise _wrong(within + key, f"{value[key]!r} is not valid; choose one of: {', '.join(allowed)}")
    return cast("str", value[key])


def _exactly(value: Mapping[str, Any], key: str, keys: set[str]) -> None:
    if set(value) != keys:
        raise _wrong(key, f"has the keys {sorted(value)}; expected {sorted(keys)}")


def _head(value: Mapping[str, Any], task: str) -> HeadSpec:
    kind, heads = value.get("kind"), tasks.task_named(task).heads
    if kind not in heads:
        raise _wrong("head.kind", f"{kind!r} does not serve {task}; use {' or '.join(map(repr, heads))}")
    if kind != "linear":
        _exactly(value, "head", {"kind", "class"})
        return HeadSpec(kind, class_name=_string(value["class"], "head.class"))
    _exactly(value, "head", {"kind", "pooling", "normalize"})
    _one_of(value, "pooling", POOLINGS, "head.")
    if not isinstance(value["normalize"], bool):
        raise _wrong("head.normalize", f"{value['normalize']!r} is not true or false")
    return HeadSpec("linear", pooling=value["pooling"], normalize=value["normalize"])


def problem_types(task: str) -> tuple[str, ...]:
    """Return the problem types that a task may have."""
    return ("regression",) if task == "text-ranking" else PROBLEM_TYPES


def check_labels(labels: tuple[str, ...], task: str) -> None:
    """Raise Rejected (check "labels") if the task cannot have these labels."""
    if task in UNLABELLED:
        least = most = 0
    else:
        least = 2 if task == "zero-shot-classification" else 1
        most = _MOST_LABELS.get(task, MAX_LABELS)
    if not least <= len(labels) <= most:
        expected = f"from {least} to {most} labels" if most else "no labels"
        raise Rejected("labels", "labels", f"{len(labels)} labels; {task} takes {expected}")
    if (longest := max(map(len, labels), default=0)) > MAX_LABEL_CHARACTERS:
        raise Rejected(
            "labels",
            "labels",
            f"a label has {longest} characters and the limit is {MAX_LABEL_CHARACTERS}; give it a shorter name",
        )
    if (distinct := len(set(labels))) != len(labels):
        raise Rejected(
            "labels",
            "labels",
            f"{len(labels)} labels, {distinct} distinct: two ids have the same label; rename one of them",
        )
    if task == "zero-shot-classification" and not any(label.lower().startswith("entail") for label in labels):
        raise Rejected(
            "labels", "labels", f"{task} needs a label that begins with 'entail'; the labels are {list(labels)}"
        )


def _labels(value: Mapping[str, Any]) -> tuple[str, ...]:
    ids = [str(i) for i in range(len(value))]
    if sorted(value) != sorted(ids):
        raise _wrong(
            "id2label", f"has the keys {sorted(value)[:5]}…; expected 0 to {len(value) - 1}, each of them once"
        )
    return tuple(_string(value[i], f"id2label.{i}") for i in ids)


def _preprocessing(value: Mapping[str, Any], task: str) -> Preprocessing | None:
    if tasks.task_named(task).modality != "text":
        if value:
            reason = f"{task} takes none: the foundation's own files say how its inputs are prepared"
            raise _wrong("preprocessing", f"has the keys {sorted(value)}; leave it empty, because {reason}")
        return None
    keys = {"max_length", "truncation_side", "prefix"}
    _exactly(value, "preprocessing", keys | ({_TOKENS} & value.keys()))
    length = value["max_length"]
    if not isinstance(length, int) or isinstance(length, bool) or length < 3:
        raise _wrong("preprocessing.max_length", f"{length!r} is not a whole number of at least 3 tokens")
    side = _one_of(value, "truncation_side", ("left", "right"), "preprocessing.")
    prefix = _string(value["prefix"], "preprocessing.prefix")
    if len(prefix) > MAX_PREFIX_CHARACTERS:
        raise _wrong(
            "preprocessing.prefix",
            f"the prefix has {len(prefix)} characters and the limit is {MAX_PREFIX_CHARACTERS}; shorten it",
        )
    tokens = read_tokens(value[_TOKENS], "bundle.json: preprocessing") if _TOKENS in value else None
    return Preprocessing(length, "left" if side == "left" else "right", prefix, tokens)


def _prepared(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the JSON value. A bundle that states no tokens has no key for them, and keeps its digest."""
    value = {key: part for key, part in vars(preprocessing).items() if key != "tokens"}
    if preprocessing.tokens is not None:
        value[_TOKENS] = [token.to_json() for token in preprocessing.tokens]
    return value


def check_template_size(template: str, where: str) -> None:
    """Raise Rejected (check "schema") for a chat template that is too long."""
    if (size := len(template)) > MAX_TEMPLATE_CHARACTERS:
        raise Rejected(
            "schema",
            where,
            f"the chat template has {size} characters and the limit is {MAX_TEMPLATE_CHARACTERS}; shorten it",
        )


def _prompting(value: Mapping[str, Any]) -> Prompting:
    _exactly(value, _PROMPTING, {"system_prompt"} | ({"chat_template", "end_token"} & value.keys()))
    key, text = f"{_PROMPTING}.system_prompt", value["system_prompt"]
    if (size := 0 if text is None else len(_string(text, key))) > MAX_SYSTEM_CHARACTERS:
        raise _wrong(key, f"the text has {size} characters and the limit is {MAX_SYSTEM_CHARACTERS}; shorten it")
    template = end = None
    if "chat_template" in value:
        key = f"{_PROMPTING}.chat_template"
        template = _string(value["chat_template"], key)
        check_template_size(template, f"bundle.json: {key}")
    if "end_token" in value:
        end = _string(value["end_token"], f"{_PROMPTING}.end_token")
    return Prompting(text, template, end)


def _stated(prompting: Prompting) -> dict[str, str | None]:
    """Return the JSON value. A bundle without a template or an end has no key for it, and keeps its digest."""
    stated = {"chat_template": prompting.chat_template, "end_token": prompting.end_token}
    return {"system_prompt": prompting.system_prompt, **{k: v for k, v in stated.items() if v is not None}}


def _foundation(value: Mapping[str, Any]) -> dict[str, str | None]:
    _exactly(value, "foundation", {"fingerprint", "name", "revision"})
    return {k: None if v is None else _string(v, f"foundation.{k}") for k, v in value.items()}

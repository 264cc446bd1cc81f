"""Opening, checking and writing bundles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rootstock.adapters.bundle.archive import CARD, CONFIG, GOLDEN, MANIFEST, WEIGHTS, Limits, pack, unpack
from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.canonical import sha256
from rootstock.adapters.bundle.golden import Golden, read_golden
from rootstock.adapters.bundle.labels import given_labels
from rootstock.adapters.bundle.manifest import (
    MAX_LABELS,
    Manifest,
    check_labels,
    problem_types,
    read_json,
    read_manifest,
)
from rootstock.adapters.bundle.peft_config import PeftConfig, read_config
from rootstock.adapters.bundle.tensors import read_tensors
from rootstock.adapters.bundle.weights import read_weights
from rootstock.adapters.spec import (
    UNLABELLED,
    Adapter,
    Array,
    FoundationSpec,
    HeadSpec,
    Preprocessing,
    Rejected,
    TaskClass,
)

TASK_OF_TYPE = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "FEATURE_EXTRACTION": "feature-extraction",
    "QUESTION_ANS": "question-answering",
}


@dataclass(frozen=True)
class PlainFields:
    """What an upload's form says of a plain PEFT folder, which has no `bundle.json`."""

    task: str | None = None
    labels: tuple[str, ...] | None = None
    problem_type: str | None = None
    max_length: int | None = None

    def given(self) -> list[str]:
        """The names of the fields that the form set."""
        return [name for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest, its files by member name, and what had to be assumed (`warnings`)."""

    manifest: Manifest
    files: Mapping[str, bytes]
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def to_zip(self) -> bytes:
        """The bundle as one zip, `bundle.json` included."""
        return pack({**self.files, MANIFEST: self.manifest.to_bytes()})

    def golden(self) -> Golden | None:
        """The golden set, or None for a bundle without one."""
        return read_golden(self.files[GOLDEN]) if GOLDEN in self.files else None

    def adapter(self, foundation: FoundationSpec, max_rank: int, base: BaseWeights | None = None) -> Adapter:
        """The adapter that this bundle holds, checked against a foundation.

        `base` are the foundation's weights, without which DoRA and trained biases are refused. Raises Rejected
        with check "schema", "safetensors", "sites", "finite", "rank", "labels" or "foundation".
        """
        manifest = self.manifest
        config = read_config(read_json(self.files[CONFIG], CONFIG))
        task_class = foundation.class_for(manifest.task)
        if manifest.head.kind == "hf" and manifest.head.class_name != task_class.name:
            raise Rejected(
                "sites",
                "bundle.json: head.class",
                f"{manifest.head.class_name!r}; {manifest.task} on {foundation.name} is {task_class.name}",
            )
        weights = read_weights(
            read_tensors(self.files[WEIGHTS]),
            config,
            task_class,
            manifest.head,
            foundation,
            len(manifest.labels),
            max_rank,
            base,
        )
        targets = _targets(config, task_class)
        if manifest.targets != targets:
            raise Rejected("sites", "bundle.json: targets", _disagreement(manifest.targets, targets))
        stated = manifest.foundation["fingerprint"]
        if stated is not None and stated != foundation.fingerprint:
            raise Rejected(
                "foundation",
                "bundle.json: foundation.fingerprint",
                f"made for {manifest.foundation['name']} {stated}; this server runs {foundation.name} "
                f"{foundation.fingerprint}",
            )
        if manifest.preprocessing.max_length > foundation.max_tokens:
            raise Rejected(
                "schema",
                "bundle.json: preprocessing.max_length",
                f"{manifest.preprocessing.max_length}; {foundation.name} takes {foundation.max_tokens} tokens",
            )
        return Adapter(
            digest=self.digest,
            task=manifest.task,
            problem_type=manifest.problem_type,
            labels=manifest.labels,
            head=manifest.head,
            preprocessing=manifest.preprocessing,
            weights=weights,
        )


def open_bundle(
    data: bytes, limits: Limits, foundation: FoundationSpec, plain: PlainFields | None = None
) -> Bundle:
    """The bundle in a zip, its members, hashes and schema checked; a plain PEFT folder gets its manifest here.

    Raises Rejected with check "size", "members", "names" or "schema". Tensors are checked by `Bundle.adapter`.
    """
    files = unpack(data, limits)
    plain = plain or PlainFields()
    if MANIFEST not in files:
        return _from_plain(files, foundation, plain, limits)
    if given := plain.given():
        raise Rejected("schema", given[0], "a form field for plain PEFT folders; bundle.json already says it")
    manifest = read_manifest(files.pop(MANIFEST))
    if set(manifest.files) != set(files):
        different = sorted(set(manifest.files) ^ set(files))[0]
        raise Rejected("names", different, "the archive and bundle.json: files do not agree on this member")
    for name, content in files.items():
        if (actual := sha256(content)) != manifest.files[name]:
            raise Rejected("names", name, f"is {actual}; bundle.json says {manifest.files[name]}")
    if GOLDEN in files:
        read_golden(files[GOLDEN])
    return Bundle(manifest, files)


def write_bundle(manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """The bundle of these files: `manifest.files` is filled with their hashes."""
    hashes = {name: sha256(content) for name, content in sorted(files.items())}
    return Bundle(Manifest(**{**vars(manifest), "files": hashes}), dict(files))


def _targets(config: PeftConfig, task_class: TaskClass) -> tuple[str, ...]:
    return tuple(sorted(n.removeprefix(task_class.prefix) for n in config.targets(task_class)))


def _disagreement(stated: Iterable[str], targeted: Iterable[str]) -> str:
    stated, targeted = list(stated), sorted(targeted)
    for name in sorted(set(stated) ^ set(targeted)):
        held, lacks = ("bundle.json", CONFIG) if name in stated else (CONFIG, "bundle.json")
        return f"{held} targets {name} and {lacks} does not ({len(stated)} and {len(targeted)} modules)"
    return f"{stated[:3]}… is not the sorted list of {len(targeted)} modules, each once"


def _from_plain(
    files: dict[str, bytes], foundation: FoundationSpec, plain: PlainFields, limits: Limits
) -> Bundle:
    if GOLDEN in files:
        raise Rejected("members", GOLDEN, "a golden set without bundle.json; add the manifest or leave it out")
    config = read_config(read_json(files[CONFIG], CONFIG))
    task = plain.task or TASK_OF_TYPE.get(config.task_type or "")
    if task is None:
        raise Rejected(
            "schema",
            "adapter_config.json: task_type",
            f"{config.task_type!r} names no task; give the form field `task`",
        )
    task_class = foundation.class_for(task)
    head = (
        HeadSpec("linear", pooling=foundation.embedding.pooling, normalize=foundation.embedding.normalize)
        if task == "feature-extraction"
        else HeadSpec("hf", class_name=task_class.name)
    )
    labels = _plain_labels(read_tensors(files[WEIGHTS]), task_class, config, plain)
    check_labels(labels, task)
    limit = foundation.embedding.max_tokens if task == "feature-extraction" else foundation.max_tokens
    manifest = Manifest(
        task=task,
        problem_type=_plain_problem(task, plain, len(labels)),
        head=head,
        labels=labels,
        preprocessing=Preprocessing(
            _plain_length(plain, foundation, limit),
            prefix=foundation.embedding.prefix if task == "feature-extraction" else "",
        ),
        foundation={"fingerprint": None, "name": foundation.name, "revision": foundation.revision},
        targets=_targets(config, task_class),
        files={},
    )
    warning = "a plain PEFT folder: no fingerprint and no golden set; names, shapes and a probe were checked"
    bundle = write_bundle(manifest, {n: c for n, c in files.items() if n in (CONFIG, WEIGHTS, CARD)})
    if (size := len(bundle.manifest.to_bytes())) > limits.max_text_bytes:
        raise Rejected("size", MANIFEST, f"the labels make it {size} bytes; at most {limits.max_text_bytes}")
    return Bundle(bundle.manifest, bundle.files, (warning,))


def _plain_labels(
    tensors: Mapping[str, Array], task_class: TaskClass, config: PeftConfig, plain: PlainFields
) -> tuple[str, ...]:
    if plain.labels is not None:
        return given_labels(plain.labels)
    if task_class.task in UNLABELLED:
        return ()
    named = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    by_labels = [n for n, shape in task_class.head.items() if shape[0] is None and n in named]
    if not by_labels:
        saved = config.values.get("modules_to_save")
        raise Rejected(
            "sites",
            ", ".join(task_class.head),
            f"not in {WEIGHTS} (modules_to_save is {saved!r}); {task_class.task} needs a head",
        )
    name, shape = by_labels[0], named[by_labels[0]].shape
    wanted = task_class.head[name][1:]
    if not shape or shape[1:] != wanted:
        raise Rejected("sites", name, f"shape {list(shape)}; expected {['labels', *wanted]}")
    if not 1 <= shape[0] <= MAX_LABELS:
        raise Rejected("labels", name, f"gives {shape[0]} outputs; from 1 to {MAX_LABELS} are served")
    return tuple(f"LABEL_{i}" for i in range(shape[0]))


def _plain_problem(task: str, plain: PlainFields, labels: int) -> str | None:
    allowed = problem_types(task)
    if plain.problem_type is not None and plain.problem_type not in allowed:
        raise Rejected("schema", "problem_type", f"{plain.problem_type!r}; one of: {', '.join(allowed)}")
    if task not in ("text-classification", "text-ranking"):
        return plain.problem_type
    return plain.problem_type or ("regression" if labels == 1 else "single_label_classification")


def _plain_length(plain: PlainFields, foundation: FoundationSpec, default: int) -> int:
    if plain.max_length is None:
        return default
    if not 3 <= plain.max_length <= foundation.max_tokens:
        raise Rejected("schema", "max_length", f"{plain.max_length}; from 3 to {foundation.max_tokens} tokens")
    return plain.max_length

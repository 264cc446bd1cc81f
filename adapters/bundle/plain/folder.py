"""Makes the manifest of a plain PEFT folder from its files, the upload's form fields and defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS, Archive
from rootstock.adapters.bundle.labels import config_labels, given_labels
from rootstock.adapters.bundle.manifest import MAX_LABELS, SCORED, check_template_size, problem_types
from rootstock.adapters.bundle.names.former_names import present_name
from rootstock.adapters.bundle.names.tower_names import PROJECTIONS, TEXT
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.plain.origin import (
    PEFT_PREFIX,
    check_origin,
    head_hint,
    short_names,
)
from rootstock.adapters.bundle.plain.sentence_files import has_pooling, read_sentence_files
from rootstock.adapters.bundle.tensors import read_tensors
from rootstock.adapters.chat_template import SETTINGS, TEMPLATE, stated_end, stated_template
from rootstock.adapters.embedding_files import MODULES, StatedEmbedding
from rootstock.adapters.spec import (
    CLASSIFICATION,
    EMBEDDING,
    GENERATION,
    TEXT_GENERATION,
    UNLABELLED,
    ZERO_SHOT_IMAGES,
    Array,
    FoundationSpec,
    HeadSpec,
    Preprocessing,
    Rejected,
    TaskClass,
)
from rootstock.adapters.strict_json.json_member import read_json
from rootstock.adapters.tasks import TASK_OF_TYPE, task_named
from rootstock.adapters.vocabulary.added_token import AddedToken

_MAX_WARNING = 500
# Only an adapter of a model of two towers has names of this part.
_OF_TEXTS = (TEXT, PROJECTIONS[TEXT])


@dataclass(frozen=True)
class PlainFields:
    """The form fields of an upload that describe a plain PEFT folder, which has no `bundle.json`."""

    task: str | None = None
    labels: tuple[str, ...] | None = None
    problem_type: str | None = None
    max_length: int | None = None
    foundation: str | None = None

    def given(self) -> list[str]:
        """Return the names of the fields that the form set."""
        return [name for name, value in vars(self).items() if value is not None]


def plain_warnings(
    compared: str, labels: tuple[str, ...], config: PeftConfig, plain: PlainFields
) -> Iterator[str]:
    """Yield one sentence for each assumption; `compared` is the result of `check_base`."""
    yield (
        "a plain PEFT folder has no fingerprint and no golden set; the server compared the base model's name "
        f"({compared}) and the names and shapes of all tensors, but no outputs"
    )
    if plain.labels is None and len(labels) > 1 and labels == _generic(len(labels)):
        yield (
            f"no labels were given: answers say {labels[0]} to {labels[-1]}; publish it again with the form "
            "field `labels`"
        )
    if config.foreign:
        keys = ", ".join(config.foreign)
        yield f"{CONFIG}: ignored these keys, because PEFT has no such options: {keys}"[:_MAX_WARNING]


def plain_task(
    given: str | None, task_type: Any, archive: Archive, foundation: FoundationSpec
) -> tuple[str, StatedEmbedding | None]:
    """Return a plain folder's task, and for embeddings the method that sentence-transformers describes in it.

    `given` is the form field `task`, and `task_type` comes from the adapter's config. PEFT has no types for
    images and audio. There SEQ_CLS means the classification of the foundation's modality, FEATURE_EXTRACTION its
    embedding, and no type the one of both that fits the tensors. Raise Rejected (check "schema") if nothing names
    a task, or if a setting of the method is not served.
    """
    task = given or (TASK_OF_TYPE.get(task_type) if isinstance(task_type, str) else None)
    if given is None and foundation.modality != "text":
        task = _task_of(task, foundation) if task is not None else _fitting_task(task_type, archive, foundation)
    elif task is None and task_type is None and has_pooling(archive.descriptions):
        task = EMBEDDING["text"]
    if task is None:
        modules = f", and the folder has no {MODULES} with a Pooling of sentence-transformers"
        raise Rejected(
            "schema",
            "adapter_config.json: task_type",
            f"{task_type!r} names no task{modules if task_type is None else ''}; give the form field `task`",
        )
    if task != EMBEDDING["text"]:
        return task, None
    return task, read_sentence_files(archive.descriptions, foundation.lowercases)


def _task_of(text_task: str, foundation: FoundationSpec) -> str:
    """Return the task of the foundation's modality that corresponds to a task for text, if there is one."""
    of_type = {tasks["text"]: tasks[foundation.modality] for tasks in (CLASSIFICATION, EMBEDDING)}
    return of_type.get(text_task, text_task)


def _fitting_task(task_type: Any, archive: Archive, foundation: FoundationSpec) -> str | None:
    """Return the embedding for tensors of modules of its class without a head; else the classification."""
    if task_type is not None:
        return None
    embedding, classification = EMBEDDING[foundation.modality], CLASSIFICATION[foundation.modality]
    names = [name.removeprefix(PEFT_PREFIX) for name in read_tensors(archive.members[WEIGHTS])]
    if foundation.text_tower is not None and any(name.startswith(_OF_TEXTS) for name in names):
        return ZERO_SHOT_IMAGES
    if classification not in foundation.tasks:
        return embedding
    heads = {name.partition(".")[0] for name in foundation.class_for(classification).head}
    if any(name.partition(".")[0] in heads for name in names):
        return classification
    modules = tuple(f"{module}." for module in foundation.class_for(embedding).linears)
    inside = any(present_name(foundation.model_type, name).startswith(modules) for name in names)
    return embedding if inside else classification


def plain_head(task_class: TaskClass, foundation: FoundationSpec, sentence: StatedEmbedding | None) -> HeadSpec:
    """Return the head of the task's class; for embeddings, with the folder's pooling or else the foundation's."""
    if task_class.task in (*GENERATION, ZERO_SHOT_IMAGES):
        return HeadSpec(task_named(task_class.task).heads[0], class_name=task_class.name)
    if task_class.task not in EMBEDDING.values():
        return HeadSpec("hf", class_name=task_class.name)
    stated = sentence or foundation.embedding
    return HeadSpec("linear", pooling=stated.pooling, normalize=stated.normalize)


def plain_labels(
    tensors: Mapping[str, Array],
    task_class: TaskClass,
    config: PeftConfig,
    plain: PlainFields,
    foundation: FoundationSpec,
    model_config: bytes | None,
) -> tuple[str, ...]:
    """Return the form's labels, else those of the folder's config.json, else LABEL_0, LABEL_1 and so on.

    There is one for each output of the head.
    """
    if plain.labels is not None:
        return given_labels(plain.labels)
    if task_class.task in UNLABELLED:
        return ()
    short = short_names(tensors, config)
    check_origin(short, config, task_class, foundation)
    by_labels = [n for n, shape in task_class.head.items() if shape[0] is None and n in short]
    if not by_labels:
        saved = config.values.get("modules_to_save")
        raise Rejected(
            "sites",
            ", ".join(task_class.head),
            f"missing from {WEIGHTS} (modules_to_save is {saved!r}); {task_class.task} needs a head; "
            + head_hint(task_class),
        )
    name, shape = by_labels[0], short[by_labels[0]].shape
    widths = task_class.head[name][1:]
    if not shape or shape[1:] != widths:
        raise Rejected("sites", name, f"has shape {list(shape)}; expected {['labels', *widths]}")
    if not 1 <= shape[0] <= MAX_LABELS:
        raise Rejected("labels", name, f"gives {shape[0]} outputs; the limit is from 1 to {MAX_LABELS}")
    return config_labels(model_config, shape[0], task_class.task) or _generic(shape[0])


def _generic(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(count))


def plain_problem(task: str, plain: PlainFields, labels: int) -> str | None:
    """Return the form's problem type, else the one that follows from the number of labels."""
    allowed = problem_types(task)
    if plain.problem_type is not None and plain.problem_type not in allowed:
        raise Rejected(
            "schema",
            "problem_type",
            f"{plain.problem_type!r} is not valid for {task}; choose one of: {', '.join(allowed)}",
        )
    if task not in SCORED:
        return plain.problem_type
    return plain.problem_type or ("regression" if labels == 1 else "single_label_classification")


def plain_preprocessing(
    task: str, plain: PlainFields, foundation: FoundationSpec, sentence: StatedEmbedding | None
) -> Preprocessing | None:
    """Return the preparation of a text; None for images and audio, which take no form field `max_length`."""
    if foundation.modality == "text":
        length = plain_length(task, plain, foundation, sentence)
        return Preprocessing(length, prefix=_prefix(task, foundation, sentence))
    if plain.max_length is not None:
        reason = f"{task} takes {foundation.modality} inputs, which no limit in tokens cuts"
        raise Rejected("schema", "max_length", f"{reason}; leave out the form field")
    return None


def plain_length(
    task: str, plain: PlainFields, foundation: FoundationSpec, sentence: StatedEmbedding | None
) -> int:
    """Return the longest input in tokens: the form's value, else the folder's, else the foundation's."""
    if plain.max_length is None:
        own = foundation.embedding.max_tokens if task == EMBEDDING["text"] else foundation.max_tokens
        stated = sentence.max_tokens if sentence and sentence.max_tokens is not None else own
        return min(stated, foundation.max_tokens)
    if not 3 <= plain.max_length <= foundation.max_tokens:
        raise Rejected(
            "schema", "max_length", f"{plain.max_length} tokens; choose from 3 to {foundation.max_tokens} tokens"
        )
    return plain.max_length


def _prefix(task: str, foundation: FoundationSpec, sentence: StatedEmbedding | None) -> str:
    """Return the text that comes before each input: for embeddings the default prompt, else none.

    A folder of sentence-transformers states its own prompt or none. Other folders get the foundation's prompt.
    """
    if sentence is not None:
        return sentence.prefix
    return foundation.embedding.prefix if task == EMBEDDING["text"] else ""


def plain_end(task: str, archive: Archive, tokens: Iterable[AddedToken] | None) -> str | None:
    """Return the `eos_token` of the folder's `tokenizer_config.json`, if it is one of the tokens that it adds.

    Other ends of an answer are the foundation's, as for `generate` of transformers.
    """
    if task != TEXT_GENERATION or not tokens or SETTINGS not in archive.descriptions:
        return None
    settings = read_json(archive.descriptions[SETTINGS], SETTINGS)
    end = stated_end(settings) if isinstance(settings, dict) else None
    return end if end in [token.content for token in tokens] else None


def plain_template(task: str, archive: Archive) -> tuple[str, str] | None:
    """Return the folder's chat template and the file that holds it; None without one, or for another task.

    `chat_template.jinja` comes before `tokenizer_config.json`, as in transformers. Raise Rejected (check
    "schema") for a file that is not in its form, and for a template that is too long.
    """
    if task != TEXT_GENERATION:
        return None
    if TEMPLATE in archive.descriptions:
        name = TEMPLATE
        try:
            template: str | None = archive.descriptions[name].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Rejected("schema", name, f"not text in UTF-8: {error}") from None
    elif SETTINGS in archive.descriptions:
        name = SETTINGS
        template = stated_template(read_json(archive.descriptions[name], name))
    else:
        return None
    if template is None:
        return None
    check_template_size(template, name)
    return template, name

"""The adapter that a source becomes on a foundation: its task, head, labels and preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.bundle.plain.folder import plain_length, plain_problem
from rootstock.adapters.embedding_files import StatedEmbedding
from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.output_layer import OutputLayer
from rootstock.adapters.sources.source import Source
from rootstock.adapters.spec import GENERATION, UNLABELLED, FoundationSpec, HeadSpec, Preprocessing, TaskClass


@dataclass(frozen=True)
class AdapterForm:
    """The settings of the bundle. `layer` is the linear layer of a head that pools, if it has one."""

    task: str
    task_class: TaskClass
    head: HeadSpec
    layer: OutputLayer | None
    labels: tuple[str, ...]
    problem_type: str | None
    preprocessing: Preprocessing

    @property
    def pools(self) -> bool:
        """Return whether the head reads a pooled vector, and not the model of the task's class."""
        return self.head.kind == "linear"


def adapter_form(source: Source, spec: FoundationSpec, plain: PlainFields) -> AdapterForm:
    """Return the form of a source on a foundation; `plain` overrides what the source's files state.

    Raise SourceError if the foundation does not serve the source's class, or the labels do not fit its outputs.
    Raise Rejected for a task or problem type that does not exist.
    """
    if spec.modality != "text":
        raise SourceError(
            f"{spec.name} takes {spec.modality} inputs, and a {source.kind} becomes an adapter only on a "
            "foundation for texts; train an adapter with PEFT and upload its folder"
        )
    task_class = _task_class(source, spec, plain)
    # Other tasks share the class of text classification.
    task = plain.task or task_class.task
    pools = source.layer is not None or task == "feature-extraction"
    own = spec.embedding
    embedding = source.embedding or StatedEmbedding(own.pooling, own.normalize, own.max_tokens, own.prefix)
    layer = source.layer
    if layer is not None and plain.labels is not None:
        layer = layer.with_labels(plain.labels)
    labels = plain.labels or ()
    if task not in UNLABELLED:
        own_labels = source.labels if pools else _labels(source, task_class)
        labels = own_labels if plain.labels is None else plain.labels
        if len(labels) != len(own_labels):
            raise SourceError(
                f"{len(labels)} labels were given, and the model has {len(own_labels)} outputs; give one for each"
            )
    if plain.problem_type is None and task == "text-classification":
        plain = replace(plain, problem_type=source.problem_type)
    stated = replace(embedding, max_tokens=source.max_length or embedding.max_tokens) if pools else None
    length = plain_length(task, plain, spec, stated)
    if not pools and plain.max_length is None and source.max_length is not None:
        length = min(length, source.max_length)
    normalize = embedding.normalize or (layer is not None and layer.normalize)
    return AdapterForm(
        task,
        task_class,
        HeadSpec("linear", pooling=embedding.pooling, normalize=normalize)
        if pools
        else HeadSpec("hf", task_class.name),
        layer,
        labels,
        plain_problem(task, plain, len(labels)),
        Preprocessing(length, prefix=embedding.prefix if pools else ""),
    )


def _labels(source: Source, task_class: TaskClass) -> tuple[str, ...]:
    """Return the labels of a checkpoint's outputs; the shape of the head's weight decides their number.

    transformers leaves two default labels, LABEL_0 and LABEL_1, out of config.json. Raise SourceError if the
    weights hold no head of the class.
    """
    for name, expected in task_class.head.items():
        shape = source.shapes.get(name, ())
        if None in expected and len(shape) == len(expected):
            count = shape[expected.index(None)]
            return source.labels if len(source.labels) == count else tuple(f"LABEL_{i}" for i in range(count))
    raise SourceError(
        f"{source.folder} holds no weights of the head of {task_class.name}; give the folder of the whole model"
    )


def _task_class(source: Source, spec: FoundationSpec, plain: PlainFields) -> TaskClass:
    """Return the class of the source's task on the foundation."""
    if source.layer is not None:
        return spec.class_for(plain.task or "text-classification")
    if source.embedding is not None:
        if plain.task not in (None, "feature-extraction"):
            raise SourceError(f"a {source.kind} gives vectors, and {plain.task} needs a head; leave out the task")
        return spec.class_for("feature-extraction")
    stated = spec.classes.get(source.class_name or "")
    served = sorted(name for name, one in spec.classes.items() if one.task not in GENERATION)
    if stated is None or stated.name not in served:
        raise SourceError(
            f"the model's class is {source.class_name!r}; on {spec.name} a whole model becomes an adapter if its "
            f"class is one of: {', '.join(served)}"
        )
    if plain.task is not None and spec.class_for(plain.task) != stated:
        raise SourceError(
            f"the model's class is {stated.name!r}, which does not serve {plain.task}; leave out the task"
        )
    return stated

"""The foundation that an adapter is grafted onto, and the adapter once read: plain data that every part shares.

This module needs the standard library and numpy alone, beside the table of tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootstock.adapters import tasks

Array = npt.NDArray[np.float32]
Pooling = Literal["mean", "cls", "pooler"]

# The tasks that an adapter can have.
TASKS = tuple(task.name for task in tasks.TASKS if task.heads)
# Tasks without labels.
UNLABELLED = ("feature-extraction", "question-answering")
# Tasks that another task's class serves.
_SERVED_BY = {"text-ranking": "text-classification", "zero-shot-classification": "text-classification"}
# The task that the foundation answers by the head of its checkpoint; no adapter has it.
FILL_MASK = "fill-mask"
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
POOLINGS = ("mean", "cls", "pooler")
_MAX_MESSAGE = 500
# Of a foundation's spec, what is written as it is.
_PLAIN = (
    "fingerprint", "name", "revision", "model_type", "hidden_size", "layers", "max_tokens", "parameters",
)  # fmt: skip


class Rejected(ValueError):
    """An adapter that cannot be served: names the check that failed, the member or tensor, and both values."""

    def __init__(self, check: str, where: str, message: str) -> None:
        self.check = check
        self.where = _short(where)
        self.message = _short(message)
        super().__init__(": ".join(dict.fromkeys((check, self.where, self.message))))


def _short(text: str) -> str:
    """Return a short form for a message, since uploaded text can have any length."""
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"


@dataclass(frozen=True)
class TaskClass:
    """One Hugging Face task class on a foundation: the trunk it wraps and the head it adds.

    `linears` maps every linear module, trunk and head, by its full name in the class to (in, out) features:
    this is what PEFT's `target_modules` are matched against. `head` maps each head tensor to its shape, with
    None for the label count. `prefix` is the trunk's attribute (`base_model_prefix`) with a dot, or "".
    """

    name: str
    task: str
    prefix: str
    linears: Mapping[str, tuple[int, int]]
    head: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class EmbeddingSpec:
    """The foundation's method for an embedding: pooling over the trunk's output, then L2 or not.

    `prefix` is put before the text: a default prompt.
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    max_tokens: int = 512
    prefix: str = ""


@dataclass(frozen=True)
class MaskedLM:
    """The masked-language-model head of a foundation's checkpoint: its Hugging Face class, its mask token's id.

    `digest` is of the fingerprint and the head: the fingerprint alone covers the trunk.
    """

    class_name: str
    mask_id: int
    digest: str


@dataclass(frozen=True)
class FoundationSpec:
    """A foundation without its weights: what bundles are checked against and the engine is built from.

    `sites` maps the trunk's linear layers to (in, out) features, `norms` its normalisation layers with a bias to
    their width. `layer_prefix` begins the names of layer 0, 1, … ("encoder.layer."); it is empty where the layers
    are one layer used again (ALBERT). `masked_lm` is None where the checkpoint brings no such head.
    `other_names` are what else this foundation is called here, such as its folder; they do not identify it.
    """

    fingerprint: str
    name: str
    revision: str | None
    model_type: str
    hidden_size: int
    layers: int
    max_tokens: int
    parameters: int
    embedding: EmbeddingSpec
    inputs: tuple[str, ...]
    sites: Mapping[str, tuple[int, int]]
    classes: Mapping[str, TaskClass]
    norms: Mapping[str, int] = field(default_factory=dict)
    layer_prefix: str = ""
    masked_lm: MaskedLM | None = None
    other_names: tuple[str, ...] = field(default=(), compare=False)

    def depth(self, modules: Iterable[str]) -> int:
        """Return how many layers, from the first, an adapter of these modules leaves as they are.

        It is 0 where it changes the embeddings or the first layer, `layers` where it changes the pooler
        alone, and `layers + 1` where it changes nothing.
        """
        return min((self.layer_of(name) for name in modules), default=self.layers + 1)

    def layer_of(self, name: str) -> int:
        """Return the layer that a module of the trunk belongs to.

        The embeddings belong to the first, the pooler after all. A normalisation of what the last layer gives
        (GPT-2's `ln_f`) belongs to that layer: in `norms`, which are in the model's order, it comes after
        those of the layers.
        """
        if name.startswith("pooler."):
            return self.layers
        if not self.layer_prefix:
            return 0
        if name.startswith(self.layer_prefix):
            return int(name.removeprefix(self.layer_prefix).partition(".")[0])
        norms = list(self.norms)
        inside = [i for i, norm in enumerate(norms) if norm.startswith(self.layer_prefix)]
        return self.layers - 1 if name in norms and inside and norms.index(name) > inside[-1] else 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks of adapters that this foundation has a class for."""
        served = {task_class.task for task_class in self.classes.values()}
        return tuple(task for task in TASKS if _SERVED_BY.get(task, task) in served)

    @property
    def own_tasks(self) -> tuple[str, ...]:
        """Return the tasks that the foundation answers without an adapter.

        The first is used unless another is asked for.
        """
        return ("feature-extraction",) if self.masked_lm is None else ("feature-extraction", FILL_MASK)

    def class_for(self, task: str) -> TaskClass:
        """Return the task class that serves `task`; raise Rejected where the foundation has none."""
        for task_class in self.classes.values():
            if task_class.task == _SERVED_BY.get(task, task):
                return task_class
        why = " by an adapter: it is the foundation's own" if task == FILL_MASK else ""
        served = ", ".join(self.tasks)
        raise Rejected("schema", "task", f"{task!r} is not served on {self.name}{why}; served: {served}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready form that `from_json` reads back unchanged."""
        return {
            **{k: getattr(self, k) for k in _PLAIN},
            "embedding": vars(self.embedding),
            "inputs": list(self.inputs),
            "sites": {k: list(v) for k, v in self.sites.items()},
            "norms": dict(self.norms),
            "layer_prefix": self.layer_prefix,
            "masked_lm": None if self.masked_lm is None else vars(self.masked_lm),
            "classes": {
                name: {
                    "task": c.task,
                    "prefix": c.prefix,
                    "linears": {k: list(v) for k, v in c.linears.items()},
                    "head": {k: list(v) for k, v in c.head.items()},
                }
                for name, c in self.classes.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FoundationSpec:
        """Return the spec that `to_json` wrote."""
        classes = {
            name: TaskClass(
                name=name,
                task=c["task"],
                prefix=c["prefix"],
                linears={k: (v[0], v[1]) for k, v in c["linears"].items()},
                head={k: tuple(v) for k, v in c["head"].items()},
            )
            for name, c in value["classes"].items()
        }
        return cls(
            **{k: value[k] for k in _PLAIN},
            embedding=EmbeddingSpec(**value["embedding"]),
            inputs=tuple(value["inputs"]),
            sites={k: (v[0], v[1]) for k, v in value["sites"].items()},
            classes=classes,
            norms=dict(value["norms"]),
            layer_prefix=value["layer_prefix"],
            masked_lm=None if value["masked_lm"] is None else MaskedLM(**value["masked_lm"]),
        )


@dataclass(frozen=True)
class HeadSpec:
    """The task layers of an adapter.

    `kind` "hf": the head of the Hugging Face class `class_name`. `kind` "linear": pool the trunk's output, L2
    normalise it if `normalize`, then apply `head.weight` (labels, hidden) and `head.bias` (labels,) where the
    adapter holds them; without them the pooled vector is the answer. `kind` "masked-lm": the foundation's own
    (MaskedLM), with the checkpoint's weights; bundles do not have it.
    """

    kind: Literal["hf", "linear", "masked-lm"]
    class_name: str | None = None
    pooling: Pooling = "mean"
    normalize: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """The preparation of a text before the trunk: `prefix` is put before it, then at most `max_length` tokens."""

    max_length: int
    truncation_side: Literal["left", "right"] = "right"
    prefix: str = ""


@dataclass(frozen=True)
class SiteUpdate:
    """The change that an adapter makes at one module of the trunk.

    A linear layer's output W x + c becomes (W (x * input_scale) + c) * output_scale + shift + (x @ a.T) @ b.
    `a` (r, in) and `b` (r, out) with r = 0 where nothing of low rank is added; `b` holds the scale (alpha/r, or
    alpha/sqrt(r) for rsLoRA) and whatever else multiplies it. `input_scale` (in,), `output_scale` (out,) and
    `shift` (out,) are None where they change nothing. A normalisation layer takes a `shift` alone.
    Sources: Hu et al., "LoRA", 2021; Kalajdzievski, "A Rank Stabilization Scaling Factor", 2023; Liu et al.,
    "DoRA", 2024; Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning" (IA3), 2022.
    """

    a: Array
    b: Array
    input_scale: Array | None = None
    output_scale: Array | None = None
    shift: Array | None = None

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @property
    def is_low_rank(self) -> bool:
        """Tell whether `a` and `b` are all that it holds."""
        return self.input_scale is None and self.output_scale is None and self.shift is None

    def arrays(self) -> tuple[Array, ...]:
        """Give the arrays that it holds."""
        held = (self.a, self.b, self.input_scale, self.output_scale, self.shift)
        return tuple(array for array in held if array is not None)


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter's tensors, checked and in the engine's form: fp32, one update per trunk site, head by name."""

    sites: Mapping[str, SiteUpdate]
    head: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        updates = sum(array.nbytes for update in self.sites.values() for array in update.arrays())
        return updates + sum(t.nbytes for t in self.head.values())

    @property
    def max_rank(self) -> int:
        return max((p.rank for p in self.sites.values()), default=0)


@dataclass(frozen=True)
class Adapter:
    """An adapter ready for the engine: what it answers (`task`, `labels`), how, and its weights."""

    digest: str
    task: str
    problem_type: str | None
    labels: tuple[str, ...]
    head: HeadSpec
    preprocessing: Preprocessing
    weights: AdapterWeights

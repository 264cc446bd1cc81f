"""The specs of foundations and adapters: plain data that every other part shares.

This module imports only the standard library, numpy and the table of tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootstock.adapters import tasks
from rootstock.adapters.language_model import CausalLM as CausalLM
from rootstock.adapters.language_model import LanguageModel, Seq2SeqLM, causal_lm_of, seq2seq_lm_of
from rootstock.adapters.vocabulary.adapter_tokenizer import AdapterTokenizer
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.words import OutputRows, WordRows, WordTable

Array = npt.NDArray[np.float32]
Pooling = Literal["mean", "cls", "last", "pooler"]

# The tasks that an adapter can have.
TASKS = tuple(task.name for task in tasks.TASKS if task.heads)
# Tasks without labels.
UNLABELLED = (
    "feature-extraction", "question-answering", "image-feature-extraction", "audio-feature-extraction",
    "zero-shot-image-classification", "text-generation", "text2text-generation",
)  # fmt: skip
# By modality, the task that gives one vector for each input.
EMBEDDING = {
    "text": "feature-extraction",
    "image": "image-feature-extraction",
    "audio": "audio-feature-extraction",
}
# By modality, the task that gives scores by label.
CLASSIFICATION = {
    "text": "text-classification",
    "image": "image-classification",
    "audio": "audio-classification",
}
# Tasks that another task's class serves.
_SERVED_BY = {"text-ranking": "text-classification", "zero-shot-classification": "text-classification"}
# The foundation answers this task with the head of its checkpoint; no adapter has this task.
FILL_MASK = "fill-mask"
# A foundation with a language-model head answers this task, alone or with an adapter.
TEXT_GENERATION = "text-generation"
# A foundation with an encoder and such a head answers this one.
TEXT2TEXT_GENERATION = "text2text-generation"
# A foundation with a tower for images and one for texts answers this one, alone or with an adapter.
ZERO_SHOT_IMAGES = "zero-shot-image-classification"
# The tasks of many passes.
GENERATION = (TEXT_GENERATION, TEXT2TEXT_GENERATION)
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
POOLINGS = ("mean", "cls", "last", "pooler")
# Every input is sent with the prefix.
MAX_PREFIX_CHARACTERS = 2**12
_MAX_MESSAGE = 500
# The fields of a foundation's spec that are plain JSON values.
_PLAIN = (
    "fingerprint", "name", "revision", "model_type", "hidden_size", "layers", "max_tokens", "parameters",
)  # fmt: skip


class Rejected(ValueError):
    """The refusal of an adapter: the check that failed, the member or tensor at fault, and the reason."""

    def __init__(self, check: str, where: str, message: str) -> None:
        self.check = check
        self.where = _short(where)
        self.message = _short(message)
        super().__init__(": ".join(dict.fromkeys((check, self.where, self.message))))


def _short(text: str) -> str:
    """Return at most _MAX_MESSAGE characters of a text, since uploaded text can have any length."""
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"


@dataclass(frozen=True)
class Convolution:
    """The geometry of a convolution of the trunk, with one number for each axis that it moves along.

    LoRA's first matrix at a convolution is a convolution of the same geometry. An update holds its weights as a
    matrix of shape (r, channels * kernel area).
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True)
class TaskClass:
    """One Hugging Face task class on a foundation: the trunk it wraps and the head it adds.

    `linears` maps the full name of every linear module, in trunk and head, to its (in, out) features; PEFT
    matches `target_modules` against these names. `head` maps each head tensor to its shape, with None for the
    label count. `prefix` is the trunk's attribute (`base_model_prefix`) with a dot, or "". `convolutions` names
    the modules in `linears` that are convolutions, grouped ones included: `all-linear` does not mean them.
    """

    name: str
    task: str
    prefix: str
    linears: Mapping[str, tuple[int, int]]
    head: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    convolutions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class EmbeddingSpec:
    """The foundation's method for an embedding: pooling over the trunk's output, then an optional L2 norm.

    Pooling "last" takes the last token, special ones included. `prefix` is the default prompt, which comes
    before the text.
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    max_tokens: int = 512
    prefix: str = ""


@dataclass(frozen=True)
class MaskedLM:
    """The masked-language-model head of a foundation's checkpoint: its Hugging Face class and mask token's id.

    `digest` covers the fingerprint and the head, because the fingerprint covers only the trunk.
    """

    class_name: str
    mask_id: int
    digest: str


@dataclass(frozen=True)
class TextTower:
    """The tower for texts of a foundation whose trunk is a tower for images.

    `trunk` is its spec, with names inside the tower. The logit of an image and a text is scale * cosine + bias of
    their vectors, and `activation` makes scores of the logits of an image. Sources: Radford et al., "Learning
    Transferable Visual Models From Natural Language Supervision" (CLIP), 2021; Zhai et al., "Sigmoid Loss for
    Language Image Pre-Training" (SigLIP), 2023.
    """

    trunk: FoundationSpec
    scale: float
    bias: float
    activation: Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class FoundationSpec:
    """A foundation without its weights: bundles are checked against it, and the engine is built from it.

    `sites` maps the trunk's linear layers to (in, out) features. `norms` maps its layer normalisations to
    their widths. `layer_prefix` begins the names of layer 0, 1, … ("encoder.layer."); it is empty where
    all layers share one set of weights (ALBERT). `masked_lm`, `causal_lm` and `seq2seq_lm` are None if the
    checkpoint has no such head.
    `other_names` are further names of this foundation on this machine, such as its folder; they do not identify
    it. `lowercases` states whether its tokenizer makes text lower-case. A cached spec holds neither of the two.
    `modality` is what its inputs are. For images and audio, `inputs` holds one name, and `input_shape` is the
    shape of one input under it; None is a length that differs between inputs. `max_tokens` is then the largest
    cost of an input. `convolutions` holds the geometry of the sites that are convolutions. Their features in
    `sites` are (channels * kernel area, out). `text_tower` is None unless the foundation also has a tower for
    texts. `pad_id` is the token that fills every text up to `max_tokens`; None if texts are only padded to the
    longest of a batch. `words` is the word embedding whose rows an adapter can change, if there is one.
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
    causal_lm: CausalLM | None = None
    seq2seq_lm: Seq2SeqLM | None = None
    modality: tasks.Modality = "text"
    input_shape: tuple[int | None, ...] = ()
    convolutions: Mapping[str, Convolution] = field(default_factory=dict)
    text_tower: TextTower | None = None
    pad_id: int | None = None
    words: WordTable | None = None
    other_names: tuple[str, ...] = field(default=(), compare=False)
    lowercases: bool = field(default=False, compare=False)

    def depth(self, modules: Iterable[str]) -> int:
        """Return how many layers, counted from the first, an adapter of these modules leaves unchanged.

        The result is 0 if the adapter changes the embeddings or the first layer, `layers` if it changes only
        the pooler, and `layers + 1` if it changes nothing.
        """
        return min((self.layer_of(name) for name in modules), default=self.layers + 1)

    def unchanged(self, weights: AdapterWeights) -> int:
        """Return how many layers, counted from the first, an adapter leaves unchanged: see `depth`."""
        return 0 if weights.words is not None else self.depth(weights.sites)

    def scaled_width(self, site: str) -> int:
        """Return the length of an `input_scale` at a site: a convolution has one factor for each channel."""
        convolution = self.convolutions.get(site)
        return self.sites[site][0] // (1 if convolution is None else math.prod(convolution.kernel))

    def layer_of(self, name: str) -> int:
        """Return the number of the layer that a module of the trunk belongs to, from 0.

        The embeddings belong to layer 0, and the pooler to `layers`, one after the last. A module that computes
        on the last layer's output (GPT-2's `ln_f`, SigLIP's `head`) belongs to the last layer. `sites` and
        `norms` are in the order of computing, so it comes after the layers' own.
        """
        if name.startswith("pooler."):
            return self.layers
        if not self.layer_prefix:
            return 0
        if name.startswith(self.layer_prefix):
            return int(name.removeprefix(self.layer_prefix).partition(".")[0])
        modules = list(self.norms if name in self.norms else self.sites)
        inside = [i for i, module in enumerate(modules) if module.startswith(self.layer_prefix)]
        return self.layers - 1 if name in modules and inside and modules.index(name) > inside[-1] else 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the adapter tasks that this foundation has a class for."""
        class_tasks = {task_class.task for task_class in self.classes.values()}
        return tuple(task for task in TASKS if _SERVED_BY.get(task, task) in class_tasks)

    @property
    def language_model(self) -> LanguageModel | None:
        """Return the head with which this foundation generates text, if it does."""
        return self.causal_lm or self.seq2seq_lm

    @property
    def own_tasks(self) -> tuple[str, ...]:
        """Return the tasks that the foundation answers without an adapter.

        The first is the default.
        """
        if self.causal_lm is not None:
            return (TEXT_GENERATION, "feature-extraction")
        if self.seq2seq_lm is not None:
            return (TEXT2TEXT_GENERATION,)
        embedding = EMBEDDING[self.modality]
        if self.text_tower is not None:
            return (embedding, ZERO_SHOT_IMAGES)
        return (embedding,) if self.masked_lm is None else (embedding, FILL_MASK)

    def class_for(self, task: str) -> TaskClass:
        """Return the task class that serves `task`; raise Rejected if the foundation has none."""
        for task_class in self.classes.values():
            if task_class.task == _SERVED_BY.get(task, task):
                return task_class
        tasks_text = ", ".join(self.tasks)
        raise Rejected(
            "schema",
            "task",
            f"{task!r} is not served on {self.name}{self._why_unserved(task)}; choose one of: {tasks_text}",
        )

    def _why_unserved(self, task: str) -> str:
        if task == FILL_MASK:
            return " by an adapter: it is the foundation's own task"
        modality = next((known.modality for known in tasks.TASKS if known.name == task), self.modality)
        if modality == self.modality:
            return ""
        return f": it is a task for {modality} inputs, and this foundation takes {self.modality} inputs"

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
            "causal_lm": None if self.causal_lm is None else asdict(self.causal_lm),
            "seq2seq_lm": None if self.seq2seq_lm is None else asdict(self.seq2seq_lm),
            "modality": self.modality,
            "input_shape": list(self.input_shape),
            "convolutions": {name: asdict(one) for name, one in self.convolutions.items()},
            "text_tower": None if self.text_tower is None else _tower_json(self.text_tower),
            "pad_id": self.pad_id,
            "words": None if self.words is None else asdict(self.words),
            "classes": {
                name: {
                    "task": c.task,
                    "prefix": c.prefix,
                    "linears": {k: list(v) for k, v in c.linears.items()},
                    "head": {k: list(v) for k, v in c.head.items()},
                    "convolutions": sorted(c.convolutions),
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
                convolutions=frozenset(c.get("convolutions", ())),
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
            causal_lm=causal_lm_of(value.get("causal_lm")),
            seq2seq_lm=seq2seq_lm_of(value.get("seq2seq_lm")),
            modality=value.get("modality", "text"),
            input_shape=tuple(value.get("input_shape", ())),
            convolutions={name: _convolution(one) for name, one in value.get("convolutions", {}).items()},
            text_tower=_text_tower(value.get("text_tower")),
            pad_id=value.get("pad_id"),
            words=None if value.get("words") is None else WordTable(**value["words"]),
        )


def _tower_json(tower: TextTower) -> dict[str, Any]:
    return {**vars(tower), "trunk": tower.trunk.to_json()}


def _text_tower(value: Mapping[str, Any] | None) -> TextTower | None:
    if value is None:
        return None
    return TextTower(**{**value, "trunk": FoundationSpec.from_json(value["trunk"])})


def _convolution(value: Mapping[str, Any]) -> Convolution:
    axes = {name: tuple(value[name]) for name in ("kernel", "stride", "padding", "dilation")}
    return Convolution(**axes, groups=value["groups"])


@dataclass(frozen=True)
class HeadSpec:
    """The task layers of an adapter.

    `kind` "hf" is the head of the Hugging Face class `class_name`. On a decoder it is one linear layer, which
    reads the last token that is not padding, or for token classification every token. `kind` "linear" pools the
    trunk's output and L2-normalises it if `normalize`. It then applies `head.weight` (labels, hidden) and
    `head.bias` (labels,) if the adapter holds them; without them the pooled vector is the answer. `kind`
    "masked-lm" is the foundation's own head (MaskedLM), with the checkpoint's weights; bundles never have it.
    `kind` "causal-lm" or "seq2seq-lm" is the foundation's own head too (LanguageModel), of the class
    `class_name`; adapters that generate text have it. `kind` "towers" are the foundation's own projections of its
    two towers (TextTower); an engine of one tower has them as a linear head.
    """

    kind: Literal["hf", "linear", "masked-lm", "causal-lm", "seq2seq-lm", "towers"]
    class_name: str | None = None
    pooling: Pooling = "mean"
    normalize: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """The preparation of a text for the trunk: `prefix` comes first; `max_length` is its limit in tokens.

    `tokens` are those that the adapter's tokenizer has beside the foundation's; None if nothing states them.
    """

    max_length: int
    truncation_side: Literal["left", "right"] = "right"
    prefix: str = ""
    tokens: tuple[AddedToken, ...] | None = None


@dataclass(frozen=True)
class Prompting:
    """The way an adapter turns a chat into a prompt.

    `system_prompt` begins a chat that has no system message. `chat_template` takes the place of the foundation's
    chat template. `end_token` is a token that the adapter adds and that ends its answers, beside those of the
    foundation.
    """

    system_prompt: str | None = None
    chat_template: str | None = None
    end_token: str | None = None


@dataclass(frozen=True)
class Calibration:
    """The temperature that divides a classifier's logits, so that its scores match the share of right answers.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """

    temperature: float


@dataclass(frozen=True)
class SiteUpdate:
    """The change that an adapter makes at one module of the trunk.

    A linear layer's output W x + c becomes (W (x * input_scale) + c) * output_scale + shift + (x @ a.T) @ b.
    The shapes are `a` (r, in) and `b` (r, out), with r = 0 for an update without a low-rank part. `b` includes
    the scale (alpha/r, or alpha/sqrt(r) for rsLoRA) and every other factor. `input_scale` (in,), `output_scale`
    (out,) and `shift` (out,) are None if they change nothing. A normalisation layer takes only these two.
    At a convolution x is one window of its input, flattened with the channels first (`torch.nn.Unfold`), so `in`
    is channels * kernel area, and the same update applies at every place of the output. `input_scale` has one
    number for each channel there, (channels,): it multiplies the input before the windows are taken.
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
        """Return whether the update holds `a` and `b` alone."""
        return self.input_scale is None and self.output_scale is None and self.shift is None

    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays of the update, without those that are None."""
        arrays = (self.a, self.b, self.input_scale, self.output_scale, self.shift)
        return tuple(array for array in arrays if array is not None)


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter's checked tensors in the engine's form: fp32, one update per site, head tensors by name.

    `words` are the rows of the word embedding that it changes or adds, and `outputs` those of a decoder's output
    layer, if any.
    """

    sites: Mapping[str, SiteUpdate]
    head: Mapping[str, Array]
    words: WordRows | None = None
    outputs: OutputRows | None = None

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())

    def arrays(self) -> list[Array]:
        """Return all arrays, those of the head last."""
        updates = [array for update in self.sites.values() for array in update.arrays()]
        rows = [] if self.words is None else [self.words.changes]
        rows += [] if self.outputs is None else self.outputs.arrays()
        return updates + rows + list(self.head.values())

    @property
    def changes_trunk(self) -> bool:
        """Return whether the adapter changes anything of the trunk, so that it is more than a head."""
        return bool(self.sites) or self.words is not None

    @property
    def changes_vocabulary(self) -> bool:
        """Return whether the adapter changes rows of tokens: in the embedding or in the output layer."""
        return self.words is not None or self.outputs is not None

    @property
    def max_rank(self) -> int:
        return max((p.rank for p in self.sites.values()), default=0)


@dataclass(frozen=True)
class Adapter:
    """An adapter that is ready for the engine: its task and labels, its head and preprocessing, its weights.

    `tokenizer` has the tokens that the adapter brings. The engine makes it when it loads the adapter.
    """

    digest: str
    task: str
    problem_type: str | None
    labels: tuple[str, ...]
    head: HeadSpec
    preprocessing: Preprocessing
    weights: AdapterWeights
    prompting: Prompting = field(default_factory=Prompting)
    calibration: Calibration | None = None
    tokenizer: AdapterTokenizer | None = field(default=None, compare=False, repr=False)

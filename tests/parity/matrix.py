"""What is served: every kind of adapter, for every task, on every architecture, and the cells that cannot be.

The parity tests hold each cell to PEFT's answers; docs/compatibility.md is rendered from these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LAYERS = 3
# Ids that every tokenizer of the tests has; special tokens, which each text has, are among them.
TRAINED_TOKENS = [2, 3, 5, 7, 11, 13, 17, 19, 23, 101, 102]
# The architectures whose adapters with added tokens are tested. gpt2's classifier is not served.
TOKEN_ARCHITECTURES = (
    "bert", "xlm-roberta", "albert", "deberta-v2", "modernbert", "mpnet", "distilbert", "electra", "eurobert",
)  # fmt: skip
# The kinds and architectures whose combinations are slow tests, with the architectures that are not.
_SLOW_KINDS, FAST = ("ln", "tokens", "tokens-alone"), ("bert", "xlm-roberta")
RUNNERS = ("onnx", "torch")


@dataclass(frozen=True)
class Architecture:
    """A model type: the config of its tiny model, and the names that PEFT's configs need on it.

    `attention` and `feedforward`: modules to target. `defaults`: the kinds whose targets PEFT itself chooses.
    `layers_pattern`: the name before a layer's number, where PEFT does not find it by itself. `heads`: by
    task, the head's modules where they are not those of `HEADS`; `finds_heads`: PEFT finds them nevertheless.
    `norms`: its normalisations; `words`: its word embedding. `pooled`: the tasks whose class runs a pooler.
    `transposed`: its linear layers are transformers' Conv1D. `slow`: all its cells but `QUICK` belong to the
    slow tests. `model_type`: that of the config, if it is not the name.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    attention: tuple[str, ...] = ("query", "value")
    feedforward: str = "output.dense"
    defaults: tuple[str, ...] = ()
    layers_pattern: str | None = None
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    finds_heads: bool = False
    norms: tuple[str, ...] = ("LayerNorm",)
    words: str = "word_embeddings"
    pooled: tuple[str, ...] = ()
    transposed: bool = False
    slow: bool = False
    model_type: str = ""

    @property
    def type(self) -> str:
        """The `model_type` of the config."""
        return self.model_type or self.name


@dataclass(frozen=True)
class Task:
    """A task: PEFT's name for it, transformers' auto class, and the head's outputs (None: from 2 to 4 labels)."""

    name: str
    peft: str
    auto: str
    outputs: int | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of adapter: its `peft_type` (None: a head alone), what it is called, and its config's options."""

    name: str
    peft: str | None
    title: str
    options: Callable[[Architecture], dict[str, Any]] = lambda _: {}
    architectures: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Alone:
    """A task that the foundation answers without an adapter: transformers' auto class for it.

    `gaps`: by architecture, why it cannot be.
    """

    name: str
    auto: str
    gaps: Mapping[str, str] = field(default_factory=dict)


class Cell(NamedTuple):
    """A kind of adapter for a task on an architecture."""

    architecture: str
    kind: str
    task: str


@dataclass(frozen=True)
class Gap:
    """Cells that cannot be, and why. `check` is the check that refuses them; None: there is nothing to refuse.
    `peft_refuses`: what PEFT says where it makes none either."""

    reason: str
    check: str | None
    architecture: str
    kinds: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    peft_refuses: str | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether the cell is among them; no kinds, or no tasks, means all."""
        return (
            cell.architecture == self.architecture
            and cell.kind in (self.kinds or (cell.kind,))
            and cell.task in (self.tasks or (cell.task,))
        )


TASKS = {
    task.name: task
    for task in (
        Task("text-classification", "SEQ_CLS", "AutoModelForSequenceClassification"),
        Task("token-classification", "TOKEN_CLS", "AutoModelForTokenClassification"),
        Task("feature-extraction", "FEATURE_EXTRACTION", "AutoModel", 0),
        Task("question-answering", "QUESTION_ANS", "AutoModelForQuestionAnswering", 2),
        Task("text-ranking", "SEQ_CLS", "AutoModelForSequenceClassification", 1),
    )
}
ALONE = {
    task.name: task
    for task in (
        Alone("feature-extraction", "AutoModel"),
        Alone(
            "fill-mask",
            "AutoModelForMaskedLM",
            dict.fromkeys(
                ("gpt2", "bidirectional gemma3_text", "bidirectional qwen3"),
                "A decoder predicts the next token; transformers has no masked language model of it.",
            ),
        ),
    )
}
# Tasks whose raw outputs are those of another.
SAME_OUTPUTS = {"zero-shot-classification": "text-classification"}

_CLASSIFIERS = ("text-classification", "text-ranking")
# The modules that a task's head is made of, which PEFT adds to `modules_to_save` by itself.
HEADS = {
    "text-classification": ("classifier",),
    "token-classification": ("classifier",),
    "feature-extraction": (),
    "question-answering": ("qa_outputs",),
    "text-ranking": ("classifier",),
}
# Of decoders: two heads of the query share one of the key, and the special tokens.
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_NAMED = ("LORA", "LOHA")
_ALL_NAMED = (*_NAMED, "IA3", "ADALORA")
# The normalisations of models that normalise after each part of a layer.
_AFTER = ("LayerNorm", "post_attention_layernorm", "post_mlp_layernorm")


def _with_rotary(name: str, pad: int) -> Architecture:
    """Return the row of a BERT with rotary positions, which differ in their padding alone."""
    return Architecture(
        name,
        {"pad_token_id": pad},
        attention=("q_proj", "v_proj"),
        feedforward="down_proj",
        norms=_AFTER,
        layers_pattern="layers",
        heads=dict.fromkeys(_CLASSIFIERS, ("classifier", "pooler")),
        pooled=_CLASSIFIERS,
        slow=True,
    )


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("bert", defaults=_ALL_NAMED, pooled=(*_CLASSIFIERS, "feature-extraction")),
        Architecture(
            "roberta",
            {"pad_token_id": 1, "type_vocab_size": 1},
            defaults=_ALL_NAMED,
            pooled=("feature-extraction",),
            slow=True,
        ),
        Architecture(
            "xlm-roberta",
            {"pad_token_id": 1, "type_vocab_size": 1},
            defaults=_NAMED,
            pooled=("feature-extraction",),
            slow=True,
        ),
        Architecture(
            "distilbert",
            {"dim": 32, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 64},
            attention=("q_lin", "v_lin"),
            norms=("sa_layer_norm", "output_layer_norm"),
            feedforward="ffn.lin2",
            heads=dict.fromkeys(_CLASSIFIERS, ("classifier", "pre_classifier")),
            finds_heads=True,
        ),
        Architecture("electra", {"embedding_size": 16}, defaults=_NAMED, slow=True),
        Architecture(
            "albert",
            {"embedding_size": 16},
            feedforward="ffn_output",
            norms=("LayerNorm", "full_layer_layer_norm"),
            pooled=(*_CLASSIFIERS, "feature-extraction"),
            slow=True,
        ),
        Architecture(
            "mpnet",
            {"pad_token_id": 1},
            attention=("attn.q", "attn.v"),
            pooled=("feature-extraction",),
            slow=True,
        ),
        Architecture(
            "deberta-v2",
            {
                "relative_attention": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_buckets": 16,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "max_relative_positions": -1,
                "position_biased_input": False,
                "type_vocab_size": 0,
            },
            attention=("query_proj", "value_proj"),
            norms=("output.LayerNorm",),
            defaults=_ALL_NAMED,
            heads=dict.fromkeys(_CLASSIFIERS, ("classifier", "pooler")),
            pooled=_CLASSIFIERS,
        ),
        Architecture(
            "modernbert",
            {
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "cls_token_id": 1,
                "sep_token_id": 2,
                "local_attention": 8,
                "global_attn_every_n_layers": 2,
            },
            attention=("Wqkv",),
            norms=("mlp_norm", "final_norm"),
            words="tok_embeddings",
            feedforward="mlp.Wo",
            layers_pattern="layers",
            heads=dict.fromkeys(
                (*_CLASSIFIERS, "token-classification", "question-answering"), ("classifier", "head")
            ),
        ),
        Architecture(
            "gpt2",
            {
                "n_embd": 32,
                "n_layer": LAYERS,
                "n_head": 4,
                "n_positions": 64,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            attention=("c_attn",),
            norms=("ln_1", "ln_2", "ln_f"),
            words="wte",
            feedforward="mlp.c_proj",
            defaults=_ALL_NAMED,
            layers_pattern="h",
            transposed=True,
        ),
        Architecture(
            "camembert", {"pad_token_id": 1, "type_vocab_size": 1}, pooled=("feature-extraction",), slow=True
        ),
        _with_rotary("nomic_bert", pad=0),
        Architecture(
            "eurobert",
            {
                "num_key_value_heads": 2,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "mask_token_id": 4,
            },
            attention=("q_proj", "v_proj"),
            feedforward="down_proj",
            norms=("input_layernorm", "post_attention_layernorm", "norm"),
            words="embed_tokens",
            layers_pattern="layers",
            heads=dict.fromkeys(_CLASSIFIERS, ("classifier", "dense")),
            slow=True,
        ),
        _with_rotary("gte", pad=1),
        Architecture(
            "jina_embeddings_v3",
            {"pad_token_id": 1},
            attention=("q_proj", "v_proj"),
            feedforward="mlp.fc2",
            norms=_AFTER,
            layers_pattern="layers",
            pooled=("feature-extraction",),
            slow=True,
        ),
        Architecture(
            "bidirectional gemma3_text",
            {
                **_GROUPED,
                "use_bidirectional_attention": True,
                "sliding_window": 14,
                "query_pre_attn_scalar": 8,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                **_ENDS,
            },
            attention=("q_proj", "v_proj"),
            feedforward="down_proj",
            defaults=("LORA",),
            norms=("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm", "norm"),
            words="embed_tokens",
            layers_pattern="layers",
            slow=True,
            model_type="gemma3_text",
        ),
        Architecture(
            "bidirectional qwen3",
            {**_GROUPED, "is_causal": False, **_ENDS},
            attention=("q_proj", "v_proj"),
            feedforward="down_proj",
            norms=("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm", "norm"),
            words="embed_tokens",
            layers_pattern="layers",
            heads={"token-classification": ("score",)},
            finds_heads=True,
            slow=True,
            model_type="qwen3",
        ),
    )
}


def _patterns(architecture: Architecture) -> dict[str, Any]:
    attention, feedforward = architecture.attention, architecture.feedforward
    return {
        "target_modules": [*attention, feedforward],
        "rank_pattern": {attention[0]: 3, feedforward: 5},
        "alpha_pattern": {attention[-1]: 24},
        "use_rslora": True,
    }


KINDS = {
    kind.name: kind
    for kind in (
        Kind("lora", "LORA", "LoRA, PEFT's default targets"),
        Kind("lora-all", "LORA", "LoRA, `all-linear`", lambda _: {"target_modules": "all-linear", "r": 4}),
        Kind("lora-patterns", "LORA", "LoRA with `rank_pattern`, `alpha_pattern`, `use_rslora`", _patterns),
        Kind(
            "lora-top",
            "LORA",
            "LoRA with `layers_to_transform`",
            lambda a: {"layers_to_transform": [LAYERS - 1], "layers_pattern": a.layers_pattern},
        ),
        Kind("lora-bias-own", "LORA", "LoRA with `bias: lora_only`", lambda _: {"bias": "lora_only"}),
        Kind("lora-bias-all", "LORA", "LoRA with `bias: all`", lambda _: {"bias": "all"}),
        Kind("lora-pooler", "LORA", "LoRA with the pooler in `modules_to_save`"),
        Kind("dora", "LORA", "DoRA (LoRA with `use_dora`)", lambda _: {"use_dora": True}),
        Kind("ia3", "IA3", "IA3"),
        Kind("adalora", "ADALORA", "AdaLoRA", lambda _: {"total_step": 10, "init_r": 6, "target_r": 4}),
        Kind("ln", "LN_TUNING", "LN tuning", lambda a: {"target_modules": list(a.norms)}),
        Kind(
            "tokens",
            "LORA",
            "LoRA with `trainable_token_indices`",
            lambda _: {"trainable_token_indices": TRAINED_TOKENS},
        ),
        Kind(
            "tokens-alone",
            "TRAINABLE_TOKENS",
            "TRAINABLE_TOKENS",
            lambda a: {"token_indices": TRAINED_TOKENS, "target_modules": [a.words]},
        ),
        Kind("head", None, "a head alone"),
        Kind("loha", "LOHA", "LoHa, converted to LoRA", lambda _: {"r": 2}, architectures=("bert",)),
    )
}

# Decoders whose config lets each token see all others.
_BIDIRECTIONAL = ("bidirectional gemma3_text", "bidirectional qwen3")
GAPS = (
    Gap(
        "Its classifier reads the last token of each text, which it finds by the token ids, but a head gets only "
        "hidden states. A gpt2 that [generates text](#heads-on-a-decoder) serves it.",
        "schema",
        "gpt2",
        tasks=_CLASSIFIERS,
    ),
    Gap(
        "ALBERT runs one layer repeatedly, so there is no layer number to choose; PEFT refuses this, too.",
        "sites",
        "albert",
        kinds=("lora-top",),
        peft_refuses="No modules were targeted|Target modules .* not found",
    ),
    Gap(
        "DeBERTa normalises its relative positions once for a whole batch, and `bias: all` trains the bias of "
        "that layer; train with `bias: lora_only`.",
        "sites",
        "deberta-v2",
        kinds=("lora-bias-all",),
    ),
    *(
        Gap(
            "Its classifier reads the last token of each text, which it finds by the token ids, but a head gets "
            "only hidden states. Give the adapter a linear head in a bundle.",
            "schema",
            name,
            tasks=_CLASSIFIERS,
        )
        for name in _BIDIRECTIONAL
    ),
    Gap(
        "there is no class of transformers for this task on it.",
        None,
        _BIDIRECTIONAL[0],
        tasks=("token-classification",),
    ),
    *(
        Gap(
            "there is no class of transformers for question answering on it.",
            None,
            name,
            tasks=("question-answering",),
        )
        for name in ("nomic_bert", "eurobert", "gte", _BIDIRECTIONAL[0])
    ),
    *(
        Gap(
            "the class for this task has no pooler.",
            None,
            architecture.name,
            kinds=("lora-pooler",),
            tasks=tuple(task for task in TASKS if task not in architecture.pooled),
        )
        for architecture in ARCHITECTURES.values()
    ),
    *(
        Gap(
            "PEFT saves no head with it; use `trainable_token_indices` of a LoRA.",
            None,
            name,
            kinds=("tokens-alone",),
            tasks=tuple(task for task in TASKS if task != "feature-extraction"),
        )
        for name in ARCHITECTURES
    ),
)


# Of each slow architecture, the kind and the task that `make test` tests too, on torch: an export takes long.
QUICK = ("dora", "text-classification")
# The slow architecture whose attention has fewer heads of keys than of queries, which `make test` exports.
_EXPORTED = "eurobert"


def is_rare(cell: Cell) -> bool:
    """Return whether mixed batches leave out the adapter of a cell, which one test alone makes."""
    return cell.kind in _SLOW_KINDS and cell.architecture not in FAST


def is_slow(cell: Cell, runner: str) -> bool:
    """Return whether a cell on a runner belongs to the slow tests."""
    if cell.kind in _SLOW_KINDS:
        return is_rare(cell)
    quick = (cell.kind, cell.task) == QUICK and (runner == "torch" or cell.architecture == _EXPORTED)
    return ARCHITECTURES[cell.architecture].slow and not quick


def gap(cell: Cell) -> Gap | None:
    """Why a cell cannot be; None for one that is served."""
    return next((gap for gap in GAPS if gap.holds(cell)), None)


def cells(architecture: str | None = None) -> Iterator[Cell]:
    """Every cell that there is, served or not, of one architecture or of all."""
    for name in [architecture] if architecture else ARCHITECTURES:
        for kind in KINDS.values():
            if name in (kind.architectures or (name,)):
                yield from (Cell(name, kind.name, task) for task in TASKS)


def served(architecture: str | None = None) -> list[Cell]:
    """The cells that are served, of one architecture or of all."""
    return [cell for cell in cells(architecture) if gap(cell) is None]


def alone(architecture: str) -> list[str]:
    """The tasks that the bare foundation of an architecture answers."""
    return [task.name for task in ALONE.values() if architecture not in task.gaps]


def options(cell: Cell) -> dict[str, Any]:
    """The options of the PEFT config of a cell."""
    architecture, kind = ARCHITECTURES[cell.architecture], KINDS[cell.kind]
    chosen = kind.options(architecture)
    if kind.peft not in architecture.defaults:
        chosen = _targets(architecture, kind) | chosen
    own = architecture.heads.get(cell.task, ())
    saved = [] if architecture.finds_heads else list(own)
    if cell.kind == "lora-all":
        # PEFT would target the head before it saves it whole.
        saved = list(own or HEADS[cell.task])
    if cell.kind == "lora-pooler" and "pooler" not in saved:
        saved.append("pooler")
    if kind.peft == "TRAINABLE_TOKENS":
        return chosen
    if architecture.transposed and kind.peft != "LN_TUNING":
        chosen["fan_in_fan_out"] = True
    return {**chosen, "modules_to_save": saved or None}


def _targets(architecture: Architecture, kind: Kind) -> dict[str, Any]:
    if kind.peft != "IA3":
        return {"target_modules": list(architecture.attention)}
    feedforward = [architecture.feedforward]
    return {"target_modules": [*architecture.attention, *feedforward], "feedforward_modules": feedforward}

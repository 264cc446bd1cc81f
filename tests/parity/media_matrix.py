"""What is served for images and recordings: kinds of adapter, tasks and architectures, and what cannot be.

The parity tests hold each cell to PEFT's answers; docs/compatibility.md is rendered from these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rootstock.adapters.foundation.families import AUDIO_ARCHITECTURES
from tests.parity.matrix import Cell, Gap

# The tiny models have so many layers, or stages.
LAYERS = 2


@dataclass(frozen=True)
class MediaTargets:
    """The names of an architecture's modules that PEFT's configs need.

    `usual` are the modules that a LoRA usually targets, `feedforward` one whose input IA3 scales, and
    `convolutions` those that an adapter may target. `layers_pattern` is the name before a layer's number;
    `head` are the modules of its class's head, and `config` are changes of the tiny model's. `moved` is how much
    adapters change factors: the more layers follow each other without a residual, the less.
    """

    name: str
    usual: tuple[str, ...] = ("q_proj", "v_proj")
    feedforward: str = "mlp.fc2"
    convolutions: tuple[str, ...] = ("patch_embeddings.projection",)
    layers_pattern: str = "layers"
    head: tuple[str, ...] = ("classifier",)
    config: Mapping[str, Any] = field(default_factory=dict)
    moved: float = 0.15

    @property
    def modality(self) -> str:
        return "audio" if self.name in AUDIO_ARCHITECTURES else "image"


@dataclass(frozen=True)
class MediaKind:
    """A kind of adapter: its `peft_type` (None: a head alone), what it is called, and its config's options."""

    name: str
    peft: str | None
    title: str
    options: Callable[[MediaTargets], dict[str, Any]] = lambda _: {}


@dataclass(frozen=True)
class MediaTask:
    """A task with a kind of head: of the class (`own`), linear with labels, or linear without."""

    name: str
    title: str
    task: Mapping[str, str] = field(default_factory=dict)


_CLASSIFICATION = {"image": "image-classification", "audio": "audio-classification"}
_EMBEDDING = {"image": "image-feature-extraction", "audio": "audio-feature-extraction"}
MEDIA_TASKS = {
    task.name: task
    for task in (
        MediaTask("own-head", "classification, the class's own head", _CLASSIFICATION),
        MediaTask("linear-head", "classification, a linear head", _CLASSIFICATION),
        MediaTask("embedding", "feature extraction", _EMBEDDING),
    )
}
_WAVES = {
    "feedforward": "output_dense",
    "convolutions": ("conv_layers.1.conv",),
    "head": ("projector", "classifier"),
}
TARGETS = {
    one.name: one
    for one in (
        MediaTargets("vit"),
        MediaTargets("deit"),
        MediaTargets("dinov2", layers_pattern="layer"),
        MediaTargets("dinov2_with_registers", layers_pattern="layer"),
        MediaTargets(
            "dinov3_vit", feedforward="mlp.down_proj", convolutions=("patch_embeddings",), layers_pattern="layer"
        ),
        MediaTargets("beit"),
        MediaTargets("swin"),
        *(
            MediaTargets(
                name,
                ("pwconv1", "pwconv2"),
                "pwconv2",
                ("patch_embeddings", "downsampling_layer.1"),
                layers_pattern="stages",
            )
            for name in ("convnext", "convnextv2")
        ),
        MediaTargets(
            "resnet",
            ("convolution",),
            "layer.0.convolution",
            ("embedder.convolution",),
            layers_pattern="stages",
            moved=0.05,
        ),
        MediaTargets(
            "efficientnet",
            ("expand_conv", "project_conv"),
            "project_conv",
            ("embeddings.convolution", "top_conv"),
            layers_pattern="blocks",
            moved=0.05,
        ),
        MediaTargets(
            "mobilenet_v2",
            ("expand_1x1.convolution", "reduce_1x1.convolution"),
            "reduce_1x1.convolution",
            ("first_conv.convolution", "conv_1x1.convolution"),
            layers_pattern="layer",
            # TensorFlow's padding asks a convolution for its stride, which PEFT's layers do not have.
            config={"tf_padding": False, "depth_multiplier": 0.25},
            moved=0.01,
        ),
        *(
            MediaTargets(name, convolutions=("patch_embedding",))
            for name in ("clip", "clip_vision_model", "siglip", "siglip_vision_model")
        ),
        MediaTargets("wav2vec2", **_WAVES),
        MediaTargets("hubert", **_WAVES),
        MediaTargets("wavlm", ("intermediate_dense", "output_dense"), **_WAVES),
        MediaTargets("audio-spectrogram-transformer"),
        MediaTargets("whisper", feedforward="fc2", convolutions=("conv2",), head=("projector", "classifier")),
    )
}


def _with_convolutions(targets: MediaTargets) -> list[str]:
    return [*targets.usual, *targets.convolutions]


def _patterns(targets: MediaTargets) -> dict[str, Any]:
    return {
        "target_modules": [*targets.usual, targets.feedforward],
        "rank_pattern": {targets.usual[0]: 3, targets.feedforward: 5},
        "alpha_pattern": {targets.usual[-1]: 24},
        "use_rslora": True,
    }


def _ia3(targets: MediaTargets) -> dict[str, Any]:
    feedforward = [targets.feedforward]
    return {"target_modules": [*targets.usual, *feedforward], "feedforward_modules": feedforward}


MEDIA_KINDS = {
    kind.name: kind
    for kind in (
        MediaKind("lora", "LORA", "LoRA on the usual targets"),
        MediaKind("lora-all", "LORA", "LoRA, `all-linear`", lambda _: {"target_modules": "all-linear", "r": 4}),
        MediaKind(
            "lora-convolutions",
            "LORA",
            "LoRA on convolutions",
            lambda targets: {"target_modules": list(targets.convolutions)},
        ),
        MediaKind("lora-patterns", "LORA", "LoRA with `rank_pattern`, `alpha_pattern`, `use_rslora`", _patterns),
        MediaKind(
            "lora-top",
            "LORA",
            "LoRA with `layers_to_transform`",
            lambda targets: {"layers_to_transform": [LAYERS - 1], "layers_pattern": targets.layers_pattern},
        ),
        MediaKind("lora-bias-own", "LORA", "LoRA with `bias: lora_only`", lambda _: {"bias": "lora_only"}),
        MediaKind("lora-bias-all", "LORA", "LoRA with `bias: all`", lambda _: {"bias": "all"}),
        MediaKind(
            "dora",
            "LORA",
            "DoRA (LoRA with `use_dora`), convolutions too",
            lambda targets: {"use_dora": True, "target_modules": _with_convolutions(targets)},
        ),
        MediaKind("ia3", "IA3", "IA3", _ia3),
        MediaKind("adalora", "ADALORA", "AdaLoRA", lambda _: {"total_step": 10, "init_r": 6, "target_r": 4}),
        MediaKind("head", None, "a head alone"),
    )
}

# By architecture, the module whose trained bias `bias: all` would bring.
_BIASES = {
    "beit": "the bias in the pooler",
    **dict.fromkeys(("convnext", "convnextv2"), "biases of depthwise convolutions"),
    **dict.fromkeys(("resnet", "efficientnet", "mobilenet_v2"), "biases of batch normalisations"),
    **dict.fromkeys(("clip", "clip_vision_model"), "the bias of the pooled vector's normalisation"),
    **dict.fromkeys(("siglip", "siglip_vision_model"), "biases of the pooler's attention"),
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm"), "biases of convolutions in groups"),
}
_NO_CLASS = ("dinov3_vit", "clip_vision_model", "siglip_vision_model")
_CLASSIFYING = ("own-head", "linear-head")
MEDIA_GAPS = (
    *(
        Gap(
            "transformers has no class for classification on it.",
            "schema",
            name,
            tasks=_CLASSIFYING,
        )
        for name in _NO_CLASS
    ),
    *(
        Gap("It has no linear layers, and PEFT refuses this, too.", None, name, kinds=("lora-all",))
        for name in ("resnet", "efficientnet", "mobilenet_v2")
    ),
    *(
        Gap(
            "torch's multi-head attention computes with some of its linear layers, which PEFT then does not "
            "change; name the targets.",
            "sites",
            name,
            kinds=("lora-all",),
        )
        for name in ("siglip", "siglip_vision_model", "wavlm")
    ),
    *(
        Gap(
            f"`bias: all` trains {modules}, which no adapter can change here; train with `bias: lora_only`.",
            "sites",
            name,
            kinds=("lora-bias-all",),
        )
        for name, modules in _BIASES.items()
    ),
    Gap(
        "PEFT cannot run it: the encoder asks a convolution for its stride, which PEFT's layers do not have.",
        None,
        "whisper",
        kinds=("lora-convolutions", "dora"),
    ),
)


def media_gap(cell: Cell) -> Gap | None:
    """Why a cell cannot be; None for one that is served."""
    return next((gap for gap in MEDIA_GAPS if gap.holds(cell)), None)


def media_cells(architecture: str | None = None) -> Iterator[Cell]:
    """Every cell that there is, served or not, of one architecture or of all."""
    for name in [architecture] if architecture else TARGETS:
        yield from (Cell(name, kind, task) for kind in MEDIA_KINDS for task in MEDIA_TASKS)


def media_served(architecture: str | None = None) -> list[Cell]:
    """The cells that are served, of one architecture or of all."""
    return [cell for cell in media_cells(architecture) if media_gap(cell) is None]


def media_task(cell: Cell) -> str:
    """The task of a cell, as the engine names it."""
    return MEDIA_TASKS[cell.task].task[TARGETS[cell.architecture].modality]


def media_options(cell: Cell) -> dict[str, Any]:
    """The options of the PEFT config of a cell."""
    targets, kind = TARGETS[cell.architecture], MEDIA_KINDS[cell.kind]
    saved = list(targets.head) if cell.task == "own-head" else None
    # PEFT would target the layers of the class's head too.
    excluded = {"exclude_modules": rf"({'|'.join(targets.head)})(\..*)?"} if cell.task == "linear-head" else {}
    return {
        "target_modules": list(targets.usual), **kind.options(targets), "modules_to_save": saved, **excluded,
        "task_type": None,
    }  # fmt: skip


def chosen(architecture: str) -> list[Cell]:
    """A few served cells of an architecture; those of all architectures have every kind with every task."""
    number = list(TARGETS).index(architecture)
    kinds, tasks = list(MEDIA_KINDS), list(MEDIA_TASKS)
    return [
        cell
        for cell in media_served(architecture)
        if (kinds.index(cell.kind) + tasks.index(cell.task) + number) % 8 == 0
    ]

"""The part of docs/compatibility.md on foundations that read images or recordings."""

from __future__ import annotations

from collections.abc import Iterator

from rootstock.adapters.foundation.families import AUDIO_ARCHITECTURES, IMAGE_ARCHITECTURES
from tests.parity.markdown_table import table
from tests.parity.matrix import Cell
from tests.parity.media_matrix import MEDIA_KINDS, MEDIA_TASKS, TARGETS, MediaKind, MediaTargets, media_gap

_TEXT = """\
A foundation of one of these architectures reads images: {images}. These read recordings: {audio}. Of clip and \
siglip, the trunk is the tower for images; of whisper, the encoder. There is no class of transformers for \
classification on dinov3_vit, clip_vision_model and siglip_vision_model, so these only embed.

The folder holds `preprocessor_config.json`, or `processor_config.json` with the same content under \
`image_processor` or `feature_extractor`. The fingerprint covers the processor's config. A tokenizer is not \
needed. With `tokenizer.json`, a clip or siglip that holds its tower for texts also serves \
`zero-shot-image-classification`, and its fingerprint covers that tower, the projections and the tokenizer. \
SigLIP's texts are read without an attention mask, so its tokenizer's `model_input_names` must be \
`["input_ids"]`. The server refuses a processor that leaves images at different sizes, and a config with \
`use_weighted_layer_sum` or `add_adapter`.

An adapter may change linear layers of the trunk and convolutions. It cannot change these modules, and the \
server refuses it if it tries (check `sites`):

- depthwise and grouped convolutions, and a convolution whose weight is normalised;
- a linear layer whose weight another module computes with: `q_proj`, `k_proj`, `v_proj` and `out_proj` of \
wavlm, and `head.attention.out_proj` of siglip. In PEFT, LoRA on those of wavlm has no effect.

Batch normalisation stays as in the foundation. A trained bias of a layer normalisation is served where its \
states have the shape (rows, tokens, width), so not in convnext.
"""

_PARITY = """\
Classification is the task `image-classification` or `audio-classification`, and feature extraction is \
`image-feature-extraction` or `audio-feature-extraction`. PEFT has no `task_type` for them: leave it out. PEFT \
then saves no head by itself, so name the modules of the head in `modules_to_save`. Only a bundle can state a \
linear head. `all-linear` means no convolution.
"""
_TESTS = """\
Tests compare every ✓ with PEFT on a small random model of each architecture, within 1e-4 + 1e-4·|x|, on both \
runners. `make test` has a part of the table, and `make test-slow` has the rest. \
The scores of image files and of recordings are compared with those of transformers' pipelines. \
MobileNetV2 is tested with `tf_padding: false`, because PEFT cannot run a convolution with the other padding.
"""


def media_section() -> str:
    """The section, with the lists of the architectures and the tables of what is served."""
    text = _TEXT.format(images=", ".join(IMAGE_ARCHITECTURES), audio=", ".join(AUDIO_ARCHITECTURES))
    return "\n".join(["## Images and recordings\n", text, _PARITY, *_kinds_by_tasks(), _TESTS, *_targets()])


def _kinds_by_tasks() -> Iterator[str]:
    notes: list[str] = []
    rows = [[kind.title, *(_cell(kind, task, notes) for task in MEDIA_TASKS)] for kind in MEDIA_KINDS.values()]
    yield from table(["", *(task.title for task in MEDIA_TASKS.values())], rows)
    yield "".join(f"[^m{i}]: {note}\n" for i, note in enumerate(notes, 1))


def _targets() -> Iterator[str]:
    yield from table(
        ["architecture", "LoRA's usual targets", "convolutions that are tested", "`modules_to_save`"],
        map(_row, TARGETS.values()),
    )


def _cell(kind: MediaKind, task: str, notes: list[str]) -> str:
    without: dict[str, list[str]] = {}
    for name in TARGETS:
        if (gap := media_gap(Cell(name, kind.name, task))) is not None:
            without.setdefault(gap.reason, []).append(name)
    marks = ""
    for reason, names in without.items():
        note = f"Not on {', '.join(names)}. {reason}"
        if note not in notes:
            notes.append(note)
        marks += f"[^m{notes.index(note) + 1}]"
    return f"✓{marks}"


def _row(targets: MediaTargets) -> list[str]:
    named = [", ".join(f"`{name}`" for name in names) for names in (targets.usual, targets.convolutions)]
    classifies = media_gap(Cell(targets.name, "lora", "own-head")) is None
    head = ", ".join(f"`{name}`" for name in targets.head) if classifies else "no class for classification"
    return [targets.name, *named, head]
